"""Films for the viewer: a path through some views, rendered by the pool tile by tile, fetched by id."""

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
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fieldmorph.apps.media import Picture, open_film
from fieldmorph.apps.viewer.render_pool import BusyError, Cancelled, Piece, Pool, Work
from fieldmorph.apps.viewer.scenes import Scene
from fieldmorph.apps.viewer.tiles import Tile, View, check_distance, numbers, render_tile, tiles
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.errors import InputError, SettingError

FPS = 24
MOST_KEYS = 24
MOST_SECONDS = 20.0
MOST_PIXELS = 640 * 480  # of a frame
FEWEST_SIDE = 16
AT_ONCE = 2  # films that are being made
MOST_KEPT = 16  # films to fetch; the oldest makes room
LINE = 40  # grey of the line between two scenes

Key = tuple[Tensor, Tensor]  # eye and target


@dataclass(frozen=True)
class FilmPlan:
    """What a film shows.

    Attributes:
        keys: views that it passes through; a single one is a full turn.
        up: the axis of the turntable.
        focal: over the frame's shorter side.
        split: share of the width from which the second scene is shown.
    """

    keys: tuple[Key, ...]
    up: Tensor
    focal: float
    seconds: float
    width: int
    height: int
    background: float
    split: float

    @property
    def frames(self) -> int:
        return max(2, round(self.seconds * FPS))


def read_plan(body: Mapping[str, Any]) -> FilmPlan:
    """A plan from JSON: the attributes of `FilmPlan`, `keys` as objects with `eye` and `target`.

    Raises:
        SettingError: not that, or too long or large.
    """
    try:
        keys = tuple((_point(key["eye"]), _point(key["target"])) for key in body["keys"][: MOST_KEYS + 1])
        focal, seconds, background, split = numbers(
            [body["focal"], body["seconds"], body.get("background", 1.0), body.get("split", 0.5)], 4
        )
        width, height = body["width"], body["height"]
        up = _point(body["up"])
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError):
        raise SettingError(
            "a film has keys with eye and target, up, focal, seconds, width and height"
        ) from None
    if not 1 <= len(keys) <= MOST_KEYS:
        raise SettingError(f"a film passes 1 to {MOST_KEYS} views")
    sides = (width, height)
    if any(type(n) is not int or n < FEWEST_SIDE for n in sides) or width * height > MOST_PIXELS:
        raise SettingError(
            f"a film's frame has at most {MOST_PIXELS} pixels and sides of at least {FEWEST_SIDE}"
        )
    if not 0 < seconds <= MOST_SECONDS:
        raise SettingError(f"a film lasts at most {MOST_SECONDS:g} s; got {seconds:g}")
    apart = min(float((eye - target).norm()) for eye, target in keys)
    if not (
        focal > 0 and 0 <= background <= 1 and 0 <= split <= 1 and float(up.norm()) > 1e-6 and apart > 1e-6
    ):
        raise SettingError("focal length, background, split, up or one of the views cannot be used")
    return FilmPlan(keys, up, focal, seconds, width, height, background, split)


def camera_path(plan: FilmPlan) -> Cameras:
    """The film's cameras: target, distance, yaw and pitch of the keys, joined by Catmull-Rom splines."""
    up = normalize(plan.up.double(), dim=0)
    side = torch.eye(3, dtype=torch.float64)[0 if abs(float(up[0])) < 0.9 else 1]
    ahead = normalize(side - up * (side @ up), dim=0)
    aside = torch.linalg.cross(up, ahead)
    places = torch.stack(
        [_place(eye.double(), target.double(), up, ahead, aside) for eye, target in plan.keys]
    )
    if len(places) == 1:
        turn = places.repeat(plan.frames, 1)
        turn[:, 4] += torch.arange(plan.frames) * (2 * math.pi / plan.frames)
        path = turn
    else:
        places[:, 4] = torch.from_numpy(np.unwrap(places[:, 4].numpy()))
        path = _spline(places, torch.linspace(0, len(places) - 1, plan.frames, dtype=torch.float64))
    target, distance, yaw, pitch = path[:, :3], path[:, 3:4].exp(), path[:, 4:5], path[:, 5:6]
    outward = pitch.cos() * (yaw.cos() * ahead + yaw.sin() * aside) + pitch.sin() * up
    right = yaw.cos() * aside - yaw.sin() * ahead
    down = torch.linalg.cross(-outward, right)
    poses = torch.stack([right, down, -outward, target + distance * outward], dim=-1).float()
    focal = plan.focal * min(plan.width, plan.height)
    intrinsics = torch.tensor([focal, focal, plan.width / 2, plan.height / 2])
    return Cameras(poses, intrinsics.expand(len(poses), 4).clone(), plan.width, plan.height)


@dataclass(eq=False)
class _Film:
    """Frames that come tile by tile from several threads, written in their order."""

    plan: FilmPlan
    add_frame: Callable[[Picture], None]
    on_frame: Callable[[int, int], None]
    missing: dict[int, int] = field(default_factory=dict)
    pixels: dict[int, Picture] = field(default_factory=dict)
    written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, result: tuple[int, Tile, Picture, int]) -> None:
        frame, tile, pixels, of = result
        with self.lock:
            if frame not in self.pixels:
                self.pixels[frame] = np.empty((self.plan.height, self.plan.width, 3), np.uint8)
                self.missing[frame] = of
            self.pixels[frame][tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = pixels
            self.missing[frame] -= 1
            while self.missing.get(self.written) == 0:
                del self.missing[self.written]
                self.add_frame(self.pixels.pop(self.written))
                self.written += 1
                self.on_frame(self.written, self.plan.frames)


class Films:
    """Makes films and keeps the finished ones in a folder of its own until the server ends."""

    def __init__(self, pool: Pool):
        self._pool = pool
        self._folder = tempfile.TemporaryDirectory(prefix="fieldmorph-films-")
        self._kept: OrderedDict[str, Path] = OrderedDict()
        self._lock = threading.Lock()
        self._making = 0

    def make(
        self,
        shown: Sequence[Scene],
        plan: FilmPlan,
        on_frame: Callable[[int, int], None],
        on_end: Callable[[str | None, BaseException | None], None],
    ) -> Work:
        """Begin a film; `pool.cancel` ends it early.

        Args:
            on_frame: told how many frames of how many are written.
            on_end: told the film's id, or why there is none (None where it was cancelled).

        Raises:
            BusyError: others are being made.
            SettingError: a camera would be too far away.
        """
        cameras = camera_path(plan)
        for camera in cameras:
            for scene in shown:
                check_distance(View(camera), scene.stored)
        with self._lock:
            if self._making >= AT_ONCE:
                raise BusyError("other films are being made; try again when they are done")
            self._making += 1
        name, stack = secrets.token_urlsafe(16), ExitStack()
        path = Path(self._folder.name) / f"{name}.mp4"
        film = _Film(plan, stack.enter_context(open_film(path, FPS)), on_frame)

        def finish(error: BaseException | None) -> None:
            try:
                if error is not None:
                    stack.__exit__(type(error), error, None)
                stack.close()
            except BaseException as failure:
                error = error or failure
            if error is None:
                self._keep(name, path)
            with self._lock:
                self._making -= 1
            on_end(None if error else name, None if isinstance(error, Cancelled) else error)

        try:
            return self._pool.submit(f"film {name}", _pieces(shown, cameras, plan), film.take, finish)
        except BusyError as error:
            finish(error)
            raise

    def get(self, name: str) -> Path:
        """The file of a finished film.

        Raises:
            InputError: there is none, or no longer.
        """
        path = self._kept.get(name)
        if path is None:
            raise InputError("this film is not there any more")
        return path

    def close(self) -> None:
        """Remove all films."""
        self._folder.cleanup()

    def _keep(self, name: str, path: Path) -> None:
        with self._lock:
            self._kept[name] = path
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)[1].unlink(missing_ok=True)


def _pieces(shown: Sequence[Scene], cameras: Cameras, plan: FilmPlan) -> Iterator[Piece]:
    cut = plan.width if len(shown) == 1 else round(plan.split * plan.width)
    halves = [(shown[0], 0, cut), (shown[-1], cut, plan.width)]
    for frame, camera in enumerate(cameras):
        parts = [
            (scene, tile)
            for scene, first, end in halves
            for tile in tiles(plan.width, plan.height, scene.pace.side(), (first, end))
        ]
        view = View(camera, plan.background)
        for scene, tile in parts:
            yield partial(_piece, frame, scene, view, tile, len(parts), cut)


def _piece(
    frame: int, scene: Scene, view: View, tile: Tile, of: int, cut: int
) -> tuple[int, Tile, Picture, int]:
    pixels = render_tile(scene.stored, view, tile, scene.pace)
    if tile.x == cut:
        pixels[:, :1] = LINE
    return frame, tile, pixels, of


def _place(eye: Tensor, target: Tensor, up: Tensor, ahead: Tensor, aside: Tensor) -> Tensor:
    """Target, logarithm of the distance, yaw and pitch."""
    away = eye - target
    distance = away.norm()
    outward = away / distance
    pitch = (outward @ up).clamp(-1, 1).asin().clamp(-1.56, 1.56)
    yaw = torch.atan2(outward @ aside, outward @ ahead)
    return torch.cat([target, torch.stack([distance.log(), yaw, pitch])])


def _spline(places: Tensor, at: Tensor) -> Tensor:
    """A Catmull-Rom spline through the rows of `places`, which are at 0, 1, ..., with their ends repeated."""
    padded = torch.cat([places[:1], places, places[-1:]])
    first = at.long().clamp(max=len(places) - 2)
    t = (at - first)[:, None]
    a, b, c, d = (padded[first + i] for i in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def _point(values: Any) -> Tensor:
    return torch.tensor(numbers(values, 3))
