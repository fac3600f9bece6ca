"""Pictures of a stored field, and cameras of another image size."""

import pytest
import torch

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import image_rays, orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField, picture, resize, view

pytestmark = pytest.mark.numerical


def test_resized_cameras_see_the_same_picture() -> None:
    camera = orbit_box((-1, -1, -1, 1, 1, 1), 1, width=40, height=30)
    wide = resize(camera, 120, 60)
    old = image_rays(camera).rays_d.reshape(30, 40, 3)
    new = image_rays(wide).rays_d.reshape(60, 120, 3)[:, 20:100]  # 80 x 60 shows what 40 x 30 did
    corners = torch.stack([new[0::2, 0::2], new[1::2, 0::2], new[0::2, 1::2], new[1::2, 1::2]]).mean(0)
    torch.testing.assert_close(torch.nn.functional.normalize(corners, dim=-1), old, atol=2e-4, rtol=0)


def test_a_picture_is_the_colours_of_a_view_over_the_background(soft_sphere: VolumeField) -> None:
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(soft_sphere, 1 / 32, torch.Generator().manual_seed(0))
    camera = orbit_box(soft_sphere.box(), 1, width=12, height=9)
    stored = RenderableField(soft_sphere, occupancy, 1 / 32, camera)
    white, black = view(stored, camera), view(stored, camera, background=0.0)
    torch.testing.assert_close(picture(stored, camera), white["colors"])
    assert white["colors"].shape == (9, 12, 3)
    # What is not stopped is the background: the two differ by the light left over.
    left = 1 - white["opacities"][..., None]
    torch.testing.assert_close(white["colors"] - black["colors"], left.expand(9, 12, 3), atol=1e-5, rtol=0)
