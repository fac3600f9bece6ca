"""Alternating least squares for sums of products of tables, from scattered samples (Kolda & Bader 2009, section 3.4).

The model of channel c at sample s is the sum over blocks b and components r of

    basis[c, b r] * product over the block's factors f of table_f[index_f[s], r]

which is a vector-matrix decomposition where a block has a plane and a line, and CP where it has three lines. Every
step solves one table, row by row, or the basis, all else being fixed: a ridge regression.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.gram import row_grams

SYSTEMS = 4096  # linear systems that are solved together
ROUNDING = 100.0  # a matrix is off by so many units in the last place of its trace: sums of many samples


@dataclass(frozen=True)
class Factor:
    """A table, changed in place, and the row of it that each sample looks up."""

    table: Float[Tensor, "rows components"]
    index: Int[Tensor, "n"]

    def values(self) -> Float[Tensor, "n components"]:
        """The samples' rows."""
        return self.table[self.index]


@torch.no_grad()
def alternate(
    blocks: list[list[Factor]],
    basis: Float[Tensor, "channels components"],
    targets: Float[Tensor, "n channels"],
    *,
    sweeps: int,
    ridge: float,
    solve_basis: bool,
) -> list[float]:
    """Fit all tables, and the basis where asked to, in place; the mean squared error after each sweep.

    Args:
        blocks: each with as many components in every factor; the basis has their columns side by side.
        ridge: pull towards zero, in units of the mean diagonal of the normal equations' matrices; above 0.
    """
    sizes = [block[0].table.shape[1] for block in blocks]
    errors = []
    for _ in range(sweeps):
        products = [_product(block) for block in blocks]
        for b, (block, columns) in enumerate(zip(blocks, basis.split(sizes, dim=1), strict=True)):
            others = [
                p @ c.T
                for i, (p, c) in enumerate(zip(products, basis.split(sizes, 1), strict=True))
                if i != b
            ]
            rest = targets - sum(others) if others else targets
            for factor in block:
                fixed = _product([f for f in block if f is not factor])
                _solve_table(factor, fixed, columns, rest, ridge)
            products[b] = _product(block)
        design = torch.cat(products, dim=1)
        if solve_basis:
            basis.copy_(_ridge_solve((design.T @ design)[None], (design.T @ targets)[None], ridge)[0].T)
        residual = targets - design @ basis.T
        errors.append(float(residual.square().mean()))
    return errors


def _product(factors: list[Factor]) -> Tensor:
    values = factors[0].values()
    for factor in factors[1:]:
        values = values * factor.values()
    return values


def _solve_table(factor: Factor, fixed: Tensor, columns: Tensor, rest: Tensor, ridge: float) -> None:
    """Every row of one table: sum of (fixed fixed') * (columns' columns) against sum of fixed * (columns' rest)."""
    rows = len(factor.table)
    gram = row_grams(fixed, factor.index, rows) * (columns.T @ columns)
    moments = torch.zeros_like(factor.table)
    moments.index_add_(0, factor.index, fixed * (rest @ columns))
    factor.table.copy_(_ridge_solve(gram, moments[:, :, None], ridge)[:, :, 0])


def _ridge_solve(gram: Tensor, moments: Tensor, ridge: float) -> Tensor:
    """Solutions of many small systems; a row that no sample looks up comes out as 0."""
    diagonals = gram.diagonal(dim1=1, dim2=2)
    # A row with far more samples than the mean needs more, or rounding makes its matrix indefinite.
    pulls = ridge * diagonals.mean().clamp(min=1e-12) + ROUNDING * torch.finfo(
        gram.dtype
    ).eps * diagonals.sum(1)
    one = torch.eye(gram.shape[1], device=gram.device, dtype=torch.float64)
    solved = [
        torch.cholesky_solve(m.double(), torch.linalg.cholesky(g.double() + p.double()[:, None, None] * one))
        for g, m, p in zip(gram.split(SYSTEMS), moments.split(SYSTEMS), pulls.split(SYSTEMS), strict=True)
    ]
    return torch.cat(solved).to(gram.dtype)
