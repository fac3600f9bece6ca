"""Measurements on grids: NetCDF files, xarray objects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.bayes.data.coordinates import kind_of, mode_of_variable
from fieldmorph.bayes.data.tables import Rows, listed, only
from fieldmorph.fields.errors import InputError


@dataclass(frozen=True)
class GridConfig:
    """Limits of what is read from a grid.

    Attributes:
        block: cells in memory at a time.
        max_cells: number of cells that become rows without a sample.
    """

    block: int = 1 << 22
    max_cells: int = 10_000_000


def read_grid(
    grid: Any,
    modes: Sequence[str] | None,
    value: str | None,
    label: str,
    sample: int | None,
    generator: torch.Generator,
    config: GridConfig | None = None,
) -> Rows:
    """Read the cells of one variable without missing values, or `sample` of them drawn without replacement.

    Args:
        modes, value, label, sample, generator: as in `read_observations`; `label` is the grid's name in messages.
        config: limits of what is read.

    Raises:
        InputError: variables that are missing, ambiguous or of other dimensions, bad values, or too large a grid.
    """
    config = config or GridConfig()
    bounds = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in grid.variables.values()}
    variables = {str(name): v for name, v in grid.variables.items() if name not in bounds}
    for name in (*(modes or ()), *([value] if value else ())):
        if name not in variables:
            raise InputError(f"{label} has no variable {name!r}; there are: {listed(variables)}")
    if value is None:
        known = [n for n, v in variables.items() if n in (modes or ()) or kind_of(n, v.attrs) != "number"]
        others = [n for n, v in variables.items() if n in grid.data_vars and n not in known]
        value = only([n for n in others if variables[n].ndim and _is_number(variables[n])], "variable", label)
    measured = variables[value]
    if not _is_number(measured):
        raise InputError(f"{label}: {value} holds no numbers")
    if sample is None and measured.size > config.max_cells:
        raise InputError(f"{label}: {value} has {measured.size:,} cells; draw some of them with sample")
    read, coordinates = [], []
    for name in modes or _modes_of(variables, value, label):
        variable = variables[name]
        if not set(variable.dims) <= set(measured.dims):
            raise InputError(f"{label}: {name} has other dimensions than {value}: {listed(measured.dims)}")
        column = variable.values.ravel()
        read.append(mode_of_variable(name, column, variable.attrs))
        coordinates.append(read[-1].parse(column).reshape(variable.shape))

    cells, values, missing = _finite_cells(measured, sample, generator, f"{label}: {value}", config.block)
    places = torch.unravel_index(cells, measured.shape)
    along = dict(zip(measured.dims, places, strict=True))
    columns = [
        c[tuple(along[dim] for dim in variables[mode.name].dims)].expand(len(cells))
        for mode, c in zip(read, coordinates, strict=True)
    ]
    points = torch.stack(columns, dim=1)
    whole = ~points.isnan().any(dim=1)
    return Rows(
        tuple(read),
        points[whole],
        values[whole],
        value,
        measured.attrs.get("units"),
        missing + int((~whole).sum()),
        measured.attrs.get("standard_name"),
    )


def _modes_of(variables: Mapping[str, Any], value: str, label: str) -> list[str]:
    """Return for each dimension longer than 1 its coordinate, or latitudes, longitudes and times along it."""
    measured, names = variables[value], list[str]()
    known = {
        name: set(v.dims)
        for name, v in variables.items()
        if name != value and set(v.dims) <= set(measured.dims) and kind_of(name, v.attrs) != "number"
    }
    for dim in (dim for dim, size in zip(measured.dims, measured.shape, strict=True) if size != 1):
        own = [dim] if dim in variables and not _is_text(variables[dim]) else []
        alone = [name for name, dims in known.items() if dims == {dim}]
        across = [name for name, dims in known.items() if dim in dims]
        found = [dim] if dim in known else alone or own or across
        if not found:
            raise InputError(
                f"{label}: dimension {dim} of {value} has no coordinates; name the modes among: "
                f"{listed(n for n in variables if n != value)}"
            )
        names += [name for name in found if name not in names]
    if not names:
        raise InputError(f"{label}: {value} is a single number")
    return names


def _is_number(variable: Any) -> bool:
    return variable.dtype.kind in "iuf"


def _is_text(variable: Any) -> bool:
    first = variable.values.ravel()[:1]
    return first.dtype.kind in "SUT" or (len(first) > 0 and isinstance(first[0], str))


def _finite_cells(
    variable: Any, sample: int | None, generator: torch.Generator, label: str, block_cells: int
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"], int]:
    """Return flat indices and values of finite cells, and the number of missing ones, block by block."""
    width = math.prod(variable.shape[1:])
    step = max(1, block_cells // max(width, 1))
    kept = [(torch.zeros(0, dtype=torch.int64), torch.zeros(0).double(), torch.zeros(0).double())]
    missing = 0
    for start in range(0, variable.shape[0], step) if variable.ndim else ():
        block = torch.from_numpy(np.array(variable[start : start + step].values, np.float64).ravel())
        if block.isinf().any():
            cell = start * width + int(block.isinf().int().argmax())
            raise InputError(f"{label}, cell {cell + 1}: infinite")
        held = (~block.isnan()).nonzero()[:, 0]
        missing += len(block) - len(held)
        keys = torch.rand(len(held) if sample else 0, generator=generator, dtype=torch.float64)
        kept.append((start * width + held, block[held], keys))
        if sample:  # reservoir sampling: the smallest random keys so far are a uniform draw
            cells, values, keys = (torch.cat(parts) for parts in zip(*kept, strict=True))
            best = keys.argsort()[:sample].sort().values
            kept = [(cells[best], values[best], keys[best])]
    cells, values, _ = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return cells, values, missing
