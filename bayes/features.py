"""Columns of a regressor's X as coordinates: dates as seconds, xarray objects as tables of their cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldmorph.bayes.data.coordinates import Mode, mode_of, mode_of_variable
from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.data.tables import listed
from fieldmorph.fields.errors import InputError


@dataclass(frozen=True)
class Features:
    """X as scikit-learn takes it.

    Attributes:
        columns: numbers, a DataFrame or what was given.
        modes: of its columns; None where all are numbers without a name.
        cells: the cells that the rows are, as an xarray DataArray; None for tables.
    """

    columns: Any
    modes: tuple[Mode, ...] | None = None
    cells: Any = None

    def in_shape(self, values: NDArray[np.float64], name: str, attributes: dict[str, str]) -> Any:
        """Return values of the rows as they were given: an array, or a DataArray of the same cells.

        Args:
            values: (n,) or (n, more).
            name, attributes: of the DataArray.
        """
        if self.cells is None:
            return values
        import xarray

        dims, shape = list(self.cells.dims), self.cells.shape
        if values.ndim > 1:
            dims.append("bound")
        coordinates = {key: c for key, c in self.cells.coords.items() if {*c.dims} <= {*self.cells.dims}}
        return xarray.DataArray(
            values.reshape((*shape, *values.shape[1:])), coordinates, dims, name=name, attrs=attributes
        )


def is_xarray(data: Any) -> bool:
    """Return whether an object is a Dataset or a DataArray of xarray, which is not imported."""
    return type(data).__module__.startswith("xarray.")


def features_of(X: Any, modes: Sequence[Mode] | None = None) -> Features:
    """Return the columns of X as numbers.

    Columns of dates in a DataFrame or an array become seconds. Of an xarray object the modes are the coordinates of its
    dimensions, or the variables of a Dataset; the rows are all cells.

    Args:
        X: what the user gave.
        modes: those of the fit, by whose rules columns are read; None at the fit.

    Raises:
        InputError: a coordinate that is missing, or dates where numbers are expected.
    """
    if is_xarray(X):
        return _of_xarray(X, modes)
    if isinstance(X, pd.DataFrame):
        return _of_columns([X.iloc[:, k] for k in range(X.shape[1])], X, modes)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "MO":
        return _of_columns([pd.Series(column) for column in X.T], X, modes)
    if modes is not None and getattr(X, "ndim", 0) == 2 and any(mode.kind == "time" for mode in modes):
        return _of_columns([pd.Series(column) for column in np.asarray(X).T], X, modes)
    return Features(X)


def measured_of(X: Any, y: Any, features: Features) -> Any:
    """Return the values of the rows: y, or those of X itself if it is a DataArray and y is None."""
    if features.cells is None:
        return y
    if y is None:
        if hasattr(X, "data_vars"):
            raise InputError("y is missing: a Dataset holds the coordinates, a DataArray also the values")
        y = X
    if is_xarray(y):
        if {*y.dims} != {*features.cells.dims}:
            raise InputError(f"y has the dimensions {listed(y.dims)}; X has {listed(features.cells.dims)}")
        y = y.transpose(*features.cells.dims).values
    return np.asarray(y, dtype=np.float64).ravel()


def _of_columns(columns: Sequence[Any], X: Any, modes: Sequence[Mode] | None) -> Features:
    """Return a table whose columns of dates are seconds; X itself where there are none."""
    names = [str(name) for name in getattr(X, "columns", [f"x{k}" for k in range(len(columns))])]
    if modes is None or len(modes) != len(columns):  # in which case scikit-learn names the difference
        read = [
            mode_of(name, column) if _is_dates(column) else Mode(name)
            for name, column in zip(names, columns, strict=True)
        ]
    else:
        read = list(modes)
    if all(mode.kind != "time" for mode in read):
        return Features(X)
    parsed = {
        k: mode.parse(column).numpy() if mode.kind == "time" else column
        for k, (mode, column) in enumerate(zip(read, columns, strict=True))
    }
    if not isinstance(X, pd.DataFrame):
        return Features(np.stack([np.asarray(c, np.float64) for c in parsed.values()], axis=1), tuple(read))
    table = pd.concat([pd.Series(np.asarray(column), index=X.index) for column in parsed.values()], axis=1)
    return Features(table.set_axis(X.columns, axis=1), tuple(read))


def _is_dates(column: Any) -> bool:
    types = pd.api.types
    if types.is_datetime64_any_dtype(column) or isinstance(column.dtype, pd.PeriodDtype):
        return True
    held = column.dropna() if column.dtype == object else ()
    return len(held) > 0 and all(isinstance(value, date | np.datetime64) for value in held)


def _of_xarray(X: Any, modes: Sequence[Mode] | None) -> Features:
    import xarray

    names = [mode.name for mode in modes] if modes is not None else _names(X)
    for name in names:
        if name not in X.coords and name not in getattr(X, "data_vars", ()):
            raise InputError(f"X has no coordinate {name!r}; there are: {listed(map(str, X.coords))}")
    parts = [X[name] for name in names]
    whole = [X] if hasattr(X, "dims") and not hasattr(X, "data_vars") else []
    cells, *broadcast = xarray.broadcast(*whole, *parts) if whole else (None, *xarray.broadcast(*parts))
    cells = broadcast[0] if cells is None else cells
    columns = [part.transpose(*cells.dims).values.ravel() for part in broadcast]
    if modes is None:
        modes = [
            mode_of_variable(name, column, part.attrs)
            for name, column, part in zip(names, columns, parts, strict=True)
        ]
    numbers = [mode.parse(column).numpy() for mode, column in zip(modes, columns, strict=True)]
    return Features(pd.DataFrame(dict(zip(names, numbers, strict=True))), tuple(modes), cells)


def _names(X: Any) -> list[str]:
    if variables := [str(name) for name in getattr(X, "data_vars", ())]:
        return variables
    dims = [str(dim) for dim in X.dims]
    if missing := [dim for dim in dims if dim not in X.coords]:
        raise InputError(f"X has no coordinates along {listed(missing)}")
    return dims


def whole_rows(columns: Any, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows have all coordinates and a value: the missing cells of a field are no measurements."""
    kept: NDArray[np.bool_] = np.isfinite(columns.to_numpy()).all(axis=1) & np.isfinite(values)
    return kept
