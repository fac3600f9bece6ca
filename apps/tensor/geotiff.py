"""Predictions on a grid as a GeoTIFF: bands of mean, standard deviation and mark for each time or other coordinate."""

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fieldmorph.apps.tensor.grid_axes import Axis
from fieldmorph.apps.tensor.labels import coordinate
from fieldmorph.bayes.data.kinds import Kind
from fieldmorph.fields.errors import SettingError

SUFFIXES = (".tif", ".tiff")
PACKAGE = "rioxarray"
NEEDED = "GeoTIFFs need another package: pip install 'fieldmorph[geotiff]'"
PLACES: tuple[Kind, Kind] = ("latitude", "longitude")  # in degrees, of WGS 84
CRS = "EPSG:4326"
MAX_BANDS = 65_535  # of the format
UNEVEN = 1e-3  # of a step, by which steps may differ


def check_raster(axes: Sequence[Axis], n_variables: int = 3) -> None:
    """Check that a grid can be written as a GeoTIFF.

    Raises:
        SettingError: the package is not installed, the grid has no evenly spaced latitudes and longitudes, or too many
            bands.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise SettingError(NEEDED)
    sides = {axis.mode.kind: axis for axis in axes if axis.mode.kind in PLACES}
    if len(sides) < len(PLACES):
        raise SettingError("a GeoTIFF needs latitudes and longitudes; write .nc instead")
    for axis in sides.values():
        steps = np.diff(axis.written)
        if not len(steps) or np.ptp(steps) > UNEVEN * np.abs(steps).max():
            raise SettingError(
                f"a GeoTIFF needs evenly spaced coordinates; give {axis.mode.name} as from:to:step"
            )
    others = [len(axis.written) for axis in axes if axis.mode.kind not in PLACES]
    if (n := n_variables * int(np.prod(others))) > MAX_BANDS:
        raise SettingError(f"a GeoTIFF has at most {MAX_BANDS} bands; this grid would have {n}")


def write_raster(grid: Path, output: Path, axes: Sequence[Axis], names: Sequence[str]) -> None:
    """Write variables of a NetCDF file as bands, in single precision, with NaN for cells without a value.

    Bands are described by variable and coordinates, as `temperature 2009-01-16`. The whole grid is in memory.

    Args:
        grid: the file, as `write_grid` writes it.
        output: GeoTIFF to write.
        axes: of the grid, in the order of the model's modes.
        names: of the variables.
    """
    import rioxarray  # noqa: F401  (registers the accessor `rio`)
    import xarray

    sides = {axis.mode.kind: axis for axis in axes if axis.mode.kind in PLACES}
    y, x = (sides[kind] for kind in PLACES)
    with xarray.open_dataset(grid, engine="h5netcdf", decode_times=False) as data:
        others = [dim for dim in data[names[0]].dims if dim not in (y.mode.name, x.mode.name)]
        by_name = {axis.mode.name: axis for axis in axes}
        bands, words = [], []
        for name in names:
            cells = data[name].transpose(*others, y.mode.name, x.mode.name).values.astype(np.float32)
            for at in itertools.product(*(range(data.sizes[dim]) for dim in others)):
                bands.append(cells[at])
                words.append(
                    " ".join([name, *(_text(by_name[d], i) for d, i in zip(others, at, strict=True))])
                )
    turn = 360 if (x.written > 180).all() else 0
    raster = xarray.DataArray(
        np.stack(bands),
        {"y": y.written, "x": x.written - turn},
        ("band", "y", "x"),
        attrs={"long_name": tuple(words)},
    )
    raster = raster.sortby("y", ascending=False).sortby("x").rio.write_crs(CRS).rio.write_nodata(np.nan)
    raster.rio.to_raster(output, driver="GTiff", compress="deflate", predictor=3)


def _text(axis: Axis, index: int) -> str:
    text = coordinate(float(axis.written[index]), axis.mode.kind, axis.mode.calendar)
    return text if axis.mode.kind == "time" else f"{axis.mode.name} {text}"
