"""Masks of maps and grids: land, sea, a NetCDF file, or places near the data; the other cells have no value."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldmorph.apps.tensor.globe import NEEDED, has_land, is_land
from fieldmorph.bayes.data.coordinates import Mode, is_rotated, kind_of
from fieldmorph.bayes.data.readers import GRIDS, open_source
from fieldmorph.bayes.data.tables import listed, only
from fieldmorph.fields.errors import InputError, SettingError, did_you_mean

EARTH_KM = 6371.0  # mean radius
HALF = 0.5  # fraction of a cell from which a mask of fractions keeps it
ROUNDING = 1e-6  # of half a cell, by which a place may lie outside a mask's grid
KNOWN = "land, sea, a distance to the data such as 300km, or a NetCDF file (mask.nc, mask.nc:VARIABLE)"

Numbers = NDArray[np.float64]
Embedding = Callable[[Numbers, Numbers], Numbers]  # of places in a space where distances are straight


class Mask(ABC):
    """The cells of a map that have a value.

    Attributes:
        words: what is kept, as `sea`.
    """

    words: str

    @abstractmethod
    def keeps(self, x: Numbers, y: Numbers) -> NDArray[np.bool_]:
        """Return whether cells have a value, (y, x).

        Args:
            x, y: coordinates of columns and rows in the units of their modes.
        """


@dataclass(frozen=True)
class LandMask(Mask):
    """Keeps land, or sea."""

    words: str

    def keeps(self, x: Numbers, y: Numbers) -> NDArray[np.bool_]:
        """Return whether cells are land, or sea."""
        return is_land(y, x) == (self.words == "land")


@dataclass(frozen=True, eq=False)
class GridMask(Mask):
    """Keeps the cells that a grid keeps; none outside of it.

    Attributes:
        kept: whether the grid's cells are kept, (latitudes, longitudes).
        latitudes, longitudes: ascending.
    """

    words: str
    kept: NDArray[np.bool_]
    latitudes: Numbers
    longitudes: Numbers

    def keeps(self, x: Numbers, y: Numbers) -> NDArray[np.bool_]:
        """Return whether the nearest cells of the grid are kept."""
        start = self.longitudes[0] - _half_step(self.longitudes)
        columns, inside_x = _nearest(self.longitudes, start + (x - start) % 360)
        rows, inside_y = _nearest(self.latitudes, y)
        kept: NDArray[np.bool_] = self.kept[np.ix_(rows, columns)] & inside_y[:, None] & inside_x
        return kept


@dataclass(frozen=True, eq=False)
class DistanceMask(Mask):
    """Keeps places whose distance to the nearest measurement is at most `limit`.

    Attributes:
        measured: a KD-tree of the measured places in the space of `embed`.
        limit: in that space.
    """

    words: str
    measured: Any
    limit: float
    embed: Embedding

    def keeps(self, x: Numbers, y: Numbers) -> NDArray[np.bool_]:
        """Return whether cells are near a measurement."""
        rows = [
            self.measured.query(self.embed(x, np.full_like(x, row)), distance_upper_bound=self.limit)[0]
            for row in y
        ]
        return np.isfinite(np.stack(rows))


def open_mask(text: str, x: Mode, y: Mode, measured: tuple[Numbers, Numbers] | None = None) -> Mask:
    """Return the mask that a text describes: `land`, `sea`, `300km`, `mask.nc` or `mask.nc:VARIABLE`.

    A file keeps the cells where its variable is 1, or, where it has other values than those from 0 to 1, not missing.

    Args:
        x, y: horizontal and vertical mode of the map.
        measured: x and y of the measurements, for a distance.

    Raises:
        SettingError: a text that is no mask, a package that is not installed, or missing modes or measurements.
        InputError: a file that cannot be used.
    """
    path, _, variable = text.partition(":") if not Path(text).is_file() else (text, "", "")
    if match := re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(km|deg|°)?", text):
        return _near(text, float(match[1]), match[2], x, y, measured)
    if text not in ("land", "sea") and Path(path).suffix.lower() not in GRIDS:
        raise SettingError(f"unknown mask {text!r}; known: {KNOWN}{did_you_mean(text, ['land', 'sea'])}")
    if not _in_degrees(x, y):
        raise SettingError(
            f"the mask {text} needs latitudes and longitudes; the map is over {x.name} and {y.name}"
        )
    if Path(path).suffix.lower() in GRIDS:
        return read_mask(path, variable or None, rotated=x.rotated)
    if not on_globe(x, y):
        raise SettingError(
            f"the mask {text} needs latitudes and longitudes; {x.name} and {y.name} are those of a rotated pole"
        )
    if not has_land():
        raise SettingError(NEEDED)
    return LandMask(text)


def on_globe(x: Mode, y: Mode) -> bool:
    """Return whether a map over these modes is one of the globe, by longitudes and latitudes of no rotated pole."""
    return _in_degrees(x, y) and not (x.rotated or y.rotated)


def read_mask(path: str | Path, variable: str | None = None, rotated: bool = False) -> GridMask:
    """Read a mask from a NetCDF file, at the first time or level where it has several.

    Args:
        variable: its name; needed if several have latitudes and longitudes.
        rotated: take the latitudes and longitudes of a rotated pole.

    Raises:
        InputError: no such file or variable, or one without latitudes and longitudes.
    """
    label, opened = open_source(path)
    with opened as grid:
        columns = {
            str(name): v.attrs
            for name, v in grid.variables.items()
            if v.ndim == 1 and is_rotated(v.attrs) == rotated
        }
        kinds = {name: kind_of(name, attributes) for name, attributes in columns.items()}
        axes = {kind: name for name, kind in kinds.items() if kind in ("latitude", "longitude")}
        if len(axes) < 2:
            pole = " of a rotated pole, as the map has them" if rotated else ""
            raise InputError(
                f"{label}: a mask needs latitudes and longitudes{pole}, each along one dimension"
            )
        sides = [grid[axes[kind]].dims[0] for kind in ("latitude", "longitude")]
        suited = [
            str(n) for n, v in grid.data_vars.items() if {*sides} <= {*v.dims} and v.dtype.kind in "iufb"
        ]
        if variable is not None and variable not in suited:
            raise InputError(
                f"{label} has no mask {variable!r} over latitude and longitude; there are: {listed(suited)}"
            )
        values = grid[variable or only(suited, "mask", label)]
        values = values.isel({dim: 0 for dim in values.dims if dim not in sides}).transpose(*sides)
        cells = values.values.astype(np.float64)
        latitudes, longitudes = (
            grid[axes[kind]].values.astype(np.float64) for kind in ("latitude", "longitude")
        )
    finite = np.isfinite(cells)
    is_fraction = finite.any() and cells[finite].min() >= 0 and cells[finite].max() <= 1
    kept = finite & (cells >= HALF) if is_fraction else finite
    longitudes = longitudes[0] + (longitudes - longitudes[0]) % 360
    rows, columns = latitudes.argsort(), longitudes.argsort()
    words = f"{Path(path).name}:{variable}" if variable else Path(path).name
    return GridMask(words, kept[np.ix_(rows, columns)], latitudes[rows], longitudes[columns])


def _near(
    text: str, limit: float, unit: str | None, x: Mode, y: Mode, measured: tuple[Numbers, Numbers] | None
) -> DistanceMask:
    from scipy.spatial import KDTree

    if measured is None:
        raise SettingError(f"the mask {text} needs the measurements: --points TABLE")
    if _in_degrees(x, y):
        if unit is None:
            raise SettingError(f"the mask {text} needs a unit: {text}km or {text}deg")
        angle = limit / (EARTH_KM if unit == "km" else 180 / math.pi)
        chord = 2 * math.sin(min(angle, math.pi) / 2)
        return DistanceMask(f"within {text} of the data", KDTree(_on_sphere(*measured)), chord, _on_sphere)
    if unit is not None or x.unit != y.unit:
        raise SettingError(
            f"the mask {text}: {x.name} and {y.name} are no longitudes and latitudes; a distance is a number in their "
            "common unit"
        )
    return DistanceMask(f"within {text} of the data", KDTree(_flat(*measured)), limit, _flat)


def _in_degrees(x: Mode, y: Mode) -> bool:
    return (x.kind, y.kind) == ("longitude", "latitude")


def _on_sphere(longitudes: Numbers, latitudes: Numbers) -> Numbers:
    """Return places on the unit sphere, (n, 3)."""
    across, up = np.radians(longitudes), np.radians(latitudes)
    return np.stack([np.cos(up) * np.cos(across), np.cos(up) * np.sin(across), np.sin(up)], axis=1)


def _flat(x: Numbers, y: Numbers) -> Numbers:
    return np.stack([x, y], axis=1)


def _half_step(points: Numbers) -> float:
    return float(np.median(np.diff(points))) / 2 if len(points) > 1 else 0.0


def _nearest(points: Numbers, wanted: Numbers) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the nearest of ascending points, and whether it is at most half a step away."""
    right = np.searchsorted(points, wanted).clip(1, max(len(points) - 1, 1))
    left = right - 1
    right = right.clip(max=len(points) - 1)
    nearest = np.where(np.abs(wanted - points[left]) <= np.abs(points[right] - wanted), left, right)
    reach = _half_step(points) * (1 + ROUNDING) + ROUNDING
    return nearest, np.abs(points[nearest] - wanted) <= reach
