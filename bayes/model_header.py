"""Description of a tensor model from its file, with nothing built from it: gpytorch is not imported."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fieldmorph.bayes.noise import Noise
from fieldmorph.fields.types import JsonObject


def describe_model(header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> JsonObject:
    """Return a model's value, modes, kernels, ranks, noise and provenance as JSON values.

    Args:
        header, arrays: as `read_checkpoint` returns them.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: a header that this version does not know.
    """
    noise = Noise(**header["noise"])
    modes = [
        {
            **mode,
            "points": len(arrays[f"points.{k}"]),
            "range": [float(arrays[f"points.{k}"][end]) for end in (0, -1)],
            "rank": rank,
            "kernel": kernel,
        }
        for k, (mode, rank, kernel) in enumerate(
            zip(header["modes"], header["core"]["ranks"], header["kernels"], strict=True)
        )
    ]
    residual = None
    if process := header.get("residual"):
        residual = {
            "modes": [modes[k]["name"] for k in process["columns"]],
            "kernel": process["kernel"],
            "amplitude": process["amplitude"],
            "lengthscale": arrays["residual.lengthscale"].tolist(),
            "points": len(arrays["residual.inducing"]),
        }
    return {
        "value": header["value"],
        "rows": header["provenance"].get("rows"),
        "core": header["core"]["kind"],
        "noise_sd": header["scale"] * math.sqrt(noise.variance),
        "modes": modes,
        "residual": residual,
        "provenance": header["provenance"],
    }
