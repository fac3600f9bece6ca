"""Trilinear interpolation on a grid that keeps only some of its nodes, forward and backward.

A node is active or not, one bit each; the rows of active nodes stand in one table, in the order of their flat index
`(x n + y) n + z`. A node's row is the number of active nodes before it. Each 8-byte word describes 32 nodes: their
bits in its lower half, the number of active nodes before them in its upper half, so that one load and one
population count find a row. That is 2 bits per node, 34 MB at 512^3 where a dense index takes 537; at 128^3 it is
half a megabyte that stays in the L2 cache, where a dense index does not.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample, positions_along_rays
from fieldmorph.fields.kernels.launch import launch

CHUNK = 1024  # samples of one task of the gather
SPREAD = 16  # neighbouring tasks of the scatter are so many planes apart: full planes lie side by side
BYTE_COUNTS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)

BENCH_SIZES = ({"n_samples": 1 << 16, "resolution": 128, "fraction": 0.15},)


@dataclass(frozen=True)
class NodeGrid:
    """The active nodes of a cubic grid.

    Attributes:
        words: int64, one per 32 nodes: bits below, active nodes before them above.
        n_active: active nodes in all.
        nodes: per axis.
        scale: cells per length of the box; nodes may reach beyond it, at most one cell.
    """

    words: Int[Tensor, "words"]
    n_active: int
    nodes: int
    scale: float


def pack_mask(active: Bool[Tensor, "nodes"]) -> UInt8[Tensor, "bytes"]:
    """Return one bit per node, eight in a byte, the first in the lowest bit."""
    return torch.from_numpy(np.packbits(active.cpu().numpy(), bitorder="little"))


def unpack_mask(bits: UInt8[Tensor, "bytes"], n_nodes: int) -> Bool[Tensor, "nodes"]:
    """Return the first n_nodes bits of a packed mask."""
    flat = np.unpackbits(bits.cpu().numpy(), count=n_nodes, bitorder="little")
    return torch.from_numpy(flat.view(np.bool_))


def rank_words(bits: UInt8[Tensor, "bytes"]) -> tuple[Int[Tensor, "words"], int]:
    """Return the words of a packed mask, on the CPU, and how many nodes are active."""
    padded = np.zeros(-(-len(bits) // 4) * 4, np.uint8)
    padded[: len(bits)] = bits.cpu().numpy()
    counts = BYTE_COUNTS[padded].reshape(-1, 4).sum(1, dtype=np.int64)
    after = np.cumsum(counts)
    words = (after - counts) << 32 | padded.view("<u4").astype(np.int64)
    return torch.from_numpy(words), int(after[-1]) if len(after) else 0


def sparse_trilinear(
    positions: Float[Tensor, "n 3"], values: Float[Tensor, "rows features"], grid: NodeGrid, empty: float
) -> Float[Tensor, "n features"]:
    """Return trilinearly interpolated rows; an inactive node counts as `empty` in every column.

    Positions are relative to the box, [0, 1]^3; beyond it they are taken to its faces, and a nan to its lower ones.
    The numba kernel serves float32 on a CPU without gradients for the positions, the torch twin the rest.

    Args:
        positions: in [0, 1]^3, relative to the box.
        values: rows of the active nodes, in the order of their flat indices.
        grid: which nodes are active.
        empty: value of every column at an inactive node.

    Raises:
        ValueError: the table does not have a row for each active node.
    """
    if len(values) != grid.n_active:
        raise ValueError(f"{grid.n_active} active nodes need as many rows; got {len(values)}")
    if values.device.type == "cpu" and values.dtype == torch.float32 and not positions.requires_grad:
        result: Tensor = _SparseTrilinear.apply(positions, values, grid, empty)
        return result
    return sparse_trilinear_torch(positions, values, grid, empty)


def sparse_trilinear_torch(
    positions: Float[Tensor, "n 3"], values: Float[Tensor, "rows features"], grid: NodeGrid, empty: float
) -> Float[Tensor, "n features"]:
    """Return `sparse_trilinear` in plain torch: any device, any dtype, gradients for positions too."""
    out = positions.new_zeros(len(positions), values.shape[1]).to(values.dtype)
    if not len(values):
        return out + empty
    scaled = positions.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * grid.scale
    corner = scaled.detach().long().clamp(max=grid.nodes - 2)
    fraction = scaled - corner
    for c in range(8):
        offset = torch.tensor([c & 1, c >> 1 & 1, c >> 2 & 1], device=positions.device)
        weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1).to(values.dtype)
        x, y, z = (corner + offset).unbind(-1)
        row, active = find_rows((x * grid.nodes + y) * grid.nodes + z, grid)
        value = torch.where(active[:, None], values[row], torch.full_like(out[:1], empty))
        out = out + weight[:, None] * value
    return out


def find_rows(node: Int[Tensor, "n"], grid: NodeGrid) -> tuple[Int[Tensor, "n"], Bool[Tensor, "n"]]:
    """Return the rows of nodes by flat index, 0 where inactive; and whether they are active."""
    word, bit = grid.words[node >> 5], node & 31
    below = word & ((torch.ones_like(bit) << bit) - 1)
    active = (word >> bit & 1).bool()
    # Population count of 32 bits by halves, Hacker's Delight (Warren 2012), figure 5-2.
    below = below - (below >> 1 & 0x55555555)
    below = (below & 0x33333333) + (below >> 2 & 0x33333333)
    below = below + (below >> 4) & 0x0F0F0F0F
    below = (below * 0x01010101 & 0xFFFFFFFF) >> 24
    return torch.where(active, (word >> 32) + below, 0), active


def example(
    generator: torch.Generator, n_samples: int = 64, resolution: int = 8, fraction: float = 0.3
) -> KernelExample:
    """Return positions along rays in a ball of active nodes with 27 numbers each."""
    grid = ball_grid(resolution, fraction)
    values = torch.rand(grid.n_active, 27, generator=generator) - 0.5
    grad = torch.randn(n_samples, 27, generator=generator)
    positions = positions_along_rays(n_samples, generator)
    return KernelExample(
        f"sparse voxels {resolution}^3, {fraction:.0%} active, 27 numbers each",
        sparse_trilinear,
        sparse_trilinear_torch,
        lambda interpolate, leaves: interpolate(positions.to(leaves[0].dtype), *leaves, grid, -1.0),
        n_samples,
        (values,),
        (grad,),
    )


def ball_grid(resolution: int, fraction: float) -> NodeGrid:
    """Return a grid with this fraction of its nodes active, those nearest to its center.

    Args:
        resolution: nodes along each axis.
        fraction: of the nodes that are active.
    """
    radius = torch.cartesian_prod(*[torch.linspace(-1, 1, resolution)] * 3).norm(dim=-1)
    active = radius <= radius.kthvalue(max(1, round(fraction * resolution**3))).values
    return NodeGrid(*rank_words(pack_mask(active)), resolution, float(resolution - 1))


class _SparseTrilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, values: Tensor, grid: NodeGrid, empty: float) -> Tensor:
        positions = positions.detach().float().contiguous()
        ctx.save_for_backward(positions)
        ctx.grid, ctx.shape = grid, values.shape
        out = torch.empty(len(positions), values.shape[1])
        rows = values.detach().contiguous().numpy()
        launch(_gather, *_arguments(positions, grid), rows, np.float32(empty), out.numpy())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        arguments = _arguments(positions, ctx.grid)
        values_grad = torch.zeros(ctx.shape)
        order, starts = np.empty(len(positions), np.int32), np.zeros(ctx.grid.nodes + 1, np.int64)
        launch(_sort_by_plane, *arguments[:3], order, starts)
        launch(_scatter, *arguments, order, starts, grad.float().contiguous().numpy(), values_grad.numpy())
        return None, values_grad, None, None


def _arguments(positions: Tensor, grid: NodeGrid) -> tuple[Any, ...]:
    return positions.numpy(), np.float32(grid.scale), grid.nodes, grid.words.numpy().view(np.uint64)


_OPTIONS = {
    "parallel": True,
    "cache": True,
    "nogil": True,
    "fastmath": {"contract"},
    "error_model": "numpy",
}


@numba.njit(inline="always")
def _place(at, scale, nodes):
    """Return cell and fraction along one axis; the comparisons send a nan to 0 before it becomes an integer."""
    at = at if at > np.float32(0) else np.float32(0)
    at = at if at < np.float32(1) else np.float32(1)
    p = at * scale
    i = min(np.int64(p), nodes - 2)
    return i, p - np.float32(i)


@numba.njit(inline="always")
def row_of(node, words):
    """Return the row of a node by flat index, -1 where it is inactive."""
    word, bit = words[node >> 5], np.uint64(node & 31)
    if not (word >> bit) & np.uint64(1):
        return np.int64(-1)
    # LLVM knows this population count and takes the processor's own where there is one.
    v = word & ((np.uint64(1) << bit) - np.uint64(1))
    v = v - ((v >> np.uint64(1)) & np.uint64(0x5555555555555555))
    v = (v & np.uint64(0x3333333333333333)) + ((v >> np.uint64(2)) & np.uint64(0x3333333333333333))
    v = (v + (v >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    v = (v * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return np.int64((word >> np.uint64(32)) + v)


@numba.njit(**_OPTIONS)
def _gather(x, scale, nodes, words, values, empty, out):
    n, n_features = x.shape[0], values.shape[1]
    for task in numba.prange((n + CHUNK - 1) // CHUNK):
        row, weight = np.empty(8, np.int64), np.empty(8, np.float32)
        for i in range(task * CHUNK, min(n, (task + 1) * CHUNK)):
            ix, fx = _place(x[i, 0], scale, nodes)
            iy, fy = _place(x[i, 1], scale, nodes)
            iz, fz = _place(x[i, 2], scale, nodes)
            m, missing = 0, np.float32(0)
            for c in range(8):
                dx, dy, dz = c >> 2, (c >> 1) & 1, c & 1
                wx = fx if dx else np.float32(1) - fx
                wy = fy if dy else np.float32(1) - fy
                w = wx * wy * (fz if dz else np.float32(1) - fz)
                e = row_of(((ix + dx) * nodes + iy + dy) * nodes + iz + dz, words)
                if e < 0:
                    missing += w
                else:
                    row[m], weight[m] = e, w
                    m += 1
            if n_features == 1:
                total = missing * empty
                for k in range(m):
                    total += weight[k] * values[row[k], 0]
                out[i, 0] = total
            elif n_features == 27:  # a known width vectorises without a remainder loop
                for f in range(27):
                    out[i, f] = missing * empty
                for k in range(m):
                    e, w = row[k], weight[k]
                    for f in range(27):
                        out[i, f] += w * values[e, f]
            else:
                for f in range(n_features):
                    out[i, f] = missing * empty
                for k in range(m):
                    e, w = row[k], weight[k]
                    for f in range(n_features):
                        out[i, f] += w * values[e, f]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sort_by_plane(x, scale, nodes, order, starts):
    """Sort samples by their cell along x (a counting sort): those of cell k stand at starts[k] .. starts[k + 1]."""
    n = x.shape[0]
    for i in range(n):
        ix, _ = _place(x[i, 0], scale, nodes)
        starts[ix + 1] += 1
    for k in range(nodes):
        starts[k + 1] += starts[k]
    at = starts[:-1].copy()
    for i in range(n):
        ix, _ = _place(x[i, 0], scale, nodes)
        order[at[ix]] = i
        at[ix] += 1


@numba.njit(**_OPTIONS)
def _scatter(x, scale, nodes, words, order, starts, grad, out):
    # A task owns the nodes of one plane of x, whose rows are contiguous: it adds what the cells on both sides send
    # there. No race, no atomic, and one order of addition however many threads there are.
    n_features = out.shape[1]
    per_group = (nodes + SPREAD - 1) // SPREAD
    for task in numba.prange(SPREAD * per_group):
        plane = (task % per_group) * SPREAD + task // per_group
        if plane < nodes:
            for dx in range(2):
                if plane - dx >= 0:
                    for s in range(starts[plane - dx], starts[plane - dx + 1]):
                        i = order[s]
                        _, fx = _place(x[i, 0], scale, nodes)
                        iy, fy = _place(x[i, 1], scale, nodes)
                        iz, fz = _place(x[i, 2], scale, nodes)
                        wx = fx if dx else np.float32(1) - fx
                        for c in range(4):
                            dy, dz = c >> 1, c & 1
                            w = wx * (fy if dy else np.float32(1) - fy) * (fz if dz else np.float32(1) - fz)
                            e = row_of((plane * nodes + iy + dy) * nodes + iz + dz, words)
                            if e >= 0:
                                if n_features == 1:
                                    out[e, 0] += w * grad[i, 0]
                                elif n_features == 27:
                                    for f in range(27):
                                        out[e, f] += w * grad[i, f]
                                else:
                                    for f in range(n_features):
                                        out[e, f] += w * grad[i, f]
