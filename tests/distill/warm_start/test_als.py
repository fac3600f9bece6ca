"""Alternating least squares: exact where a low-rank tensor is, each step a regression."""

import itertools

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.warm_start.als import Factor, alternate

pytestmark = pytest.mark.numerical

N = 7  # nodes per axis
SIZES = {"vm": (2, 3, 2), "cp": (4,)}  # components of each block
both = pytest.mark.parametrize("kind", SIZES)


def lattice(fraction: float = 0.7, seed: int = 0) -> Tensor:
    """Some of the nodes, some of them twice."""
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.tensor(list(itertools.product(range(N), repeat=3)))
    return nodes[torch.randint(N**3, (int(fraction * 2 * N**3),), generator=generator)]


def tables(kind: str, nodes: Tensor, seed: int, dtype: torch.dtype = torch.float64) -> list[list[Factor]]:
    """Random blocks: a plane and a line for each axis, or three lines."""
    generator = torch.Generator().manual_seed(seed)

    def table(rows: int, components: int) -> Tensor:
        return torch.randn(rows, components, generator=generator, dtype=dtype)

    if kind == "cp":
        return [[Factor(table(N, SIZES["cp"][0]), nodes[:, axis]) for axis in range(3)]]
    return [
        [
            Factor(table(N * N, r), nodes[:, axis - 1] * N + nodes[:, axis - 2]),
            Factor(table(N, r), nodes[:, axis]),
        ]
        for axis, r in enumerate(SIZES["vm"])
    ]


def model_ref(blocks: list[list[Factor]], basis: Tensor) -> Tensor:
    """The module's equation, component by component."""
    out = torch.zeros(len(blocks[0][0].index), len(basis), dtype=basis.dtype)
    column = 0
    for block in blocks:
        for r in range(block[0].table.shape[1]):
            product = torch.ones(len(out), dtype=basis.dtype)
            for factor in block:
                product = product * factor.table[factor.index, r]
            out += product[:, None] * basis[None, :, column]
            column += 1
    return out


def _all(blocks: list[list[Factor]]) -> list[Factor]:
    return list(itertools.chain(*blocks))


def problem(kind: str, channels: int, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, a basis and targets that a model with it has there, give or take noise."""
    nodes = lattice()
    generator = torch.Generator().manual_seed(5)
    basis = torch.randn(channels, sum(SIZES[kind]), generator=generator, dtype=torch.float64)
    targets = model_ref(tables(kind, nodes, seed=6), basis)
    return nodes, basis, targets + noise * torch.randn(targets.shape, generator=generator).double()


@both
@pytest.mark.parametrize(("channels", "solve_basis"), [(1, False), (5, False), (5, True)])
def test_a_low_rank_tensor_is_recovered(kind: str, channels: int, solve_basis: bool) -> None:
    nodes, basis, targets = problem(kind, channels)
    noise = torch.randn(basis.shape, generator=torch.Generator().manual_seed(8)).double()
    learned, given = tables(kind, nodes, seed=6), basis + 0.3 * noise * solve_basis
    for factor, other in zip(_all(learned), _all(tables(kind, nodes, seed=7)), strict=True):
        factor.table.add_(0.3 * other.table)  # from far away there are local minima
    errors = alternate(learned, given, targets, sweeps=60, ridge=1e-9, solve_basis=solve_basis)
    assert errors[0] > 1e-3 * targets.var()
    assert errors[-1] < 1e-4 * targets.var()
    error = (model_ref(learned, given) - targets).square().mean()
    assert float(error) == pytest.approx(errors[-1], rel=1e-6, abs=1e-12)


@both
@pytest.mark.parametrize("solve_basis", [False, True])
def test_error_never_grows(kind: str, solve_basis: bool) -> None:
    nodes, basis, targets = problem(kind, 3, noise=1.0)
    errors = alternate(
        tables(kind, nodes, seed=7), basis, targets, sweeps=20, ridge=1e-9, solve_basis=solve_basis
    )
    assert len(errors) == 20
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


@both
def test_the_last_table_is_a_ridge_regression_on_the_others(kind: str) -> None:
    nodes, basis, targets = problem(kind, 3, noise=1.0)
    blocks = tables(kind, nodes, seed=7)
    alternate(blocks, basis, targets, sweeps=1, ridge=0.1, solve_basis=False)
    *rest, block = blocks
    columns = basis[:, -block[0].table.shape[1] :]
    if rest:
        targets = targets - model_ref(rest, basis[:, : -columns.shape[1]])
    fixed = torch.stack([factor.table[factor.index] for factor in block[:-1]]).prod(0)
    table, index = block[-1].table, block[-1].index
    designs = [torch.cat([fixed[index == row] * c for c in columns]) for row in range(len(table))]
    mean = torch.stack([(d.T @ d).diagonal() for d in designs]).mean()
    pull = (0.1 * mean).sqrt() * torch.eye(table.shape[1], dtype=torch.float64)
    for row, design in enumerate(designs):
        wanted = targets[index == row].T.flatten()
        padded = torch.cat([wanted, wanted.new_zeros(len(pull))])[:, None]
        expected = torch.linalg.lstsq(torch.cat([design, pull]), padded).solution[:, 0]
        torch.testing.assert_close(table[row], expected, rtol=1e-8, atol=1e-10)


def test_the_basis_is_a_regression_on_the_products() -> None:
    nodes, basis, targets = problem("vm", 3, noise=1.0)
    blocks = tables("vm", nodes, seed=7)
    alternate(blocks, basis, targets, sweeps=2, ridge=1e-10, solve_basis=True)
    one = torch.eye(basis.shape[1], dtype=torch.float64)
    products = model_ref(blocks, one)
    expected = torch.linalg.lstsq(products, targets).solution.T
    torch.testing.assert_close(basis, expected, rtol=1e-5, atol=1e-7)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_without_samples_becomes_zero(kind: str, dtype: torch.dtype) -> None:
    nodes = lattice()
    nodes = nodes[nodes[:, 1] != 3]
    blocks = tables(kind, nodes, seed=7, dtype=dtype)
    targets = torch.randn(len(nodes), 2, dtype=dtype)
    alternate(
        blocks, torch.randn(2, sum(SIZES[kind]), dtype=dtype), targets, sweeps=2, ridge=0.03, solve_basis=True
    )
    unused = 0
    for factor in _all(blocks):
        looked_up = torch.zeros(len(factor.table), dtype=torch.bool)
        looked_up[factor.index] = True
        unused += int((~looked_up).sum())
        assert not factor.table[~looked_up].any()
        assert factor.table[looked_up].abs().sum(1).all()
    assert unused == (1 if kind == "cp" else 1 + 2 * N)


def test_more_samples_in_one_row_than_anywhere_else_are_solved() -> None:
    """A matrix of rank 1, a thousand times the mean: rounding alone must not make it indefinite."""
    generator = torch.Generator().manual_seed(0)
    n, r = 100_000, 16
    crowd = torch.rand(n, generator=generator) < 0.95
    index = torch.where(crowd, 0, torch.randint(5000, (n,), generator=generator))
    other = torch.where(crowd, 0, torch.randint(50, (n,), generator=generator))
    block = [
        Factor(torch.randn(rows, r, generator=generator), at) for rows, at in ((5000, index), (50, other))
    ]
    targets = torch.randn(n, 1, generator=generator) + 2
    errors = alternate([block], torch.ones(1, r), targets, sweeps=2, ridge=0.03, solve_basis=False)
    assert errors[-1] < 1.2
    assert all(factor.table.isfinite().all() for factor in block)


def test_equal_inputs_give_equal_tables() -> None:
    nodes, basis, targets = problem("vm", 3, noise=1.0)
    results = []
    for _ in range(2):
        blocks, learned = tables("vm", nodes, seed=7, dtype=torch.float32), basis.float()
        alternate(blocks, learned, targets.float(), sweeps=3, ridge=0.03, solve_basis=True)
        results.append([learned, *(factor.table for factor in _all(blocks))])
    assert all(map(torch.equal, *results))
