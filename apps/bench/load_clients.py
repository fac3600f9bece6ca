"""Visitors of the viewer without a browser: their requests, how long these take, and errors they notice."""

import asyncio
import io
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from fieldmorph.apps.bench.runner import Row
from fieldmorph.apps.media import ByteImage
from fieldmorph.apps.viewer.tiles import read_messages
from fieldmorph.fields.cameras import Cameras, orbit_box

VIEWS = 12  # on a visitor's orbit around the scene
GREYS = 16  # background levels, by which a visitor recognises its own images
MAX_DIFFERENCE = 1.0  # mean, in levels, between two images of the same view
MISTAKES: tuple[Row, ...] = ({"eye": [1e9, 0, 0]}, {"scenes": ["x"]}, {"width": -1}, {"intrinsics": "no"})


@dataclass
class Visits:
    """Images that visitors received, in the order of events.

    Attributes:
        first_ms, whole_ms: milliseconds until the first tile of an image, and until all of it.
        errors: failed requests and incomplete images.
        strangers: images that differ from those their visitor received of the same view before.
    """

    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    strangers: int = 0

    def row(self) -> Row:
        """Return the figures of a benchmark's row."""
        if not self.whole_ms:
            raise RuntimeError(f"no image was received: {self.errors[:3]}")
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
    """One browser's requests without the browser: a name, a grey background and an orbit around the scene."""

    def __init__(
        self, client: httpx.AsyncClient, scene: Row, number: int, size: tuple[int, int], quick: bool
    ):
        self.client, self.seen = client, dict[int, ByteImage]()
        self.grey = number % GREYS / (GREYS - 1)
        self.fixed = {
            "viewer": f"{number:016d}",
            "scenes": [scene["id"]],
            "background": self.grey,
            "quick": quick,
        }
        self.cameras = orbit_box(scene["aabb"], VIEWS, width=size[0], height=size[1])
        self.first = number

    def request(self, turn: int) -> Row:
        """Return the request for an image of the orbit."""
        return {**request_of(self.cameras[turn % VIEWS]), **self.fixed}

    async def request_image(self, turn: int, into: Visits) -> None:
        """Request the next image and check it."""
        start, body, first = time.perf_counter(), b"", None
        async for chunk in self.pieces(self.request(turn), into):
            first = first or time.perf_counter()
            body += chunk
        if first is None:
            return
        end = time.perf_counter()
        image = assembled(body, self.cameras.width, self.cameras.height)
        if image is None:
            into.errors.append("an image is incomplete")
            return
        into.first_ms.append(1000 * (first - start))
        into.whole_ms.append(1000 * (end - start))
        before = self.seen.setdefault(turn % VIEWS, image)
        corner = round(255 * self.grey)
        other = np.abs(image.astype(int) - before).mean() > MAX_DIFFERENCE
        into.strangers += bool(other or np.abs(image[0, 0].astype(int) - corner).max() > 2)

    async def pieces(self, request: Row, into: Visits) -> AsyncIterator[bytes]:
        """Send a request and yield the response piece by piece."""
        async with self.client.stream("POST", "/tiles", json=request) as answer:
            if answer.status_code != 200:
                into.errors.append(f"status {answer.status_code}")
                return
            async for chunk in answer.aiter_raw():
                yield chunk

    async def stay(self, until: float, into: Visits, pause: float = 0.5) -> None:
        """Request images with pauses between them; visitors start at different times."""
        await asyncio.sleep(pause * (self.first % GREYS) / GREYS)
        for turn in itertools.count(self.first):
            if time.perf_counter() >= until:
                return
            await self.request_image(turn, into)
            await asyncio.sleep(pause)

    async def leave_early(self, until: float, into: Visits, pause: float = 0.5) -> None:
        """Disconnect after the first tile, each time."""
        for turn in itertools.count():
            if time.perf_counter() >= until:
                return
            async for _ in self.pieces(self.request(turn), into):
                break
            await asyncio.sleep(pause)

    async def mistake(
        self, until: float, into: Visits, pause: float = 0.5, mistakes: Sequence[Row] = MISTAKES
    ) -> None:
        """Send invalid requests, each of which must be rejected."""
        for wrong in itertools.cycle(mistakes):
            if time.perf_counter() >= until:
                return
            answer = await self.client.post("/tiles", json={**self.request(0), **wrong})
            if answer.status_code not in (400, 404):
                into.errors.append(f"{wrong} was answered with {answer.status_code}")
            await asyncio.sleep(pause)


def request_of(camera: Cameras) -> Row:
    """Return what a browser sends for an image of this camera."""
    pose = camera.camera_to_world[0]
    axes = {name: pose[:, i].tolist() for i, name in enumerate(("right", "down", "forward", "eye"))}
    return {
        **axes,
        "width": camera.width,
        "height": camera.height,
        "intrinsics": camera.intrinsics[0].tolist(),
    }


def assembled(body: bytes, width: int, height: int) -> ByteImage | None:
    """Assemble an image from its tiles; None where they do not cover each pixel once."""
    whole, covered = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), int)
    for which, tile, payload in read_messages(body):
        if which:
            return None
        place = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        with Image.open(io.BytesIO(payload)) as image:
            whole[place] = np.asarray(image)
        covered[place] += 1
    return whole if (covered == 1).all() else None
