"""Sums of outer products by row: the normal equations of a table's least squares, of all its rows at once."""

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.launch import launch

OUTER_PRODUCTS = 1 << 22  # numbers of them that the twin has in memory together
RUN = 256  # samples summed in float32 before their sum goes into the row's, in float64: rounding adds up otherwise


def row_grams(vectors: Float[Tensor, "n r"], index: Int[Tensor, "n"], rows: int) -> Float[Tensor, "rows r r"]:
    """Sum of `vectors[s] vectors[s]'` over the samples s of each row, index[s] in [0, rows).

    The numba kernel serves float32 on a CPU, without gradients; every other case takes the torch twin.

    Raises:
        IndexError: a row outside.
    """
    if vectors.device.type != "cpu" or vectors.dtype != torch.float32:
        return row_grams_torch(vectors, index, rows)
    order = index.argsort(stable=True)
    starts = torch.cat([index.new_zeros(1), torch.bincount(index, minlength=rows).cumsum(0)])
    if len(starts) != rows + 1:
        raise IndexError(f"rows must be below {rows}; got {int(index.max())}")
    grams = torch.zeros(rows, vectors.shape[1], vectors.shape[1])
    launch(_grams, *(x.detach().contiguous().numpy() for x in (vectors, order, starts)), grams.numpy())
    return grams


def row_grams_torch(
    vectors: Float[Tensor, "n r"], index: Int[Tensor, "n"], rows: int
) -> Float[Tensor, "rows r r"]:
    """The plain twin: any device, any dtype."""
    n, r = vectors.shape
    grams = vectors.new_zeros(rows, r, r)
    for part in torch.arange(n, device=vectors.device).split(max(1, OUTER_PRODUCTS // r**2)):
        z = vectors[part]
        grams.index_add_(0, index[part], z[:, :, None] * z[:, None, :])
    return grams


_OPTIONS: dict[str, Any] = {
    "parallel": True,
    "cache": True,
    "nogil": True,
    "fastmath": {"contract"},
    "error_model": "numpy",
}


@numba.njit(**_OPTIONS)
def _grams(vectors, order, starts, grams):
    # One row per task: its samples are summed in their order, so that threads neither race nor matter.
    r = vectors.shape[1]
    for row in numba.prange(len(starts) - 1):
        gram = np.zeros((r, r), np.float64)
        for first in range(starts[row], starts[row + 1], RUN):
            run = np.zeros((r, r), np.float32)
            for at in range(first, min(first + RUN, starts[row + 1])):
                s = order[at]
                for i in range(r):
                    scaled = vectors[s, i]
                    for j in range(r):
                        run[i, j] += scaled * vectors[s, j]
            gram += run
        grams[row] = gram
