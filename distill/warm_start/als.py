"""Alternating least squares for sums of products of tables, from scattered samples (Kolda & Bader 2009, section 3.4).

The model of channel c at sample s is the sum over blocks b and components r of

    basis[c, b r] * product over the block's factors f of table_f[index_f[s], r]

which is a vector-matrix decomposition where a block has a plane and a line, and CP where it has three lines. Every
step solves one table, row by row, or the basis, all else being fixed: a ridge regression.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.normal_equations import normal_equations, table_products, table_rows

MAX_FACTORS = 3
SYSTEMS = 4096  # linear systems that are solved together
ROUNDING = 100.0  # a matrix is off by so many units in the last place of its trace: sums of many samples


@dataclass(frozen=True)
class Factor:
    """A table, changed in place, and the row of it that each sample looks up.

    Attributes:
        order, starts: row k owns the samples order[starts[k]:starts[k + 1]].
    """

    table: Float[Tensor, "rows components"]
    index: Int[Tensor, "n"]
    order: Int[Tensor, "n"] = field(init=False)
    starts: Int[Tensor, "rows_and_one"] = field(init=False)

    def __post_init__(self) -> None:
        ends = torch.bincount(self.index, minlength=len(self.table)).cumsum(0)
        object.__setattr__(self, "order", self.index.argsort(stable=True))
        object.__setattr__(self, "starts", torch.cat([ends.new_zeros(1), ends]))


@torch.no_grad()
def alternate(
    blocks: list[list[Factor]],
    basis: Float[Tensor, "channels components"],
    targets: Float[Tensor, "n channels"],
    *,
    sweeps: int,
    ridge: float,
    solve_basis: bool,
    floor: float = -torch.inf,
) -> list[float]:
    """Fit all tables, and the basis on request, in place, and return the mean squared error after each sweep.

    Args:
        blocks: each with as many components in every factor, at most three; the basis has their columns side by side.
        basis: weight of each component in each channel; changed where `solve_basis` is set.
        targets: the value of each channel at each sample.
        sweeps: updates of everything.
        ridge: strength of regularisation towards zero, in units of the mean diagonal of the normal equations'
            matrices; above 0.
        solve_basis: whether the basis is solved for, once per sweep.
        floor: targets at or below it may be undershot at no cost (a censored regression, by majorisation).
    """
    sizes = [block[0].table.shape[1] for block in blocks]
    low, errors = targets <= floor, []
    for _ in range(sweeps):
        columns = basis.split(sizes, dim=1)
        parts = [table_products(*_tables(block), c) for block, c in zip(blocks, columns, strict=True)]
        for b, (block, column) in enumerate(zip(blocks, columns, strict=True)):
            total = torch.stack(parts).sum(0)
            rest = torch.where(low, torch.minimum(total, targets), targets) - (total - parts[b])
            _solve_block(block, column, rest, ridge)
            parts[b] = table_products(*_tables(block), column)
        if solve_basis:
            design = torch.cat([table_rows(*_tables(block)) for block in blocks], dim=1)
            basis.copy_(_ridge_solve((design.T @ design)[None], (design.T @ targets)[None], ridge)[0].T)
            parts = [design @ basis.T]
        error = torch.stack(parts).sum(0) - targets
        errors.append(float(torch.where(low, error.clamp(min=0), error).square().mean()))
    return errors


def _solve_block(block: list[Factor], column: Tensor, rest: Tensor, ridge: float) -> None:
    """Solve each table of a block in turn: sum of z z' * (column' column) against sum of z * (column' rest)."""
    wanted, mixed = rest @ column, column.T @ column
    for factor in block:
        others = [other for other in block if other is not factor]
        gram, moments = normal_equations(*_tables(others), wanted, factor.order, factor.starts)
        factor.table.copy_(_ridge_solve(gram * mixed, moments[:, :, None], ridge)[:, :, 0])


def _tables(factors: list[Factor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return tables and indices, as many as the kernels take, those that are missing being ones."""
    first, missing = factors[0], MAX_FACTORS - len(factors)
    one, nothing = torch.ones_like(first.table[:1]), torch.zeros_like(first.index)
    tables, indices = [f.table for f in factors], [f.index for f in factors]
    return (*tables, *[one] * missing), (*indices, *[nothing] * missing)


def _ridge_solve(gram: Tensor, moments: Tensor, ridge: float) -> Tensor:
    """Return the solutions of many small systems; that of a row that no sample looks up is 0."""
    diagonals = gram.diagonal(dim1=1, dim2=2)
    # A row with far more samples than the mean needs more, or rounding makes its matrix indefinite.
    pulls = ridge * diagonals.mean().clamp(min=1e-12)
    pulls = pulls + ROUNDING * torch.finfo(gram.dtype).eps * diagonals.sum(1)
    one = torch.eye(gram.shape[1], device=gram.device, dtype=torch.float64)
    solved = [
        torch.cholesky_solve(m.double(), torch.linalg.cholesky(g.double() + p.double()[:, None, None] * one))
        for g, m, p in zip(gram.split(SYSTEMS), moments.split(SYSTEMS), pulls.split(SYSTEMS), strict=True)
    ]
    return torch.cat(solved).to(gram.dtype)
