"""Products of three lines per component, forward and backward (Chen et al. 2022, TensoRF, eq. 2: CP decomposition).

Lines are interpolated linearly; the outermost nodes lie on the faces of the box, and what lies beyond is clamped to
them.
"""

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample, positions_along_rays
from fieldmorph.fields.kernels.launch import launch

CHUNK = 4096  # samples of a task of the forward pass
LANES = 32  # most components that a task of the backward pass owns


BENCH_SIZES = ({"n_samples": 1 << 16, "resolution": 500, "n_components": 96},)


def cp_products(
    positions: Float[Tensor, "n 3"], lines: Float[Tensor, "3 resolution components"]
) -> Float[Tensor, "n components"]:
    """Return the product of the lines along x, y and z for every component.

    Positions lie in [0, 1]^3; `lines[axis, node]` holds contiguous components. The numba kernel serves float32 on a
    CPU without gradients for the positions, the torch twin every other case.
    """
    if _served(positions, lines):
        result: Tensor = _LineProduct.apply(positions, lines, lines.shape[2])
        return result
    return cp_products_torch(positions, lines)


def cp_sum(
    positions: Float[Tensor, "n 3"], lines: Float[Tensor, "3 resolution components"]
) -> Float[Tensor, "n"]:
    """Return the sum of `cp_products` over all components, which are never written out."""
    if _served(positions, lines):
        result: Tensor = _LineProduct.apply(positions, lines, 1)[:, 0]
        return result
    return cp_products_torch(positions, lines).sum(-1)


def cp_products_torch(
    positions: Float[Tensor, "n 3"], lines: Float[Tensor, "3 resolution components"]
) -> Float[Tensor, "n components"]:
    """Return `cp_products` in plain torch: any device, any dtype, gradients for positions too."""
    last = lines.shape[1] - 1
    at = torch.where(positions > 0, positions * last, 0.0).clamp(
        max=last
    )  # a nan becomes 0, as in the kernel
    low = at.detach().long().clamp(max=last - 1)
    fraction = (at - low).to(lines.dtype)
    x, y, z = (
        torch.lerp(lines[axis, low[:, axis]], lines[axis, low[:, axis] + 1], fraction[:, axis, None])
        for axis in range(3)
    )
    return x * y * z


def example(
    generator: torch.Generator, n_samples: int = 64, resolution: int = 8, n_components: int = 4
) -> KernelExample:
    """Return positions along rays and three lines with `n_components` each."""
    lines = torch.rand(3, resolution, n_components, generator=generator) - 0.5
    grad = torch.randn(n_samples, n_components, generator=generator)
    positions = positions_along_rays(n_samples, generator)
    return KernelExample(
        f"three lines of {resolution}, {n_components} components",
        cp_products,
        cp_products_torch,
        lambda products, leaves: products(positions.to(leaves[0].dtype), *leaves),
        n_samples,
        (lines,),
        (grad,),
    )


def _served(positions: Tensor, lines: Tensor) -> bool:
    """Return whether the numba kernel takes these."""
    return lines.device.type == "cpu" and lines.dtype == torch.float32 and not positions.requires_grad


class _LineProduct(torch.autograd.Function):
    # `width` columns come out: one per component, or 1, the sum.

    @staticmethod
    def forward(ctx: Any, positions: Tensor, lines: Tensor, width: int) -> Tensor:
        positions, lines = positions.detach().float().contiguous(), lines.detach().contiguous()
        ctx.save_for_backward(positions, lines)
        out = torch.empty(len(positions), width)
        launch(_forward, *(x.numpy() for x in (positions, lines, out)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        positions, lines = ctx.saved_tensors
        lines_grad = torch.zeros_like(lines)
        launch(_backward, *(x.numpy() for x in (positions, lines, grad.float().contiguous(), lines_grad)))
        return None, lines_grad, None


_OPTIONS = {
    "parallel": True,
    "cache": True,
    "nogil": True,
    "fastmath": {"contract", "reassoc"},  # so that sums over components vectorise
    "error_model": "numpy",
}


@numba.njit(inline="always")
def _cell(x, last):
    """Return lower node and fraction of a coordinate in [0, 1]; a nan or what lies outside stays on the faces."""
    at = x * np.float32(last)
    at = at if at > np.float32(0) else np.float32(0)
    at = at if at < np.float32(last) else np.float32(last)
    low = min(np.int32(at), np.int32(last - 1))
    return low, at - np.float32(low)


@numba.njit(**_OPTIONS)
def _forward(x, lines, out):
    n, last, n_components = x.shape[0], lines.shape[1] - 1, lines.shape[2]
    summed, one = out.shape[1] == 1, np.float32(1)
    for chunk in numba.prange((n + CHUNK - 1) // CHUNK):
        for s in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            i, u = _cell(x[s, 0], last)
            j, v = _cell(x[s, 1], last)
            k, w = _cell(x[s, 2], last)
            a0, a1, b0, b1 = lines[0, i], lines[0, i + 1], lines[1, j], lines[1, j + 1]
            c0, c1 = lines[2, k], lines[2, k + 1]
            u0, v0, w0 = one - u, one - v, one - w
            if summed:
                total = np.float32(0)
                for r in range(n_components):
                    total += (u0 * a0[r] + u * a1[r]) * (v0 * b0[r] + v * b1[r]) * (w0 * c0[r] + w * c1[r])
                out[s, 0] = total
            else:
                products = out[s]
                for r in range(n_components):
                    plane = (u0 * a0[r] + u * a1[r]) * (v0 * b0[r] + v * b1[r])
                    products[r] = plane * (w0 * c0[r] + w * c1[r])


@numba.njit(**_OPTIONS)
def _backward(x, lines, grad, lines_grad):
    # A task owns a block of components: no race, no atomic, and one order of addition.
    n, last, n_components = x.shape[0], lines.shape[1] - 1, lines.shape[2]
    summed, one = grad.shape[1] == 1, np.float32(1)
    n_blocks = (n_components + LANES - 1) // LANES
    per_block = (n_components + n_blocks - 1) // n_blocks
    for block in numba.prange(n_blocks):
        a = block * per_block
        b = min(a + per_block, n_components)
        m = b - a
        fx, fy, fz = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
        g = np.empty(LANES, np.float32)
        for s in range(n):
            i, u = _cell(x[s, 0], last)
            j, v = _cell(x[s, 1], last)
            k, w = _cell(x[s, 2], last)
            u0, v0, w0 = one - u, one - v, one - w
            _line(lines[0, i, a:b], lines[0, i + 1, a:b], u0, u, fx)
            _line(lines[1, j, a:b], lines[1, j + 1, a:b], v0, v, fy)
            _line(lines[2, k, a:b], lines[2, k + 1, a:b], w0, w, fz)
            if summed:
                for r in range(m):
                    g[r] = grad[s, 0]
            else:
                own = grad[s, a:b]
                for r in range(m):
                    g[r] = own[r]
            _add(lines_grad[0, i, a:b], lines_grad[0, i + 1, a:b], u0, u, g, fy, fz)
            _add(lines_grad[1, j, a:b], lines_grad[1, j + 1, a:b], v0, v, g, fx, fz)
            _add(lines_grad[2, k, a:b], lines_grad[2, k + 1, a:b], w0, w, g, fx, fy)


@numba.njit(inline="always")
def _line(low, high, w0, w1, out):
    for r in range(low.shape[0]):
        out[r] = w0 * low[r] + w1 * high[r]


@numba.njit(inline="always")
def _add(low, high, w0, w1, grad, one_line, other_line):
    for r in range(low.shape[0]):
        low[r] += w0 * (grad[r] * one_line[r] * other_line[r])
    for r in range(low.shape[0]):
        high[r] += w1 * (grad[r] * one_line[r] * other_line[r])
