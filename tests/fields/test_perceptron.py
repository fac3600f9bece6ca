"""The perceptron against a straight line of matrix products."""

import pytest
import torch
from torch import Tensor

from fieldmorph.fields import perceptron, runtime
from fieldmorph.fields.kernels import accelerators
from fieldmorph.fields.perceptron import Perceptron

pytestmark = pytest.mark.numerical


@pytest.fixture(autouse=True)
def _float32_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "bf16_on_cpu", lambda: False)


def lively(seed: int = 0, **shape: int | bool | None) -> Perceptron:
    """Random weights and biases."""
    net = Perceptron(5, 4, **{"width": 8, "depth": 3, **shape})
    generator = torch.Generator().manual_seed(seed)
    net.reset_parameters(generator)
    with torch.no_grad():
        for layer in net.layers:
            if layer.bias is not None:
                layer.bias += 0.2 * torch.randn(layer.bias.shape, generator=generator)
    return net


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def skip_ref(net: Perceptron, x: Tensor) -> Tensor:
    """Three hidden layers of which the third sees the input again, after its own (NeRF, fig. 7)."""
    (w0, b0), (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in net.layers)
    h = (x @ w0.T + b0).clamp(min=0)
    h = (h @ w1.T + b1).clamp(min=0)
    own, again = w2[:, :8], w2[:, 8:]
    h = (h @ own.T + x @ again.T + b2).clamp(min=0)
    return h @ w3.T + b3


def test_skip_layer_sees_the_input_next_to_its_own() -> None:
    net = lively(skip=2).double()
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(8, 5), (8, 8), (8, 8 + 5), (4, 8)]
    x = inputs(7, 5).double()
    torch.testing.assert_close(net(x), skip_ref(net, x), rtol=1e-12, atol=1e-12)


def test_the_last_layer_can_be_the_one_that_skips() -> None:
    net = lively(skip=3).double()
    assert tuple(net.layers[3].weight.shape) == (4, 8 + 5)
    x = inputs(7, 5).double()
    h = x
    for layer in net.layers[:-1]:
        h = torch.relu(h @ layer.weight.T + layer.bias)
    expected = torch.cat([h, x], dim=-1) @ net.layers[3].weight.T + net.layers[3].bias
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


def test_a_worked_example_without_biases() -> None:
    net = Perceptron(2, 1, width=2, depth=1, bias=False)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.5]]))
        net.layers[1].weight.copy_(torch.tensor([[3.0, -4.0]]))
    # (1, 2): hidden relu(-1, 3) = (0, 3), out -12; (2, 1): (1, 4.5), out 3 - 18
    assert net(torch.tensor([[1.0, 2.0], [2.0, 1.0]])).tolist() == [[-12.0], [-15.0]]


@pytest.mark.parametrize("batch", [(0,), (0, 3), (3, 0), (), (2, 3)])
def test_batch_shapes_are_kept(batch: tuple[int, ...]) -> None:
    net, x = lively(skip=2), inputs(*batch, 5)
    out = net(x)
    assert out.shape == (*batch, 4)
    torch.testing.assert_close(out.reshape(-1, 4), net(x.reshape(-1, 5)))
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_bf16_stays_near_float32_and_returns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = lively(skip=2), inputs(500, 5)
    expected = net(x)
    monkeypatch.setattr(runtime, "bf16_on_cpu", lambda: True)
    out = net(x)
    assert out.dtype == torch.float32
    # bf16 rounds to 2^-8 relative; a few layers of width 8 add up to a few of that
    assert 0 < (out - expected).abs().max() < 2**-8 * 4 * expected.abs().max()
    exact = net.double()(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), expected)


@pytest.mark.parametrize(
    ("shape", "fused"),
    [
        ({"n_in": 32, "n_out": 16, "width": 64, "depth": 1}, True),
        ({"n_in": 48, "n_out": 3, "width": 128, "depth": 2}, True),
        ({"n_in": 32, "n_out": 16, "width": 64, "depth": 1, "bias": True}, False),
        ({"n_in": 32, "n_out": 3, "width": 64, "depth": 3, "skip": 2}, False),
        ({"n_in": 32, "n_out": 3, "width": 64, "depth": 3, "skip": 3}, False),
        ({"n_in": 31, "n_out": 3, "width": 64, "depth": 1}, False),
        ({"n_in": 144, "n_out": 3, "width": 64, "depth": 1}, False),
        ({"n_in": 32, "n_out": 3, "width": 48, "depth": 1}, False),
        ({"n_in": 32, "n_out": 3, "width": 256, "depth": 1}, False),
        ({"n_in": 32, "n_out": 17, "width": 64, "depth": 1}, False),
        ({"n_in": 32, "n_out": 16, "width": 64, "depth": 0}, False),
    ],
)
def test_on_cuda_the_fused_kernels_serve_the_shapes_they_come_in(
    monkeypatch: pytest.MonkeyPatch, shape: dict, fused: bool
) -> None:
    net = Perceptron(**{"bias": False, **shape})
    net.reset_parameters(torch.Generator().manual_seed(0))
    x = inputs(2, 3, shape["n_in"]).requires_grad_()
    expected = torch.autograd.grad(net(x).sum(), [x, *net.parameters()])
    # Twice the right values, so that one sees who answered.
    passed = {"tinycudann-mlp": accelerators.Accelerator("tinycudann-mlp", True, True, "")}
    monkeypatch.setattr(accelerators, "accelerators", lambda: passed)
    monkeypatch.setattr(accelerators, "perceptron_tcnn", lambda x, weights: 2 * layers_ref(x, weights))
    monkeypatch.setattr(perceptron, "_on_cuda", lambda rows: rows.dtype == torch.float32)
    out = net(x)
    assert out.shape == (2, 3, shape["n_out"])
    for got, grad in zip(torch.autograd.grad(out.sum(), [x, *net.parameters()]), expected, strict=True):
        torch.testing.assert_close(got, (2 if fused else 1) * grad)
    assert net.double()(x.double()).dtype == torch.float64  # which no library does


def layers_ref(rows: Tensor, weights: list[Tensor]) -> Tensor:
    """One matrix after the other, a ReLU in between."""
    for weight in weights[:-1]:
        rows = (rows @ weight.T).clamp(min=0)
    return rows @ weights[-1].T


def test_fresh_weights_are_he_uniform_with_zero_biases() -> None:
    net = Perceptron(50, 60, width=80, depth=2)
    net.reset_parameters(torch.Generator().manual_seed(0))
    # He et al. (2015): variance 2 / fan_in before a ReLU, 1 / fan_in before none; uniform reaches sqrt(3) of it
    for layer, (gain, fan_in) in zip(net.layers, [(2, 50), (2, 80), (1, 80)], strict=True):
        deviation = (gain / fan_in) ** 0.5
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert layer.weight.abs().max().item() == pytest.approx(3**0.5 * deviation, rel=0.01)
        assert not layer.bias.any()
