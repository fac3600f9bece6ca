"""Conversion of coordinates to real numbers and back: dates as seconds, longitudes on one branch of the circle."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from fieldmorph.bayes.data.dates import calendars_of, first_row, from_seconds, pd, shown, to_seconds
from fieldmorph.bayes.data.kinds import DEGREE_LIMITS
from fieldmorph.bayes.data.kinds import Kind as Kind
from fieldmorph.fields.errors import InputError

log = logging.getLogger(__name__)

NAMES: dict[str, Kind] = {
    **dict.fromkeys(("time", "date", "datetime"), "time"),
    **dict.fromkeys(("lat", "latitude"), "latitude"),
    **dict.fromkeys(("lon", "lng", "longitude"), "longitude"),
}
STANDARD_NAMES: dict[str, Kind] = {
    "time": "time",
    **dict.fromkeys(("latitude", "grid_latitude"), "latitude"),
    **dict.fromkeys(("longitude", "grid_longitude"), "longitude"),
}
UNITS: dict[str, Kind] = {"degrees_north": "latitude", "degrees_east": "longitude"}
ROTATED = ("grid_latitude", "grid_longitude")  # standard names of degrees about another pole than the Earth's
LIKE_A_DATE = r"\d{1,4}[-/.]\d|\d{1,2}[ -][A-Za-z]{3}"
SHIFT_DECIMALS = 9  # so that -0.1 and 359.9 are equal; 1e-9 degrees are 0.1 mm
TIE = 0.99  # of the widest gap; wider gaps count as equal to it
RANGE_ROUNDING = 1e-5  # of the range of the data, by which a coordinate may lie outside of it
MIN_GAP = 10.0  # degrees; data with only narrower gaps cover the whole globe


@dataclass(frozen=True)
class Mode:
    """One coordinate of the data: its kind and unit, and how its numbers are read and written.

    Attributes:
        name: of the column or variable.
        kind: "time" is seconds since 1970-01-01 UTC; "longitude" and "latitude" are degrees.
        unit: of the coordinate; "s" for times, None if unknown.
        cut: longitudes lie in [cut, cut + 360).
        written: the data have their longitudes in [written, written + 360).
        calendar: of the times, if it is not the standard one: "360_day", "noleap", ...
        rotated: latitudes and longitudes are those of a rotated pole, as regional climate models have them.
    """

    name: str
    kind: Kind = "number"
    unit: str | None = None
    cut: float = -180.0
    written: float = -180.0
    calendar: str | None = None
    rotated: bool = False

    def parse(self, column: Any) -> Float[Tensor, "n"]:
        """Return a column's coordinates, float64, by the rules by which the data were read; NaN where one is missing.

        Args:
            column: a pandas Series or anything that makes one: numbers, or for times dates (text, datetime64, date
                and datetime objects, cftime objects). Without a time zone they are UTC.

        Raises:
            InputError: naming the first bad row, counted from 1.
        """
        return torch.from_numpy(RULES[self.kind].read(_series(column), self))

    def outside(self, values: Float[Tensor, "n"], points: Float[Tensor, "points"]) -> Bool[Tensor, "n"]:
        """Return whether coordinates lie outside the range of the data; no longitude does if data go round the globe.

        Args:
            values: coordinates in the mode's unit, longitudes on its branch; those that are missing are inside.
            points: coordinates of the data, ascending.
        """
        low, high = float(points[0]), float(points[-1])
        if RULES[self.kind].is_whole(high - low):
            return torch.zeros_like(values, dtype=torch.bool)
        rounding = RANGE_ROUNDING * (high - low)
        return (values < low - rounding) | (values > high + rounding)

    def format(self, values: Float[Tensor, "n"]) -> NDArray[Any]:
        """Return coordinates as the data have them: numbers, datetime64 (UTC), or ISO text in other calendars.

        Args:
            values: coordinates in the mode's unit, seconds for times.
        """
        return RULES[self.kind].write(values.detach().cpu().double().numpy().copy(), self)


class Rules(ABC):
    """Rules of one kind of coordinates: how they are read and written, and how far they reach."""

    @abstractmethod
    def read(self, series: "pd.Series", mode: Mode) -> NDArray[np.float64]:
        """Return a column's coordinates in the mode's unit, NaN for missing ones.

        Raises:
            InputError: naming the first bad row, counted from 1.
        """

    def write(self, numbers: NDArray[np.float64], mode: Mode) -> NDArray[Any]:
        """Return coordinates as the data have them."""
        return numbers

    def is_whole(self, extent: float) -> bool:
        """Return whether data that reach so far leave nothing outside."""
        return False


class Numbers(Rules):
    """Rules of plain numbers."""

    def read(self, series: "pd.Series", mode: Mode) -> NDArray[np.float64]:
        """Return numbers."""
        return _numbers(series, mode.name)


class Times(Rules):
    """Rules of dates, which are seconds since 1970-01-01 in the mode's calendar."""

    def read(self, series: "pd.Series", mode: Mode) -> NDArray[np.float64]:
        """Return seconds."""
        return to_seconds(series, mode.name, mode.calendar)

    def write(self, numbers: NDArray[np.float64], mode: Mode) -> NDArray[Any]:
        """Return datetime64, or ISO text in other calendars than the standard one."""
        return from_seconds(numbers, mode.calendar)


class Latitudes(Rules):
    """Rules of latitudes, in degrees."""

    def read(self, series: "pd.Series", mode: Mode) -> NDArray[np.float64]:
        """Return degrees."""
        return _degrees(series, mode.name, mode.kind)


class Longitudes(Rules):
    """Rules of longitudes, in degrees on the mode's branch of the circle."""

    def read(self, series: "pd.Series", mode: Mode) -> NDArray[np.float64]:
        """Return degrees in [cut, cut + 360)."""
        return _wrapped(_degrees(series, mode.name, mode.kind), mode.cut)

    def write(self, numbers: NDArray[np.float64], mode: Mode) -> NDArray[Any]:
        """Return degrees on the branch of the data."""
        return _wrapped(numbers, mode.written)

    def is_whole(self, extent: float) -> bool:
        """Return whether data go round the globe."""
        return 360 - extent <= MIN_GAP


RULES: dict[Kind, Rules] = {
    "number": Numbers(),
    "time": Times(),
    "latitude": Latitudes(),
    "longitude": Longitudes(),
}


def kind_of(name: str, attributes: Mapping[str, Any] | None = None) -> Kind:
    """Return a coordinate's kind by a column's name or a NetCDF variable's CF attributes; "number" if unknown."""
    attributes = attributes or {}
    standard, unit = str(attributes.get("standard_name")), str(attributes.get("units"))
    return NAMES.get(name.lower()) or STANDARD_NAMES.get(standard) or UNITS.get(unit) or "number"


def is_rotated(attributes: Mapping[str, Any]) -> bool:
    """Return whether the CF attributes of a NetCDF variable are those of a rotated pole's latitudes or longitudes."""
    return attributes.get("standard_name") in ROTATED


def mode_of_variable(name: str, column: Any, attributes: Mapping[str, Any]) -> Mode:
    """Return the mode of a NetCDF variable's values by its CF attributes.

    Raises:
        InputError: as `mode_of`.
    """
    mode = mode_of(name, column, kind_of(name, attributes), attributes.get("units"))
    return replace(mode, rotated=is_rotated(attributes))


def mode_of(name: str, column: Any, kind: Kind = "number", unit: str | None = None) -> Mode:
    """Return the mode whose coordinates a column holds.

    Dates are times whatever the name, and numbers stay numbers in a column named "time". Longitudes are put on a branch
    whose cut does not go through the data: [-180, 180) or [0, 360), theirs first, if the cut lies in the widest gap, or
    else cut in the middle of that gap. Data around the whole globe keep their branch.

    Args:
        kind: of the coordinate, as `kind_of` finds it.
        unit: of the numbers; None if unknown.

    Raises:
        InputError: dates of several calendars, or bad longitudes.
    """
    series = _series(column)
    if _is_time(series, kind):
        calendars = calendars_of(series) - {"proleptic_gregorian"}
        if len(calendars) > 1:
            raise InputError(f"{name}: dates of several calendars: {', '.join(sorted(calendars))}")
        return Mode(name, "time", "s", calendar=calendars.pop() if calendars else None)
    if pd.api.types.is_timedelta64_dtype(series):
        unit = "s"
    if kind == "time":
        kind = "number"
        if _looks_like_days(series):
            log.warning("%s: numbers such as %s are taken as numbers, not as dates", name, series.iloc[0])
    if kind != "longitude":
        return Mode(name, kind, unit)
    degrees = _degrees(series, name, kind)
    degrees = degrees[~np.isnan(degrees)]
    return Mode(name, kind, unit, *_branch(degrees)) if len(degrees) else Mode(name, kind, unit)


def _looks_like_days(series: "pd.Series") -> bool:
    """Return whether numbers look like dates such as 20060416, which are not evenly spaced."""
    return len(series) > 0 and bool(series.between(19000101, 21001231).all())


def _branch(degrees: NDArray[np.float64]) -> tuple[float, float]:
    """Return where to cut the circle, and where the data themselves do."""
    circle = np.unique(_wrapped(degrees, 0.0))
    gaps = np.diff(circle, append=circle[0] + 360)
    widest = int(gaps.argmax())
    middle = float(_wrapped(circle[widest] + gaps[widest : widest + 1] / 2, -180.0)[0])
    low, high = degrees.min(), degrees.max()
    if low >= -180 and high <= 180 and (low < 0 or high < 180):
        written = [-180.0]
    else:
        written = [0.0] if low >= 0 and high <= 360 else []
    enough = TIE * gaps[widest] if gaps[widest] > MIN_GAP else 0.0
    free = [c for c in (*written, -180.0, 0.0) if 360 - np.ptp(_wrapped(degrees, c)) >= enough]
    cut = (*free, middle)[0]
    return cut, (*written, cut)[0]


def _wrapped(degrees: NDArray[np.float64], cut: float) -> NDArray[np.float64]:
    """Return longitudes in [cut, cut + 360); those that lie there are not changed."""
    shifted = np.round(degrees - 360 * np.floor((degrees - cut) / 360), SHIFT_DECIMALS)
    shifted = np.where(shifted >= cut + 360, shifted - 360, shifted)
    return np.where((degrees >= cut) & (degrees < cut + 360), degrees, shifted)


def _series(column: Any) -> "pd.Series":
    values = column.detach().cpu().numpy() if isinstance(column, Tensor) else column
    series = pd.Series(values).reset_index(drop=True)
    return series.astype(object) if isinstance(series.dtype, pd.CategoricalDtype) else series


def _is_time(series: "pd.Series", kind: Kind) -> bool:
    types = pd.api.types
    if types.is_datetime64_any_dtype(series) or isinstance(series.dtype, pd.PeriodDtype):
        return True
    if types.is_numeric_dtype(series) or types.is_timedelta64_dtype(series) or kind not in ("number", "time"):
        return False
    held = series.dropna()
    if held.empty:
        return False
    first = str(held.iloc[0]).strip()
    if pd.notna(pd.to_numeric(first, errors="coerce")):
        return False
    return kind == "time" or re.match(LIKE_A_DATE, first) is not None


def _numbers(series: "pd.Series", name: str) -> NDArray[np.float64]:
    if pd.api.types.is_datetime64_any_dtype(series):
        raise InputError(f"{name} holds dates where numbers are expected")
    if pd.api.types.is_timedelta64_dtype(series):
        seconds: NDArray[np.float64] = series.dt.total_seconds().to_numpy(np.float64, copy=True)
        return seconds
    numbers: NDArray[np.float64] = pd.to_numeric(series, errors="coerce").to_numpy(
        np.float64, na_value=np.nan, copy=True
    )
    if (text := np.isnan(numbers) & series.notna().to_numpy()).any():
        row = first_row(text)
        raise InputError(f"{name}, row {row + 1}: expected a number, got {shown(series[row])}")
    if (infinite := np.isinf(numbers)).any():
        raise InputError(f"{name}, row {first_row(infinite) + 1}: infinite")
    return numbers


def _degrees(series: "pd.Series", name: str, kind: Kind) -> NDArray[np.float64]:
    numbers = _numbers(series, name)
    limit = DEGREE_LIMITS[kind]
    if (beyond := np.abs(numbers) > limit).any():
        row = first_row(beyond)
        raise InputError(f"{name}, row {row + 1}: {numbers[row]:g} is not a {kind} within ±{limit:g}")
    return numbers
