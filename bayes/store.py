"""A fitted model as one file: kernels, what every mode's points tell, the core, the noise, and the units."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gpytorch import kernels as gp
from torch import Tensor

from fieldmorph.bayes.conformal import Intervals
from fieldmorph.bayes.core import Core, CPCore, TuckerCore
from fieldmorph.bayes.data.observations import Mode
from fieldmorph.bayes.inference import Noise, space_of
from fieldmorph.bayes.kernels.symmetric import pack, unpack_index
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.sparse_gp import SparseGP
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError, known

KIND = "posterior"
RESIDUAL_NUMBERS = ("columns", "kernel", "amplitude")
RESIDUAL_ARRAYS = ("lengthscale", "inducing", "mean", "root")
NUMBERS = ("lengthscale", "period_length", "outputscale", "constant")  # hyperparameters by gpytorch's names
PARTS = {"ScaleKernel": "base_kernel", "AdditiveKernel": "kernels", "ProductKernel": "kernels"}
SIMPLE = ("MaternKernel", "RBFKernel", "PeriodicKernel", "CosineKernel", "ConstantKernel")


def save_posterior(path: str | Path, posterior: Posterior) -> str:
    """Write the file atomically; its sha256. Errors are `write_checkpoint`'s."""
    return write_checkpoint(path, *describe_posterior(posterior), kind=KIND)


def load_posterior(path: str | Path) -> Posterior:
    """The model in a file. Nothing in the file is run.

    Raises:
        InputError: a damaged file, or one that does not fit this version.
        UnsafeError: a pickle.
    """
    header, arrays = read_checkpoint(path, kind=KIND)
    try:
        return build_posterior(header, arrays)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} does not hold a model that this version knows: {reason}") from None


load_model = load_posterior  # the name users know: a file holds what `fieldmorph tensor fit` calls a model


def describe_posterior(posterior: Posterior) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model as JSON values and arrays."""
    arrays = {}
    for k, process in enumerate(posterior.processes):
        arrays[f"points.{k}"], arrays[f"eta.{k}"] = process.points, process.eta
        arrays[f"lam.{k}"] = pack(process.lam)
    core: dict[str, Any] = {"kind": "cp", "ranks": list(posterior.ranks)}
    if isinstance(posterior.core, TuckerCore):
        core["kind"] = "tucker"
        arrays["core.mean"], arrays["core.covariance"] = posterior.core.mean, posterior.core.covariance
    header = {
        "modes": [asdict(mode) for mode in posterior.modes],
        "value": {"name": posterior.value_name, "unit": posterior.value_unit},
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


def build_posterior(header: dict[str, Any], arrays: dict[str, Tensor]) -> Posterior:
    """The model that `describe_posterior` described."""
    kernels = [build_kernel(spec) for spec in header["kernels"]]
    ranks, processes = header["core"]["ranks"], []
    for k, (kernel, r) in enumerate(zip(kernels, ranks, strict=True)):
        lam = arrays[f"lam.{k}"][:, unpack_index(r)]
        processes.append(Process(space_of(kernel), arrays[f"points.{k}"], arrays[f"eta.{k}"], lam))
    core: Core = CPCore(ranks[0])
    if header["core"]["kind"] == "tucker":
        core = TuckerCore(tuple(ranks), arrays["core.mean"])
        core.covariance = arrays["core.covariance"]
    told, residual = header["intervals"], None
    if "residual" in header:
        numbers = header["residual"]
        parts: Any = {name: arrays[f"residual.{name}"] for name in RESIDUAL_ARRAYS}
        residual = SparseGP(**{**numbers, "columns": tuple(numbers["columns"])}, **parts)
    return Posterior(
        tuple(Mode(**mode) for mode in header["modes"]), header["value"]["name"], header["value"]["unit"],
        tuple(kernels), tuple(processes), core, Noise(**header["noise"]), header["shift"], header["scale"],
        Intervals(**{**told, "levels": tuple(told["levels"]), "factors": tuple(told["factors"])}),
        header["provenance"], residual,
    )  # fmt: skip


def describe_kernel(kernel: gp.Kernel) -> dict[str, Any]:
    """A kernel with its hyperparameters as JSON values; priors are not kept."""
    name = type(kernel).__name__
    spec: dict[str, Any] = {"kernel": name}
    for number in NUMBERS:
        value = getattr(kernel, number, None) if number != "lengthscale" or kernel.has_lengthscale else None
        if value is not None:
            spec[number] = float(value.detach())
    if name == "MaternKernel":
        spec["nu"] = kernel.nu
    if name in PARTS:
        parts = getattr(kernel, PARTS[name])
        spec["parts"] = [describe_kernel(part) for part in (parts if PARTS[name] == "kernels" else [parts])]
    return spec


def build_kernel(spec: dict[str, Any]) -> gp.Kernel:
    """The kernel that `describe_kernel` described.

    Raises:
        SettingError: an unknown kernel.
    """
    name = spec["kernel"]
    if name not in (*SIMPLE, *PARTS):
        raise known("kernel", name, [*SIMPLE, *PARTS])
    parts = [build_kernel(part) for part in spec.get("parts", [])]
    kernel = getattr(gp, name)(*parts, **({"nu": spec["nu"]} if "nu" in spec else {})).double()
    for number in NUMBERS:
        if number in spec:
            setattr(kernel, number, torch.tensor(spec[number], dtype=torch.float64))
    return kernel
