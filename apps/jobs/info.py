"""Descriptions of files, without building or running anything from them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fieldmorph.apps.tensor.summaries import info_words
from fieldmorph.fields.checkpoint import describe_contents, read_checkpoint, read_header
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.types import JsonObject

# By kind of checkpoint: what is shown in words rather than by its keys, and these words.
IN_WORDS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], list[str]]]] = {
    "posterior": (("value", "rows", "core", "noise_sd", "modes", "residual"), info_words)
}


def describe_file(path: str | Path) -> JsonObject:
    """Return what a field, a state or a tensor model holds as JSON values, verified against its digest.

    Raises:
        InputError: not a checkpoint, damaged, or of a newer format.
        UnsafeError: a pickle or a zip.
    """
    head = read_header(path)
    kind, entries = head["kind"], head["arrays"]
    header, arrays = read_checkpoint(path, kind=kind)
    described = {
        "file": str(path),
        "kind": kind,
        "format": head["format"],
        "bytes": Path(path).stat().st_size,
        "sha256": file_sha256(path),
    }
    try:
        return {**described, **describe_contents(kind, header, arrays), "arrays": entries}
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path} holds no {kind} that this version knows: {error!r}") from None


def info_table(described: JsonObject) -> str:
    """Format what `describe_file` returned as text."""
    hidden, words = IN_WORDS.get(described["kind"], ((), lambda _: []))
    lines = _tree({k: v for k, v in described.items() if k not in ("arrays", *hidden)})
    lines += words(described)
    lines.append(f"arrays ({len(described['arrays'])})")
    for name, array in sorted(described["arrays"].items()):
        shape = " x ".join(map(str, array["shape"])) or "scalar"
        lines.append(f"  {name}  {array['dtype']}  {shape}  {array['bytes']} bytes")
    return "\n".join(lines)


def _tree(values: JsonObject, indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_tree(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {shown}")
    return lines
