"""CUDA libraries are probed by what they compute; libraries that lie, fail or are missing are left aside."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fieldmorph.fields.kernels import accelerators as module
from fieldmorph.fields.kernels.accelerators import (
    Accelerator,
    accelerators,
    composite_cuda,
    hash_encode_cuda,
    probe_accelerator,
)
from fieldmorph.fields.kernels.composite import composite_torch
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import hash_levels

CPU = torch.device("cpu")
NAMES = ["tinycudann", "nerfacc"]


def fake_tinycudann(spoil: Callable[[Tensor], Tensor] = lambda x: x) -> ModuleType:
    """tinycudann's Encoding in torch: flat float32 `params`, forward of (n, 3)."""

    class Encoding(nn.Module):
        def __init__(self, n_input_dims: int, encoding_config: dict, dtype: torch.dtype) -> None:
            super().__init__()
            config = dict(encoding_config)
            assert (n_input_dims, dtype) == (3, torch.float32)
            assert (config.pop("otype"), config.pop("interpolation")) == ("HashGrid", "Linear")
            self.n_features = config.pop("n_features_per_level")
            self.levels = hash_levels(**config)
            self.params = nn.Parameter(torch.zeros(self.levels.n_entries * self.n_features))

        def forward(self, x: Tensor) -> Tensor:
            return spoil(hash_encode_torch(x, self.params.reshape(-1, self.n_features), self.levels))

    fake = ModuleType("tinycudann")
    fake.Encoding = Encoding
    return fake


def fake_nerfacc(spoil: Callable[[Tensor], Tensor] = lambda x: x) -> ModuleType:
    """nerfacc's two functions in torch, ray by ray."""

    def render_weight_from_density(t_starts, t_ends, sigmas, packed_info):
        alphas, optical = 1 - torch.exp(-sigmas * (t_ends - t_starts)), sigmas * (t_ends - t_starts)
        parts = [optical[s : s + n] for s, n in packed_info.tolist()]
        trans = torch.cat([torch.exp(-(p.cumsum(0) - p)) for p in parts])
        return spoil(trans * alphas), trans, alphas

    def accumulate_along_rays(weights, values, ray_indices, n_rays):
        return torch.zeros(n_rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)

    fake = ModuleType("nerfacc")
    fake.render_weight_from_density = render_weight_from_density
    fake.accumulate_along_rays = accumulate_along_rays
    return fake


FAKES = {"tinycudann": fake_tinycudann, "nerfacc": fake_nerfacc}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    accelerators.cache_clear()
    module._tinycudann_encoding.cache_clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [ImportError("none here"), OSError("no GPU"), RuntimeError("nvcc")])
def test_a_library_that_does_not_import_is_not_found(monkeypatch, name: str, error: Exception) -> None:
    def fail(_: str) -> ModuleType:
        raise error

    monkeypatch.setattr(module.importlib, "import_module", fail)
    assert probe_accelerator(name, CPU) == Accelerator(name, False, False, f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_right_numbers_are_accepted(monkeypatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, FAKES[name]())
    found = probe_accelerator(name, CPU)
    assert (found.found, found.passed) == (True, True), found.reason
    assert "within" in found.reason


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: 1.01 * x,
        lambda x: x.roll(1, 0),
        lambda x: torch.where(torch.arange(x.numel()).reshape(x.shape) == 7, torch.nan, x),
        lambda x: x.detach() + 0 * x,  # right values, no gradient
    ],
)
def test_wrong_numbers_are_refused(monkeypatch, name: str, spoil: Callable[[Tensor], Tensor]) -> None:
    monkeypatch.setitem(sys.modules, name, FAKES[name](spoil))
    found = probe_accelerator(name, CPU)
    assert (found.found, found.passed) == (True, False)
    assert "over" in found.reason


@pytest.mark.parametrize("name", NAMES)
def test_a_library_that_fails_at_work_is_refused(monkeypatch, name: str) -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("CUDA_HOME is not set")

    monkeypatch.setitem(sys.modules, name, FAKES[name](fail))
    assert probe_accelerator(name, CPU).reason == "self-test failed: RuntimeError: CUDA_HOME is not set"
    module._tinycudann_encoding.cache_clear()
    monkeypatch.setitem(sys.modules, name, ModuleType(name))  # another version, without these functions
    assert "AttributeError" in probe_accelerator(name, CPU).reason


def test_a_self_test_passes_where_gradients_are_off(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", fake_tinycudann())
    with torch.no_grad():
        assert probe_accelerator("tinycudann", CPU).passed


@pytest.mark.parametrize("passed", [True, False])
def test_the_twin_serves_unless_the_self_test_passed(monkeypatch, passed: bool, generator) -> None:
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, FAKES[name](lambda x: 2 * x))  # so that one sees who answered
    monkeypatch.setattr(module, "accelerators", lambda: {n: Accelerator(n, True, passed, "") for n in NAMES})
    factor = 2 if passed else 1
    levels = hash_levels(4, 8, 4, 1.5)
    positions, table = (
        torch.rand(9, 3, generator=generator),
        torch.rand(levels.n_entries, 2, generator=generator),
    )
    leaf = table.clone().requires_grad_()
    encoded, expected = hash_encode_cuda(positions, leaf, levels), hash_encode_torch(positions, table, levels)
    torch.testing.assert_close(encoded.detach(), factor * expected)
    encoded.sum().backward()
    assert leaf.grad.sum().item() == pytest.approx(
        factor * 9 * 8, rel=1e-5
    )  # weights of a corner set sum to 1

    sigma, rgb, t = torch.rand(5), torch.rand(5, 3), torch.arange(5.0)
    arguments = (sigma, rgb, t, t + 1, torch.tensor([0, 3, 3, 5]))
    for got, expected in zip(composite_cuda(*arguments), composite_torch(*arguments), strict=True):
        torch.testing.assert_close(got, factor * expected)


def test_what_libraries_cannot_do_goes_to_the_twin(monkeypatch, generator) -> None:
    monkeypatch.setattr(module, "accelerators", lambda: {n: Accelerator(n, True, True, "") for n in NAMES})
    levels = hash_levels(4, 8, 4, 1.5)
    table = torch.rand(levels.n_entries, 2, generator=generator)
    assert hash_encode_cuda(torch.zeros(0, 3), table, levels).shape == (0, 8)
    positions = torch.rand(3, 3, generator=generator).requires_grad_()
    hash_encode_cuda(positions, table, levels).sum().backward()
    assert positions.grad.abs().sum() > 0
    none = torch.zeros(0)
    out = composite_cuda(none, torch.zeros(0, 3), none, none, torch.tensor([0, 0]))
    assert [tuple(x.shape) for x in out] == [(0,), (1, 3), (1,), (1,)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_cuda_nothing_is_probed() -> None:
    assert accelerators() == {n: Accelerator(n, False, False, "no CUDA device") for n in NAMES}


def test_training_on_a_cpu_imports_no_accelerator() -> None:
    code = """
import sys, fieldmorph.fields, torch
from fieldmorph.fields.cameras import Rays
from fieldmorph.fields.catalog import make_field
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.render import render_rays
field, grid = make_field("hashgrid", aabb=(-1, -1, -1, 1, 1, 1)), OccupancyGrid(8)
grid.update(field, 0.01, torch.Generator())
d = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
render_rays(field, Rays(-2 * d, d), grid, 0.05, torch.ones(50, 3)).colors.sum().backward()
names = {"nerfacc", "tinycudann", "fieldmorph.fields.kernels.accelerators"}
assert field.table.grad.abs().sum() > 0 and not names & set(sys.modules), names & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_installed_accelerators_agree_on_cuda(name: str) -> None:
    found = probe_accelerator(name, torch.device("cuda"))
    if not found.found:
        pytest.skip(found.reason)
    assert found.passed, found.reason
