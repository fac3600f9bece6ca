"""Total variation of the rows of a sparse grid: squared steps from active nodes to the next ones along each axis.

A step counts where both nodes are active. It belongs to the lower of them, so that the variation of all rows is the
sum over any parts.
"""

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample
from fieldmorph.fields.kernels.launch import launch
from fieldmorph.fields.kernels.voxels import NodeGrid, ball_grid, find_rows, row_of

CHUNK = 1024  # rows of one task
LOWER = 0xFFFFFFFF  # the half of a word that holds its bits

BENCH_SIZES = ({"resolution": 128, "fraction": 0.15},)


def total_variation(
    values: Float[Tensor, "rows features"], grid: NodeGrid, first: int, last: int
) -> Float[Tensor, ""]:
    """Return the sum of the squared steps that belong to the rows first .. last - 1, over all columns.

    The numba kernel serves float32 on a CPU, the torch twin the rest. Of a part of the rows the kernel's gradient is
    sparse: to add it to a dense one costs what its own rows do.

    Args:
        values: rows of the active nodes, in the order of their flat indices.
        grid: which nodes are active.
        first, last: the rows that count.

    Raises:
        ValueError: the table does not have a row for each active node.
    """
    if len(values) != grid.n_active:
        raise ValueError(f"{grid.n_active} active nodes need as many rows; got {len(values)}")
    if values.device.type == "cpu" and values.dtype == torch.float32 and first < last:
        result: Tensor = _TotalVariation.apply(values, grid, first, last)
        return result
    return total_variation_torch(values, grid, first, last)


def total_variation_torch(
    values: Float[Tensor, "rows features"], grid: NodeGrid, first: int, last: int
) -> Float[Tensor, ""]:
    """Return `total_variation` in plain torch: any device, any dtype."""
    row = torch.arange(first, last, device=values.device)
    node, n = find_nodes(row, grid), grid.nodes
    total = values.new_zeros(())
    for step in (n * n, n, 1):
        inside = node // step % n < n - 1
        after, active = find_rows(torch.where(inside, node + step, 0), grid)
        difference = values[after] - values[row]
        total = total + (difference.square() * (inside & active)[:, None]).sum()
    return total


def find_nodes(row: Int[Tensor, "n"], grid: NodeGrid) -> Int[Tensor, "n"]:
    """Return the flat indices of the nodes of rows, the inverse of `find_rows`."""
    word = (
        torch.searchsorted(grid.words, row << 32 | LOWER, right=True) - 1
    )  # the last that begins at the row or before
    bits, left = grid.words[word], row - (grid.words[word] >> 32)
    bit = torch.zeros_like(row)
    for width in (16, 8, 4, 2, 1):  # the wanted bit lies in the lower half, or beyond the ones counted there
        ones = sum(bits >> (bit + k) & 1 for k in range(width))
        beyond = left >= ones
        left, bit = left - ones * beyond, bit + width * beyond
    return word * 32 + bit


def example(generator: torch.Generator, resolution: int = 8, fraction: float = 0.3) -> KernelExample:
    """Return all rows of a ball of active nodes with 27 numbers each; the output is the mean over the numbers."""
    grid = ball_grid(resolution, fraction)
    values = torch.rand(grid.n_active, 27, generator=generator) - 0.5
    return KernelExample(
        f"total variation of voxels {resolution}^3, {fraction:.0%} active, 27 numbers each",
        total_variation,
        total_variation_torch,
        lambda variation, leaves: variation(*leaves, grid, 0, grid.n_active) / values.numel(),
        grid.n_active,
        (values,),
        (torch.ones(()),),
        items="nodes",
    )


class _TotalVariation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: NodeGrid, first: int, last: int) -> Tensor:
        words = grid.words.numpy()
        # The furthest neighbour is a plane away from somewhere in the last row's word.
        word = int(np.searchsorted(words, (last - 1) << 32 | LOWER, side="right")) + grid.nodes**2 // 32 + 1
        end = int(words[word] >> 32) if word < len(words) else grid.n_active
        grad = torch.empty(end - first, values.shape[1])
        sums = np.empty(-(-(end - first) // CHUNK))
        rows = values.detach().contiguous().numpy()
        launch(_vary, rows, words.view(np.uint64), grid.nodes, first, last, grad.numpy(), sums)
        ctx.first, ctx.shape = first, values.shape
        ctx.save_for_backward(grad)
        return values.new_tensor(sums.sum())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rows = ctx.saved_tensors[0] * grad
        if len(rows) < ctx.shape[0]:
            at = torch.arange(ctx.first, ctx.first + len(rows))[None]
            rows = torch.sparse_coo_tensor(at, rows, ctx.shape, is_coalesced=True, check_invariants=False)
        return rows, None, None, None


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _vary(values, words, nodes, first, last, grad, sums):
    # A task owns rows of the gradient and looks both ways along each axis: no race, and one order of addition.
    n_features, steps = values.shape[1], (nodes * nodes, nodes, 1)
    for task in numba.prange(len(sums)):
        row, stop = first + task * CHUNK, first + min(len(grad), (task + 1) * CHUNK)
        node, squares = _node_of(row, words), np.zeros(n_features, np.float32)
        after, before = np.empty(3, np.int64), np.empty(3, np.int64)
        while row < stop:
            while not words[node >> 5] >> np.uint64(node & 31) & np.uint64(1):
                node += 1 if words[node >> 5] & np.uint64(LOWER) else 32 - (node & 31)
            n_after = n_before = 0
            places = (node // (nodes * nodes), node // nodes % nodes, node % nodes)
            for axis in range(3):
                if row < last and places[axis] < nodes - 1:
                    after[n_after] = row_of(node + steps[axis], words)
                    n_after += after[n_after] >= 0
                if places[axis] > 0:
                    before[n_before] = row_of(node - steps[axis], words)
                    n_before += first <= before[n_before] < last
            own = grad[row - first]
            for f in range(n_features):
                own[f] = 0
            for k in range(n_after):
                other = after[k]  # by itself, or the loop would not vectorise
                for f in range(n_features):
                    step = values[row, f] - values[other, f]
                    own[f] += 2 * step
                    squares[f] += step * step
            for k in range(n_before):
                other = before[k]
                for f in range(n_features):
                    own[f] += 2 * (values[row, f] - values[other, f])
            row, node = row + 1, node + 1
        sums[task] = squares.sum()


@numba.njit(inline="always")
def _node_of(row, words):
    """Return a node at or before that of a row, by bisection, with no other row's between them."""
    low, high = 0, len(words) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if np.int64(words[middle] >> np.uint64(32)) <= row:
            low = middle
        else:
            high = middle - 1
    bits, node = words[low], low * 32
    for _ in range(row - np.int64(words[low] >> np.uint64(32))):
        while not bits & np.uint64(1):
            bits, node = bits >> np.uint64(1), node + 1
        bits, node = bits >> np.uint64(1), node + 1
    return node
