"""A teacher whose density and colors are known everywhere."""

import pytest
import torch

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import orbit_cameras
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField

STEP = 2 / 64


@pytest.fixture
def sphere(soft_sphere: VolumeField) -> RenderableField:
    """The sphere without parameters or decoder, seen by a ring of cameras."""
    cameras = orbit_cameras(
        (0, 0, 0), 3.0, 8, elevation=20, intrinsics=(40.0, 40.0, 12.0, 12.0), width=24, height=24
    )
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(soft_sphere, STEP, torch.Generator().manual_seed(0))
    return RenderableField(soft_sphere, occupancy, STEP, cameras)
