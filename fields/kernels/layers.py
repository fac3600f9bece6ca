"""ReLU layers computed a block of rows at a time, forward and backward, so that a block stays in the cache.

torch's own layers write the values of each layer for all rows before the next one reads them. A few megabytes a layer
then pass through memory four times, which costs as much as the products themselves.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample

BLOCK_BYTES = 1 << 19  # of one layer's values in one block: a small second-level cache
BUCKETS = 16  # sizes of the last block: the CPU's matrix library prepares for each new size
BENCH_SIZES = ({"n_rows": 1 << 13, "width": 128, "depth": 4}, {"n_rows": 1 << 14, "width": 64, "depth": 2})


def layers_blocked(
    rows: Float[Tensor, "n n_in"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    skip: int | None,
    dtype: torch.dtype,
) -> Float[Tensor, "n n_out"]:
    """Return what `layers_torch` does, for tensors on a CPU; differentiable in rows, weights and biases."""
    inputs = (rows, *weights, *biases)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        result: Tensor = _Layers.apply(skip, dtype, len(weights), *inputs)
        return result
    return _forward(rows, weights, biases, skip, dtype, _blocks(len(rows), weights), keep=False)[0]


def layers_torch(
    rows: Float[Tensor, "n n_in"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    skip: int | None,
    dtype: torch.dtype,
) -> Float[Tensor, "n n_out"]:
    """Return the last layer's values, without an activation, in plain torch on any device.

    Args:
        rows: inputs.
        weights: of each layer, (n_out, n_in).
        biases: of each layer, (n_out,); none at all where layers have none.
        skip: index of the layer that sees the rows again, after its own input; or None.
        dtype: in which layers are computed; values are returned in that of the rows.
    """
    inputs = hidden = rows.to(dtype)
    for i, weight in enumerate(weights):
        hidden = torch.relu(hidden) if i else hidden
        hidden = torch.cat([hidden, inputs], dim=-1) if i == skip else hidden
        hidden = torch.nn.functional.linear(hidden, weight.to(dtype), biases[i].to(dtype) if biases else None)
    return hidden.to(rows.dtype)


def example(
    generator: torch.Generator, n_rows: int = 50, width: int = 16, depth: int = 3, skip: int | None = None
) -> KernelExample:
    """Return layers of one width with biases, from 32 numbers to 16."""
    widths = [32, *[width] * depth, 16]
    rows, leaves = torch.randn(n_rows, 32, generator=generator), []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        scale = (2 / n_in) ** 0.5
        leaves.append(scale * torch.randn(n_out, n_in + (32 if i == skip else 0), generator=generator))
    leaves += [0.1 * torch.randn(n, generator=generator) for n in widths[1:]]
    n = depth + 1
    # No gradient of the rows: where rounding turns a ReLU on or off, that of one row is another.
    return KernelExample(
        f"{n} layers, {width} wide",
        layers_blocked,
        layers_torch,
        lambda layers, at: layers(rows.to(at[0]), at[:n], at[n:], skip, at[0].dtype),
        n_rows,
        tuple(leaves),
        (torch.randn(n_rows, 16, generator=generator),),
    )


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, skip: int | None, dtype: torch.dtype, n_layers: int, rows: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.blocks = _blocks(len(rows), parameters[:n_layers])
        weights, biases = parameters[:n_layers], parameters[n_layers:]
        out, hidden = _forward(rows, weights, biases, skip, dtype, ctx.blocks, keep=True)
        ctx.skip, ctx.dtype, ctx.n_layers, ctx.n_inputs = skip, dtype, n_layers, 1 + len(parameters)
        ctx.save_for_backward(rows, *parameters, *hidden)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        n, saved = ctx.n_layers, ctx.saved_tensors
        inputs, hidden = saved[: ctx.n_inputs], saved[ctx.n_inputs :]
        rows, weights, biases = inputs[0], inputs[1 : n + 1], inputs[n + 1 :]
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted, which plain torch has
            out = layers_torch(rows, weights, biases, ctx.skip, ctx.dtype)
            wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
            return None, None, None, *(next(found) if need else None for need in needed)
        rows_grad, grads, bias_grads = _backward(
            grad, rows, weights, hidden, ctx.skip, ctx.dtype, ctx.blocks, needed[0]
        )
        return None, None, None, rows_grad, *grads, *bias_grads[: len(biases)]


def _forward(
    rows: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    skip: int | None,
    dtype: torch.dtype,
    blocks: Sequence[slice],
    keep: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Return the last layer's values and, where they are kept, those of the others, padded to whole blocks."""
    weights, biases = [w.detach().to(dtype) for w in weights], [b.detach().to(dtype) for b in biases]
    n_padded = blocks[-1].stop if blocks else 0
    values = [rows.new_empty(n_padded, len(w), dtype=dtype) for w in (weights if keep else weights[-1:])]
    for block in blocks:
        hidden = inputs = _padded(rows.detach(), block).to(dtype)
        for i, weight in enumerate(weights):
            last, own = i == len(weights) - 1, hidden.shape[1]
            kept = values[i if keep else 0][block] if keep or last else None
            target = hidden.new_empty(len(hidden), len(weight)) if kept is None else kept
            product = weight[:, :own].T
            if biases:
                torch.addmm(biases[i], hidden, product, out=target)
            else:
                torch.mm(hidden, product, out=target)
            if i == skip:
                target.addmm_(inputs, weight[:, own:].T)
            hidden = target if last else target.relu_()
    return values.pop()[: len(rows)].to(rows.dtype), values


def _backward(
    grad: Tensor,
    rows: Tensor,
    weights: Sequence[Tensor],
    hidden: Sequence[Tensor],
    skip: int | None,
    dtype: torch.dtype,
    blocks: Sequence[slice],
    rows_needed: bool,
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Return the gradients of the rows, where they are needed, of the weights and of the biases.

    Args:
        grad: of the last layer's values.
        rows, weights, skip, dtype: as for `layers_torch`.
        hidden: values of all layers but the last after their ReLU, as `_forward` keeps them.
        blocks: of rows, those of `_forward`: the number of threads may have changed since.
        rows_needed: whether the rows need a gradient.
    """
    products = [w.detach().to(dtype) for w in weights]
    grads = [torch.zeros_like(w) for w in weights]
    bias_grads = [w.new_zeros(len(w)) for w in weights]
    rows_grad = torch.zeros_like(rows) if rows_needed else None
    for block in blocks:
        inputs, g = (_padded(x.detach(), block).to(dtype) for x in (rows, grad))
        at_rows = torch.zeros_like(inputs) if rows_needed else None
        for i in reversed(range(len(weights))):
            before = hidden[i - 1][block] if i else inputs
            own = before.shape[1]
            _add_product(grads[i][:, :own], g.T, before)
            bias_grads[i] += g.sum(0)
            if i == skip:
                _add_product(grads[i][:, own:], g.T, inputs)
                if at_rows is not None:
                    at_rows.addmm_(g, products[i][:, own:])
            if i:
                g = g @ products[i][:, :own]
                torch.ops.aten.threshold_backward.grad_input(g, before, 0, grad_input=g)
            elif at_rows is not None:
                at_rows.addmm_(g, products[i])
        if rows_grad is not None and at_rows is not None:
            part = rows_grad[block]
            part.copy_(at_rows[: len(part)])
    return rows_grad, grads, bias_grads


def _blocks(n: int, weights: Sequence[Tensor]) -> list[slice]:
    """Return the blocks of n rows, the last one rounded up to one of few sizes."""
    widest = max(max(w.shape) for w in weights)
    size = max(BUCKETS, BLOCK_BYTES // (4 * widest) // BUCKETS * BUCKETS) * torch.get_num_threads()
    bucket = size // BUCKETS
    ends = [*range(size, n, size), -(-n // bucket) * bucket]
    return [slice(end - (end - 1) % size - 1, end) for end in ends] if n else []


def _padded(x: Tensor, block: slice) -> Tensor:
    """Return the rows of a block, zeros after the last one."""
    part = x[block]
    missing = block.stop - block.start - len(part)
    return torch.nn.functional.pad(part, (0, 0, 0, missing)) if missing else part


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product to a total that may be more precise than it."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
