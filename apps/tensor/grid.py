"""Predictions on a grid as CF NetCDF, written block by block, so that memory does not grow with the grid."""

import errno
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)
from fieldmorph.fields.progress import OnCount
from fieldmorph.fields.types import JsonObject

# isort: split
import numpy as np

from fieldmorph.apps.tensor.grid_axes import Axis, grid_axes
from fieldmorph.apps.tensor.jobs import noise_sd, not_itself
from fieldmorph.apps.tensor.results import GridResult
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.budget import now
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.files import replaced

EPOCH = "seconds since 1970-01-01 00:00:00"
ORDER = ("time", "number", "latitude", "longitude")  # CF recommends T, Z, Y, X
ATTRIBUTES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "time": {"standard_name": "time", "units": EPOCH, "axis": "T"},
}


def grid_file(
    model: str | Path,
    output: str | Path,
    ranges: Mapping[str, str] | None = None,
    *,
    force: bool = False,
    on_cells: OnCount = lambda _done, _total: None,
) -> GridResult:
    """Write mean and standard deviation on a grid as NetCDF.

    Args:
        ranges: for names of modes, or for `latitude`, `longitude` and `time`: `from:to:step`, one coordinate, or
            several with commas; the steps of times end in s, min, h, D, W, M or Y. Other modes use the coordinates of
            the fit, or 50 evenly spaced ones if these are more than 500.
        on_cells: called with the number of cells done and their total.

    Raises:
        SettingError, InputError: before anything is written.
        OSError: the file would not fit on the disk.
    """
    start = now()
    check_output(output, force)
    if Path(output).suffix.lower() not in (".nc", ".nc4"):
        raise SettingError(f"{output} must end in .nc")
    not_itself(output, model)
    posterior = load_posterior(model)
    axes = grid_axes(posterior, ranges or {})
    n_cells, dtype = math.prod(len(axis.written) for axis in axes), value_type(posterior)
    room = shutil.disk_usage(Path(output).resolve().parent).free
    if (needed := 2 * n_cells * np.dtype(dtype).itemsize) > room:
        raise OSError(
            errno.ENOSPC, f"a grid of {n_cells} cells takes {needed / 1e9:.1f} GB; {room / 1e9:.1f} are free"
        )
    with replaced(Path(output)) as part:
        write_grid(part, posterior, axes, dtype, on_cells)
    spent = now() - start
    order = file_order([axis.mode for axis in axes])
    return GridResult(
        output=str(output),
        variables=list(variable_names(posterior)),
        sizes={axes[k].mode.name: len(axes[k].written) for k in order},
        cells=n_cells,
        bytes=Path(output).stat().st_size,
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
    )


def value_type(posterior: Posterior) -> str:
    """Return the file's type: single precision, unless its rounding would be noticeable next to the noise."""
    largest = abs(posterior.shift) + 3 * posterior.scale
    return "f4" if largest * np.finfo(np.float32).eps < 1e-3 * noise_sd(posterior) else "f8"


def variable_names(posterior: Posterior) -> tuple[str, str]:
    """Return the names of the variables of mean and standard deviation."""
    name = posterior.value_name.replace("/", "_")
    return name, f"{name}_sd"


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
) -> None:
    """Write the file.

    Args:
        dtype: of the variables, `f4` or `f8`.
        on_cells: called with the number of cells done and their total.
        block: number of cells that are predicted at a time.
        chunk: number of cells of a chunk in the file.
    """
    import h5netcdf

    order = file_order([axis.mode for axis in axes])
    sides = [axes[k] for k in order]
    shape = [len(axis.written) for axis in sides]
    factors = posterior.factors([axis.coordinates for axis in axes])
    names, chunk_sides, done = [axis.mode.name for axis in sides], block_shape(shape, chunk), 0
    with h5netcdf.File(path, "w") as file:
        file.dimensions = dict(zip(names, shape, strict=True))
        file.attrs.update(
            Conventions="CF-1.8", title=f"{posterior.value_name}, predicted by a functional tensor model"
        )
        for axis in sides:
            _write_axis(file, axis)
        mean, sd = (
            file.create_variable(name, names, dtype, chunks=tuple(chunk_sides))
            for name in variable_names(posterior)
        )
        for variable, attributes in zip((mean, sd), _value_attributes(posterior), strict=True):
            variable.attrs.update(attributes)
        for where in blocks(shape, chunk_sides, block):
            parts = [factor[where[order.index(k)]] for k, factor in enumerate(factors)]
            found = posterior.predict_grid(parts)
            mean[where] = found.mean.permute(order).numpy().astype(dtype)
            sd[where] = found.sd.permute(order).numpy().astype(dtype)
            done += found.mean.numel()
            on_cells(done, math.prod(shape))


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


def _write_axis(file: Any, axis: Axis) -> None:
    mode, values = axis.mode, axis.written
    attributes: JsonObject = dict(ATTRIBUTES.get(mode.kind, {"long_name": mode.name.replace("_", " ")}))
    if mode.kind == "time":
        attributes["calendar"] = mode.calendar or "proleptic_gregorian"
        if (values == np.rint(values)).all():
            values = values.astype(np.int64)  # readers make exact dates of whole numbers
    elif mode.kind == "number" and mode.unit:
        attributes["units"] = mode.unit
    file.create_variable(mode.name, (mode.name,), data=values).attrs.update(attributes)


def _value_attributes(posterior: Posterior) -> tuple[JsonObject, JsonObject]:
    name, sd_name = variable_names(posterior)
    units = {"units": posterior.value_unit} if posterior.value_unit else {}
    shown = name.replace("_", " ")
    mean = {"long_name": f"posterior mean of {shown}", "ancillary_variables": sd_name}
    sd: JsonObject = {
        "long_name": f"standard deviation of a new measurement of {shown}",
        "comment": "noise is included: the square root of the function's variance plus noise_sd squared",
        "noise_sd": noise_sd(posterior),
    }
    if posterior.noise.degrees is None or posterior.intervals.levels:  # or else it differs from cell to cell
        sd["comment"] += "; the mean plus and minus half_width_95 of these cover 95 % of new measurements"
        sd["half_width_95"] = posterior.intervals.factor(0.95)
    return {**mean, **units}, {**sd, **units}
