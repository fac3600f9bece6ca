"""Normal equations by row and products of tables: kernels, twins and straight loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fieldmorph.fields.kernels import normal_equations as module
from fieldmorph.fields.kernels.launch import set_threads
from fieldmorph.fields.kernels.normal_equations import (
    normal_equations,
    normal_equations_torch,
    table_products,
    table_products_torch,
)

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]

Inputs = tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor, Tensor, Tensor]

equations = pytest.mark.parametrize("solve", [normal_equations, normal_equations_torch])


def inputs(n: int, rows: int, r: int, seed: int = 0) -> Inputs:
    """Three tables of 4, 5 and 6 rows, the rows of n samples, what they want, and which of `rows` rows owns them."""
    generator = torch.Generator().manual_seed(seed)
    tables = tuple(torch.randn(k, r, generator=generator) for k in (4, 5, 6))
    indices = tuple(torch.randint(k, (n,), generator=generator) for k in (4, 5, 6))
    owner = torch.randint(rows, (n,), generator=generator)
    starts = torch.cat([owner.new_zeros(1), torch.bincount(owner, minlength=rows).cumsum(0)])
    return tables, indices, torch.randn(n, r, generator=generator), owner.argsort(stable=True), starts


def equations_ref(given: Inputs) -> tuple[Tensor, Tensor]:
    """One sample and one pair of numbers at a time."""
    tables, indices, wanted, order, starts = given
    rows, r = len(starts) - 1, wanted.shape[1]
    grams, sums = (torch.zeros(rows, *shape, dtype=torch.float64) for shape in ((r, r), (r,)))
    for row in range(rows):
        for s in order[starts[row] : starts[row + 1]].tolist():
            z = [
                float(tables[0][indices[0][s], i] * tables[1][indices[1][s], i] * tables[2][indices[2][s], i])
                for i in range(r)
            ]
            for i in range(r):
                sums[row, i] += z[i] * float(wanted[s, i])
                for j in range(r):
                    grams[row, i, j] += z[i] * z[j]
    return grams, sums


@equations
@pytest.mark.parametrize(("n", "rows", "r"), [(60, 7, 3), (40, 1, 4), (5, 50, 2), (30, 4, 1), (0, 3, 2)])
def test_equations_match_the_reference(solve, n: int, rows: int, r: int) -> None:
    given = inputs(n, rows, r)
    for got, expected in zip(solve(*given), equations_ref(given), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 900), st.integers(1, 40), st.integers(1, 17), st.integers(0, 99))
def test_kernels_and_twins_agree(n: int, rows: int, r: int, seed: int) -> None:
    tables, indices, wanted, order, starts = inputs(n, rows, r, seed)
    exact = tuple(t.double() for t in tables)
    got = normal_equations(tables, indices, wanted, order, starts)
    expected = normal_equations_torch(exact, indices, wanted.double(), order, starts)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)
    columns = torch.randn(3, r, generator=torch.Generator().manual_seed(seed))
    products = table_products(tables, indices, columns)
    assert products.shape == (n, 3)
    twin = table_products_torch(exact, indices, columns.double())
    torch.testing.assert_close(products.double(), twin, rtol=1e-4, atol=1e-4)


@equations
def test_rows_without_samples_are_zero(solve) -> None:
    tables, indices, wanted, _, _ = inputs(3, 6, 2)
    grams, sums = solve(tables, indices, wanted, torch.tensor([1, 0, 2]), torch.tensor([0, 0, 1, 1, 1, 3, 3]))
    assert grams.flatten(1).any(1).tolist() == [False, True, False, False, True, False]
    assert sums.any(1).tolist() == [False, True, False, False, True, False]


@equations
def test_many_samples_in_one_row_do_not_pile_up_rounding(solve) -> None:
    n = 200_000  # added one by one in float32 they would be off by a hundredth
    tables, nothing = (torch.full((1, 2), 0.7), torch.ones(1, 2), torch.ones(1, 2)), torch.zeros(n).long()
    grams, sums = solve(tables, (nothing,) * 3, torch.ones(n, 2), torch.arange(n), torch.tensor([0, n]))
    value = float(tables[0][0, 0])
    torch.testing.assert_close(grams, torch.full((1, 2, 2), n * value**2), rtol=5e-6, atol=0)
    torch.testing.assert_close(sums, torch.full((1, 2), n * value), rtol=5e-6, atol=0)


class Operations(TorchDispatchMode):
    """Counts the operations that a device would run, and the numbers of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.count += 1
        sizes = [t.numel() for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


def test_the_twin_does_not_go_from_row_to_row() -> None:
    counts = []
    for rows in (2, 900):
        with Operations() as operations:
            normal_equations_torch(*inputs(2000, rows, 3))
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_the_twin_s_memory_is_bounded() -> None:
    given = inputs(5000, 9, 6)
    expected = normal_equations_torch(*given)
    with Operations() as operations:
        got = normal_equations_torch(*given, max_numbers=2000)
    assert operations.largest <= 5000  # all pieces at once would be 9 x 9 x 64 x 6 numbers
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("crowd", [0.0, 0.9])  # fraction of the samples that are the first row's
def test_many_rows_and_samples_are_the_kernel_s(crowd: float) -> None:
    generator = torch.Generator().manual_seed(0)
    n, rows, r = 300_000, 150_000, 4  # a product for each row took seconds
    tables = tuple(torch.randn(k, r, generator=generator) for k in (70, 80, 90))
    indices = tuple(torch.randint(k, (n,), generator=generator) for k in (70, 80, 90))
    owner = torch.randint(rows, (n,), generator=generator) * (torch.rand(n, generator=generator) >= crowd)
    starts = torch.cat([owner.new_zeros(1), torch.bincount(owner, minlength=rows).cumsum(0)])
    given = tables, indices, torch.randn(n, r, generator=generator), owner.argsort(stable=True), starts
    for a, b in zip(normal_equations_torch(*given), normal_equations(*given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-3)


def test_a_bad_number_stays_in_its_row() -> None:
    tables, indices, wanted, order, starts = inputs(50, 6, 2)
    wanted[order[starts[2]]] = torch.nan
    _, sums = normal_equations_torch(tables, indices, wanted, order, starts)
    assert sums.isnan().any(1).tolist() == [False, False, True, False, False, False]


def test_threads_do_not_matter() -> None:
    given = inputs(20_000, 300, 9)
    before = module.numba.get_num_threads()
    results = []
    try:
        for threads in (1, 2, before):
            set_threads(threads)
            results.append((*normal_equations(*given), table_products(*given[:2], torch.ones(2, 9))))
    finally:
        set_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_strided_and_trained_tables_are_served() -> None:
    tables, indices, wanted, order, starts = inputs(50, 6, 4)
    wide = tuple(torch.stack([t, t + 1], dim=-1).flatten(1)[:, ::2].requires_grad_() for t in tables)
    got = normal_equations(wide, indices, wanted, order, starts)
    for a, b in zip(got, normal_equations(tables, indices, wanted, order, starts), strict=True):
        assert torch.equal(a, b)


def test_float64_goes_to_the_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, indices, wanted, order, starts = inputs(50, 6, 4)
    launched = []
    monkeypatch.setattr(module, "launch", lambda *a: launched.append(a))
    exact = tuple(t.double() for t in tables)
    assert normal_equations(exact, indices, wanted.double(), order, starts)[0].dtype == torch.float64
    assert table_products(exact, indices, torch.ones(1, 4).double()).dtype == torch.float64
    assert not launched
    normal_equations(tables, indices, wanted, order, starts)
    assert len(launched) == 1
