"""Images of a field with its occupancy grid and cameras."""

import pytest
import torch

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField

pytestmark = pytest.mark.numerical


def test_a_view_is_rendered_over_the_background(soft_sphere: VolumeField) -> None:
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(soft_sphere, 1 / 32, torch.Generator().manual_seed(0))
    camera = orbit_box(soft_sphere.box(), 1, width=12, height=9)
    stored = RenderableField(soft_sphere, occupancy, 1 / 32, camera)
    white, black = stored.render(camera), stored.render(camera, background=0.0)
    torch.testing.assert_close(stored.render(camera, 1.0)["colors"], white["colors"])
    assert white["colors"].shape == (9, 12, 3)
    # What is not stopped is the background: the two differ by the light left over.
    left = 1 - white["opacities"][..., None]
    torch.testing.assert_close(white["colors"] - black["colors"], left.expand(9, 12, 3), atol=1e-5, rtol=0)
