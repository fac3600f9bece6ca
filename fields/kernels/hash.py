"""Multiresolution hash encoding, forward and backward (Müller et al. 2022, section 3).

Indices and interpolation are tiny-cuda-nn's, in float32, so that its weights load bit for bit: a position
falls at `scale * x + 0.5` of its level. `hash_levels.py` has the shapes of the levels.
"""

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from numba.extending import intrinsic
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample, positions_along_rays
from fieldmorph.fields.kernels.hash_levels import HashLevels, hash_levels
from fieldmorph.fields.kernels.launch import launch

PRIMES = (1, 2654435761, 805459861)
BLOCK = 64  # samples whose indices and weights are computed together: that loop vectorises
CHUNK = 16384  # samples a task carries through one level, whose table stays in the L2 cache meanwhile


BENCH_SIZES = (
    {"n_samples": 1 << 16, "log2_hashmap_size": 15, "finest_resolution": 512},
    {"n_samples": 1 << 16, "log2_hashmap_size": 19, "finest_resolution": 2048},
)


def hash_encode_numba(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "entries features"], levels: HashLevels
) -> Float[Tensor, "n encoded"]:
    """Return what `hash_encode_torch` does, for float32 on a CPU without gradients for the positions."""
    result: Tensor = _HashEncode.apply(positions, table, levels)
    return result


def hash_encode_torch(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "entries features"], levels: HashLevels
) -> Float[Tensor, "n encoded"]:
    """Return `hash_encode` in plain torch: any device, any dtype, gradients for positions too."""
    encoded = []
    for level in range(len(levels.scales)):
        # float64 holds the product exactly, so one rounding follows, like fma(scale, x, 0.5).
        scaled = positions.double() * float(levels.scales[level]) + 0.5
        scaled = scaled.to(positions.dtype)
        corner = torch.floor(scaled.detach())
        fraction = scaled - corner
        features = torch.zeros(len(positions), table.shape[1], dtype=table.dtype, device=table.device)
        for c in range(8):
            offset = torch.tensor([c & 1, c >> 1 & 1, c >> 2 & 1], device=positions.device)
            index = _corner_index(corner.long() + offset, levels, level)
            weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1)
            features = features + weight[:, None].to(table.dtype) * table[index + int(levels.offsets[level])]
        encoded.append(features)
    return torch.cat(encoded, dim=-1)


def example(
    generator: torch.Generator, n_samples: int = 64, log2_hashmap_size: int = 13, finest_resolution: int = 64
) -> KernelExample:
    """Return positions along rays in a grid of 16 levels with 2 features each, which start at resolution 16."""
    levels = hash_levels(16, log2_hashmap_size, 16, (finest_resolution / 16) ** (1 / 15))
    table = torch.rand(levels.n_entries, 2, generator=generator) - 0.5
    grad = torch.randn(n_samples, 32, generator=generator)
    positions = positions_along_rays(n_samples, generator)
    return KernelExample(
        f"hash grid 2^{log2_hashmap_size}, finest {finest_resolution}",
        hash_encode_numba,
        hash_encode_torch,
        lambda encode, leaves: encode(positions, *leaves, levels),
        n_samples,
        (table,),
        (grad,),
    )


def _corner_index(corner: Tensor, levels: HashLevels, level: int) -> Tensor:
    """Return the table entries of integer corners (n, 3) within their level."""
    x, y, z = corner.unbind(-1)
    resolution = int(levels.resolutions[level])
    if levels.hashed[level]:
        index = (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & 0xFFFFFFFF
    else:
        index = x + y * resolution + z * resolution**2
    return index % int(levels.sizes[level])


class _HashEncode(torch.autograd.Function):
    # The kernels work level by level on the transposed features: a strided write of two floats per sample and
    # level costs more than the whole interpolation.

    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
        positions = positions.detach().float().contiguous()
        ctx.save_for_backward(positions)
        ctx.levels, ctx.n_features = levels, table.shape[1]
        columns = torch.empty(len(levels.scales) * table.shape[1], len(positions))
        launch(_gather, *_arguments(positions, levels), table.detach().contiguous().numpy(), columns.numpy())
        return columns.t().contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (positions,) = ctx.saved_tensors
        columns = grad.float().t().contiguous()
        table_grad = torch.zeros(ctx.levels.n_entries, ctx.n_features)
        launch(_scatter, *_arguments(positions, ctx.levels), columns.numpy(), table_grad.numpy())
        return None, table_grad, None


def _arguments(positions: Tensor, levels: HashLevels) -> tuple[np.ndarray, ...]:
    return (
        positions.numpy(),
        levels.scales,
        levels.resolutions,
        levels.sizes,
        levels.offsets,
        levels.hashed,
    )


_OPTIONS = {
    "parallel": True,
    "cache": True,
    "nogil": True,
    "fastmath": {"contract"},
    "error_model": "numpy",
}


@intrinsic
def _fma(_context, a, b, c):
    """Return a * b + c in float32, rounded once on every processor (`llvm.fma`; a library call without FMA)."""

    def generate(_context, builder, _signature, arguments):
        return builder.fma(*arguments)

    single = numba.types.float32
    return single(single, single, single), generate


@numba.njit(inline="always")
def _corners(x, lo, n, scale, resolution, size, offset, hashed, index, weight, cell, fraction):
    """Write entries and trilinear weights of the 8 corners of samples lo .. lo + n, in loops that vectorise."""
    half, one = np.float32(0.5), np.float32(1.0)
    mask, wrap, first = np.uint32(size - 1), np.uint32(size), np.uint32(offset)
    # A step along y or z, dense or hashed, is one product; only how the three are joined differs.
    step_y = np.uint32(2654435761) if hashed else np.uint32(resolution)
    step_z = np.uint32(805459861) if hashed else np.uint32(resolution * resolution)
    last = np.int32(resolution - 1)
    for i in range(n):
        # One rounding is part of the format: with two a fine level's positions would move by parts of a cell.
        px = _fma(scale, x[lo + i, 0], half)
        py = _fma(scale, x[lo + i, 1], half)
        pz = _fma(scale, x[lo + i, 2], half)
        # px >= 0, so truncation is floor; the bounds keep a nan or a stray position inside the table.
        ix = min(max(np.int32(px), np.int32(0)), last)
        iy = min(max(np.int32(py), np.int32(0)), last)
        iz = min(max(np.int32(pz), np.int32(0)), last)
        fraction[0, i] = px - np.float32(ix)
        fraction[1, i] = py - np.float32(iy)
        fraction[2, i] = pz - np.float32(iz)
        cell[0, i] = np.uint32(ix)
        cell[1, i] = np.uint32(np.uint32(iy) * step_y)
        cell[2, i] = np.uint32(np.uint32(iz) * step_z)
    for c in range(8):
        dx = np.uint32(c & 1)
        dy = np.uint32(((c >> 1) & 1) * step_y)
        dz = np.uint32(((c >> 2) & 1) * step_z)
        if hashed:
            for i in range(n):
                e = np.uint32(cell[0, i] + dx) ^ np.uint32(cell[1, i] + dy) ^ np.uint32(cell[2, i] + dz)
                index[c, i] = np.uint32(np.uint32(e & mask) + first)
        else:
            for i in range(n):
                e = np.uint32(cell[0, i] + cell[1, i] + cell[2, i] + dx + dy + dz)
                # The far faces reach one vertex past the grid; `% size` wraps them around (at most once).
                index[c, i] = np.uint32(np.uint32(e - wrap if e >= wrap else e) + first)
    for i in range(n):
        wx, wy, wz = fraction[0, i], fraction[1, i], fraction[2, i]
        ux, uy, uz = one - wx, one - wy, one - wz
        y0z0, y1z0, y0z1, y1z1 = uy * uz, wy * uz, uy * wz, wy * wz
        weight[0, i], weight[1, i] = ux * y0z0, wx * y0z0
        weight[2, i], weight[3, i] = ux * y1z0, wx * y1z0
        weight[4, i], weight[5, i] = ux * y0z1, wx * y0z1
        weight[6, i], weight[7, i] = ux * y1z1, wx * y1z1


@numba.njit(**_OPTIONS)
def _gather(x, scales, resolutions, sizes, offsets, hashed, table, out):
    n, n_levels, n_features = x.shape[0], scales.shape[0], table.shape[1]
    for task in numba.prange(n_levels * ((n + CHUNK - 1) // CHUNK)):
        chunk, level = task // n_levels, task % n_levels
        index, weight = np.empty((8, BLOCK), np.uint32), np.empty((8, BLOCK), np.float32)
        cell, fraction = np.empty((3, BLOCK), np.uint32), np.empty((3, BLOCK), np.float32)
        stop = min(n, (chunk + 1) * CHUNK)
        for lo in range(chunk * CHUNK, stop, BLOCK):
            m = min(BLOCK, stop - lo)
            _corners(
                x,
                lo,
                m,
                scales[level],
                resolutions[level],
                sizes[level],
                offsets[level],
                hashed[level],
                index,
                weight,
                cell,
                fraction,
            )
            if n_features == 2:  # the usual width, unrolled: twice as fast as the loop below
                for i in range(m):
                    f0, f1 = np.float32(0), np.float32(0)
                    for c in range(8):
                        e, w = index[c, i], weight[c, i]
                        f0 += w * table[e, 0]
                        f1 += w * table[e, 1]
                    out[2 * level, lo + i] = f0
                    out[2 * level + 1, lo + i] = f1
            else:
                for f in range(n_features):
                    for i in range(m):
                        total = np.float32(0)
                        for c in range(8):
                            total += weight[c, i] * table[index[c, i], f]
                        out[n_features * level + f, lo + i] = total


@numba.njit(**_OPTIONS)
def _scatter(x, scales, resolutions, sizes, offsets, hashed, grad, out):
    # One level per task: tables are disjoint, so there is no race, no atomic, and one order of addition.
    n, n_levels, n_features = x.shape[0], scales.shape[0], out.shape[1]
    half = (n_levels + 1) // 2
    for task in numba.prange(n_levels):
        # Fine levels cost more than coarse ones; odd after even shares them between two threads.
        level = 2 * task if task < half else 2 * (task - half) + 1
        index, weight = np.empty((8, BLOCK), np.uint32), np.empty((8, BLOCK), np.float32)
        cell, fraction = np.empty((3, BLOCK), np.uint32), np.empty((3, BLOCK), np.float32)
        for lo in range(0, n, BLOCK):
            m = min(BLOCK, n - lo)
            _corners(
                x,
                lo,
                m,
                scales[level],
                resolutions[level],
                sizes[level],
                offsets[level],
                hashed[level],
                index,
                weight,
                cell,
                fraction,
            )
            if n_features == 2:
                for i in range(m):
                    g0, g1 = grad[2 * level, lo + i], grad[2 * level + 1, lo + i]
                    for c in range(8):
                        e, w = index[c, i], weight[c, i]
                        out[e, 0] += w * g0
                        out[e, 1] += w * g1
            else:
                for f in range(n_features):
                    for i in range(m):
                        for c in range(8):
                            out[index[c, i], f] += weight[c, i] * grad[n_features * level + f, lo + i]
