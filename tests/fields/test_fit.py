"""A small hash grid learns a sphere from a dozen small images, the same each time."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.defaults import FIT
from torch import Tensor

from fieldmorph.fields import fit
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.cameras import Cameras, orbit_cameras
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.fit import FitConfig, ImageLearner, fit_images
from fieldmorph.fields.loop import Interrupted, LoopReport
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import render_image, step_size_for
from fieldmorph.fields.scene import Split

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
SIZE = 24
CONFIG = FitConfig(probe_rays=256, warmup_steps=10, samples_per_step=4096, occupancy_resolution=16)


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIT, "warmup_steps", 10)
    monkeypatch.setattr(FIT, "probe_rays", 256)


def ring(n: int, elevation: float, focal: float = 40.0, radius: float = 3.0) -> Cameras:
    half = SIZE / 2
    return orbit_cameras(
        (0, 0, 0),
        radius,
        n,
        elevation=elevation,
        intrinsics=(focal, focal, half, half),
        width=SIZE,
        height=SIZE,
    )


def views_of(field: VolumeField, cameras: Cameras) -> Split:
    """The field's own images: premultiplied RGBA."""
    views = [render_image(field, camera, OccupancyGrid(8), 2 / 128, background=0.0) for camera in cameras]
    rgba = torch.stack([torch.cat([v["colors"], v["opacities"][..., None]], dim=-1) for v in views])
    return Split(cameras, (255 * rgba).round().byte(), tuple(f"{i}.png" for i in range(len(cameras))))


@pytest.fixture
def views(soft_sphere: VolumeField) -> Split:
    rings = [ring(4, elevation) for elevation in (-30, 15, 60)]
    poses, intrinsics = (torch.cat([getattr(r, k) for r in rings]) for k in ("camera_to_world", "intrinsics"))
    return views_of(soft_sphere, replace(rings[0], camera_to_world=poses, intrinsics=intrinsics))


def small(seed: int = 0) -> VolumeField:
    return make_field(
        "hashgrid",
        aabb=BOX,
        seed=seed,
        n_levels=4,
        log2_hashmap_size=12,
        base_resolution=8,
        finest_resolution=32,
    )


def quality(stored: RenderableField, truth: Split, background: float = 1.0) -> float:
    """Mean PSNR of whole views."""
    total = 0.0
    for i, camera in enumerate(truth.cameras):
        image = render_image(stored.field, camera, stored.occupancy, stored.render_step_size, background)
        total += float(psnr(image["colors"], truth.view_over(i, torch.full((3,), background))))
    return total / len(truth)


def result(stored: RenderableField, report: LoopReport) -> list[Tensor]:
    """Everything that must be equal where two runs are."""
    numbers = torch.tensor([report.psnr, *(value for _, value in report.curve)])
    grid = stored.occupancy
    return [*stored.field.state_dict().values(), grid.density, grid.occupied, numbers]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_hash_grid_learns_the_sphere(soft_sphere: VolumeField, views: Split) -> None:
    unseen = views_of(soft_sphere, ring(3, elevation=35))
    field = small()
    untrained = RenderableField(field, OccupancyGrid(16), 2 / 64, views.cameras)
    nothing = replace(untrained, occupancy=OccupancyGrid.from_density(*empty(16)))
    before = max(quality(untrained, unseen), quality(nothing, unseen))  # or a white image
    stored, report = fit_images(field, views, Budget(steps=120), CONFIG)
    assert stored.field is field
    after = quality(stored, unseen)
    assert before < 14
    assert after > 24
    assert abs(report.psnr - quality(stored, views)) < 2  # the probe is right
    assert quality(stored, unseen, background=0.0) > 23  # over any background: it is no white haze
    assert report.curve[-1][1] > report.curve[0][1] + 8


def empty(resolution: int) -> tuple[Tensor, Tensor]:
    density = torch.zeros(resolution, resolution, resolution)
    return density, density > 0


def test_opaque_images_are_learnt_with_their_background(soft_sphere: VolumeField, views: Split) -> None:
    rgb = views.images[..., :3].float() + (255 - views.images[..., 3:].float()) * 0.25
    images = torch.cat([rgb.round().byte(), torch.full_like(views.images[..., 3:], 255)], dim=-1)
    opaque = replace(views, images=images)
    stored, report = fit_images(small(), opaque, Budget(steps=100), CONFIG)
    pixels = images[..., :3] / 255
    plain = float(-10 * torch.log10(pixels.reshape(-1, 3).var(0).mean()))  # an image of one colour
    assert report.psnr > plain + 2
    corner = render_image(stored.field, views.cameras[0], stored.occupancy, stored.render_step_size)
    assert corner["opacities"][0].mean() > 0.9  # where only the background is


def test_equal_seeds_give_equal_results(views: Split) -> None:
    one, again, other = (
        result(*fit_images(small(), views, Budget(steps=21), replace(CONFIG, seed=seed)))
        for seed in (5, 5, 6)
    )
    assert equal(one, again)
    assert not equal(one, other)


@pytest.mark.parametrize("at", [1, 7, 21])
def test_interrupted_and_resumed_equals_uninterrupted(
    views: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    # fine steps: fresh low density lies under the threshold, so that some cells are free from the first update on
    monkeypatch.setattr(fit, "step_size_for", lambda cameras, field: 2 / 256)

    def stop(progress: Progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGINT)

    path, config = tmp_path / "run.state", replace(CONFIG, occupancy_every=4)
    whole = result(*fit_images(small(), views, Budget(steps=21), config))
    with pytest.raises(Interrupted):
        fit_images(small(), views, Budget(steps=21), config, state_path=path, on_progress=stop)
    fresh = small(seed=9)  # its parameters come from the file
    resumed = fit_images(fresh, views, Budget(steps=21), config, state_path=path, resume=True)
    assert equal(result(*resumed), whole)


def test_rates_stay_for_a_while_and_then_fall(views: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, lr_hold=0.2, lr_decay=0.1, lr_share=0.5, warmup_steps=2)
    learner = ImageLearner(small(), views, config)
    factors: list[float] = []
    monkeypatch.setattr(learner.optimizer, "step", lambda loss, factor: factors.append(factor))
    for progress in (0.0, 0.1, 0.2, 0.6, 1.0):
        learner.step(progress)
    assert factors == pytest.approx([0.25, 0.5, 0.5, 0.275, 0.05])
    with pytest.raises(SettingError, match="lr_hold is at least 0 and below 1; got 1"):
        replace(CONFIG, lr_hold=1.0)


def test_a_run_with_another_config_is_not_resumed(views: Split, tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    with pytest.raises(Interrupted):
        fit_images(
            small(),
            views,
            Budget(steps=9),
            CONFIG,
            state_path=path,
            on_progress=lambda _: signal.raise_signal(signal.SIGINT),
        )
    for config, field, reported in (
        (replace(CONFIG, lr_decay=0.5), small(), r"lr_decay was 0\.05, is 0\.5"),
        (CONFIG, make_field("hashgrid", aabb=BOX, n_levels=3), "n_levels was 4, is 3"),
        (CONFIG, make_field("mlp", aabb=BOX), "field was 'hashgrid', is 'mlp'"),
    ):
        with pytest.raises(SettingError, match=reported):
            fit_images(field, views, Budget(steps=9), config, state_path=path, resume=True)


def test_no_images_are_refused(views: Split) -> None:
    none = Split(views.cameras[:0], views.images[:0], ())
    with pytest.raises(SettingError, match="training needs at least one image; got none"):
        fit_images(small(), none, Budget(steps=3), CONFIG)


def test_what_comes_back_is_ready_to_be_stored(views: Split) -> None:
    stored, report = fit_images(small(), views, Budget(steps=3), CONFIG)
    assert report.steps == 3
    assert stored.cameras is views.cameras
    assert stored.occupancy.resolution == 16
    assert stored.render_step_size == step_size_for(views.cameras, stored.field)
    assert stored.provenance == {}


def test_render_step_is_a_pixel_s_footprint_at_the_centre_of_the_box(soft_sphere: VolumeField) -> None:
    # distance 4, focal length 200 pixels
    assert step_size_for(ring(5, 20, focal=200.0, radius=4.0), soft_sphere) == pytest.approx(0.02)
    # the box may lie anywhere: its centre (5, 0, 0) is 3 in front of a camera at (2, 0, 0)
    shifted = make_field("mlp", aabb=(4, -1, -1, 6, 1, 1), width=4, depth=1)
    camera = ring(1, 0, focal=150.0, radius=2.0)
    torch.testing.assert_close(camera.camera_to_world[0, :, 3], torch.tensor([2.0, 0.0, 0.0]))
    assert step_size_for(camera, shifted) == pytest.approx(3 / 150)


def test_render_step_is_that_of_the_middle_camera(soft_sphere: VolumeField) -> None:
    cameras = ring(3, 20, radius=4.0)
    cameras.intrinsics[:, 0] = torch.tensor([1000.0, 250.0, 200.0])  # 0.004, 0.016, 0.02
    assert step_size_for(cameras, soft_sphere) == pytest.approx(0.016)


def test_render_steps_are_bounded_by_the_box(soft_sphere: VolumeField) -> None:
    assert step_size_for(ring(2, 20, focal=2.0), soft_sphere) == 2 / 64
    assert step_size_for(ring(2, 20, focal=1e6), soft_sphere) == 2 / 512
