"""nerfacc's marcher, stood in for by its algorithm in float32, gives the twin's samples but at walls of cells."""

import math
import sys

import pytest
import torch
from helpers.nerfacc_stand_in import fake_nerfacc

from fieldmorph.fields.kernels import accelerators
from fieldmorph.fields.kernels import nerfacc_backend as module
from fieldmorph.fields.kernels.accelerators import Accelerator, march_cuda, probe_accelerator
from fieldmorph.fields.kernels.march import march_torch
from fieldmorph.fields.kernels.nerfacc_backend import march_nerfacc

CPU = torch.device("cpu")
CUBE = torch.tensor([-1.0, -1, -1, 1, 1, 1])


@pytest.fixture(autouse=True)
def _installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "nerfacc", fake_nerfacc())


def rays_at(distance: float, generator: torch.Generator, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rays_o = distance * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    aim = 1.6 * torch.rand(n, 3, generator=generator) - 0.8
    return rays_o, torch.nn.functional.normalize(aim - rays_o, dim=-1)


@pytest.mark.parametrize("distance", [0.3, 3.0, 300.0])
@pytest.mark.parametrize("depth", [0.5, math.inf])
def test_samples_are_the_twins_but_at_walls(generator, distance: float, depth: float) -> None:
    occupied = torch.rand(16, 8, 32, generator=generator) < 0.3
    jitter = torch.rand(40, generator=generator)
    arguments = (
        *rays_at(distance, generator),
        CUBE,
        occupied,
        0.04,
        jitter,
        0.7 * distance,
        distance + depth,
    )
    got, expected = march_nerfacc(*arguments), march_torch(*arguments)
    assert [x.dtype for x in got] == [x.dtype for x in expected]
    assert len(expected[0]) > 50
    assert accelerators._unmatched_fraction(got, expected) * len(expected[0]) <= 1


def test_rays_without_samples_and_rays_in_walls(generator) -> None:
    nan = math.nan
    rays_o = torch.tensor(
        [[3.0, 0, 0], [3, 0, 0], [3, 0, 0], [nan, 0, 0], [3, 0, 0], [3, 2, 0], [3, 1, 1], [0, 0, 0]]
    )
    rays_d = torch.tensor(
        [
            [-1, 1e-16, 0],
            [-1, -1e-16, 0],
            [-1, -1e-8, -1e-6],
            [1, 0, 0],
            [0, 0, 0],
            [-1, 0, 0],
            [-1, 0, 0],
            [1, 1, 1],
        ]
    )
    arguments = (rays_o, rays_d, CUBE, torch.ones(8, 8, 8, dtype=torch.bool), 0.1, torch.full((8,), 0.3))
    got, expected = march_nerfacc(*arguments, 0.0, math.inf), march_torch(*arguments)
    assert expected[3].diff().tolist() == [20, 20, 20, 0, 0, 0, 20, 10]
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_more_steps_than_float32_can_add_up_are_the_twins(monkeypatch, generator) -> None:
    monkeypatch.setattr(module, "march_torch", lambda *_: "the twin's")
    occupied = torch.ones(2, 2, 2, dtype=torch.bool)
    rays = torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    rest = (torch.zeros(1), 0.0, math.inf)
    assert march_nerfacc(*rays, CUBE, occupied, 2 / module.LONGEST, *rest) != "the twin's"
    assert march_nerfacc(*rays, CUBE, occupied, 1.9 / module.LONGEST, *rest) == "the twin's"


def broken(name: str):
    """nerfacc with another traverse_grids, in one of the ways that would change an image."""
    fake = fake_nerfacc()
    right = fake.traverse_grids

    def half_a_step_late(*arguments, near_planes, step_size, **rest):
        return right(*arguments, near_planes=near_planes + step_size / 2, step_size=step_size, **rest)

    def every_cell(o, d, binaries, *arguments, **rest):
        return right(o, d, binaries | True, *arguments, **rest)

    def other_axes(o, d, binaries, *arguments, **rest):
        return right(o, d, binaries.flip(1), *arguments, **rest)

    def wrong_counts(*arguments, **rest):
        _, samples, _ = right(*arguments, **rest)
        samples.packed_info = samples.packed_info.roll(1, 0)
        return None, samples, None

    def one_missing(*arguments, **rest):
        _, samples, _ = right(*arguments, **rest)
        samples.vals[7] = math.nan
        return None, samples, None

    fake.traverse_grids = locals()[name]
    return fake


@pytest.mark.parametrize(
    "name", ["half_a_step_late", "every_cell", "other_axes", "wrong_counts", "one_missing"]
)
def test_another_lattice_is_refused(monkeypatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "nerfacc", broken(name))
    found = probe_accelerator("nerfacc-march", CPU)
    assert (found.found, found.passed) == (True, False)
    assert "over" in found.reason


@pytest.mark.parametrize("passed", [True, False])
def test_the_twin_marches_unless_the_self_test_passed(monkeypatch, generator, passed: bool) -> None:
    found = {"nerfacc-march": Accelerator("nerfacc-march", True, passed, "")}
    monkeypatch.setattr(accelerators, "accelerators", lambda: found)
    monkeypatch.setattr(accelerators, "march_nerfacc", lambda *_: "nerfacc's")
    occupied = torch.ones(2, 2, 2, dtype=torch.bool)
    rest = (CUBE, occupied, 0.1, torch.zeros(40), 0.0, math.inf)
    rays = rays_at(3.0, generator)
    got, expected = march_cuda(*rays, *rest), march_torch(*rays, *rest)
    assert got == "nerfacc's" if passed else torch.equal(got[1], expected[1])
    none = torch.zeros(0, 3)
    assert len(march_cuda(none, none, CUBE, occupied, 0.1, torch.zeros(0), 0.0, math.inf)[0]) == 0
