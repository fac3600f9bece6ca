"""Images for the viewer: check a browser's request, render the field tile by tile, encode tiles as messages."""

import io
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from PIL import Image

from fieldmorph.apps.media import ByteImage, to_8bit
from fieldmorph.apps.viewer.image_modes import MODES, crop_samples, image_colors
from fieldmorph.fields.cameras import Cameras, Rays, camera_rays
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import sample_rays, shade_visible, step_size_for

MAX_SHOWN = 2  # scenes at once
MAX_PIXELS = 1 << 21  # of one image, by default: a screen of 1920 x 1080
MAX_STEPS = 1024  # across a box, whatever a file says: more would take memory and show nothing
MAX_DISTANCE = 100.0  # of a camera from the box, in lengths of its longest side
TILE_SECONDS = 0.06  # target core-seconds of a tile: how long another client may have to wait for a thread
TILE_SIDES = (8, 160)  # minimum and maximum, in pixels
RISE_RATE, FALL_RATE = 0.5, 0.03  # of the estimated cost of a ray towards that of the latest tile
MAX_RISE = 8.0  # of the estimate at once: the very first tile may have compiled the kernels
INITIAL_SECONDS_PER_RAY = 4e-5
MIN_QUICK_DEPTH = (
    1e-3  # optical depth below which a quick image leaves samples out: they take most of the time
)

_HEADER = struct.Struct("<IHHHHH")  # bytes of the payload, index of the field, x, y, width, height
_TEXT = 0xFFFF  # in place of the index: the payload is a text


@dataclass(frozen=True)
class View:
    """One image as a browser requests it.

    Attributes:
        camera: a single one, of the image's size.
        background: gray level in [0, 1].
        quick: whether ray steps may be as coarse as the image's pixels, and low density be left out, for coarse images.
        spans: for each scene the pixel columns that are requested, [start, end); empty: all of them.
        mode: one of `image_modes.MODES`.
        crop: box outside which nothing is shown, minimum then maximum corner in world units; None: all.
        depth_box: box whose depths the color scale spans, such as that around several fields; None: the field's own.
    """

    camera: Cameras
    background: float = 1.0
    quick: bool = False
    spans: tuple[tuple[int, int], ...] = ()
    mode: str = "color"
    crop: tuple[float, ...] | None = None
    depth_box: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels, with the upper left corner at (x, y)."""

    x: int
    y: int
    width: int
    height: int


class RayCostEstimator:
    """Estimator of the core-seconds that a ray of one field takes, from the tiles that were rendered.

    Attributes:
        seconds_per_ray: the current estimate.
    """

    def __init__(self) -> None:
        self.seconds_per_ray = INITIAL_SECONDS_PER_RAY

    def update(self, seconds: float, n_rays: int) -> None:
        """Take in the core-seconds and the number of rays of one tile.

        Expensive tiles count more, since an image begins at its center and ends at its empty border. Small tiles count
        less, since every tile has a fixed cost.
        """
        seconds_per_ray = min(seconds / n_rays, MAX_RISE * self.seconds_per_ray)
        rate = RISE_RATE if seconds_per_ray > self.seconds_per_ray else FALL_RATE
        rate *= min(n_rays / self.tile_side() ** 2, 1.0)
        self.seconds_per_ray += rate * (seconds_per_ray - self.seconds_per_ray)

    def tile_side(self) -> int:
        """Return the side of a square tile that takes about TILE_SECONDS, in pixels, a multiple of 8."""
        low, high = TILE_SIDES
        side = math.sqrt(TILE_SECONDS / max(self.seconds_per_ray, 1e-9))
        return int(min(max(side, low), high)) // 8 * 8


def read_view(body: Mapping[str, Any], max_pixels: int = MAX_PIXELS) -> View:
    """Check a view that was sent as JSON.

    Args:
        body: `width` and `height` in pixels; `right`, `down`, `forward` and `eye`, the columns of the camera-to-world
            matrix; `intrinsics`, fx, fy, cx and cy in pixels; optionally `background`, `quick`, `mode`, `crop`,
            `depth_box`, and `spans`, pairs of fractions of the width.
        max_pixels: of the image.

    Raises:
        SettingError: something is missing, not a finite number, or too large.
    """
    try:
        width, height, spans = body["width"], body["height"], body.get("spans") or []
        axes = [numbers(body[name], 3) for name in ("right", "down", "forward", "eye")]
        intrinsics = numbers(body["intrinsics"], 4)
        spans = [numbers(pair, 2) for pair in spans[:MAX_SHOWN]]
        (background,) = numbers([body.get("background", 1.0)], 1)
        crop, depth_box = (
            None if body.get(name) is None else tuple(numbers(body[name], 6))
            for name in ("crop", "depth_box")
        )
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError):
        raise SettingError(
            "a view has width, height, right, down, forward, eye and intrinsics, all finite numbers"
        ) from None
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise SettingError("the width and height of an image are positive whole numbers of pixels")
    if width * height > max_pixels:
        raise SettingError(f"an image has at most {max_pixels} pixels; got {width} x {height}")
    rotation = torch.tensor(axes[:3], dtype=torch.float64)
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-3):
        raise SettingError("right, down and forward must be unit vectors at right angles")
    if not min(intrinsics[:2]) > 0 or not 0 <= background <= 1:
        raise SettingError("focal lengths must be positive, and a background lie in [0, 1]")
    if (mode := body.get("mode", MODES[0])) not in MODES:
        raise SettingError(f"the mode of an image is one of {', '.join(MODES)}")
    pose = torch.tensor(axes, dtype=torch.float32).T
    camera = Cameras(pose[None], torch.tensor([intrinsics], dtype=torch.float32), width, height)
    columns = tuple((_column(start, width), _column(end, width)) for start, end in spans)
    return View(camera, background, bool(body.get("quick")), columns, mode, crop, depth_box)


def numbers(values: Any, n: int) -> list[float]:
    """Return `n` finite numbers from a JSON value.

    Raises:
        TypeError, ValueError, OverflowError: it is something else.
    """
    found = [float(v) for v in values]
    if len(found) != n or not all(map(math.isfinite, found)):
        raise ValueError(f"{n} finite numbers expected")
    return found


def check_distance(view: View, stored: RenderableField) -> None:
    """Check that a camera is not so far away that nothing could be seen.

    Raises:
        SettingError: its distance from the box's center is over MAX_DISTANCE of the box's longest sides.
    """
    box = stored.field.aabb.cpu()
    away = view.camera.camera_to_world[0, :, 3] - (box[:3] + box[3:]) / 2
    if float(away.norm()) > MAX_DISTANCE * stored.field.extent:
        raise SettingError(f"the camera is more than {MAX_DISTANCE:g} box lengths away")


def tiles(width: int, height: int, side: int, span: tuple[int, int] | None = None) -> list[Tile]:
    """Cut an image, or a span of its columns, into tiles of at most `side` pixels a side, the central ones first."""
    columns, rows = _cut(*(span or (0, width)), side), _cut(0, height, side)
    cut = [Tile(x, y, right - x, end - y) for y, end in pairwise(rows) for x, right in pairwise(columns)]
    return sorted(cut, key=lambda t: math.hypot(t.x + (t.width - width) / 2, t.y + (t.height - height) / 2))


@torch.inference_mode()
def render_tile(
    stored: RenderableField, view: View, tile: Tile, ray_cost: RayCostEstimator | None = None
) -> ByteImage:
    """Render a tile of the field itself, as bytes of shape (height, width, 3); `ray_cost` learns from it."""
    start = time.thread_time()  # of this thread alone: a busy machine must not shrink tiles
    rays = _tile_rays(view.camera.to(stored.field.aabb.device), tile)
    samples = sample_rays(rays, stored.field, stored.occupancy, _step(stored, view))
    samples = crop_samples(rays, samples, view.crop)
    over = rays.rays_o.new_full((len(rays), 3), view.background)
    min_depth = MIN_QUICK_DEPTH if view.quick else 0.0
    output = shade_visible(stored.field, rays, samples, over, min_depth=min_depth)
    eye = view.camera.camera_to_world[0, :, 3].to(over.device)
    box = stored.field.aabb if view.depth_box is None else eye.new_tensor(view.depth_box)
    colors = image_colors(view.mode, output, eye, box, view.background)
    if ray_cost is not None:
        ray_cost.update(time.thread_time() - start, len(rays))
    return to_8bit(colors.cpu().reshape(tile.height, tile.width, 3))


def tile_message(field: int, tile: Tile, pixels: ByteImage) -> bytes:
    """Encode a tile of the field with this index: a header of 14 bytes, then a PNG."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG", compress_level=1)
    header = _HEADER.pack(png.tell(), field, tile.x, tile.y, tile.width, tile.height)
    return header + png.getvalue()


def text_message(text: str) -> bytes:
    """Encode a text that the browser shows in place of further tiles."""
    payload = text.encode()[:2000]
    return _HEADER.pack(len(payload), _TEXT, 0, 0, 0, 0) + payload


def read_messages(data: bytes) -> list[tuple[int, Tile, bytes]]:
    """Decode what `tile_message` and `text_message` wrote: index of the field (0xFFFF: a text), tile, payload."""
    at, found = 0, []
    while at < len(data):
        n_bytes, field, *place = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        found.append((field, Tile(*place), data[at : at + n_bytes]))
        at += n_bytes
    return found


def _step(stored: RenderableField, view: View) -> float:
    step = max(stored.render_step_size, stored.field.extent / MAX_STEPS)
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


def _cut(start: int, end: int, max_length: int) -> list[int]:
    """Return the bounds of equal parts of at most `max_length`: slivers would cost as much as whole tiles."""
    n = -(-(end - start) // max_length)
    return [start + (end - start) * i // n for i in range(n + 1)] if n else []


def _column(fraction: float, width: int) -> int:
    return round(min(max(fraction, 0.0), 1.0) * width)
