"""Measurements ordered for message passing: what their order and their repetition must not change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.bayes.entries import Entries, merge_rows

pytestmark = pytest.mark.numerical

problems = given(st.integers(1, 30), st.integers(2, 4), st.integers(1, 5), st.integers(0, 999))


def rows(n: int, modes: int, places: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates at few places of each mode, so that some rows have the same; values and weights."""
    generator = torch.Generator().manual_seed(seed)
    grid = 10 * torch.randn(modes, places, generator=generator, dtype=torch.float64)
    coordinates = torch.stack(
        [column[torch.randint(places, (n,), generator=generator)] for column in grid], dim=1
    )
    return (
        coordinates,
        torch.randn(n, generator=generator, dtype=torch.float64),
        0.1 + torch.rand(n, generator=generator, dtype=torch.float64),
    )


def same(a: Entries, b: Entries) -> None:
    """But for rounding of sums."""
    for first, second in zip(a.points + a.orders + a.starts, b.points + b.orders + b.starts, strict=True):
        assert torch.equal(first, second)
    assert torch.equal(a.index, b.index)
    for first, second in (
        (a.weight, b.weight),
        (a.total, b.total),
        (torch.tensor([a.n_rows, a.squares]), torch.tensor([b.n_rows, b.squares])),
    ):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_a_small_table_by_hand() -> None:
    coordinates = torch.tensor([[2.0, -1.0], [0.5, -1.0], [2.0, -1.0], [2.0, 7.0]])
    entries = merge_rows(coordinates, torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 1.0, 0.5, 2.0]))
    assert [p.tolist() for p in entries.points] == [[0.5, 2.0], [-1.0, 7.0]]
    assert entries.points[0].dtype == torch.float64
    assert entries.index.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert entries.weight.tolist() == [1.0, 1.5, 2.0]
    assert entries.total.tolist() == [2.0, 3.0, 16.0]
    assert (entries.n_rows, entries.squares) == (4.5, 1 + 4 + 8 + 128)
    assert [order.tolist() for order in entries.orders] == [[0, 1, 2], [0, 1, 2]]
    assert [starts.tolist() for starts in entries.starts] == [[0, 1, 3], [0, 2, 3]]


@settings(max_examples=30, deadline=None)
@problems
def test_every_row_is_where_it_was_and_sums_are_whole(n: int, modes: int, places: int, seed: int) -> None:
    coordinates, values, weights = rows(n, modes, places, seed)
    entries = merge_rows(coordinates, values, weights)
    at = torch.stack([p[i] for p, i in zip(entries.points, entries.index.unbind(1), strict=True)], dim=1)
    assert len(at.unique(dim=0)) == len(at)
    for place, weight, total in zip(at, entries.weight, entries.total, strict=True):
        mine = (coordinates == place).all(1)
        assert mine.any()
        torch.testing.assert_close(weight, weights[mine].sum())
        torch.testing.assert_close(total, (weights * values)[mine].sum())
    torch.testing.assert_close(entries.weight.sum(), weights.sum())
    for points, column in zip(entries.points, coordinates.unbind(1), strict=True):
        assert points.tolist() == sorted(set(column.tolist()))


@settings(max_examples=30, deadline=None)
@problems
def test_each_points_places_are_listed(n: int, modes: int, places: int, seed: int) -> None:
    entries = merge_rows(*rows(n, modes, places, seed))
    for mode, (order, starts) in enumerate(zip(entries.orders, entries.starts, strict=True)):
        assert len(starts) == len(entries.points[mode]) + 1
        assert sorted(order.tolist()) == list(range(len(entries.index)))
        for point in range(len(starts) - 1):
            mine = order[starts[point] : starts[point + 1]]
            assert len(mine) > 0
            assert (entries.index[mine, mode] == point).all()


@settings(max_examples=30, deadline=None)
@problems
def test_the_order_of_rows_does_not_matter(n: int, modes: int, places: int, seed: int) -> None:
    coordinates, values, weights = rows(n, modes, places, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    same(
        merge_rows(coordinates, values, weights),
        merge_rows(coordinates[order], values[order], weights[order]),
    )


@settings(max_examples=30, deadline=None)
@problems
def test_a_row_split_into_parts_of_its_weight_is_the_row(n: int, modes: int, places: int, seed: int) -> None:
    coordinates, values, weights = rows(n, modes, places, seed)
    twice = torch.cat([coordinates, coordinates]), torch.cat([values, values])
    parts = torch.cat([0.25 * weights, 0.75 * weights])
    same(merge_rows(coordinates, values, weights), merge_rows(*twice, parts))


@settings(max_examples=30, deadline=None)
@problems
def test_without_weights_each_row_counts_once(n: int, modes: int, places: int, seed: int) -> None:
    coordinates, values, _ = rows(n, modes, places, seed)
    entries = merge_rows(coordinates, values)
    same(entries, merge_rows(coordinates, values, torch.ones_like(values)))
    assert entries.n_rows == n


def test_zeros_of_either_sign_are_one_point() -> None:
    entries = merge_rows(torch.tensor([[0.0, 1.0], [-0.0, 1.0]]), torch.tensor([1.0, 3.0]))
    assert [len(p) for p in entries.points] == [1, 1]
    assert entries.total.tolist() == [4.0]


def test_known_coordinates_are_points_without_rows() -> None:
    known = [torch.tensor([0.0, 2.0]).double(), torch.tensor([1.0]).double()]
    entries = merge_rows(torch.tensor([[2.0, 5.0], [1.0, 5.0]]), torch.tensor([1.0, 3.0]), known=known)
    assert [p.tolist() for p in entries.points] == [[0.0, 1.0, 2.0], [1.0, 5.0]]
    assert entries.index.tolist() == [[1, 1], [2, 1]]
    assert [starts.tolist() for starts in entries.starts] == [[0, 0, 1, 2], [0, 0, 2]]
