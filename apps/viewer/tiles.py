"""Pictures for the viewer: what a browser asks for, checked; tiles of the true field; how they travel."""

import io
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import torch
from PIL import Image

from fieldmorph.apps.media import Picture, to_8bit
from fieldmorph.fields.cameras import Cameras, Rays, camera_rays
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import sample_rays, shade_samples, step_size_for, visible_samples

MOST_SHOWN = 2  # scenes at once
MOST_PIXELS = 1 << 20  # of one picture
MOST_STEPS = 1024  # across a box, whatever a file says: more would take memory and show nothing
FARTHEST = 100.0  # a camera from the box, in lengths of its longest side
TILE_SECONDS = 0.06  # that a tile is meant to take: what another viewer may have to wait for
TILE_SIDES = (8, 160)  # in pixels
DEARER, CHEAPER = 0.5, 0.03  # how far the pace of rays goes towards that of a whole tile
LEAP = 8.0  # times as dear as thought, at most: the first tile of all may have compiled the kernels
FIRST_GUESS = 4e-5  # seconds a ray, before anything was measured

_HEAD = struct.Struct("<IHHHHH")  # bytes of the payload, which field, x, y, width, height
_TOLD = 0xFFFF  # in place of a field: the payload is a text


@dataclass(frozen=True)
class View:
    """One picture as a browser asks for it.

    Attributes:
        camera: one, of the picture's size.
        background: grey in [0, 1].
        quick: with steps as coarse as the picture's pixels, for the time that something moves.
        spans: for each scene the columns that are wanted, [first, end).
    """

    camera: Cameras
    background: float = 1.0
    quick: bool = False
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int


class Pace:
    """How many core-seconds a ray of one field takes, learned from its tiles."""

    def __init__(self) -> None:
        self.seconds_per_ray = FIRST_GUESS

    def learn(self, seconds: float, n_rays: int) -> None:
        """From one tile; dear ones count more: a picture begins in its middle and ends at its empty border.

        Small ones count less, since a tile has a cost of its own, whatever its size.
        """
        seconds_per_ray = min(seconds / n_rays, LEAP * self.seconds_per_ray)
        share = DEARER if seconds_per_ray > self.seconds_per_ray else CHEAPER
        share *= min(n_rays / self.side() ** 2, 1.0)
        self.seconds_per_ray += share * (seconds_per_ray - self.seconds_per_ray)

    def side(self) -> int:
        """Of a tile that takes about TILE_SECONDS, in pixels, a multiple of 8."""
        fewest, most = TILE_SIDES
        side = math.sqrt(TILE_SECONDS / max(self.seconds_per_ray, 1e-9))
        return int(min(max(side, fewest), most)) // 8 * 8


def read_view(body: Mapping[str, Any]) -> View:
    """A view from JSON: `width`, `height`, `right`, `down`, `forward`, `eye`, `intrinsics`, and more of `View`.

    Raises:
        SettingError: not that, or a picture larger than MOST_PIXELS.
    """
    try:
        width, height, shares = body["width"], body["height"], body.get("shares") or []
        axes = [numbers(body[name], 3) for name in ("right", "down", "forward", "eye")]
        intrinsics = numbers(body["intrinsics"], 4)
        shares = [numbers(pair, 2) for pair in shares[:MOST_SHOWN]]
        (background,) = numbers([body.get("background", 1.0)], 1)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError):
        raise SettingError(
            "a view has width, height, right, down, forward, eye and intrinsics, all finite numbers"
        ) from None
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise SettingError("a picture is some whole pixels wide and high")
    if width * height > MOST_PIXELS:
        raise SettingError(f"a picture has at most {MOST_PIXELS} pixels; got {width} x {height}")
    rotation = torch.tensor(axes[:3], dtype=torch.float64)
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-3):
        raise SettingError("right, down and forward must be of unit length and at right angles")
    if not min(intrinsics[:2]) > 0 or not 0 <= background <= 1:
        raise SettingError("focal lengths must be positive, and a background lie in [0, 1]")
    pose = torch.tensor(axes, dtype=torch.float32).T
    camera = Cameras(pose[None], torch.tensor([intrinsics], dtype=torch.float32), width, height)
    spans = tuple((_column(first, width), _column(end, width)) for first, end in shares)
    return View(camera, background, bool(body.get("quick")), spans)


def numbers(values: Any, n: int) -> list[float]:
    """So many finite numbers.

    Raises:
        TypeError, ValueError, OverflowError: not that.
    """
    found = [float(v) for v in values]
    if len(found) != n or not all(map(math.isfinite, found)):
        raise ValueError(f"{n} finite numbers expected")
    return found


def check_distance(view: View, stored: RenderableField) -> None:
    """Refuse a camera from which nothing could be seen.

    Raises:
        SettingError: it stands too far away.
    """
    box = stored.field.aabb.cpu()
    away = view.camera.camera_to_world[0, :, 3] - (box[:3] + box[3:]) / 2
    if float(away.norm()) > FARTHEST * stored.field.extent:
        raise SettingError(f"the camera is more than {FARTHEST:g} box lengths away")


def tiles(width: int, height: int, side: int, span: tuple[int, int] | None = None) -> list[Tile]:
    """A picture, or some columns of it, in tiles of about `side` pixels or less, those at its middle first."""
    columns, rows = _cut(*(span or (0, width)), side), _cut(0, height, side)
    cut = [Tile(x, y, right - x, end - y) for y, end in pairwise(rows) for x, right in pairwise(columns)]
    return sorted(cut, key=lambda t: math.hypot(t.x + (t.width - width) / 2, t.y + (t.height - height) / 2))


@torch.inference_mode()
def render_tile(stored: RenderableField, view: View, tile: Tile, pace: Pace | None = None) -> Picture:
    """The true field's colours in a tile, as bytes (height, width, 3)."""
    start = time.thread_time()  # of this thread alone: a busy machine must not make tiles small
    rays = _tile_rays(view.camera.to(stored.field.aabb.device), tile)
    samples = sample_rays(rays, stored.field, stored.occupancy, _step(stored, view))
    over = rays.rays_o.new_full((len(rays), 3), view.background)
    colors = shade_samples(stored.field, rays, visible_samples(stored.field, rays, samples), over).colors
    if pace is not None:
        pace.learn(time.thread_time() - start, len(rays))
    return to_8bit(colors.cpu().reshape(tile.height, tile.width, 3))


def tile_message(which: int, tile: Tile, pixels: Picture) -> bytes:
    """A tile on its way to the browser: a head of 14 bytes, then a PNG."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG", compress_level=1)
    head = _HEAD.pack(png.tell(), which, tile.x, tile.y, tile.width, tile.height)
    return head + png.getvalue()


def text_message(text: str) -> bytes:
    """What the browser is to tell in place of further tiles."""
    told = text.encode()[:2000]
    return _HEAD.pack(len(told), _TOLD, 0, 0, 0, 0) + told


def read_messages(data: bytes) -> list[tuple[int, Tile, bytes]]:
    """What `tile_message` and `text_message` wrote: which field (0xFFFF: a text), where, payload."""
    at, found = 0, []
    while at < len(data):
        n_bytes, which, *place = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        found.append((which, Tile(*place), data[at : at + n_bytes]))
        at += n_bytes
    return found


def _step(stored: RenderableField, view: View) -> float:
    step = max(stored.render_step_size, stored.field.extent / MOST_STEPS)
    return max(step, step_size_for(view.camera, stored.field)) if view.quick else step


def _tile_rays(camera: Cameras, tile: Tile) -> Rays:
    device = camera.intrinsics.device
    y, x = torch.meshgrid(
        torch.arange(tile.y, tile.y + tile.height, device=device),
        torch.arange(tile.x, tile.x + tile.width, device=device),
        indexing="ij",
    )
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return camera_rays(camera, torch.zeros(len(pixels), dtype=torch.long, device=device), pixels)


def _cut(first: int, end: int, most: int) -> list[int]:
    """Where equal parts of at most so many pixels begin and end: no slivers, which cost what a tile costs."""
    n = -(-(end - first) // most)
    return [first + (end - first) * i // n for i in range(n + 1)] if n else []


def _column(share: float, width: int) -> int:
    return round(min(max(share, 0.0), 1.0) * width)
