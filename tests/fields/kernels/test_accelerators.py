"""CUDA libraries are probed by what they compute; libraries that lie, fail or are missing are left aside."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from helpers.nerfacc_stand_in import fake_nerfacc
from torch import Tensor, nn

from fieldmorph.fields.kernels import accelerators as module
from fieldmorph.fields.kernels import tcnn_backend as tcnn
from fieldmorph.fields.kernels.accelerators import (
    Accelerator,
    accelerators,
    composite_cuda,
    hash_encode_cuda,
    perceptron_cuda,
    probe_accelerator,
)
from fieldmorph.fields.kernels.composite import composite_torch
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import hash_levels

CPU = torch.device("cpu")
NAMES = ["tinycudann", "tinycudann-mlp", "nerfacc", "nerfacc-march"]


def fake_tinycudann(spoil: Callable[[Tensor], Tensor] = lambda x: x) -> ModuleType:
    """tinycudann's Encoding and Network in torch: flat float32 `params`, forward of (n, n_in)."""

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

    class Network(nn.Module):
        """Half precision through and through; a gradient is rounded before loss_scale multiplies it."""

        def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict) -> None:
            super().__init__()
            config = dict(network_config)
            width, depth = config.pop("n_neurons"), config.pop("n_hidden_layers")
            assert config == {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None"}
            assert (n_input_dims % 16, width in (16, 32, 64, 128)) == (0, True)
            self.n_out, self.loss_scale = n_output_dims, 128.0
            widths = [n_input_dims, *[width] * depth, -(-n_output_dims // 16) * 16]
            self.shapes = list(zip(widths[1:], widths, strict=False))
            self.params = nn.Parameter(torch.zeros(sum(a * b for a, b in self.shapes)))

        def forward(self, x: Tensor) -> Tensor:
            assert len(self.params) == sum(a * b for a, b in self.shapes)
            params = scaled(self.params, 1 / self.loss_scale).half()
            x = scaled(x, 1 / self.loss_scale).half()
            parts = params.split([a * b for a, b in self.shapes])
            for i, (part, shape) in enumerate(zip(parts, self.shapes, strict=True)):
                x = (torch.relu(x) if i else x) @ part.reshape(shape).T
            return spoil(scaled(x, self.loss_scale)[:, : self.n_out])

    fake = ModuleType("tinycudann")
    fake.Encoding, fake.Network = Encoding, Network
    return fake


def scaled(x: Tensor, factor: float) -> Tensor:
    """The same values, whose gradients come out multiplied."""
    x = x * 1  # a tensor of its own: a hook on a leaf would stay
    if x.requires_grad:
        x.register_hook(lambda grad: grad * factor)
    return x


FAKES = {
    "tinycudann": fake_tinycudann,
    "tinycudann-mlp": fake_tinycudann,
    "nerfacc": fake_nerfacc,
    "nerfacc-march": fake_nerfacc,
}


def install(monkeypatch, name: str, library: ModuleType) -> None:
    """As the package that an accelerator of this name belongs to."""
    monkeypatch.setitem(sys.modules, name.partition("-")[0], library)


def layers_ref(rows: Tensor, weights: list[Tensor]) -> Tensor:
    """One matrix after the other, a ReLU in between."""
    *hidden, last = weights
    for weight in hidden:
        rows = torch.relu(rows @ weight.T)
    return rows @ last.T


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    accelerators.cache_clear()
    tcnn._encoding.cache_clear()
    tcnn._network.cache_clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [ImportError("none here"), OSError("no GPU"), RuntimeError("nvcc")])
def test_a_library_that_does_not_import_is_not_found(monkeypatch, name: str, error: Exception) -> None:
    def fail(_: str) -> ModuleType:
        raise error

    monkeypatch.setattr(module.importlib, "import_module", fail)
    assert probe_accelerator(name, CPU) == Accelerator(name, False, False, f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_right_numbers_are_accepted(monkeypatch, name: str) -> None:
    install(monkeypatch, name, FAKES[name]())
    found = probe_accelerator(name, CPU)
    assert (found.found, found.passed) == (True, True), found.reason
    assert "within" in found.reason


@pytest.mark.parametrize("name", NAMES[:3])  # test_nerfacc.py spoils the march, which has no gradients
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
    install(monkeypatch, name, FAKES[name](spoil))
    found = probe_accelerator(name, CPU)
    assert (found.found, found.passed) == (True, False)
    assert "over" in found.reason


@pytest.mark.parametrize("name", NAMES)
def test_a_library_that_fails_at_work_is_refused(monkeypatch, name: str) -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("CUDA_HOME is not set")

    install(monkeypatch, name, FAKES[name](fail))
    assert probe_accelerator(name, CPU).reason == "self-test failed: RuntimeError: CUDA_HOME is not set"
    tcnn._encoding.cache_clear()
    tcnn._network.cache_clear()
    install(monkeypatch, name, ModuleType(name))  # another version, without these functions
    assert "AttributeError" in probe_accelerator(name, CPU).reason


@pytest.mark.parametrize("name", NAMES)
def test_a_self_test_passes_where_gradients_are_off(monkeypatch, name: str) -> None:
    install(monkeypatch, name, FAKES[name]())
    with torch.no_grad():
        assert probe_accelerator(name, CPU).passed


@pytest.mark.parametrize("passed", [True, False])
def test_the_twin_serves_unless_the_self_test_passed(monkeypatch, passed: bool, generator) -> None:
    for name in NAMES:
        install(monkeypatch, name, FAKES[name](lambda x: 2 * x))  # so that one sees who answered
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

    rows = torch.rand(9, 32, generator=generator)
    weights = [torch.rand(16, 32, generator=generator), torch.rand(3, 16, generator=generator)]
    got = perceptron_cuda(rows, weights, lambda x: layers_ref(x, weights))
    torch.testing.assert_close(got, factor * layers_ref(rows, weights), rtol=1e-2, atol=0)

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
    for shapes in (
        [(3, 32)],
        [(64, 31), (3, 64)],
        [(48, 32), (3, 48)],
        [(64, 32), (17, 64)],
        [(64, 144), (3, 64)],
    ):
        weights = [torch.rand(shape, generator=generator) for shape in shapes]
        assert perceptron_cuda(torch.zeros(2, shapes[0][1]), weights, lambda _: "the twin's") == "the twin's"
    weights = [torch.zeros(16, 16), torch.zeros(3, 16)]
    assert perceptron_cuda(torch.zeros(0, 16), weights, lambda _: "the twin's") == "the twin's"
    none = torch.zeros(0)
    out = composite_cuda(none, torch.zeros(0, 3), none, none, torch.tensor([0, 0]))
    assert [tuple(x.shape) for x in out] == [(0,), (1, 3), (1,), (1,)]


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1.0, 1e6])
def test_gradients_of_any_size_pass_through_half_precision(monkeypatch, generator, size: float) -> None:
    install(monkeypatch, "tinycudann", fake_tinycudann())
    rows = torch.randn(2000, 32, generator=generator).requires_grad_()
    weights = [torch.rand(s, generator=generator).requires_grad_() for s in ((64, 32), (64, 64), (3, 64))]
    grad = size * torch.rand(2000, 3, generator=generator)
    leaves = [rows, *weights]
    got = torch.autograd.grad(tcnn.perceptron_tcnn(rows, weights), leaves, grad)
    expected = torch.autograd.grad(layers_ref(rows, weights), leaves, grad)
    for a, b in zip(got, expected, strict=True):  # a ReLU or two next to zero falls on its other side
        assert (a - b).norm() < 2e-2 * b.norm()
        assert a.dtype == torch.float32


@pytest.mark.parametrize("wanted", ["rows", "weights"])
def test_gradients_are_made_only_where_wanted(monkeypatch, generator, wanted: str) -> None:
    install(monkeypatch, "tinycudann", fake_tinycudann())
    rows = torch.rand(5, 16, generator=generator).requires_grad_(wanted == "rows")
    weights = [
        torch.rand(s, generator=generator).requires_grad_(wanted == "weights") for s in ((16, 16), (2, 16))
    ]
    requested, call = [], tcnn._call

    def watch(module: nn.Module, params: Tensor, inputs: Tensor) -> Tensor:
        requested.append([inputs.requires_grad, params.requires_grad])
        return call(module, params, inputs)

    monkeypatch.setattr(tcnn, "_call", watch)
    out = tcnn.perceptron_tcnn(rows, weights)
    out.sum().backward(retain_graph=True)
    out.sum().backward()
    assert requested == [[wanted == "rows", wanted == "weights"]]
    assert [leaf.grad is not None for leaf in (rows, *weights)] == [
        wanted == "rows",
        *2 * [wanted == "weights"],
    ]
    monkeypatch.setattr(tcnn, "_ScaledBackward", None)  # it keeps what a backward needs: not for images
    with torch.no_grad():
        assert not tcnn.perceptron_tcnn(rows, weights).requires_grad


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_cuda_nothing_is_probed() -> None:
    assert accelerators() == {n: Accelerator(n, False, False, "no CUDA device") for n in NAMES}


def test_training_on_a_cpu_imports_no_accelerator() -> None:
    code = """
import sys, fieldmorph.fields, torch
from fieldmorph.fields.cameras import Rays
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.rendering import render_rays
field, grid = make_field("hashgrid", aabb=(-1, -1, -1, 1, 1, 1)), OccupancyGrid(8)
grid.update(field, 0.01, torch.Generator())
d = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
render_rays(field, Rays(-2 * d, d), grid, 0.05, torch.ones(50, 3)).colors.sum().backward()
names = {"nerfacc", "tinycudann", "fieldmorph.fields.kernels.accelerators", "fieldmorph.fields.kernels.tcnn_backend"}
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
