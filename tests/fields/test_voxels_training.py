"""Training of the voxel field: total variation, and runs that are resumed."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.defaults import FIT
from helpers.voxel_fields import CUBE, fresh, lively, points, sparse
from torch import Tensor

from fieldmorph.fields import voxels
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.kernels.total_variation import total_variation
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.rendering import render_image
from fieldmorph.fields.scene import Split
from fieldmorph.fields.voxels import RUNS, Voxels

pytestmark = pytest.mark.numerical


def test_total_variation_is_the_mean_squared_step_between_active_neighbours(
    generator: torch.Generator,
) -> None:
    field, mask = fresh(40), torch.zeros(40, 40, 40, dtype=torch.bool)
    mask[3, 4, 5] = mask[3, 4, 6] = mask[4, 4, 5] = mask[9, 0, 20] = True
    values = torch.zeros(4, 28)  # rows in the order 3 4 5, 3 4 6, 4 4 5, 9 0 20
    values[1, 0], values[2, 7], values[3] = 3.0, -2.0, 100.0
    field.activate(mask, values)
    field.tv_weight = 0.5
    penalty = field.total_variation_of(0, 1)
    penalty.backward()
    # 345 has steps of 3 along z and -2 along x; the last has no neighbour, and it is one of the four all the same
    assert penalty.item() == pytest.approx(0.5 * (9 + 4) / 4)
    assert field.density_values.grad[:, 0].tolist() == pytest.approx([-0.75, 0.75, 0, 0])  # 0.5 * 2 * 3 / 4
    assert field.sh_values.grad[:, 6].tolist() == pytest.approx([0.5, 0, -0.5, 0])


def test_an_estimate_of_the_total_variation_is_unbiased() -> None:
    field = sparse()
    field.tv_weight, leaves = 2.0, list(field.parameters())

    def with_gradients(value: Tensor) -> tuple[Tensor, ...]:
        return value.detach(), *(g.to_dense() for g in torch.autograd.grad(value, leaves))

    runs = [int(torch.randint(RUNS, (1,), generator=torch.Generator().manual_seed(s))) for s in range(400)]
    seeds = [runs.index(run) for run in range(RUNS)]  # each of the runs once
    drawn = [with_gradients(field.regularization(torch.Generator().manual_seed(seed))) for seed in seeds]
    values = [value for value, *_ in drawn]
    assert max(values) > 1.2 * min(values)
    all_nodes = with_gradients(field.total_variation_of(0, 1))
    for estimates, whole in zip(zip(*drawn, strict=True), all_nodes, strict=True):
        torch.testing.assert_close(torch.stack(estimates).mean(0), whole, rtol=1e-4, atol=1e-6)


def test_without_a_weight_or_a_generator_there_is_no_total_variation(generator: torch.Generator) -> None:
    before, field = generator.get_state(), lively()
    assert field.regularization(generator).item() == 0
    assert torch.equal(generator.get_state(), before)
    field.tv_weight = 1.0
    assert field.regularization().item() == 0
    assert field.regularization(generator).item() > 0


CONFIG = FitConfig(samples_per_step=1024, occupancy_resolution=8)


@pytest.fixture
def views(soft_sphere: Any, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Four little images of the sphere, for short runs."""
    monkeypatch.setattr(FIT, "warmup_steps", 2)
    monkeypatch.setattr(FIT, "probe_rays", 64)
    cameras = orbit_box(CUBE, 4, width=16, height=16)
    images = [render_image(soft_sphere, camera, OccupancyGrid(8), 0.05, background=0.0) for camera in cameras]
    rgba = torch.stack([torch.cat([p["colors"], p["opacities"][..., None]], dim=-1) for p in images])
    return Split(cameras, (255 * rgba).round().byte(), ("a", "b", "c", "d"))


def test_training_looks_at_the_total_variation_of_few_nodes(
    views: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions, learned = [], []

    def spy(values: Tensor, grid: Any, first: int, last: int) -> Tensor:
        fractions.append((last - first) / grid.n_active)
        return total_variation(values, grid, first, last)

    monkeypatch.setattr(voxels, "total_variation", spy)
    for weight in (0.0, 1e-4):
        field = make_field("voxels", aabb=CUBE, resolution=50, tv_weight=weight)
        fit_images(field, views, Budget(steps=20), CONFIG)
        learned.append(field.query_density(points(100, CUBE)))
    assert len(fractions) == 2 * 20  # densities and colours, and none without a weight
    assert max(fractions) < 1.01 / RUNS
    assert not torch.equal(*learned)


@pytest.mark.parametrize(("at", "tv_weight"), [(5, 0.0), (14, 0.1)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    views: Split, tmp_path: Path, at: int, tv_weight: float
) -> None:
    def run(**options: Any) -> Voxels:
        field = make_field("voxels", aabb=CUBE, resolution=50, tv_weight=tv_weight)
        assert isinstance(field, Voxels)
        fit_images(field, views, Budget(steps=20), CONFIG, **options)
        return field

    def interrupt(progress: Progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGINT)

    whole, path = run(), tmp_path / "state"
    with pytest.raises(Interrupted):
        run(state_path=path, on_progress=interrupt)
    resumed = run(state_path=path, resume=True)
    assert whole.config() == resumed.config()
    assert whole.divisor == 1
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
