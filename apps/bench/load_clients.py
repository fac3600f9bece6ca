"""Visitors of the viewer without a browser: what they ask, how long it takes, what they notice."""

import asyncio
import io
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from fieldmorph.apps.bench.runner import Row
from fieldmorph.apps.media import Picture
from fieldmorph.apps.viewer.tiles import read_messages
from fieldmorph.fields.cameras import Cameras, orbit_box

VIEWS = 12  # on a visitor's way round the scene
GREYS = 16  # behind the scene: by it a picture is known to be its visitor's
PAUSE = 0.5  # seconds between two pictures that a visitor asks for
ANOTHER = 1.0  # mean difference, in levels, between two pictures that are not of the same view
MISTAKES: tuple[Row, ...] = ({"eye": [1e9, 0, 0]}, {"scenes": ["x"]}, {"width": -1}, {"intrinsics": "no"})


@dataclass
class Visits:
    """What visitors saw, in the order of events.

    Attributes:
        first_ms, whole_ms: until the first tile of a picture had come, and all of it.
        errors: answers that were none, and pictures that were not whole.
        strangers: pictures that are not the ones that their visitor had seen of the same view before.
    """

    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    strangers: int = 0

    def row(self) -> Row:
        if not self.whole_ms:
            raise RuntimeError(f"no picture came: {self.errors[:3]}")
        return {
            "pictures": len(self.whole_ms),
            "first_tile_ms": statistics.median(self.first_ms),
            "p50_ms": statistics.median(self.whole_ms),
            "p95_ms": float(np.quantile(self.whole_ms, 0.95)),
            "worst_ms": max(self.whole_ms),
            "errors": len(self.errors),
            "first_errors": self.errors[:3],
            "strangers": self.strangers,
        }


class Visitor:
    """One browser's requests, without the browser: a name, a grey behind the scene, a way round it."""

    def __init__(
        self, client: httpx.AsyncClient, scene: Row, number: int, size: tuple[int, int], quick: bool
    ):
        self.client, self.seen = client, dict[int, Picture]()
        self.grey = number % GREYS / (GREYS - 1)
        self.fixed = {
            "viewer": f"{number:016d}",
            "scenes": [scene["id"]],
            "background": self.grey,
            "quick": quick,
        }
        self.cameras = orbit_box(scene["aabb"], VIEWS, width=size[0], height=size[1])
        self.first = number

    def asks(self, turn: int) -> Row:
        return {**request_of(self.cameras[turn % VIEWS]), **self.fixed}

    async def look(self, turn: int, into: Visits) -> None:
        """Ask for the next picture and check it."""
        start, body, first = time.perf_counter(), b"", None
        async for chunk in self.pieces(self.asks(turn), into):
            first = first or time.perf_counter()
            body += chunk
        if first is None:
            return
        end = time.perf_counter()
        picture = assembled(body, self.cameras.width, self.cameras.height)
        if picture is None:
            into.errors.append("a picture is not whole")
            return
        into.first_ms.append(1000 * (first - start))
        into.whole_ms.append(1000 * (end - start))
        before = self.seen.setdefault(turn % VIEWS, picture)
        corner = round(255 * self.grey)
        other = np.abs(picture.astype(int) - before).mean() > ANOTHER
        into.strangers += bool(other or np.abs(picture[0, 0].astype(int) - corner).max() > 2)

    async def pieces(self, asked: Row, into: Visits) -> AsyncIterator[bytes]:
        async with self.client.stream("POST", "/pictures", json=asked) as answer:
            if answer.status_code != 200:
                into.errors.append(f"status {answer.status_code}")
                return
            async for chunk in answer.aiter_raw():
                yield chunk

    async def stay(self, until: float, into: Visits, pause: float = PAUSE) -> None:
        """Look again and again, pauses between; visitors do not begin at once."""
        await asyncio.sleep(pause * (self.first % GREYS) / GREYS)
        for turn in itertools.count(self.first):
            if time.perf_counter() >= until:
                return
            await self.look(turn, into)
            await asyncio.sleep(pause)

    async def leave_early(self, until: float, into: Visits) -> None:
        """Go away after the first tile, each time."""
        for turn in itertools.count():
            if time.perf_counter() >= until:
                return
            async for _ in self.pieces(self.asks(turn), into):
                break
            await asyncio.sleep(PAUSE)

    async def mistake(self, until: float, into: Visits) -> None:
        """Ask what cannot be; each must be refused."""
        for wrong in itertools.cycle(MISTAKES):
            if time.perf_counter() >= until:
                return
            answer = await self.client.post("/pictures", json={**self.asks(0), **wrong})
            if answer.status_code not in (400, 404):
                into.errors.append(f"{wrong} was answered with {answer.status_code}")
            await asyncio.sleep(PAUSE)


def request_of(camera: Cameras) -> Row:
    """What a browser sends for a picture by this camera."""
    pose = camera.camera_to_world[0]
    axes = {name: pose[:, i].tolist() for i, name in enumerate(("right", "down", "forward", "eye"))}
    return {
        **axes,
        "width": camera.width,
        "height": camera.height,
        "intrinsics": camera.intrinsics[0].tolist(),
    }


def assembled(body: bytes, width: int, height: int) -> Picture | None:
    """A picture from its tiles; None where they do not cover each pixel once."""
    picture, covered = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), int)
    for which, tile, payload in read_messages(body):
        if which:
            return None
        place = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        with Image.open(io.BytesIO(payload)) as image:
            picture[place] = np.asarray(image)
        covered[place] += 1
    return picture if (covered == 1).all() else None
