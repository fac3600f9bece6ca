"""Sums of products of tables at scattered samples, and the normal equations of one table's least squares.

A sample looks up one row in each of three tables; z is the elementwise product of the three rows.
"""

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample
from fieldmorph.fields.kernels.launch import launch

RUN = 256  # samples of a task; or summed in float32 before their sum goes into the row's, in float64
PIECE = 64  # samples of a row that the twin multiplies at once
BENCH_SIZES = ({"n_samples": 1 << 16, "n_rows": 4096, "n_components": 16},)

Tables = tuple[Tensor, ...]  # three


def table_products(
    tables: Tables, indices: Tables, columns: Float[Tensor, "channels r"]
) -> Float[Tensor, "n channels"]:
    """Return `columns z` for every sample, z being the product of its three rows.

    The numba kernel serves float32 on a CPU, without gradients; every other case takes the torch twin.

    Args:
        tables: three tables, of (entries, r) each.
        indices: three of (n,): the row that each sample looks up in each table.
    """
    if not _served(columns):
        return table_products_torch(tables, indices, columns)
    out = torch.empty(len(indices[0]), len(columns))
    launch(_products, *_arrays(*tables, *indices, columns), out.numpy())
    return out


def table_products_torch(
    tables: Tables, indices: Tables, columns: Float[Tensor, "channels r"]
) -> Float[Tensor, "n channels"]:
    """Return `table_products` in plain torch: any device, any dtype."""
    return table_rows(tables, indices) @ columns.T


def normal_equations(
    tables: Tables,
    indices: Tables,
    wanted: Float[Tensor, "n r"],
    order: Int[Tensor, "n"],
    starts: Int[Tensor, "rows_and_one"],
) -> tuple[Float[Tensor, "rows r r"], Float[Tensor, "rows r"]]:
    """Return the sums of z z' and of z wanted (elementwise) over the samples of every row.

    Served as `table_products` is.

    Args:
        tables, indices: as `table_products` takes them.
        wanted: what the sum over components should give for each sample, before the sum.
        order, starts: row k owns the samples order[starts[k]:starts[k + 1]].
    """
    if not _served(wanted):
        return normal_equations_torch(tables, indices, wanted, order, starts)
    rows, r = len(starts) - 1, tables[0].shape[1]
    grams, sums = torch.empty(rows, r, r), torch.empty(rows, r)
    launch(_sum_rows, *_arrays(*tables, *indices, wanted, order, starts), grams.numpy(), sums.numpy())
    return grams, sums


def normal_equations_torch(
    tables: Tables,
    indices: Tables,
    wanted: Float[Tensor, "n r"],
    order: Int[Tensor, "n"],
    starts: Int[Tensor, "rows_and_one"],
    max_numbers: int = 1 << 24,
) -> tuple[Float[Tensor, "rows r r"], Float[Tensor, "rows r"]]:
    """Return `normal_equations` in plain torch: any device, any dtype.

    Rows are cut into pieces of equal length, the last of a row padded, for a batch of matrix products: a loop over rows
    would start two kernels each, and a product for each sample would not fit into memory.

    Args:
        max_numbers: that are held at a time, in addition to what is returned.
    """
    rows, r = len(starts) - 1, wanted.shape[1]
    pieces = -(-starts.diff() // PIECE)
    row = torch.repeat_interleave(torch.arange(rows, device=starts.device), pieces)
    number = torch.arange(len(row), device=starts.device) - (pieces.cumsum(0) - pieces)[row]  # within its row
    first, step = starts[row] + PIECE * number, torch.arange(PIECE, device=starts.device)
    # As the kernel: sums of few in the tables' precision, sums of these in float64.
    grams = wanted.new_zeros(rows, r, r, dtype=torch.float64)
    sums = wanted.new_zeros(rows, r, dtype=torch.float64)
    for part in torch.arange(len(row), device=starts.device).split(max(1, max_numbers // (r * (PIECE + r)))):
        at, end = first[part, None] + step, starts[row[part] + 1, None]
        sample = order[torch.minimum(at, end - 1)]
        z = table_rows(tables, tuple(index[sample] for index in indices)) * (at < end)[..., None]
        grams.index_add_(0, row[part], (z.mT @ z).double())
        sums.index_add_(0, row[part], (z * wanted[sample]).sum(1).double())
    return grams.to(wanted.dtype), sums.to(wanted.dtype)


def table_rows(tables: Tables, indices: Tables) -> Float[Tensor, "*n r"]:
    """Return z of every sample; plain torch, since it is written out anyway."""
    a, b, c = (table[index] for table, index in zip(tables, indices, strict=True))
    return a * b * c


def example(
    generator: torch.Generator, n_samples: int = 256, n_rows: int = 27, n_components: int = 4
) -> KernelExample:
    """Return samples that look up random rows; products with three columns, and the sums of every row."""
    table = torch.rand(n_rows, n_components, generator=generator)
    row = torch.randint(n_rows, (n_samples,), generator=generator)
    starts = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=n_rows).cumsum(0)])
    wanted = torch.rand(n_samples, n_components, generator=generator)
    indices = (row, row.roll(1), row.roll(2))
    return KernelExample(
        f"normal equations of {n_rows} rows, {n_components} components",
        _products_and_sums,
        _products_and_sums_torch,
        lambda sums, _: sums((table,) * 3, indices, wanted, row.argsort(), starts),
        n_samples,
    )


def _products_and_sums(
    tables: Tables, indices: Tables, wanted: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, ...]:
    sums = normal_equations(tables, indices, wanted, order, starts)
    return table_products(tables, indices, wanted[:3]), *sums


def _products_and_sums_torch(
    tables: Tables, indices: Tables, wanted: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, ...]:
    sums = normal_equations_torch(tables, indices, wanted, order, starts)
    return table_products_torch(tables, indices, wanted[:3]), *sums


def _served(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


_OPTIONS = {
    "parallel": True,
    "cache": True,
    "nogil": True,
    "fastmath": {"contract"},
    "error_model": "numpy",
}


@numba.njit(**{**_OPTIONS, "fastmath": {"contract", "reassoc"}})  # or the sums would not vectorise
def _products(a, b, c, at_a, at_b, at_c, columns, out):
    n, (n_channels, r) = len(at_a), columns.shape
    for task in numba.prange((n + RUN - 1) // RUN):
        z = np.empty(r, np.float32)
        for s in range(task * RUN, min(n, (task + 1) * RUN)):
            u, v, w = at_a[s], at_b[s], at_c[s]
            for i in range(r):
                z[i] = a[u, i] * b[v, i] * c[w, i]
            for channel in range(n_channels):
                total = np.float32(0)
                for i in range(r):
                    total += z[i] * columns[channel, i]
                out[s, channel] = total


@numba.njit(**_OPTIONS)
def _sum_rows(a, b, c, at_a, at_b, at_c, wanted, order, starts, grams, sums):
    # One row per task: its samples are summed in their order, so that threads neither race nor matter.
    r = a.shape[1]
    for row in numba.prange(len(starts) - 1):
        gram, total, z = np.zeros((r, r)), np.zeros(r), np.empty(r, np.float32)
        for first in range(starts[row], starts[row + 1], RUN):
            run, part = np.zeros((r, r), np.float32), np.zeros(r, np.float32)
            for at in range(first, min(first + RUN, starts[row + 1])):
                s = order[at]
                u, v, w = at_a[s], at_b[s], at_c[s]
                for i in range(r):
                    z[i] = a[u, i] * b[v, i] * c[w, i]
                for i in range(r):
                    zi = z[i]
                    part[i] += zi * wanted[s, i]
                    for j in range(r):
                        run[i, j] += zi * z[j]
            gram += run
            total += part
        grams[row] = gram
        sums[row] = total
