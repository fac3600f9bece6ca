"""TensoRF's fields beyond the contract: densities, coarse to fine, penalties, settings, files."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import load_field, save_field
from fieldmorph.fields.tensorf import INITIAL_FRACTION, REFINE_AT, SHIFT, LowRank, resample

pytestmark = pytest.mark.numerical

BOX = (-1.0, -0.5, 0.0, 1.0, 1.5, 1.0)  # neither a cube nor centred; its longest side is 2
SMALL: dict[str, Any] = {"resolution": 20, "density_components": 3, "app_components": 4}

both = pytest.mark.parametrize("name", ["vm", "cp"])


def small(name: str, aabb: tuple[float, ...] = BOX, **settings: Any) -> LowRank:
    field = make_field(name, aabb=aabb, **{**SMALL, **settings})
    assert isinstance(field, LowRank)
    return field


def points(n: int = 100) -> Tensor:
    low, high = torch.tensor(BOX[:3]), torch.tensor(BOX[3:])
    return low + torch.rand(n, 3, generator=torch.Generator().manual_seed(3)) * (high - low)


def fill(field: LowRank, value: float) -> None:
    with torch.no_grad():
        for parameter in field.parameters(recurse=False):
            parameter.fill_(value)


def shapes(field: LowRank) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in field.named_parameters(recurse=False)}


def test_grids_have_the_shapes_and_sizes_of_the_paper() -> None:
    vm, cp = make_field("vm", "paper", aabb=BOX), make_field("cp", "paper", aabb=BOX)
    assert shapes(vm)["density_planes"] == (3, 300, 300, 16)
    assert shapes(vm)["app_lines"] == (3, 300, 48)
    assert shapes(cp) == {"density_lines": (3, 500, 96), "app_lines": (3, 500, 288)}
    assert vm.basis.layers[0].weight.shape == (15, 144)
    assert cp.basis.layers[0].weight.shape == (15, 288)


@both
def test_density_is_per_world_unit(name: str) -> None:
    field = small(name)
    fill(field, 0.0)  # e^SHIFT per box length, which is 2 world units
    torch.testing.assert_close(field.query_density(points()), torch.full((100,), math.exp(SHIFT) / 2))
    fill(field, 1.0)  # 3 components x 3 modes, each of product 1; CP has no modes
    log_sigma, _ = field.geometry(points())
    n_products = {"vm": 9, "cp": 3}[name]
    torch.testing.assert_close(log_sigma, torch.full((100,), n_products + SHIFT - math.log(2)))


@both
def test_log_density_is_not_clamped_and_has_a_gradient(name: str) -> None:
    field = small(name)
    for value, sign in ((10.0, 1), (-10.0, 1 if name == "vm" else -1)):  # two factors or three
        fill(field, value)
        field.zero_grad()
        log_sigma, _ = field.geometry(points(9))
        assert (sign * log_sigma > 800).all()
        log_sigma.sum().backward()
        assert (field.density_lines.grad.abs().sum((1, 2)) > 0).all()
        assert field.query_density(points(9)).isfinite().all()


@both
def test_a_function_that_is_linear_along_each_axis_survives_resampling(name: str) -> None:
    field = small(name, resolution=3)
    before = [field.geometry(points())[0], field.geometry(points())[1]]
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for grid in field.parameters(recurse=False):  # two corner values per side and linear between
            ends = torch.randn(3, *[2] * (grid.dim() - 2), grid.shape[-1], generator=generator)
            grid.copy_(resample(ends, 3))
    coarse = field.geometry(points())
    assert not torch.allclose(coarse[0], before[0])
    for grid in field.parameters(recurse=False):
        grid.data = resample(grid.detach(), 11)
    for fine, expected in zip(field.geometry(points()), coarse, strict=True):
        torch.testing.assert_close(fine, expected, rtol=1e-4, atol=1e-5)


def test_resampling_is_worked_by_hand() -> None:
    line = torch.tensor([[[0.0], [2.0], [6.0]]])
    assert resample(line, 5).flatten().tolist() == [0, 1, 2, 4, 6]
    assert resample(line, 2).flatten().tolist() == [0, 6]
    assert resample(line, 3).equal(line)
    plane = torch.tensor([[[[0.0], [2.0]], [[4.0], [10.0]]]])
    assert resample(plane, 3).reshape(3, 3).tolist() == [[0, 1, 2], [2, 4, 6], [4, 7, 10]]


@both
def test_resolutions_grow_to_the_final_one(name: str) -> None:
    field = small(name, resolution=100)
    fresh = dict(field.named_parameters())
    seen, changes = [], []
    for step in range(101):
        changes.append(field.refine(step / 100))
        resolutions = {p.shape[1] for p in field.parameters(recurse=False)}
        assert len(resolutions) == 1
        seen.append(resolutions.pop())
    assert seen[0] == round(100 * INITIAL_FRACTION)
    assert seen == sorted(seen)
    assert seen[math.ceil(100 * REFINE_AT[-1])] == seen[-1] == 100
    assert sum(changes) == 1 + len(REFINE_AT)  # down at first, then up
    ratios = [b / a for a, b in zip(sorted(set(seen)), sorted(set(seen))[1:], strict=False)]
    assert max(ratios) - min(ratios) < 0.1  # evenly in logarithm
    assert all(p is fresh[key] and p.grad is None for key, p in field.named_parameters())
    assert field.config()["resolution"] == 100


@both
def test_shapes_depend_on_progress_alone(name: str) -> None:
    walked, jumped = small(name), small(name)
    for progress in (0.0, 0.02, 0.12, 0.3):
        walked.refine(progress)
    jumped.refine(0.3)
    assert shapes(walked) == shapes(jumped) != shapes(small(name))
    assert not jumped.refine(0.31)
    assert jumped.refine(1.0)
    assert shapes(jumped) == shapes(small(name))


@both
def test_a_coarse_state_is_taken_and_refined(name: str) -> None:
    coarse, other = small(name), make_field(name, aabb=BOX, seed=9, **SMALL)
    coarse.refine(0.0)
    kept = list(other.parameters())
    other.load_state_dict(coarse.state_dict())
    assert all(a is b for a, b in zip(kept, other.parameters(), strict=True))
    assert torch.equal(other.query_density(points()), coarse.query_density(points()))
    assert not other.refine(0.0)
    assert coarse.refine(1.0)
    assert other.refine(1.0)
    assert torch.equal(other.query_density(points()), coarse.query_density(points()))


@both
def test_l1_is_the_mean_magnitude_of_the_density_components(name: str) -> None:
    field = small(name, l1_weight=0.5, tv_weight=0.0)
    fill(field, 0.0)
    with torch.no_grad():
        field.density_lines[0] = -6.0  # a third of all
        field.app_lines.fill_(100.0)  # appearance does not count
    assert field.regularization().item() == pytest.approx(0.5 * 2.0)


@both
def test_total_variation_is_the_mean_squared_step_between_nodes(name: str) -> None:
    field = small(name, l1_weight=0.0, tv_weight=0.5)
    fill(field, 7.0)
    assert field.regularization().item() == 0
    with torch.no_grad():
        field.density_lines[:, ::2] += 3.0  # up and down: every step is 3
        field.app_lines[0, 10:] += 4.0  # one step of 19, in a third of the lines
    assert field.regularization().item() == pytest.approx(0.5 * (9 + 16 / 19 / 3))


def test_total_variation_of_planes_sums_both_sides() -> None:
    field = small("vm", l1_weight=0.0, tv_weight=1.0)
    fill(field, 0.0)
    with torch.no_grad():
        field.app_planes += 2 * torch.arange(20)[:, None, None] + 3 * torch.arange(20)[:, None]
    assert field.regularization().item() == pytest.approx(4 + 9)


@both
def test_penalties_without_weight_cost_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = small(name, l1_weight=0, tv_weight=0)
    for grids in ("_density_grids", "_app_grids"):
        monkeypatch.setattr(field, grids, lambda: pytest.fail("looked at the grids"))
    assert field.regularization().item() == 0
    assert not field.regularization().requires_grad


@both
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 1}, r"resolution to be a whole number 2\.\.4096; got 1"),
        ({"resolution": 64.0}, "resolution to be a whole number"),
        ({"resolution": 10**30}, "resolution"),
        ({"density_components": 0}, "density_components to be a whole number"),
        ({"app_components": True}, "app_components to be a whole number"),
        ({"l1_weight": -1.0}, r"l1_weight to be a finite number >= 0; got -1\.0"),
        ({"tv_weight": math.nan}, "tv_weight to be a finite number"),
        ({"tv_weight": math.inf}, "tv_weight to be a finite number"),
        ({"l1_weight": True}, "l1_weight"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_bad_setting_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=f"{name} needs {message}"):
        small(name, **settings)


@both
def test_a_saved_field_comes_back(name: str, tmp_path: Path) -> None:
    field = small(name, resolution=33, l1_weight=1e-4)
    cameras = Cameras(torch.eye(4)[None, :3], torch.tensor([[50.0, 50.0, 8.0, 8.0]]), 16, 16)
    save_field(tmp_path / "a.fm", RenderableField(field, OccupancyGrid(4), 0.1, cameras))
    again = load_field(tmp_path / "a.fm").field
    assert again.config() == field.config()
    assert again.config()["l1_weight"] == 1e-4
    for a, b in zip(again.geometry(points()), field.geometry(points()), strict=True):
        assert torch.equal(a, b)
