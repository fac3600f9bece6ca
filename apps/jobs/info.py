"""Description of a file, without building or running anything from it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fieldmorph.apps.tensor.summaries import info_words
from fieldmorph.fields.checkpoint import read_checkpoint, read_header
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.files import file_sha256

TRAINED = "field."  # prefix of the parameters' names
Header = Mapping[str, Any]  # JSON values
Arrays = Mapping[str, Tensor]


def describe_file(path: str | Path) -> dict[str, Any]:
    """Describe a field, a state or a tensor model: header, arrays, sizes, box and provenance, as JSON values.

    The file's digest is verified.

    Raises:
        InputError: not a checkpoint, damaged, or of a newer format.
        UnsafeError: a pickle or a zip.
    """
    head = read_header(path)
    tensors = read_checkpoint(path, kind=head["kind"])[1]  # verifies the digest, too
    arrays = head["arrays"]
    try:
        described = KINDS[head["kind"]].describe(head["header"], arrays, tensors)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path} holds no {head['kind']} that this version knows: {error!r}") from None
    return {
        "file": str(path),
        "kind": head["kind"],
        "format": head["format"],
        "bytes": Path(path).stat().st_size,
        "sha256": file_sha256(path),
        **described,
        "arrays": arrays,
    }


def info_table(described: dict[str, Any]) -> str:
    """Format what `describe_file` returned."""
    kind = KINDS[described["kind"]]
    lines = _tree({k: v for k, v in described.items() if k not in ("arrays", *kind.in_words)})
    lines += kind.words(described)
    lines.append(f"arrays ({len(described['arrays'])})")
    for name, array in sorted(described["arrays"].items()):
        shape = " x ".join(map(str, array["shape"])) or "scalar"
        lines.append(f"  {name}  {array['dtype']}  {shape}  {array['bytes']} bytes")
    return "\n".join(lines)


@dataclass(frozen=True)
class Kind:
    """How to describe one kind of checkpoint.

    Attributes:
        describe: header, description of the arrays and the arrays to JSON values.
        in_words: keys of these that the table shows in words instead.
        words: lines of the table, in addition to the keys.
    """

    describe: Callable[[Header, Mapping[str, Any], Arrays], dict[str, Any]]
    in_words: tuple[str, ...] = ()
    words: Callable[[Mapping[str, Any]], list[str]] = lambda _: []


def _state(header: Header, _arrays: Mapping[str, Any], _tensors: Arrays) -> dict[str, Any]:
    return {"settings": header.get("settings")}


def _field(header: Header, arrays: Mapping[str, Any], _tensors: Arrays) -> dict[str, Any]:
    config = header.get("config")
    return {
        "field": header.get("field"),
        "config": config,
        "aabb": config.get("aabb") if isinstance(config, dict) else None,
        "params": sum(math.prod(a["shape"]) for name, a in arrays.items() if name.startswith(TRAINED)),
        "render_step_size": header.get("render_step_size"),
        "image_size": header.get("image_size"),
        "cameras": arrays.get("cameras.intrinsics", {}).get("shape", [0])[0],
        "provenance": header.get("provenance"),
    }


def _model(header: Header, _arrays: Mapping[str, Any], tensors: Arrays) -> dict[str, Any]:
    """Describe a tensor model's modes, kernels, ranks and noise."""
    noise = header["noise"]
    modes = [
        {
            **mode,
            "points": len(tensors[f"points.{k}"]),
            "range": [float(tensors[f"points.{k}"][end]) for end in (0, -1)],
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
            "lengthscale": tensors["residual.lengthscale"].tolist(),
            "points": len(tensors["residual.inducing"]),
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


KINDS = {
    "field": Kind(_field),
    "state": Kind(_state),
    "posterior": Kind(_model, ("value", "rows", "core", "noise_sd", "modes", "residual"), info_words),
}


def _tree(values: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_tree(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {shown}")
    return lines
