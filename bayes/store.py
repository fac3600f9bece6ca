"""Files of fitted models: kernels, information at every mode's points, core, noise, and units."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gpytorch.kernels import Kernel
from torch import Tensor

from fieldmorph.bayes.conformal import Intervals
from fieldmorph.bayes.core import Core, CPCore, TuckerCore
from fieldmorph.bayes.covariances.table import class_names, of_description, of_kernel
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.inference import space_of
from fieldmorph.bayes.kernels.symmetric import pack, unpack_index
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.bayes.noise import Noise
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.sparse_gp import SparseGP
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError, known
from fieldmorph.fields.types import JsonObject

KIND = "posterior"
RESIDUAL_NUMBERS = ("columns", "kernel", "amplitude")
RESIDUAL_ARRAYS = ("lengthscale", "inducing", "mean", "root")


def save_posterior(path: str | Path, posterior: Posterior) -> str:
    """Write a model to a file atomically, and return its sha256. Errors are those of `write_checkpoint`."""
    return write_checkpoint(path, *describe_posterior(posterior), kind=KIND)


def _mode_header(mode: Mode) -> JsonObject:
    """Return a mode as JSON values; that it is rotated is stated only where it is, as files of before have it."""
    values = asdict(mode)
    if not values["rotated"]:
        del values["rotated"]
    return values


def load_posterior(path: str | Path) -> Posterior:
    """Read a model from a file; nothing in the file is run.

    Raises:
        InputError: a damaged file, another kind of file, or one that does not fit this version.
        UnsafeError: a pickle.
    """
    header, arrays = read_checkpoint(path, kind=KIND)
    try:
        return build_posterior(header, arrays)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} does not hold a model that this version knows: {reason}") from None


def load_model(path: str | Path) -> Posterior:
    """Return the tensor model in a file, as `fieldmorph tensor fit` writes it.

    Args:
        path: of the file.

    Raises:
        InputError: a damaged file, another kind of file, or one that does not fit this version.
        UnsafeError: a pickle.
    """
    return load_posterior(path)


def describe_posterior(posterior: Posterior) -> tuple[JsonObject, dict[str, Tensor]]:
    """Return a model as JSON values and arrays."""
    arrays = {}
    for k, process in enumerate(posterior.processes):
        arrays[f"points.{k}"], arrays[f"eta.{k}"] = process.points, process.eta
        arrays[f"lam.{k}"] = pack(process.lam)
    core: JsonObject = {"kind": "cp", "ranks": list(posterior.ranks)}
    if isinstance(posterior.core, TuckerCore):
        core["kind"] = "tucker"
        arrays["core.mean"], arrays["core.covariance"] = posterior.core.mean, posterior.core.covariance
    value = {"name": posterior.value_name, "unit": posterior.value_unit}
    if posterior.value_standard_name is not None:
        value["standard_name"] = posterior.value_standard_name
    header = {
        "modes": [_mode_header(mode) for mode in posterior.modes],
        "value": value,
        "kernels": [describe_kernel(kernel) for kernel in posterior.kernels],
        "core": core,
        "noise": asdict(posterior.noise),
        "shift": posterior.shift,
        "scale": posterior.scale,
        "intervals": asdict(posterior.intervals),
        "provenance": posterior.provenance,
    }
    if (residual := posterior.residual) is not None:
        header["residual"] = {name: getattr(residual, name) for name in RESIDUAL_NUMBERS}
        arrays |= {f"residual.{name}": getattr(residual, name) for name in RESIDUAL_ARRAYS}
    return header, arrays


def build_posterior(header: JsonObject, arrays: dict[str, Tensor]) -> Posterior:
    """Return the model that `describe_posterior` described.

    Args:
        header, arrays: as `describe_posterior` returned them.
    """
    kernels = [build_kernel(spec) for spec in header["kernels"]]
    ranks, processes = header["core"]["ranks"], []
    for k, (kernel, r) in enumerate(zip(kernels, ranks, strict=True)):
        lam = arrays[f"lam.{k}"][:, unpack_index(r)]
        processes.append(Process(space_of(kernel), arrays[f"points.{k}"], arrays[f"eta.{k}"], lam))
    core: Core = CPCore(ranks[0])
    if header["core"]["kind"] == "tucker":
        core = TuckerCore(tuple(ranks), arrays["core.mean"])
        core.covariance = arrays["core.covariance"]
    intervals, residual = header["intervals"], None
    if "residual" in header:
        numbers = header["residual"]
        parts: Any = {name: arrays[f"residual.{name}"] for name in RESIDUAL_ARRAYS}
        residual = SparseGP(**{**numbers, "columns": tuple(numbers["columns"])}, **parts)
    return Posterior(
        tuple(Mode(**mode) for mode in header["modes"]),
        header["value"]["name"],
        header["value"]["unit"],
        tuple(kernels),
        tuple(processes),
        core,
        Noise(**header["noise"]),
        header["shift"],
        header["scale"],
        Intervals(
            **{**intervals, "levels": tuple(intervals["levels"]), "factors": tuple(intervals["factors"])}
        ),
        header["provenance"],
        residual,
        header["value"].get("standard_name"),
    )


def describe_kernel(kernel: Kernel) -> JsonObject:
    """Return a kernel with its hyperparameters as JSON values; priors are not kept.

    Raises:
        SettingError: a kernel that is not in the table of covariances.
    """
    if (entry := of_kernel(kernel)) is None:
        raise known("kernel", type(kernel).__name__, class_names())
    described: JsonObject = {"kernel": entry.class_name}
    described |= {name: float(getattr(kernel, name).detach()) for name in entry.numbers}
    described |= entry.settings
    if entry.parts:
        parts = getattr(kernel, entry.parts)
        described["parts"] = [describe_kernel(p) for p in ([parts] if isinstance(parts, Kernel) else parts)]
    return described


def build_kernel(described: Mapping[str, Any]) -> Kernel:
    """Return the kernel that `describe_kernel` described.

    Raises:
        SettingError: an unknown kernel.
    """
    if (entry := of_description(described)) is None:
        raise known("kernel", described["kernel"], class_names())
    kernel = entry.make(*(build_kernel(part) for part in described.get("parts", [])))
    for name in entry.numbers:
        setattr(kernel, name, torch.tensor(described[name], dtype=torch.float64))
    return kernel
