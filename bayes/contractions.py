"""Sums over a point's measurements of products of the other modes' moments, and symmetric matrices as vectors.

Symmetric matrices are packed: the upper triangle, row by row. A sum over a packed matrix times another packed one
counts every pair once, so one of the two has its off-diagonal entries doubled (`pack_sums`).
"""

from collections.abc import Iterator

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.launch import launch

PART = 1 << 20  # numbers of a part of the sums
AT_ONCE = 1 << 22  # numbers that the twin holds


def pack(matrix: Float[Tensor, "*batch r r"]) -> Float[Tensor, "*batch packed"]:
    """The upper triangle, row by row."""
    r = matrix.shape[-1]
    rows, columns = torch.triu_indices(r, r)
    return matrix[..., rows, columns]


def unpack_index(r: int) -> Int[Tensor, "r r"]:
    """Where each entry of an r x r matrix lies in its packed form."""
    index = torch.empty(r, r, dtype=torch.long)
    rows, columns = torch.triu_indices(r, r)
    index[rows, columns] = index[columns, rows] = torch.arange(len(rows))
    return index


def pack_sums(values: Float[Tensor, "pairs *rest"], r: int) -> Float[Tensor, "packed *rest"]:
    """From all r^2 pairs to packed ones, (i, j) and (j, i) summed."""
    packed = values.new_zeros(r * (r + 1) // 2, *values.shape[1:])
    return packed.index_add_(0, unpack_index(r).flatten(), values)


def product_sums(
    tables: list[Float[Tensor, "_ _"]],
    index: Int[Tensor, "n tables"],
    weight: Float[Tensor, "n"],
    order: Int[Tensor, "n"],
    starts: Int[Tensor, "_"],
    kronecker: bool,
) -> Iterator[tuple[slice, Float[Tensor, "some products"]]]:
    """For each point the weighted sum, over its places, of the product of the tables' rows there; part by part.

    Args:
        tables: of the other modes, in their order; float64.
        kronecker: all products of one entry from each, the last table's running fastest; else elementwise products.
    """
    widths = np.array([table.shape[1] for table in tables])
    most, n_points = int(widths.max()), len(starts) - 1
    width = int(widths.prod()) if kronecker else most
    stacked = torch.cat([torch.nn.functional.pad(t, (0, most - t.shape[1])) for t in tables])
    sizes = torch.tensor([0, *[len(t) for t in tables[:-1]]]).cumsum(0)
    arrays = [x.numpy() for x in (stacked, (index + sizes).contiguous(), weight, order)]
    step = max(1, PART // width)
    for first in range(0, n_points, step):
        last = min(first + step, n_points)
        out = stacked.new_empty(last - first, width)
        launch(_sum, *arrays, starts[first : last + 1].numpy(), out.numpy(), widths, kronecker)
        yield slice(first, last), out


def product_sums_torch(
    tables: list[Float[Tensor, "_ _"]],
    index: Int[Tensor, "n tables"],
    weight: Float[Tensor, "n"],
    order: Int[Tensor, "n"],
    starts: Int[Tensor, "_"],
    kronecker: bool,
) -> Float[Tensor, "points products"]:
    """The plain twin of `product_sums`, in one part."""
    point = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
    width = int(np.prod([t.shape[1] for t in tables])) if kronecker else tables[0].shape[1]
    out = tables[0].new_zeros(len(starts) - 1, width)
    for part, where in zip(
        order.split(max(1, AT_ONCE // width)), point.split(max(1, AT_ONCE // width)), strict=True
    ):
        product = weight[part, None]
        for table, column in zip(tables, index.unbind(1), strict=True):
            rows = table[column[part]]
            product = (product[:, :, None] * rows[:, None, :]).flatten(1) if kronecker else product * rows
        out.index_add_(0, where, product)
    return out


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def _sum(tables, rows, weight, order, starts, out, widths, kronecker):
    n_tables, last = len(widths), len(widths) - 1
    for point in numba.prange(len(starts) - 1):
        total = out[point]
        total[:] = 0.0
        product = np.empty(out.shape[1])
        for k in range(starts[point], starts[point + 1]):
            place = order[k]
            product[0] = weight[place]
            size = 1
            if not kronecker:
                size = widths[0]
                product[:] = weight[place]
            for t in range(n_tables):
                row = tables[rows[place, t]]
                if not kronecker:
                    for j in range(size):
                        product[j] *= row[j]
                elif t < last:
                    for i in range(size - 1, -1, -1):
                        factor = product[i]
                        for j in range(widths[t] - 1, -1, -1):
                            product[i * widths[t] + j] = factor * row[j]
                    size *= widths[t]
                else:  # straight into the sum
                    for i in range(size):
                        factor = product[i]
                        start = i * widths[t]
                        for j in range(widths[t]):
                            total[start + j] += factor * row[j]
            if not kronecker:
                for j in range(size):
                    total[j] += product[j]
