"""Symmetric matrices as vectors: the upper triangle, row by row.

A sum over a packed matrix times another packed one counts every pair once, so one of the two has its off-diagonal
entries doubled (`pack_sums`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pack(matrix: Float[Tensor, "*batch r r"]) -> Float[Tensor, "*batch packed"]:
    """Return the upper triangles, row by row; packed = r (r + 1) / 2."""
    r = matrix.shape[-1]
    rows, columns = torch.triu_indices(r, r)
    return matrix[..., rows, columns]


def unpack_index(r: int) -> Int[Tensor, "r r"]:
    """Return where each entry of an r x r matrix lies in its packed form: `packed[..., unpack_index(r)]`."""
    index = torch.empty(r, r, dtype=torch.long)
    rows, columns = torch.triu_indices(r, r)
    index[rows, columns] = index[columns, rows] = torch.arange(len(rows))
    return index


def pack_sums(values: Float[Tensor, "pairs *rest"], r: int) -> Float[Tensor, "packed *rest"]:
    """Return sums of the values of (i, j) and (j, i) as packed pairs, from those of all r^2 pairs."""
    packed = values.new_zeros(r * (r + 1) // 2, *values.shape[1:])
    return packed.index_add_(0, unpack_index(r).flatten(), values)
