"""Depth, opacity and crop as the server draws them."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.view_fields import ball_field, request_of

from fieldmorph.apps.viewer.image_modes import MODES, crop_samples, depth_colors, depth_range
from fieldmorph.apps.viewer.tiles import Tile, read_view, render_tile
from fieldmorph.fields.cameras import Rays, resize
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.rendering import sample_rays

STORED = ball_field()
CAMERA = resize(STORED.cameras[1], 64, 48)


def drawn(**options: Any) -> np.ndarray:
    view = read_view(request_of(CAMERA, **options))
    return render_tile(STORED, view, Tile(0, 0, 64, 48)).astype(int)


def test_opacity_is_a_gray_image_of_it() -> None:
    expected = 255 * STORED.render(CAMERA)["opacities"].numpy()
    for background in (0.0, 1.0):
        shown = drawn(mode="opacity", background=background)
        assert np.abs(shown - expected[..., None]).max() <= 1


def test_depth_is_colored_by_the_distance_within_the_box() -> None:
    rendered, eye = STORED.render(CAMERA), CAMERA.camera_to_world[0, :, 3]
    near, far = depth_range(eye, STORED.field.aabb)
    # the box is [-1, 1]^3
    assert near == pytest.approx(float((eye - eye.clamp(-1, 1)).norm()))
    assert far == pytest.approx(float((eye.abs() + 1).norm()))
    solid = (rendered["opacities"] > 0.999).numpy()
    fractions = (rendered["depths"] / rendered["opacities"].clamp(min=1e-6) - near) / (far - near)
    expected = 255 * depth_colors(fractions[..., None]).numpy()
    assert 0.02 < solid.mean() < 0.9
    assert np.abs(drawn(mode="depth") - expected)[solid].max() <= 1
    assert (drawn(mode="depth", background=0.0)[0, 0] == 0).all()  # nothing there


def test_a_scale_of_depths_spans_the_box_that_is_given() -> None:
    """Two fields of different boxes are compared on one scale, that of the box around both."""
    box = [-3.0, -1.0, -1.0, 1.0, 2.0, 1.0]
    rendered, eye = STORED.render(CAMERA), CAMERA.camera_to_world[0, :, 3]
    near, far = depth_range(eye, torch.tensor(box))
    solid = (rendered["opacities"] > 0.999).numpy()
    fractions = (rendered["depths"] / rendered["opacities"].clamp(min=1e-6) - near) / (far - near)
    expected = 255 * depth_colors(fractions[..., None]).numpy()
    assert np.abs(drawn(mode="depth", depth_box=box) - expected)[solid].max() <= 1
    assert np.abs(drawn(mode="depth") - expected)[solid].max() > 5
    assert (drawn(mode="depth", depth_box=[-1, -1, -1, 1, 1, 1]) == drawn(mode="depth")).all()
    with pytest.raises(SettingError):
        drawn(mode="depth", depth_box=[0, 1])


def test_near_is_light_and_far_is_dark() -> None:
    near, middle, far = depth_colors(torch.tensor([[0.0], [0.5], [1.0]])).sum(-1)
    assert near > middle > far


def test_crop_leaves_out_what_is_outside_of_its_box() -> None:
    rays = Rays(torch.tensor([[-3.0, 0.01, 0.01]]), torch.tensor([[1.0, 0.0, 0.0]]))
    samples = sample_rays(rays, STORED.field, STORED.occupancy, 0.05)
    kept = crop_samples(rays, samples, [0, -1, -1, 1, 1, 1])
    assert 0 < len(kept) < len(samples)
    assert float(kept.positions(rays)[:, 0].min()) >= 0
    assert crop_samples(rays, samples, None) is samples
    assert (drawn(crop=[0.9, 0.9, 0.9, 1, 1, 1]) == 255).all()
    assert (drawn(crop=[-1, -1, -1, 1, 1, 1]) == drawn()).all()


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "measure"}, {"mode": 3}, {"mode": []}, {"crop": [0, 1]}, {"crop": "x"}, {"crop": [None] * 6}],
)
def test_a_bad_mode_or_crop_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        read_view(request_of(CAMERA, **wrong))


def test_there_are_the_modes_of_the_exported_page() -> None:
    assert MODES == ("color", "depth", "opacity")
