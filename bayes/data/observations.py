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
from fieldmorph.bayes.data.netcdf import GridConfig, read_grid
from fieldmorph.bayes.data.readers import open_source
from fieldmorph.bayes.data.tables import Rows, read_table
from fieldmorph.fields.errors import InputError, SettingError

log = logging.getLogger(__name__)

MIN_ROWS = 3  # of a fit
MAX_VALUE = 1e100  # sums of squares must be finite


@dataclass(frozen=True)
class Observations:
    """Rows of measurements, float64. Repeated measurements of a place are separate rows; their spread is the noise.

    Attributes:
        coordinates: in the modes' units; `modes[k].format(coordinates[:, k])` writes them as the data did.
        value_unit: None if the data have none.
        dropped: number of rows (cells of a grid) that were left out because of missing values.
        merged: number of rows left out because another has the same coordinates and the same value.
        source: name of the file or of the type.
        standard_name: of the value in the CF conventions; None if the data have none.
    """

    coordinates: Float[Tensor, "n modes"]
    values: Float[Tensor, "n"]
    modes: tuple[Mode, ...]
    value_name: str
    value_unit: str | None
    dropped: int
    merged: int
    source: str
    standard_name: str | None = None


def read_observations(
    source: Any,
    modes: Sequence[str] | None = None,
    value: str | None = None,
    *,
    sample: int | None = None,
    generator: torch.Generator | None = None,
    to_fit: bool = True,
    grid: GridConfig | None = None,
) -> Observations:
    """Read measurements from a table or a grid.

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
        sample: number of rows to draw from those without missing values, without replacement. A grid need not fit into
            memory.
        generator: of the draw; by default one seeded with 0.
        to_fit: check that a model can be fitted to them: three different rows, more than one value and more than one
            place. To evaluate or update a model, one row is enough.
        grid: limits of what is read from a grid.

    Raises:
        InputError: data that cannot be used; the message names the row, counted from 1 without the header.
        SettingError: names that contradict each other.
    """
    modes = [modes] if isinstance(modes, str) else modes
    if modes is not None and (not modes or len({*modes, value}) <= len(modes)):
        raise SettingError(f"modes and value must be different columns, got {', '.join(modes)} and {value}")
    if sample is not None and sample < MIN_ROWS:
        raise SettingError(f"sample must be {MIN_ROWS} or more, got {sample}")
    generator = generator or torch.Generator().manual_seed(0)
    label, opened = open_source(source)
    with opened as data:
        if isinstance(data, pd.DataFrame):
            rows = read_table(data, modes, value, label)
        else:
            rows = read_grid(data, modes, value, label, sample, generator, grid)
    return _checked(rows, sample, generator, label, to_fit)


def _checked(
    rows: Rows, sample: int | None, generator: torch.Generator, label: str, to_fit: bool
) -> Observations:
    """Return rows without duplicates, after checks that they can be used."""
    duplicated = pd.DataFrame(torch.cat([rows.coordinates, rows.values[:, None]], dim=1).numpy()).duplicated()
    merged = int(duplicated.sum())
    keep = torch.from_numpy((~duplicated).to_numpy().nonzero()[0])
    if sample is not None and sample < len(keep):
        keep = keep[torch.randperm(len(keep), generator=generator)[:sample].sort().values]
    coordinates, values = rows.coordinates[keep], rows.values[keep]
    if to_fit and len(values) < MIN_ROWS:
        raise InputError(
            f"{label}: {MIN_ROWS} different rows are needed, without missing values; got {len(values)}"
        )
    if not len(values):
        raise InputError(f"{label} has no row without missing values")
    for name, column in zip(
        [*(m.name for m in rows.modes), rows.value_name], [*coordinates.T, values], strict=True
    ):
        if (largest := float(column.abs().max())) > MAX_VALUE:
            raise InputError(f"{label}: {name} reaches {largest:g}; numbers up to {MAX_VALUE:g} can be used")
    if to_fit and (values == values[0]).all():
        raise InputError(f"{label}: all values of {rows.value_name} are {values[0].item():g}")
    if to_fit and (coordinates == coordinates[0]).all():
        raise InputError(f"{label}: all rows are at one place")
    if rows.dropped:
        log.warning("%s: %d rows with missing values are left out", label, rows.dropped)
    if merged:
        log.warning(
            "%s: %d rows repeat the coordinates and the value of another and are left out", label, merged
        )
    return Observations(
        coordinates,
        values,
        rows.modes,
        rows.value_name,
        rows.value_unit,
        rows.dropped,
        merged,
        label,
        rows.standard_name,
    )
