"""Measurements at real coordinates, read from tables and grids: CSV, Parquet, NetCDF, pandas and xarray."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.data.netcdf import read_grid
from fieldmorph.bayes.data.readers import open_source
from fieldmorph.bayes.data.tables import Rows, find_column, read_table
from fieldmorph.fields.errors import InputError, SettingError

log = logging.getLogger(__name__)

FEWEST = 3  # rows that a model can be fitted to
LARGEST = 1e100  # of a number: sums of their squares must be numbers


@dataclass(frozen=True)
class Observations:
    """Rows of measurements, float64. Repeated measurements of one place stay apart: their spread is the noise.

    Attributes:
        coordinates: `modes[k].format(coordinates[:, k])` writes them as the data did.
        value_unit: None where the data name none.
        dropped: rows (cells, in a grid) that were left out because something is missing.
        merged: rows left out because another has the same coordinates and the same value.
        source: where the rows are from.
    """

    coordinates: Float[Tensor, "n modes"]
    values: Float[Tensor, "n"]
    modes: tuple[Mode, ...]
    value_name: str
    value_unit: str | None
    dropped: int
    merged: int
    source: str


def read_observations(
    source: Any,
    modes: Sequence[str] | None = None,
    value: str | None = None,
    *,
    sample: int | None = None,
    generator: torch.Generator | None = None,
    to_fit: bool = True,
) -> Observations:
    """Measurements from a table or a grid.

    Rows in which a coordinate or the value is missing are left out. A row with the same coordinates and the same
    value as an earlier one is taken for the same measurement, written twice, and is left out, too; different values
    at one place are all kept. Both are counted, and logged as warnings.

    Args:
        source: a pandas DataFrame or Series, an xarray Dataset or DataArray, or the path of a .csv, .tsv (also .gz),
            .parquet or .nc file. A table's units stand in its headers, `temperature [K]` (then `temperature` names
            it), or in `DataFrame.attrs["units"]`, a dict by column, which Parquet keeps.
        modes: columns or variables that are coordinates. By default the latitude, longitude and time that a table
            has; of a grid, a coordinate for each dimension longer than 1.
        value: the measured one; needed if there are several.
        sample: draw so many of the rows that are not missing, without replacement; of a grid that does not fit into
            memory, too.
        generator: of the draw; by default one seeded with 0.
        to_fit: whether a model shall be fitted to them: three different rows are the least then, of several values at
            several places. To measure a model, or to teach it more, one row will do.

    Raises:
        InputError: data that cannot be used, named with the row (counted from 1, without the header).
        SettingError: names that contradict each other.
    """
    modes = [modes] if isinstance(modes, str) else modes
    if modes is not None and (not modes or len({*modes, value}) <= len(modes)):
        raise SettingError(f"modes and value must be different columns, got {', '.join(modes)} and {value}")
    if sample is not None and sample < FEWEST:
        raise SettingError(f"sample must be {FEWEST} or more, got {sample}")
    generator = generator or torch.Generator().manual_seed(0)
    label, opened = open_source(source)
    with opened as data:
        if isinstance(data, pd.DataFrame):
            rows = read_table(data, modes, value, label)
        else:
            rows = read_grid(data, modes, value, label, sample, generator)
    return _checked(rows, sample, generator, label, to_fit)


def read_points(source: Any, modes: Sequence[Mode]) -> Float[Tensor, "n modes"]:
    """The coordinates of a table's rows, by the rules by which those of the data were read."""
    label, opened = open_source(source)
    with opened as frame:
        if not isinstance(frame, pd.DataFrame):
            raise InputError(f"{label} is no table of points")
        points = [mode.parse(frame[find_column(frame, mode.name, label)]) for mode in modes]
    for mode, column in zip(modes, points, strict=True):
        if column.isnan().any():
            raise InputError(f"{label}: {mode.name}, row {int(column.isnan().int().argmax()) + 1}: missing")
    return torch.stack(points, dim=1)


def _checked(
    rows: Rows, sample: int | None, generator: torch.Generator, label: str, to_fit: bool
) -> Observations:
    """Without rows that stand there twice, if what is left can be used."""
    twice = pd.DataFrame(torch.cat([rows.coordinates, rows.values[:, None]], dim=1).numpy()).duplicated()
    merged = int(twice.sum())
    if rows.dropped:
        log.warning("%s: %d rows with missing values are left out", label, rows.dropped)
    if merged:
        log.warning(
            "%s: %d rows repeat the coordinates and the value of another and are left out", label, merged
        )
    keep = torch.from_numpy((~twice).to_numpy().nonzero()[0])
    if sample is not None and sample < len(keep):
        keep = keep[torch.randperm(len(keep), generator=generator)[:sample].sort().values]
    coordinates, values = rows.coordinates[keep], rows.values[keep]
    if to_fit and len(values) < FEWEST:
        raise InputError(
            f"{label}: {FEWEST} different rows are needed, without missing values; got {len(values)}"
        )
    if not len(values):
        raise InputError(f"{label} has no row without missing values")
    for name, column in zip(
        [*(m.name for m in rows.modes), rows.value_name], [*coordinates.T, values], strict=True
    ):
        if (largest := float(column.abs().max())) > LARGEST:
            raise InputError(f"{label}: {name} reaches {largest:g}; numbers up to {LARGEST:g} can be used")
    if to_fit and (values == values[0]).all():
        raise InputError(f"{label}: all values of {rows.value_name} are {values[0].item():g}")
    if to_fit and (coordinates == coordinates[0]).all():
        raise InputError(f"{label}: all rows are at one place")
    return Observations(
        coordinates, values, rows.modes, rows.value_name, rows.value_unit, rows.dropped, merged, label
    )
