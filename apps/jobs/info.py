"""What is in a file, without building or running anything."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldmorph.apps.tensor.summaries import info_words
from fieldmorph.fields.checkpoint import read_checkpoint, read_header
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.files import file_sha256

TRAINED = "field."  # prefix of the parameters' names
MODEL = ("value", "rows", "core", "noise_sd", "modes", "residual")  # of a tensor model, shown in words


def describe_file(path: str | Path) -> dict[str, Any]:
    """Header, arrays, sizes, box and provenance of a field, a state or a tensor model, verified against its digest.

    Raises:
        InputError: not a checkpoint, damaged, or of a newer format.
        UnsafeError: a pickle or a zip.
    """
    head = read_header(path)
    tensors = read_checkpoint(path, kind=head["kind"])[1]  # for its digest, too
    described = {
        "file": str(path),
        "kind": head["kind"],
        "format": head["format"],
        "bytes": Path(path).stat().st_size,
        "sha256": file_sha256(path),
    }
    header, arrays = head["header"], head["arrays"]
    config = header.get("config")
    if head["kind"] == "state":
        return {**described, "settings": header.get("settings"), "arrays": arrays}
    if head["kind"] == "posterior":
        try:
            return {**described, **_model(header, tensors), "arrays": arrays}
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"{path} holds no model that this version knows: {error!r}") from None
    return {
        **described,
        "field": header.get("field"),
        "config": config,
        "aabb": config.get("aabb") if isinstance(config, dict) else None,
        "params": sum(math.prod(a["shape"]) for name, a in arrays.items() if name.startswith(TRAINED)),
        "render_step_size": header.get("render_step_size"),
        "image_size": header.get("image_size"),
        "cameras": arrays.get("cameras.intrinsics", {}).get("shape", [0])[0],
        "provenance": header.get("provenance"),
        "arrays": arrays,
    }


def info_table(described: dict[str, Any]) -> str:
    """What `describe_file` returned, for people."""
    hidden = {"arrays", *(MODEL if described["kind"] == "posterior" else ())}
    lines = _tree({k: v for k, v in described.items() if k not in hidden})
    if described["kind"] == "posterior":
        lines += info_words(described)
    lines.append(f"arrays ({len(described['arrays'])})")
    for name, array in sorted(described["arrays"].items()):
        shape = " x ".join(map(str, array["shape"])) or "scalar"
        lines.append(f"  {name}  {array['dtype']}  {shape}  {array['bytes']} bytes")
    return "\n".join(lines)


def _model(header: dict[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A tensor model's modes, kernels, ranks and noise, with nothing built from them."""
    noise = header["noise"]
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
    if told := header.get("residual"):
        residual = {
            "modes": [modes[k]["name"] for k in told["columns"]],
            "kernel": told["kernel"],
            "amplitude": told["amplitude"],
            "lengthscale": arrays["residual.lengthscale"].tolist(),
            "points": len(arrays["residual.inducing"]),
        }
    return {
        "value": header["value"],
        "rows": header["provenance"].get("rows"),
        "core": header["core"]["kind"],
        "noise_sd": header["scale"] * math.sqrt(noise["rate"] / noise["shape"]),
        "modes": modes,
        "residual": residual,
        "provenance": header["provenance"],
    }


def _tree(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_tree(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {shown}")
    return lines
