"""tiny-cuda-nn's hash grid and fused perceptron, run on parameters that stay ours.

A module of the library holds its parameters in one flat tensor. Ours stand in for it at every call, so that there is
one copy and one gradient, and nothing to convert. `accelerators.py` decides whether any of this is used.
"""

import functools
import importlib
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fieldmorph.fields.kernels.hash_levels import HashLevels

WIDTHS = (16, 32, 64, 128)  # hidden layers that the fused kernels come in
LARGEST_IN, LARGEST_OUT = (
    128,
    16,
)  # wider inputs may not fit a block's memory; wider outputs take another kernel
GRAD_TOTAL = 256.0  # to which a batch's gradient is scaled, in half precision's range from 6e-8 to 65504

_ONE_CALLER = threading.Lock()  # modules are shared between fields, and hold one field's parameters at a time


def hash_encode_tcnn(positions: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    """Return `hash_encode` by the library's Encoding."""
    encoding = _encoding(tuple(levels.settings.items()), table.shape[1], str(table.device))
    return _call(encoding, table.reshape(-1), positions.float()).float()


def fits_tcnn(weights: Sequence[Tensor]) -> bool:
    """Return whether the fused kernels support layers of these weights, [out, in] each.

    Only inputs of a multiple of 16: what others are padded with has changed between versions of the library.
    """
    *hidden, last = weights
    widths = {len(weight) for weight in hidden}
    return (
        len(widths) == 1
        and widths < set(WIDTHS)
        and weights[0].shape[1] % 16 == 0
        and 0 < weights[0].shape[1] <= LARGEST_IN
        and len(last) <= LARGEST_OUT
    )


def perceptron_tcnn(rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return ReLU layers without biases, computed in half precision by the library's FullyFusedMLP, in float32.

    Gradients reach rows and weights, once: there is no gradient of a gradient.
    """
    *hidden, last = weights
    padded = torch.nn.functional.pad(
        last, (0, 0, 0, -len(last) % 16)
    )  # the library computes 16 outputs at a time
    params = torch.cat([weight.reshape(-1) for weight in (*hidden, padded)])
    network = _network(rows.shape[1], len(last), len(hidden[0]), len(hidden), str(rows.device))
    if torch.is_grad_enabled() and (rows.requires_grad or params.requires_grad):
        result: Tensor = _ScaledBackward.apply(rows, params, network)
        return result
    return _call(network, params, rows).float()


class _ScaledBackward(torch.autograd.Function):
    # Gradients of a mean over many samples lie below what half precision holds. The library's own remedy, a factor
    # of 128, comes after its first rounding and is not enough; here the whole batch's gradient is brought to one
    # size first. Bounding its sum, not its largest value, keeps sums over rows from overflowing.

    @staticmethod
    def forward(ctx: Any, rows: Tensor, params: Tensor, network: Any) -> Tensor:
        with torch.enable_grad():
            pairs = zip((rows, params), ctx.needs_input_grad, strict=False)
            ctx.leaves = [leaf.detach().requires_grad_(needed) for leaf, needed in pairs]
            ctx.outputs = _call(network, ctx.leaves[1], ctx.leaves[0])
        result: Tensor = ctx.outputs.detach().float()
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        total = grad.abs().sum().clamp(min=1e-30)
        scale = torch.exp2(torch.floor(torch.log2(GRAD_TOTAL / total)))  # a power of two rounds nothing
        needed = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        scaled = (grad * scale).to(ctx.outputs.dtype)
        found = iter(torch.autograd.grad(ctx.outputs, needed, scaled, retain_graph=True))
        rows, params = (next(found) / scale if leaf.requires_grad else None for leaf in ctx.leaves)
        return rows, params, None


def _call(module: Any, params: Tensor, inputs: Tensor) -> Tensor:
    with _ONE_CALLER:
        result: Tensor = torch.func.functional_call(module, {"params": params}, (inputs,))
        return result


@functools.lru_cache(maxsize=8)
def _encoding(settings: tuple[tuple[str, Any], ...], n_features: int, device: str) -> Any:
    tinycudann = importlib.import_module("tinycudann")
    config = {
        "otype": "HashGrid",
        "interpolation": "Linear",
        "n_features_per_level": n_features,
        **dict(settings),
    }
    with torch.device(device):
        return _emptied(tinycudann.Encoding(3, config, dtype=torch.float32), device)


@functools.lru_cache(maxsize=32)
def _network(n_in: int, n_out: int, width: int, depth: int, device: str) -> Any:
    tinycudann = importlib.import_module("tinycudann")
    config = {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": width,
        "n_hidden_layers": depth,
    }
    with torch.device(device):
        network = _emptied(tinycudann.Network(n_in, n_out, config), device)
    network.loss_scale = 1.0  # gradients come scaled already
    return network


def _emptied(module: Any, device: str) -> Any:
    """Return the module without its own parameters, whose memory would be wasted: the field's replace them."""
    module.params = torch.nn.Parameter(torch.empty(0, device=device))
    return module
