"""What is in a file, without building or running anything."""

import math
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.outputs import file_sha256
from fieldmorph.fields.checkpoint import read_checkpoint, read_header

TRAINED = "field."  # prefix of the parameters' names


def describe_file(path: str | Path) -> dict[str, Any]:
    """Header, arrays, sizes, box and provenance of a field or a state, verified against its digest.

    Raises:
        InputError: not a checkpoint, damaged, or of a newer format.
        UnsafeError: a pickle or a zip.
    """
    head = read_header(path)
    read_checkpoint(path, kind=head["kind"])  # for its digest
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
    lines = _tree({k: v for k, v in described.items() if k != "arrays"})
    lines.append(f"arrays ({len(described['arrays'])})")
    for name, array in sorted(described["arrays"].items()):
        shape = " x ".join(map(str, array["shape"])) or "scalar"
        lines.append(f"  {name}  {array['dtype']}  {shape}  {array['bytes']} bytes")
    return "\n".join(lines)


def _tree(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_tree(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {shown}")
    return lines
