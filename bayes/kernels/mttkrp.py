"""Matricized tensor times Khatri-Rao or Kronecker product (MTTKRP) for sparse tensors, as a numba kernel.

For each point of a mode it sums, over that point's measurements, weighted products of the other modes' moments; the
products are those of Kolda & Bader (2009), section 2.6.
"""

import math
from collections.abc import Iterator

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.launch import launch


def product_sums(
    tables: list[Float[Tensor, "_ _"]],
    index: Int[Tensor, "n tables"],
    weight: Float[Tensor, "n"],
    order: Int[Tensor, "n"],
    starts: Int[Tensor, "_"],
    kronecker: bool,
    max_numbers: int = 1 << 20,
) -> Iterator[tuple[slice, Float[Tensor, "some products"]]]:
    """Yield for each point the weighted sum, over its places, of the product of the tables' rows there.

    It comes in parts, slices of the points with their sums.

    Args:
        tables: moments of the other modes, in their order; float64.
        index: the row of each table at each place.
        weight: of each place.
        order, starts: point i has the places order[starts[i]:starts[i + 1]].
        kronecker: all products of one entry from each, the last table's running fastest; else elementwise products.
        max_numbers: that a part holds.
    """
    widths, n_points = [table.shape[1] for table in tables], len(starts) - 1
    width = math.prod(widths) if kronecker else widths[0]
    rows = tuple(table.contiguous().numpy() for table in tables)
    columns = tuple(column.numpy() for column in index.unbind(1))
    step = max(1, max_numbers // width)
    for first in range(0, n_points, step):
        last = min(first + step, n_points)
        out = tables[0].new_empty(last - first, width)
        arrays = (x.numpy() for x in (weight, order, starts[first : last + 1], out))
        launch(_sum, rows, columns, *arrays, kronecker)
        yield slice(first, last), out


def product_sums_torch(
    tables: list[Float[Tensor, "_ _"]],
    index: Int[Tensor, "n tables"],
    weight: Float[Tensor, "n"],
    order: Int[Tensor, "n"],
    starts: Int[Tensor, "_"],
    kronecker: bool,
    max_numbers: int = 1 << 22,
) -> Float[Tensor, "points products"]:
    """Return the sums of `product_sums` in one part, in plain torch."""
    point = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
    width = int(np.prod([t.shape[1] for t in tables])) if kronecker else tables[0].shape[1]
    out = tables[0].new_zeros(len(starts) - 1, width)
    n_places = max(1, max_numbers // width)
    for part, where in zip(order.split(n_places), point.split(n_places), strict=True):
        product = weight[part, None]
        for table, column in zip(tables, index.unbind(1), strict=True):
            rows = table[column[part]]
            product = (product[:, :, None] * rows[:, None, :]).flatten(1) if kronecker else product * rows
        out.index_add_(0, where, product)
    return out


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def _sum(tables, columns, weight, order, starts, out, kronecker):
    n_tables, last = len(tables), len(tables) - 1
    for point in numba.prange(len(starts) - 1):
        total = out[point]
        total[:] = 0.0
        product = np.empty(out.shape[1])
        for k in range(starts[point], starts[point + 1]):
            place = order[k]
            product[0] = weight[place]
            size = 1
            if not kronecker:
                size = tables[0].shape[1]
                product[:] = weight[place]
            for t in range(n_tables):
                row = tables[t][columns[t][place]]
                width = len(row)
                if not kronecker:
                    for j in range(size):
                        product[j] *= row[j]
                elif t < last:
                    for i in range(size - 1, -1, -1):
                        factor = product[i]
                        for j in range(width - 1, -1, -1):
                            product[i * width + j] = factor * row[j]
                    size *= width
                else:  # straight into the sum
                    for i in range(size):
                        factor = product[i]
                        start = i * width
                        for j in range(width):
                            total[start + j] += factor * row[j]
            if not kronecker:
                for j in range(size):
                    total[j] += product[j]
