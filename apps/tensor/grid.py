"""Predictions on a grid as CF NetCDF, written block by block, so that memory does not grow with it, or as GeoTIFF."""

import errno
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldmorph.apps.tensor.cf_file import (
    flag_name,
    make_variables,
    variable_names,
    write_axis,
    write_head,
)
from fieldmorph.apps.tensor.extrapolation import warn_outside
from fieldmorph.apps.tensor.geotiff import SUFFIXES as RASTERS
from fieldmorph.apps.tensor.geotiff import check_raster, write_raster
from fieldmorph.apps.tensor.grid_axes import Axis, grid_axes
from fieldmorph.apps.tensor.jobs import noise_sd, not_itself
from fieldmorph.apps.tensor.map_layers import NO_LAYERS, MapLayers, MapSettings, map_modes, open_layers
from fieldmorph.apps.tensor.results import GridResult
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.budget import now
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.files import replaced
from fieldmorph.fields.progress import OnCount

GRIDS = (".nc", ".nc4")
ORDER = ("time", "number", "latitude", "longitude")  # CF recommends T, Z, Y, X


@dataclass(frozen=True)
class CellCounts:
    """Numbers of a grid's cells: those without a value because of a mask, and others outside the data's range."""

    masked: int
    extrapolated: int


def grid_file(
    model: str | Path,
    output: str | Path,
    ranges: Mapping[str, str] | None = None,
    *,
    maps: MapSettings | None = None,
    force: bool = False,
    on_cells: OnCount = lambda _done, _total: None,
) -> GridResult:
    """Write mean and standard deviation on a grid as NetCDF or GeoTIFF, with a mark of cells outside the data's range.

    Args:
        ranges: for names of modes, or for `latitude`, `longitude` and `time`: `from:to:step`, one coordinate, or
            several with commas; the steps of times end in s, min, h, D, W, M or Y. Other modes use the coordinates of
            the fit, or 50 evenly spaced ones if these are more than 500.
        maps: cells that have a value; all by default. A mask takes a byte of memory for each place of the grid.
        on_cells: called with the number of cells done and their total.

    Raises:
        SettingError, InputError: before anything is written.
        OSError: the file would not fit on the disk.
    """
    start = now()
    check_output(output, force)
    suffix = Path(output).suffix.lower()
    if suffix not in (*GRIDS, *RASTERS):
        raise SettingError(f"{output} must end in .nc (NetCDF) or .tif (GeoTIFF)")
    not_itself(output, model)
    posterior = load_posterior(model)
    axes = grid_axes(posterior, ranges or {})
    if suffix in RASTERS:
        check_raster(axes)
    layers = open_layers(posterior, maps or MapSettings(), with_coasts=False)
    n_cells, dtype = math.prod(len(axis.written) for axis in axes), value_type(posterior)
    room = shutil.disk_usage(Path(output).resolve().parent).free
    if (needed := 2 * n_cells * np.dtype(dtype).itemsize) > room:
        raise OSError(
            errno.ENOSPC, f"a grid of {n_cells} cells takes {needed / 1e9:.1f} GB; {room / 1e9:.1f} are free"
        )
    done = f"fieldmorph tensor grid {Path(model).name}"
    variables = [*variable_names(posterior), flag_name(posterior)]
    with replaced(Path(output)) as part, tempfile.TemporaryDirectory(dir=part.parent) as folder:
        grid = Path(folder) / "grid.nc" if suffix in RASTERS else part
        counts = write_grid(grid, posterior, axes, dtype, on_cells, layers=layers, done=done)
        if suffix in RASTERS:
            write_raster(grid, part, axes, variables)
    warn_outside(posterior, [axis.coordinates for axis in axes], counts.extrapolated, n_cells, "cells")
    spent = now() - start
    order = file_order([axis.mode for axis in axes])
    return GridResult(
        output=str(output),
        variables=variables,
        sizes={axes[k].mode.name: len(axes[k].written) for k in order},
        cells=n_cells,
        masked=counts.masked,
        extrapolated=counts.extrapolated,
        bytes=Path(output).stat().st_size,
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
    )


def value_type(posterior: Posterior) -> str:
    """Return the file's type: single precision, unless its rounding would be noticeable next to the noise."""
    largest = abs(posterior.shift) + 3 * posterior.scale
    return "f4" if largest * np.finfo(np.float32).eps < 1e-3 * noise_sd(posterior) else "f8"


def file_order(modes: Sequence[Mode]) -> list[int]:
    """Return the order of the modes as dimensions of a file: time first, latitude and longitude last."""
    return sorted(range(len(modes)), key=lambda k: ORDER.index(modes[k].kind))


def write_grid(
    path: Path,
    posterior: Posterior,
    axes: Sequence[Axis],
    dtype: str,
    on_cells: OnCount,
    block: int = 1 << 20,
    chunk: int = 1 << 18,
    *,
    layers: MapLayers = NO_LAYERS,
    done: str = "fieldmorph",
) -> CellCounts:
    """Write the file.

    Args:
        dtype: of the variables, `f4` or `f8`.
        on_cells: called with the number of cells done and their total.
        block: number of cells that are predicted at a time.
        chunk: number of cells of a chunk in the file.
        layers: mask of the cells that have a value.
        done: what writes the file, for its history.
    """
    import h5netcdf

    order = file_order([axis.mode for axis in axes])
    sides = [axes[k] for k in order]
    shape = [len(axis.written) for axis in sides]
    factors = posterior.factors([axis.coordinates for axis in axes])
    kept = _kept_cells(axes, order, layers)
    outside = [
        axis.mode.outside(axis.coordinates, posterior.processes[k].points).numpy()
        for axis, k in zip(sides, order, strict=True)
    ]
    names, chunk_sides = [axis.mode.name for axis in sides], block_shape(shape, chunk)
    n_done = masked = extrapolated = 0
    with h5netcdf.File(path, "w") as file:
        file.dimensions = dict(zip(names, shape, strict=True))
        write_head(file, posterior, done)
        for axis in sides:
            write_axis(file, axis)
        words = "" if layers.mask is None else layers.mask.words
        mean, sd, flag = make_variables(file, posterior, names, dtype, chunk_sides, words)
        for where in blocks(shape, chunk_sides, block):
            parts = [factor[where[order.index(k)]] for k, factor in enumerate(factors)]
            found = posterior.predict_grid(parts)
            cells = tuple(s if side > 1 else slice(None) for s, side in zip(where, kept.shape, strict=True))
            has_value = np.broadcast_to(kept[cells], found.mean.permute(order).shape)
            beyond = _any_outside([part[s] for part, s in zip(outside, where, strict=True)])
            for variable, values in ((mean, found.mean), (sd, found.sd)):
                variable[where] = np.where(has_value, values.permute(order).numpy(), np.nan).astype(dtype)
            flag[where] = beyond.astype(np.int8)
            masked += int((~has_value).sum())
            extrapolated += int((has_value & beyond).sum())
            n_done += found.mean.numel()
            on_cells(n_done, math.prod(shape))
    return CellCounts(masked, extrapolated)


def _kept_cells(axes: Sequence[Axis], order: Sequence[int], layers: MapLayers) -> NDArray[np.bool_]:
    """Return whether cells have a value, in the order of the file; sides along which it does not differ have length 1.

    Raises:
        SettingError: the mask leaves no cell.
    """
    shape = [1] * len(axes)
    if layers.mask is None:
        return np.ones(shape, bool)
    across, up, _ = map_modes([axis.mode for axis in axes])
    kept = layers.mask.keeps(axes[across].coordinates.numpy(), axes[up].coordinates.numpy())
    if not kept.any():
        raise SettingError(f"the mask {layers.mask.words} leaves no cell of the grid")
    for k in (across, up):
        shape[order.index(k)] = len(axes[k].written)
    return (kept if order.index(up) < order.index(across) else kept.T).reshape(shape)


def _any_outside(outside: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return whether cells of a block are outside along any side."""
    found: NDArray[np.bool_] = np.zeros([1] * len(outside), bool)
    for k, along in enumerate(outside):
        found = found | along.reshape([-1 if j == k else 1 for j in range(len(outside))])
    return found


def block_shape(shape: Sequence[int], maximum: int) -> list[int]:
    """Return the sides of a box of at most `maximum` cells: last dimensions whole, then part of one, then ones."""
    box: list[int] = []
    for size in reversed(shape):
        box.append(max(1, min(size, maximum // math.prod(box))))
    return box[::-1]


def blocks(shape: Sequence[int], chunk: Sequence[int], maximum: int) -> Iterator[tuple[slice, ...]]:
    """Yield boxes of at most about `maximum` cells that fill a grid, each made of whole chunks."""
    box = [
        c * max(1, b // c) if b < s else s
        for s, c, b in zip(shape, chunk, block_shape(shape, maximum), strict=True)
    ]
    for corner in np.ndindex(*(math.ceil(s / b) for s, b in zip(shape, box, strict=True))):
        yield tuple(slice(i * b, min((i + 1) * b, s)) for i, b, s in zip(corner, box, shape, strict=True))
