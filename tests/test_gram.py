"""Sums of outer products by row: kernel, twin and straight loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels import gram as module
from fieldmorph.fields.kernels.gram import row_grams, row_grams_torch
from fieldmorph.fields.kernels.launch import set_threads

both = pytest.mark.parametrize("grams", [row_grams, row_grams_torch])


def inputs(n: int, rows: int, r: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, r, generator=generator), torch.randint(rows, (n,), generator=generator)


def grams_ref(vectors: Tensor, index: Tensor, rows: int) -> Tensor:
    """One sample and one pair of numbers at a time."""
    n, r = vectors.shape
    out = torch.zeros(rows, r, r, dtype=torch.float64)
    for s in range(n):
        for i in range(r):
            for j in range(r):
                out[index[s], i, j] += float(vectors[s, i]) * float(vectors[s, j])
    return out


@both
@pytest.mark.parametrize(("n", "rows", "r"), [(60, 7, 3), (40, 1, 4), (5, 50, 2), (30, 4, 1)])
def test_grams_match_the_reference(grams, n: int, rows: int, r: int) -> None:
    vectors, index = inputs(n, rows, r)
    got = grams(vectors, index, rows)
    torch.testing.assert_close(got.double(), grams_ref(vectors, index, rows), rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 700), st.integers(1, 40), st.integers(1, 17), st.integers(0, 99))
def test_kernel_and_twin_agree(n: int, rows: int, r: int, seed: int) -> None:
    vectors, index = inputs(n, rows, r, seed)
    exact = row_grams_torch(vectors.double(), index, rows)
    torch.testing.assert_close(row_grams(vectors, index, rows).double(), exact, rtol=1e-5, atol=1e-4)


@both
def test_rows_without_samples_are_zero_and_so_is_everything_of_none(grams) -> None:
    vectors, _ = inputs(3, 1, 2)
    got = grams(vectors, torch.tensor([4, 1, 4]), 6)
    assert got.flatten(1).any(1).tolist() == [False, True, False, False, True, False]
    nothing = grams(torch.empty(0, 3), torch.empty(0, dtype=torch.long), 5)
    assert nothing.shape == (5, 3, 3)
    assert not nothing.any()
    assert grams(torch.empty(0, 3), torch.empty(0, dtype=torch.long), 0).shape == (0, 3, 3)


@both
@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_is_refused(grams, row: int) -> None:
    with pytest.raises((IndexError, RuntimeError)):  # torch's own of a negative count is a RuntimeError
        grams(torch.ones(2, 2), torch.tensor([0, row]), 3)


def test_the_twin_in_parts_is_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, index = inputs(100, 5, 3)
    whole = row_grams_torch(vectors.double(), index, 5)
    monkeypatch.setattr(module, "OUTER_PRODUCTS", 70)  # 7 samples at a time
    torch.testing.assert_close(row_grams_torch(vectors.double(), index, 5), whole)


def test_many_samples_in_one_row_do_not_pile_up_rounding() -> None:
    vectors = torch.full((200_000, 2), 0.7)  # added one by one in float32 it would be off by a hundredth
    expected = 200_000 * float(vectors[0, 0]) ** 2
    got = row_grams(vectors, torch.zeros(200_000, dtype=torch.long), 1)
    torch.testing.assert_close(got, torch.full((1, 2, 2), expected), rtol=2e-6, atol=0)


def test_threads_do_not_matter() -> None:
    vectors, index = inputs(20_000, 300, 9)
    before = module.numba.get_num_threads()
    results = []
    try:
        for threads in (1, 2, before):
            set_threads(threads)
            results.append(row_grams(vectors, index, 300))
    finally:
        set_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_strided_and_trained_vectors_are_served() -> None:
    vectors, index = inputs(50, 6, 8)
    expected = row_grams_torch(vectors[:, ::2].contiguous(), index, 6)
    strided = vectors[:, ::2].requires_grad_()
    torch.testing.assert_close(row_grams(strided, index, 6), expected, rtol=0, atol=1e-5)


def test_float64_goes_to_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, index = inputs(50, 6, 4)
    launched = []
    monkeypatch.setattr(module, "launch", lambda *a: launched.append(a))
    got = row_grams(vectors.double(), index, 6)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, grams_ref(vectors, index, 6))
    assert not launched
    row_grams(vectors, index, 6)
    assert len(launched) == 1
