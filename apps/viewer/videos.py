"""Videos for the viewer: a camera path through keyframes, rendered by the pool tile by tile, downloaded by id."""

import math
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fieldmorph.apps.media import ByteImage, open_video
from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.apps.viewer.render_pool import FairRenderPool, RenderTask, Unit
from fieldmorph.apps.viewer.scenes import OpenScene
from fieldmorph.apps.viewer.tiles import Tile, View, check_distance, numbers, render_tile, tiles
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.errors import InputError, SettingError

FPS = 30
MAX_KEYFRAMES = 24
MAX_SECONDS = 20.0
MAX_PIXELS = 960 * 720  # of a frame
MIN_SIDE = 16  # of a frame, in pixels
MAX_AT_ONCE = 2  # videos that are being rendered
MAX_KEPT = 16  # videos that can be downloaded; one more removes the oldest
DIVIDER = 40  # gray level of the line between two scenes

OnVideo = Callable[[int, float], None]


class Keyframe(NamedTuple):
    """A camera that a video passes through.

    Attributes:
        eye, target: (3,), in world units.
        roll: angle about the viewing direction by which the camera is turned clockwise, in radians.
    """

    eye: Tensor
    target: Tensor
    roll: float = 0.0


@dataclass(frozen=True)
class VideoPlan:
    """Contents of a video.

    Attributes:
        keyframes: that the camera passes through; a single one makes a full orbit.
        up: axis of the turntable, (3,).
        focal: focal length over the frame's shorter side.
        seconds: length of the video.
        width, height: of a frame in pixels.
        background: gray level in [0, 1].
        split: fraction of the width where the second scene begins.
    """

    keyframes: tuple[Keyframe, ...]
    up: Tensor
    focal: float
    seconds: float
    width: int
    height: int
    background: float
    split: float

    @property
    def n_frames(self) -> int:
        """Number of frames, at least 2."""
        return max(2, round(self.seconds * FPS))

    @property
    def n_pixels(self) -> int:
        """Number of pixels of all frames."""
        return self.n_frames * self.width * self.height


def read_plan(body: Mapping[str, Any]) -> VideoPlan:
    """Check a plan that was sent as JSON: the attributes of `VideoPlan`.

    Keyframes have `eye` and `target`, and `roll` where a camera is not upright.

    Raises:
        SettingError: something is missing, not a finite number, or too large.
    """
    try:
        keyframes = tuple(
            Keyframe(_point(key["eye"]), _point(key["target"]), *numbers([key.get("roll", 0.0)], 1))
            for key in body["keyframes"][: MAX_KEYFRAMES + 1]
        )
        focal, seconds, background, split = numbers(
            [body["focal"], body["seconds"], body.get("background", 1.0), body.get("split", 0.5)], 4
        )
        width, height = body["width"], body["height"]
        up = _point(body["up"])
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError):
        raise SettingError(
            "a video has keyframes with eye and target, up, focal, seconds, width and height"
        ) from None
    if not 1 <= len(keyframes) <= MAX_KEYFRAMES:
        raise SettingError(f"a video has 1 to {MAX_KEYFRAMES} keyframes")
    sides = (width, height)
    if any(type(n) is not int or n < MIN_SIDE for n in sides) or width * height > MAX_PIXELS:
        raise SettingError(
            f"a frame of a video has at most {MAX_PIXELS} pixels and sides of at least {MIN_SIDE} pixels"
        )
    if not 0 < seconds <= MAX_SECONDS:
        raise SettingError(f"a video lasts at most {MAX_SECONDS:g} s; got {seconds:g}")
    distance = min(float((eye - target).norm()) for eye, target, _ in keyframes)
    has_lengths = focal > 0 and float(up.norm()) > 1e-6 and distance > 1e-6
    if not (has_lengths and 0 <= background <= 1 and 0 <= split <= 1):
        raise SettingError("focal length, background, split, up or one of the keyframes cannot be used")
    return VideoPlan(keyframes, up, focal, seconds, width, height, background, split)


def camera_path(plan: VideoPlan) -> Cameras:
    """Return the camera of each frame: Catmull-Rom splines through log distance, target and angles of keyframes."""
    up = normalize(plan.up.double(), dim=0)
    side = torch.eye(3, dtype=torch.float64)[0 if abs(float(up[0])) < 0.9 else 1]
    ahead = normalize(side - up * (side @ up), dim=0)
    aside = torch.linalg.cross(up, ahead)
    places = torch.stack([_place(keyframe, up, ahead, aside) for keyframe in plan.keyframes])
    if len(places) == 1:
        turn = places.repeat(plan.n_frames, 1)
        turn[:, 4] += torch.arange(plan.n_frames) * (2 * math.pi / plan.n_frames)
        path = turn
    else:
        for angle in (4, 6):
            places[:, angle] = torch.from_numpy(np.unwrap(places[:, angle].numpy()))
        path = _spline(places, torch.linspace(0, len(places) - 1, plan.n_frames, dtype=torch.float64))
    target, distance, yaw, pitch, roll = path.split([3, 1, 1, 1, 1], dim=1)
    distance = distance.exp()
    outward = pitch.cos() * (yaw.cos() * ahead + yaw.sin() * aside) + pitch.sin() * up
    level = yaw.cos() * aside - yaw.sin() * ahead
    right = roll.cos() * level + roll.sin() * torch.linalg.cross(-outward, level)
    down = torch.linalg.cross(-outward, right)
    poses = torch.stack([right, down, -outward, target + distance * outward], dim=-1).float()
    focal = plan.focal * min(plan.width, plan.height)
    intrinsics = torch.tensor([focal, focal, plan.width / 2, plan.height / 2])
    return Cameras(poses, intrinsics.expand(len(poses), 4).clone(), plan.width, plan.height)


@dataclass(eq=False)
class _FrameAssembler:
    """Assembler of frames from tiles, which come from several threads; it writes them in order."""

    plan: VideoPlan
    add_frame: Callable[[ByteImage], None]
    on_progress: OnVideo
    missing: dict[int, int] = field(default_factory=dict)  # number of tiles by frame
    frames: dict[int, ByteImage] = field(default_factory=dict)
    written: int = 0
    n_pixels: int = 0  # of all frames that are rendered
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add_tile(self, result: tuple[int, Tile, ByteImage, int]) -> None:
        """Take in the index of the frame, a tile of it, its pixels, and the frame's number of tiles."""
        frame, tile, pixels, n_tiles = result
        with self.lock:
            if frame not in self.frames:
                self.frames[frame] = np.empty((self.plan.height, self.plan.width, 3), np.uint8)
                self.missing[frame] = n_tiles
            self.frames[frame][tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = pixels
            self.missing[frame] -= 1
            self.n_pixels += tile.width * tile.height
            while self.missing.get(self.written) == 0:
                del self.missing[self.written]
                self.add_frame(self.frames.pop(self.written))
                self.written += 1
            self.on_progress(self.written, self.n_pixels / self.plan.n_pixels)


class VideoStore:
    """Videos that are rendered, and the finished ones in a folder of its own until the server ends."""

    def __init__(self, pool: FairRenderPool):
        self._pool = pool
        self._folder = tempfile.TemporaryDirectory(prefix="fieldmorph-videos-")
        self._kept: OrderedDict[str, Path] = OrderedDict()
        self._lock = threading.Lock()
        self._rendering = 0

    def render(
        self,
        shown: Sequence[OpenScene],
        plan: VideoPlan,
        on_progress: OnVideo,
        on_end: Callable[[str | None, BaseException | None], None],
    ) -> RenderTask:
        """Start to render a video; `pool.cancel` stops it.

        Args:
            shown: one scene, or two that are split.
            on_progress: called after each tile with the number of frames that are written, and the fraction of all
                pixels that are rendered.
            on_end: called with the video's id, or with None and the error (None where it was cancelled).

        Raises:
            BusyError: MAX_AT_ONCE others are being rendered.
            SettingError: a camera would be too far away.
        """
        cameras = camera_path(plan)
        for camera in cameras:
            for scene in shown:
                check_distance(View(camera), scene.stored)
        with self._lock:
            if self._rendering >= MAX_AT_ONCE:
                raise BusyError("other videos are being rendered; try again when they are finished")
            self._rendering += 1
        video_id, stack = secrets.token_urlsafe(16), ExitStack()
        path = Path(self._folder.name) / f"{video_id}.mp4"
        frames = _FrameAssembler(plan, stack.enter_context(open_video(path, FPS)), on_progress)

        def finish(error: BaseException | None) -> None:
            try:
                if error is not None:
                    stack.__exit__(type(error), error, None)
                stack.close()
            except BaseException as failure:
                error = error or failure
            if error is None:
                self._keep(video_id, path)
            with self._lock:
                self._rendering -= 1
            on_end(None if error else video_id, None if isinstance(error, Cancelled) else error)

        units = _frame_tiles(shown, cameras, plan)
        try:
            return self._pool.submit(f"video {video_id}", units, frames.add_tile, finish)
        except BusyError as error:
            finish(error)
            raise

    def get(self, video_id: str) -> Path:
        """Return the file of a finished video.

        Raises:
            InputError: there is none, or it has been removed.
        """
        path = self._kept.get(video_id)
        if path is None:
            raise InputError("this video is no longer available")
        return path

    def close(self) -> None:
        """Remove all videos."""
        self._folder.cleanup()

    def _keep(self, video_id: str, path: Path) -> None:
        with self._lock:
            self._kept[video_id] = path
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)[1].unlink(missing_ok=True)


def _frame_tiles(shown: Sequence[OpenScene], cameras: Cameras, plan: VideoPlan) -> Iterator[Unit]:
    """Yield the units of all frames, frame after frame."""
    cut = plan.width if len(shown) == 1 else round(plan.split * plan.width)
    halves = [(shown[0], 0, cut), (shown[-1], cut, plan.width)]
    for frame, camera in enumerate(cameras):
        parts = [
            (scene, tile)
            for scene, start, end in halves
            for tile in tiles(plan.width, plan.height, scene.ray_cost.tile_side(), (start, end))
        ]
        view = View(camera, plan.background)
        for scene, tile in parts:
            yield partial(_render_part, frame, scene, view, tile, len(parts), cut)


def _render_part(
    frame: int, scene: OpenScene, view: View, tile: Tile, n_tiles: int, cut: int
) -> tuple[int, Tile, ByteImage, int]:
    pixels = render_tile(scene.stored, view, tile, scene.ray_cost)
    if tile.x == cut:
        pixels[:, :1] = DIVIDER
    return frame, tile, pixels, n_tiles


def _place(keyframe: Keyframe, up: Tensor, ahead: Tensor, aside: Tensor) -> Tensor:
    """Return a keyframe as target, logarithm of the distance, yaw, pitch and roll, (7,)."""
    target = keyframe.target.double()
    away = keyframe.eye.double() - target
    distance = away.norm()
    outward = away / distance
    pitch = (outward @ up).clamp(-1, 1).asin().clamp(-1.56, 1.56)
    yaw = torch.atan2(outward @ aside, outward @ ahead)
    return torch.cat([target, torch.stack([distance.log(), yaw, pitch, yaw.new_tensor(keyframe.roll)])])


def _spline(places: Tensor, at: Tensor) -> Tensor:
    """Evaluate the Catmull-Rom spline through the rows of `places`, which lie at 0, 1, ...; both ends are repeated."""
    padded = torch.cat([places[:1], places, places[-1:]])
    first = at.long().clamp(max=len(places) - 2)
    t = (at - first)[:, None]
    a, b, c, d = (padded[first + i] for i in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def _point(values: Any) -> Tensor:
    return torch.tensor(numbers(values, 3))
