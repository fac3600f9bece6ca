"""Sums of products of tables' rows: kernel, twin and straight loops."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.bayes.kernels.mttkrp import product_sums, product_sums_torch
from fieldmorph.fields.kernels.launch import set_threads

pytestmark = pytest.mark.numerical

Inputs = tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor, bool]


def whole_sums(*given, **options) -> Tensor:
    """All parts of the kernel's sums, one after the other."""
    parts = list(product_sums(*given, **options))
    assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]
    return torch.cat([sums for _, sums in parts])


both = pytest.mark.parametrize("sums", [whole_sums, product_sums_torch])
joined = pytest.mark.parametrize("kronecker", [True, False])


def inputs(n: int, points: int, widths: list[int], kronecker: bool, seed: int = 0) -> Inputs:
    """Tables of 3, 4, ... rows, the rows of n places, their weights, and which point owns them: every other none."""
    generator = torch.Generator().manual_seed(seed)
    widths = widths if kronecker else [widths[0]] * len(widths)
    tables = [
        torch.randn(3 + t, width, generator=generator, dtype=torch.float64) for t, width in enumerate(widths)
    ]
    index = torch.stack([torch.randint(len(t), (n,), generator=generator) for t in tables], dim=1)
    weight = torch.randn(n, generator=generator, dtype=torch.float64)
    owner = torch.randint((points + 1) // 2, (n,), generator=generator) * 2
    starts = torch.cat([owner.new_zeros(1), torch.bincount(owner, minlength=points).cumsum(0)])
    return tables, index, weight, owner.argsort(stable=True), starts, kronecker


def sums_ref(given: Inputs) -> Tensor:
    """One place and one product at a time; itertools.product lets the last run fastest."""
    tables, index, weight, order, starts, kronecker = given
    widths = [table.shape[1] for table in tables]
    columns = (
        list(itertools.product(*map(range, widths)))
        if kronecker
        else [(j,) * len(tables) for j in range(widths[0])]
    )
    out = torch.zeros(len(starts) - 1, len(columns), dtype=torch.float64)
    for point in range(len(out)):
        for place in order[starts[point] : starts[point + 1]].tolist():
            for c, chosen in enumerate(columns):
                product = [float(t[index[place, k], chosen[k]]) for k, t in enumerate(tables)]
                out[point, c] += float(weight[place]) * math.prod(product)
    return out


@both
@joined
@pytest.mark.parametrize("widths", [[3], [1], [2, 4], [4, 1], [2, 3, 2], [1, 3, 1], [2, 1, 3, 2]])
def test_sums_match_the_reference(sums, widths: list[int], kronecker: bool) -> None:
    given = inputs(23, 7, widths, kronecker)
    torch.testing.assert_close(sums(*given), sums_ref(given), rtol=1e-12, atol=1e-12)


@both
@joined
def test_points_without_places_get_zero(sums, kronecker: bool) -> None:
    found = sums(*inputs(30, 9, [2, 3, 2], kronecker))
    assert found[0::2].all()
    assert not found[1::2].any()
    nowhere = sums(*inputs(0, 4, [2, 3], kronecker))
    assert nowhere.shape == (4, 6 if kronecker else 2)
    assert not nowhere.any()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 300),
    st.integers(1, 40),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 999),
)
def test_kernel_and_twin_agree(n: int, points: int, widths: list[int], kronecker: bool, seed: int) -> None:
    given = inputs(n, points, widths, kronecker, seed)
    torch.testing.assert_close(whole_sums(*given), product_sums_torch(*given), rtol=1e-11, atol=1e-11)


@both
@joined
def test_sums_in_parts_are_the_whole(sums, kronecker: bool) -> None:
    given = inputs(50, 6, [2, 3], kronecker)
    whole = sums(*given)
    torch.testing.assert_close(sums(*given, max_numbers=20), whole, rtol=1e-13, atol=1e-13)


@joined
def test_threads_do_not_change_a_bit(kronecker: bool) -> None:
    given = inputs(400, 11, [3, 2, 2], kronecker)
    found = []
    for threads in (1, 2, 1):
        set_threads(threads)
        found.append(whole_sums(*given))
    set_threads(torch.get_num_threads())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@joined
def test_columns_left_out_of_an_index_will_do(kronecker: bool) -> None:
    """A view that is not contiguous."""
    tables, index, *rest = inputs(30, 5, [2, 2], kronecker)
    wide = torch.stack([index[:, 0], index[:, 0] * 0, index[:, 1]], dim=1)[:, ::2]
    assert not wide.is_contiguous()
    torch.testing.assert_close(whole_sums(tables, wide, *rest), whole_sums(tables, index, *rest))
