"""NetCDF files of predictions on grids by the CF conventions: axes with bounds, attributes, compression, history."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fieldmorph.apps.tensor.grid_axes import Axis
from fieldmorph.apps.tensor.jobs import noise_sd
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.types import JsonObject

CONVENTIONS = "CF-1.8"
EPOCH = "seconds since 1970-01-01 00:00:00"
ATTRIBUTES = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "time": {"standard_name": "time", "units": EPOCH, "axis": "T"},
}
ENDS = "bnds"  # dimension of lower and upper bounds
COMPRESSED: Mapping[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
REFERENCE = "Fang et al., Functional Bayesian Tucker Decomposition, ICLR 2024, arXiv:2311.04829"


def variable_names(posterior: Posterior) -> tuple[str, str]:
    """Return the names of the variables of mean and standard deviation."""
    name = posterior.value_name.replace("/", "_")
    return name, f"{name}_sd"


def flag_name(posterior: Posterior) -> str:
    """Return the name of the variable that marks cells outside the range of the data."""
    taken = {posterior.value_name, *(mode.name for mode in posterior.modes)}
    return "extrapolated" if "extrapolated" not in taken else f"{variable_names(posterior)[0]}_extrapolated"


def write_head(file: Any, posterior: Posterior, done: str) -> None:
    """Write the attributes of the whole file.

    Args:
        file: that h5netcdf has opened.
        done: what wrote the file, for its history.
    """
    from fieldmorph import __version__

    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    file.attrs.update(
        Conventions=CONVENTIONS,
        title=f"{posterior.value_name}, predicted by a functional tensor model",
        source=f"fieldmorph {__version__}, functional Bayesian Tucker model",
        references=REFERENCE,
        history=f"{when}: {done}",
    )


def write_axis(file: Any, axis: Axis) -> None:
    """Write the variable of an axis, and the bounds of its cells; times are instants and have none."""
    mode, values = axis.mode, axis.written
    attributes: JsonObject = dict(ATTRIBUTES.get(mode.kind, {"long_name": mode.name.replace("_", " ")}))
    if mode.kind == "time":
        attributes["calendar"] = mode.calendar or "proleptic_gregorian"
        if (values == np.rint(values)).all():
            values = values.astype(np.int64)  # readers make exact dates of whole numbers
    elif mode.kind == "number" and mode.unit:
        attributes["units"] = mode.unit
    if mode.kind != "time" and (bounds := cell_bounds(axis)) is not None:
        if ENDS not in file.dimensions:
            file.dimensions[ENDS] = 2
        attributes["bounds"] = f"{mode.name}_{ENDS}"
        file.create_variable(attributes["bounds"], (mode.name, ENDS), data=bounds)
    file.create_variable(mode.name, (mode.name,), data=values).attrs.update(attributes)


def cell_bounds(axis: Axis) -> np.ndarray | None:
    """Return the bounds (n, 2) of cells, in the middle between neighbors; None if there are none."""
    values = axis.written
    steps = np.diff(values)
    if not len(steps) or not ((steps > 0).all() or (steps < 0).all()):
        return None
    inner = values[:-1] + steps / 2
    edges = np.concatenate([values[:1] - steps[:1] / 2, inner, values[-1:] + steps[-1:] / 2])
    if axis.mode.kind == "latitude":
        edges = edges.clip(-90, 90)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def make_variables(
    file: Any, posterior: Posterior, names: Sequence[str], dtype: str, chunks: Sequence[int], mask: str
) -> tuple[Any, Any, Any]:
    """Return new variables of the mean, the standard deviation, and the mark of cells outside the data's range.

    Args:
        names: of their dimensions.
        dtype: of mean and deviation, `f4` or `f8`.
        chunks: sides of the chunks.
        mask: the cells that have values, in words; empty for all.
    """
    mean, sd = (
        file.create_variable(
            name, names, dtype, chunks=tuple(chunks), fillvalue=np.dtype(dtype).type(np.nan), **COMPRESSED
        )
        for name in variable_names(posterior)
    )
    outside = file.create_variable(flag_name(posterior), names, "i1", chunks=tuple(chunks), **COMPRESSED)
    for variable, attributes in zip((mean, sd), _value_attributes(posterior), strict=True):
        comment = [attributes["comment"]] if "comment" in attributes else []
        if mask:
            comment.append(f"only cells that the mask keeps have a value: {mask}")
        variable.attrs.update({**attributes, **({"comment": "; ".join(comment)} if comment else {})})
    outside.attrs.update(
        long_name="outside the range of the data along a coordinate",
        flag_values=np.array([0, 1], np.int8),
        flag_meanings="inside outside",
    )
    if posterior.value_standard_name:
        outside.attrs["standard_name"] = f"{posterior.value_standard_name} status_flag"
    return mean, sd, outside


def _value_attributes(posterior: Posterior) -> tuple[JsonObject, JsonObject]:
    name, sd_name = variable_names(posterior)
    units = {"units": posterior.value_unit} if posterior.value_unit else {}
    shown, standard = name.replace("_", " "), posterior.value_standard_name
    mean: JsonObject = {
        "long_name": f"posterior mean of {shown}",
        "ancillary_variables": f"{sd_name} {flag_name(posterior)}",
    }
    sd: JsonObject = {
        "long_name": f"standard deviation of a new measurement of {shown}",
        "comment": "noise is included: the square root of the function's variance plus noise_sd squared",
        "noise_sd": noise_sd(posterior),
    }
    if standard:
        mean["standard_name"], sd["standard_name"] = standard, f"{standard} standard_error"
    if posterior.noise.degrees is None or posterior.intervals.levels:  # or else it differs from cell to cell
        sd["comment"] += "; the mean plus and minus half_width_95 of these cover 95 % of new measurements"
        sd["half_width_95"] = posterior.intervals.factor(0.95)
    return {**mean, **units}, {**sd, **units}
