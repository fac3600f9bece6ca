"""Measurements of a tensor with real indices, ordered for message passing; rows at the same place are merged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """Distinct places of the measurements with their weights and sums.

    Attributes:
        points: distinct coordinates of each mode, ascending.
        index: position of each place among each mode's points.
        weight, total: sums of the rows' weights, and of weight times value, at each place.
        rows: place of each row.
        n_rows: sum of all weights.
        squares: sum of weight times value squared over all rows.
        orders, starts: for each mode: point i has the places order[starts[i]:starts[i + 1]].
    """

    points: tuple[Float[Tensor, "_"], ...]
    index: Int[Tensor, "n modes"]
    weight: Float[Tensor, "n"]
    total: Float[Tensor, "n"]
    rows: Int[Tensor, "rows"]
    n_rows: float
    squares: float
    orders: tuple[Int[Tensor, "n"], ...]
    starts: tuple[Int[Tensor, "_"], ...]

    def subtract_mean(self, constant: float) -> "Entries":
        """Return the entries with a constant subtracted from every value."""
        squares = (
            self.squares - 2 * constant * float(self.total.sum()) + constant**2 * float(self.weight.sum())
        )
        return replace(self, total=self.total - constant * self.weight, squares=squares)


def merge_rows(
    coordinates: Float[Tensor, "rows modes"],
    values: Float[Tensor, "rows"],
    weights: Float[Tensor, "rows"] | None = None,
    known: Sequence[Float[Tensor, "_"]] | None = None,
) -> Entries:
    """Merge rows at the same place; a row of weight 1/2 counts as half a measurement.

    Args:
        coordinates: float64 or converted to it.
        values, weights: of each row; weights are 1 by default.
        known: coordinates of each mode that are to be among its points even if no row has them.
    """
    weights = torch.ones_like(values) if weights is None else weights
    columns = coordinates.double().unbind(1)
    known = [column[:0] for column in columns] if known is None else known
    points = tuple(torch.cat([more, column]).unique() for more, column in zip(known, columns, strict=True))
    found = [torch.searchsorted(at, column.contiguous()) for at, column in zip(points, columns, strict=True)]
    place = torch.zeros_like(found[0])
    for at, where in zip(points, found, strict=True):  # torch's own unique rows take half a kilobyte each
        place = (place * len(at) + where).unique(return_inverse=True)[1]
    index = torch.empty(int(place.max()) + 1, len(found), dtype=torch.long)
    index[place] = torch.stack(found, dim=1)
    weight, total = (
        values.new_zeros(len(index)).index_add_(0, place, x) for x in (weights, weights * values)
    )
    return Entries(
        points,
        index,
        weight,
        total,
        place,
        float(weights.sum()),
        float((weights * values.square()).sum()),
        *_by_point(index, [len(unique) for unique in points]),
    )


def _by_point(index: Tensor, sizes: list[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    orders = tuple(column.argsort(stable=True) for column in index.unbind(1))
    counts = [
        torch.bincount(column, minlength=size) for column, size in zip(index.unbind(1), sizes, strict=True)
    ]
    return orders, tuple(torch.cat([count.new_zeros(1), count.cumsum(0)]) for count in counts)
