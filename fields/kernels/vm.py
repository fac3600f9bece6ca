"""Vector-matrix products of a low-rank field, forward and backward (Chen et al. 2022, TensoRF, eq. 5 and 11).

Every mode joins a plane over two axes with a line along the third, in TensoRF's order. Planes are interpolated
bilinearly, lines linearly; the outermost nodes lie on the faces of the box, and what lies beyond is clamped to them.
"""

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.fields.kernels.example import KernelExample, positions_along_rays
from fieldmorph.fields.kernels.launch import launch

PLANE_AXES = ((0, 1), (0, 2), (1, 2))  # columns, rows of each plane
LINE_AXES = (2, 1, 0)
CHUNK = 4096  # samples a task of the forward pass carries through one mode


BENCH_SIZES = ({"n_samples": 1 << 16, "resolution": 128, "n_components": 48},)


def vm_products(
    positions: Float[Tensor, "n 3"],
    planes: Float[Tensor, "3 resolution resolution components"],
    lines: Float[Tensor, "3 resolution components"],
) -> Float[Tensor, "n products"]:
    """Return plane times line for every component, modes side by side: (n, 3 * components).

    Positions lie in [0, 1]^3; `planes[m, row, column]` and `lines[m, node]` hold contiguous components. The numba
    kernel serves float32 on a CPU without gradients for the positions, the torch twin every other case.
    """
    if _served(positions, planes):
        result: Tensor = _VectorMatrix.apply(positions, planes, lines, 3 * lines.shape[2])
        return result
    return vm_products_torch(positions, planes, lines)


def vm_sum(
    positions: Float[Tensor, "n 3"],
    planes: Float[Tensor, "3 resolution resolution components"],
    lines: Float[Tensor, "3 resolution components"],
) -> Float[Tensor, "n"]:
    """Return the sum of `vm_products` over all modes and components, which are never written out."""
    if _served(positions, planes):
        result: Tensor = _VectorMatrix.apply(positions, planes, lines, 1)[:, 0]
        return result
    return vm_products_torch(positions, planes, lines).sum(-1)


def vm_products_torch(
    positions: Float[Tensor, "n 3"],
    planes: Float[Tensor, "3 resolution resolution components"],
    lines: Float[Tensor, "3 resolution components"],
) -> Float[Tensor, "n products"]:
    """Return `vm_products` in plain torch: any device, any dtype, gradients for positions too."""
    last = lines.shape[1] - 1
    at = torch.where(positions > 0, positions * last, 0.0).clamp(
        max=last
    )  # a nan becomes 0, as in the kernel
    low = at.detach().long().clamp(max=last - 1)
    fraction = (at - low).to(planes.dtype)
    products = []
    for mode, ((column, row), along) in enumerate(zip(PLANE_AXES, LINE_AXES, strict=True)):
        i, j, k = low[:, column], low[:, row], low[:, along]
        u, v, w = (fraction[:, axis, None] for axis in (column, row, along))
        near = (1 - u) * planes[mode, j, i] + u * planes[mode, j, i + 1]
        far = (1 - u) * planes[mode, j + 1, i] + u * planes[mode, j + 1, i + 1]
        line = (1 - w) * lines[mode, k] + w * lines[mode, k + 1]
        products.append(((1 - v) * near + v * far) * line)
    return torch.cat(products, dim=-1)


def vm_products_grid_sample(positions: Tensor, planes: Tensor, lines: Tensor) -> Tensor:
    """Return `vm_products` by torch's grid_sample; it reads channels-last grids no slower than its own layout."""
    x, y, z = (2 * positions - 1).unbind(-1)
    on_plane = torch.stack([torch.stack(pair, dim=-1) for pair in ((x, y), (x, z), (y, z))])
    on_line = torch.stack([torch.stack([torch.zeros_like(c), c], dim=-1) for c in (z, y, x)])
    plane = F.grid_sample(planes.permute(0, 3, 1, 2), on_plane[:, :, None], align_corners=True)
    line = F.grid_sample(lines.permute(0, 2, 1)[..., None], on_line[:, :, None], align_corners=True)
    return (plane * line)[..., 0].flatten(0, 1).t()


def example(
    generator: torch.Generator, n_samples: int = 64, resolution: int = 8, n_components: int = 4
) -> KernelExample:
    """Return positions along rays, and three planes and lines with `n_components` each."""
    planes = torch.rand(3, resolution, resolution, n_components, generator=generator) - 0.5
    lines = torch.rand(3, resolution, n_components, generator=generator) - 0.5
    grad = torch.randn(n_samples, 3 * n_components, generator=generator)
    positions = positions_along_rays(n_samples, generator)
    return KernelExample(
        f"vector-matrix {resolution}^3, 3 x {n_components} (torch: grid_sample)",
        vm_products,
        vm_products_torch,
        lambda products, leaves: products(positions.to(leaves[0].dtype), *leaves),
        n_samples,
        (planes, lines),
        (grad,),
        baseline=vm_products_grid_sample,
    )


def _served(positions: Tensor, planes: Tensor) -> bool:
    """Return whether the numba kernel takes these."""
    return planes.device.type == "cpu" and planes.dtype == torch.float32 and not positions.requires_grad


class _VectorMatrix(torch.autograd.Function):
    # `width` columns come out: 3 * components, or 1, the sum.

    @staticmethod
    def forward(ctx: Any, positions: Tensor, planes: Tensor, lines: Tensor, width: int) -> Tensor:
        positions = positions.detach().float().contiguous()
        planes, lines = planes.detach().contiguous(), lines.detach().contiguous()
        ctx.save_for_backward(positions, planes, lines)
        out = torch.empty(len(positions), width)
        launch(_forward, *(x.numpy() for x in (positions, planes, lines, out)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None]:
        positions, planes, lines = ctx.saved_tensors
        grads = torch.zeros_like(planes), torch.zeros_like(lines)
        inputs = (positions, planes, lines, grad.float().contiguous(), *grads)
        launch(_backward, *(x.numpy() for x in inputs))
        return None, *grads, None


_OPTIONS = {
    "parallel": True,
    "cache": True,
    "nogil": True,
    "fastmath": {"contract", "reassoc"},  # sums over components vectorise
    "error_model": "numpy",
}


@numba.njit(inline="always")
def _cell(x, last):
    """Return lower node and fraction of a coordinate in [0, 1]; a nan or what lies outside stays on the faces.

    The node is unsigned: numba wraps signed indices around, which costs a comparison each.
    """
    at = x * np.float32(last)
    at = at if at > np.float32(0) else np.float32(0)
    at = at if at < np.float32(last) else np.float32(last)
    low = min(np.int32(at), np.int32(last - 1))
    return np.uint32(low), at - np.float32(low)


@numba.njit(**_OPTIONS)
def _forward(x, planes, lines, out):
    n, last, n_components = x.shape[0], lines.shape[1] - 1, lines.shape[2]
    summed, one, up = out.shape[1] == 1, np.float32(1), np.uint32(1)
    for chunk in numba.prange((n + CHUNK - 1) // CHUNK):
        for mode in range(3):
            column, row, along = (1 if mode == 2 else 0), (1 if mode == 0 else 2), 2 - mode
            for s in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
                i, u = _cell(x[s, column], last)
                j, v = _cell(x[s, row], last)
                k, w = _cell(x[s, along], last)
                p00, p01 = planes[mode, j, i], planes[mode, j, i + up]
                p10, p11 = planes[mode, j + up, i], planes[mode, j + up, i + up]
                l0, l1 = lines[mode, k], lines[mode, k + up]
                w00, w01, w10, w11 = (one - v) * (one - u), (one - v) * u, v * (one - u), v * u
                w0 = one - w
                if summed:
                    total = np.float32(0)
                    for r in range(n_components):
                        plane = w00 * p00[r] + w01 * p01[r] + w10 * p10[r] + w11 * p11[r]
                        total += plane * (w0 * l0[r] + w * l1[r])
                    out[s, 0] = total if mode == 0 else out[s, 0] + total
                else:
                    products = out[s, mode * n_components : (mode + 1) * n_components]
                    for r in range(n_components):
                        plane = w00 * p00[r] + w01 * p01[r] + w10 * p10[r] + w11 * p11[r]
                        products[r] = plane * (w0 * l0[r] + w * l1[r])


@numba.njit(**_OPTIONS)
def _backward(x, planes, lines, grad, planes_grad, lines_grad):
    # A mode per task: disjoint grids, so no race, no atomic, and one order of addition. Several tasks per mode,
    # each with a part of the components, took twice as long: their rows are too short for vectors.
    n, last, n_components = x.shape[0], lines.shape[1] - 1, lines.shape[2]
    summed, one, up = grad.shape[1] == 1, np.float32(1), np.uint32(1)
    for mode in numba.prange(3):
        column, row, along = (1 if mode == 2 else 0), (1 if mode == 0 else 2), 2 - mode
        of_plane, of_line = np.empty(n_components, np.float32), np.empty(n_components, np.float32)
        for s in range(n):
            i, u = _cell(x[s, column], last)
            j, v = _cell(x[s, row], last)
            k, w = _cell(x[s, along], last)
            p00, p01 = planes[mode, j, i], planes[mode, j, i + up]
            p10, p11 = planes[mode, j + up, i], planes[mode, j + up, i + up]
            l0, l1 = lines[mode, k], lines[mode, k + up]
            w00, w01, w10, w11 = (one - v) * (one - u), (one - v) * u, v * (one - u), v * u
            w0 = one - w
            for r in range(n_components):
                of_plane[r] = w0 * l0[r] + w * l1[r]
            for r in range(n_components):
                of_line[r] = w00 * p00[r] + w01 * p01[r] + w10 * p10[r] + w11 * p11[r]
            if summed:
                for r in range(n_components):
                    of_plane[r] *= grad[s, 0]
                for r in range(n_components):
                    of_line[r] *= grad[s, 0]
            else:
                own = grad[s, mode * n_components : (mode + 1) * n_components]
                for r in range(n_components):
                    of_plane[r] *= own[r]
                for r in range(n_components):
                    of_line[r] *= own[r]
            _add(planes_grad[mode, j, i], w00, of_plane)
            _add(planes_grad[mode, j, i + up], w01, of_plane)
            _add(planes_grad[mode, j + up, i], w10, of_plane)
            _add(planes_grad[mode, j + up, i + up], w11, of_plane)
            _add(lines_grad[mode, k], w0, of_line)
            _add(lines_grad[mode, k + up], w, of_line)


@numba.njit(inline="always")
def _add(row, weight, values):
    for r in range(row.shape[0]):
        row[r] += weight * values[r]
