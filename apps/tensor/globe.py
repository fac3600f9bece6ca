"""Land, sea and coastlines from the package global-land-mask: GLOBE's elevations at 1/120 degree, 0 = no land."""

import importlib.util
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

from fieldmorph.fields.errors import SettingError

PACKAGE, FILE, MEMBER = "global_land_mask", "globe_combined_mask_compressed.npz", "mask.npy"
NEEDED = "land, sea and coastlines are in another package: pip install 'fieldmorph[maps]'"
ROWS, COLUMNS = 21_600, 43_200  # from 90°N to the south, from 180°W to the east
PER_DEGREE = 120
SAMPLES = 900, 600  # across and up an area whose coastlines are traced
SIMPLIFIED = 0.6  # samples by which a simplified coastline may deviate
SHORTEST = 6.0  # samples; shorter coastlines, those of the smallest islands, are left out


def has_land() -> bool:
    """Return whether the package is installed."""
    return _file() is not None


def is_land(latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether places are land, (latitudes, longitudes); lakes are land.

    Args:
        latitudes, longitudes: in degrees, of the rows and columns of a grid; longitudes on any branch.

    Raises:
        SettingError: the package is not installed.
    """
    rows = np.clip(np.floor((90 - latitudes) * PER_DEGREE), 0, ROWS - 1).astype(int)
    columns = np.floor(((longitudes + 180) % 360) * PER_DEGREE).astype(int) % COLUMNS
    distinct, where = np.unique(rows, return_inverse=True)
    return _land(tuple(distinct.tolist()), tuple(columns.tolist()))[where]


def coastlines(
    west: float, east: float, south: float, north: float, samples: tuple[int, int] = SAMPLES
) -> list[NDArray[np.float64]]:
    """Return the coastlines of an area as lines of longitudes and latitudes, each (n, 2).

    Args:
        west, east, south, north: in degrees; longitudes on any branch, east above west.
        samples: numbers of samples across and up the area.

    Raises:
        SettingError: the package is not installed.
    """
    x, y = (
        np.linspace(low, high, max(2, min(n, round((high - low) * PER_DEGREE) + 1)))
        for (low, high), n in zip(((west, east), (south, north)), samples, strict=True)
    )
    traced: list[Any] = list(contour_generator(z=is_land(y, x).astype(float)).lines(0.5))
    lines = []
    for line in traced:
        if np.hypot(*np.diff(line, axis=0).T).sum() >= SHORTEST:
            closed = bool((line[0] == line[-1]).all())
            short = cv2.approxPolyDP(line.astype(np.float32)[:, None], SIMPLIFIED, closed)[:, 0]
            short = np.concatenate([short, short[:1]]) if closed else short
            lines.append(
                np.stack([x[0] + (x[1] - x[0]) * short[:, 0], y[0] + (y[1] - y[0]) * short[:, 1]], axis=1)
            )
    return lines


def _file() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin).parent / FILE if found and found.origin else None
    return path if path is not None and path.is_file() else None


@lru_cache(maxsize=4)
def _land(rows: tuple[int, ...], columns: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return rows, ascending, and columns of the mask; unpacked as a whole it would take 933 MB."""
    if (path := _file()) is None:
        raise SettingError(NEEDED)
    kept, chosen = np.empty((len(rows), len(columns)), bool), np.array(columns)
    with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as file:
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        np.lib.format.read_array_header_1_0(file)
        at = 0
        for k, row in enumerate(rows):
            while at < row:  # in pieces, since `seek` reads as much
                at += len(file.read(COLUMNS * min(row - at, 64))) // COLUMNS
            kept[k] = ~np.frombuffer(file.read(COLUMNS), bool)[chosen]
            at += 1
    return kept
