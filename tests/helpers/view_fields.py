"""Little fields on disk, and a viewer of them that answers on a port of its own."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from helpers.voxel_fields import CUBE, ball

from fieldmorph.apps.bench.load_clients import request_of as camera_request
from fieldmorph.apps.viewer.app import Viewer, make_viewer
from fieldmorph.apps.viewer.loading import LoadingPage, LoadingState
from fieldmorph.apps.viewer.security import Access
from fieldmorph.apps.viewer.server import Server, listen, page_url
from fieldmorph.fields.cameras import Cameras, orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import save_field

VIEWER = "0123456789abcdef"


def ball_field() -> RenderableField:
    field, occupancy = ball(16), OccupancyGrid(16)
    occupancy.rebuild(field, 0.05, torch.Generator().manual_seed(0))
    return RenderableField(field, occupancy, 0.05, orbit_box(CUBE, 8, width=64, height=48), {"job": "test"})


def save_ball(path: Path, psnr: float | None = None) -> Path:
    save_field(path, ball_field())
    if psnr is not None:
        receipt = {"quality": {"held_out": {"mean": {"psnr_to_teacher": psnr}}}}
        Path(f"{path}.receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    return path


def request_of(camera: Cameras, **others: Any) -> dict[str, Any]:
    """What a browser sends for an image by this camera."""
    return {**camera_request(camera), "viewer": VIEWER, **others}


@contextmanager
def served(files: Sequence[Path], **options: Any) -> Iterator[tuple[str, Viewer]]:
    """Address and viewer, for as long as the block lasts; options are those of `Access` and of `make_viewer`."""
    access = Access(**{f.name: options.pop(f.name) for f in fields(Access) if f.name in options})
    listening = listen("127.0.0.1", 0)
    viewer = make_viewer(files, access=access, **{"threads": 2, "max_pixels": 320 * 240, **options})
    url = page_url("127.0.0.1", listening.getsockname()[1])
    server = Server(listening, LoadingPage(LoadingState()))
    server.start()
    try:
        server.replace(viewer.app)
        yield url, viewer
    finally:
        server.stop()
        viewer.close()
