"""Checkpoints: one safetensors file that holds every array and, as JSON, everything else.

The file's `__metadata__` has the single key `fieldmorph`, a JSON text with `format` (version), `kind`
(one of `KINDS`), `header` (the caller's) and `sha256`. The digest is that of the whole file with its own
64 digits written as zeros, so one flipped bit anywhere is found. The same header and arrays give the same
bytes: keys and arrays are sorted, and nothing else goes in. Reading never runs anything from the file.
"""

import hashlib
import importlib
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
from torch import Tensor

from fieldmorph.fields.errors import InputError, SettingError, UnsafeError, known
from fieldmorph.fields.types import JsonObject

FORMAT = 1
KEY = "fieldmorph"
MAX_HEADER = 2**25  # bytes of JSON; everything long belongs in arrays
ZEROS = b"0" * 64
CODE_MAGIC = (b"\x80", b"PK\x03\x04")  # pickle from protocol 2 on; zip, as torch.save writes


@dataclass(frozen=True)
class CheckpointKind:
    """One kind of checkpoint, and the package that owns it.

    Attributes:
        describe: `module:function` of its owner, imported when used: from header and arrays to JSON values.
        meaning: what messages add to the kind's name.
    """

    describe: str
    meaning: str = ""


KINDS = {
    "field": CheckpointKind("fieldmorph.fields.store:describe_field"),
    "state": CheckpointKind("fieldmorph.fields.loop:describe_state"),
    "posterior": CheckpointKind("fieldmorph.bayes.model_header:describe_model", " (a fitted tensor model)"),
}


def write_checkpoint(
    path: str | Path, header: JsonObject, arrays: dict[str, Tensor], kind: str = "field"
) -> str:
    """Write a checkpoint at once or not at all, and return its sha256 (hexadecimal).

    A reader sees the old file or the new one; a killed process leaves at most a `.fieldmorph-*.tmp` behind.

    Args:
        header: JSON values with string keys. Tuples come back as lists and keys sorted.
        arrays: Tensors by name, on any device; shared memory is stored once for each of them.
        kind: one of `KINDS`: `field` (what `load_field` reads), `state` (what a run resumes from), ...

    Raises:
        SettingError: A kind, array name or dtype that the format does not have, or a header over 32 MiB.
        InputError: A folder that does not exist, or a path that is a folder or a device.
        TypeError, ValueError: A header that is not JSON, NaN and infinity included (see `pack_state`).
        OSError: The disk is full or fails; the old file is intact.
    """
    if kind not in KINDS:
        raise known("checkpoint kind", kind, KINDS)
    if "__metadata__" in arrays:
        raise SettingError("an array cannot be called '__metadata__'")
    target = _destination(path)
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in arrays.items()}
    sha256 = hashlib.sha256(_serialize(header, copies, kind, ZEROS.decode())).hexdigest()
    _replace(target, _serialize(header, copies, kind, sha256))
    return sha256


def write_file(path: str | Path, data: bytes) -> None:
    """Write any file as `write_checkpoint` does its own: at once or not at all.

    Raises:
        InputError, OSError: as there.
    """
    _replace(_destination(path), data)


def read_header(path: str | Path) -> JsonObject:
    """Return the contents of a checkpoint of any kind, without reading its arrays.

    Returns `format`, `kind`, `header` and `sha256` as written, and `arrays`: for each name its `dtype`
    (safetensors' names, such as `BF16`), `shape` and `bytes`. Raises what `read_checkpoint` does, but the
    digest is not verified.
    """
    with _open(path) as file:
        return _read_head(path, file)


def read_checkpoint(path: str | Path, kind: str = "field") -> tuple[JsonObject, dict[str, Tensor]]:
    """Return the header and the arrays (on the CPU, contiguous, each with memory of its own) of a checkpoint.

    Raises:
        UnsafeError: A pickle or a zip file.
        InputError: No such file, not a checkpoint, another kind, a newer format, cut short or changed.
    """
    with _open(path) as file:
        meta = _read_head(path, file)
        if meta["kind"] != kind:
            found, wanted = (f"a {k} checkpoint{KINDS[k].meaning}" for k in (meta["kind"], kind))
            raise InputError(f"{path} is {found}; expected {wanted}")
        file.seek(0)
        data = file.read()
    if hashlib.sha256(data.replace(meta["sha256"].encode(), ZEROS, 1)).hexdigest() != meta["sha256"]:
        raise InputError(f"{path} is damaged: its contents do not match its sha256")
    try:
        return meta["header"], safetensors.torch.load(data)
    except (safetensors.SafetensorError, LookupError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def describe_contents(kind: str, header: JsonObject, arrays: dict[str, Tensor]) -> JsonObject:
    """Return what a checkpoint of this kind holds as JSON values, with nothing built or run.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: a header or arrays that the kind's owner does not know.
    """
    module, _, name = KINDS[kind].describe.partition(":")
    describe: Callable[..., JsonObject] = getattr(importlib.import_module(module), name)
    return describe(header, arrays)


def check_output(path: str | Path, force: bool = False) -> None:
    """Check that `write_checkpoint` can write this file, to fail before the work rather than after it.

    Raises:
        SettingError: The file exists and `force` is false.
        InputError: The path is a folder or a device, or its folder is missing or cannot be written to.
    """
    try:
        target = _destination(path)
        tempfile.TemporaryFile(dir=target.parent).close()  # root passes every check of permission bits
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    if target.exists() and not force:
        raise SettingError(f"{path} exists; use --force to overwrite")


def pack_state(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a nested state, such as `optimizer.state_dict()`, into JSON values and arrays.

    Lists, strings, integers, finite floats, booleans and None stand for themselves; an object with one key is
    a tag: `dict` (pairs, so that integer keys and order survive), `tuple`, `float` (inf, -inf, nan) or
    `tensor` (the name of an array). Subclasses come back as the plain type, any other type is a TypeError.
    Tensors are not copied, so write them before they change.
    """
    arrays: dict[str, Tensor] = {}

    def pack(value: Any) -> Any:
        match value:
            case None | bool() | int() | str():
                return value
            case float():
                return float(value) if math.isfinite(value) else {"float": repr(float(value))}
            case list():
                return [pack(item) for item in value]
            case tuple():
                return {"tuple": [pack(item) for item in value]}
            case dict():
                return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
            case Tensor():
                arrays[name := f"{len(arrays):06d}"] = value
                return {"tensor": name}
        raise TypeError(f"expected dict, list, number, text or tensor in a state; got {type(value).__name__}")

    return pack(tree), arrays


def unpack_state(tree: Any, arrays: dict[str, Tensor]) -> Any:
    """Return the state that `pack_state` split, with the very tensors of `arrays`.

    Raises:
        InputError: A tree that `pack_state` does not make, or an array that is missing.
    """

    def unpack(value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [unpack(item) for item in value]
            case {"tuple": list(items)}:
                return tuple(map(unpack, items))
            case {"dict": list(pairs)}:
                return {unpack(key): unpack(item) for key, item in pairs}
            case {"float": str(text)}:
                return float(text)
            case {"tensor": str(name)}:
                return arrays[name]
        raise ValueError(f"unknown {type(value).__name__}")

    try:
        return unpack(tree)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"saved state is damaged: {type(error).__name__} {error}") from error


def _serialize(header: JsonObject, arrays: dict[str, Tensor], kind: str, sha256: str) -> bytes:
    meta = {"format": FORMAT, "kind": kind, "header": header, "sha256": sha256}
    text = json.dumps(meta, sort_keys=True, allow_nan=False, separators=(",", ":"))
    try:
        data = safetensors.torch.save(arrays, {KEY: text})
    except KeyError as error:
        raise SettingError(f"arrays of dtype {error} cannot be saved") from error
    if (length := int.from_bytes(data[:8], "little")) > MAX_HEADER:
        raise SettingError(f"the header has {length} bytes; at most {MAX_HEADER} fit")
    return data


def _open(path: str | Path) -> BinaryIO:
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait
            raise InputError(f"cannot read {path}: it is not a file")
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _read_head(path: str | Path, file: BinaryIO) -> JsonObject:
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or not 2 <= length <= MAX_HEADER:
        if start.startswith(CODE_MAGIC):
            raise UnsafeError(f"{path} is a pickle or zip, not a fieldmorph checkpoint; we never unpickle")
        raise InputError(f"{path} is not a fieldmorph checkpoint: it does not begin like a safetensors file")
    try:
        meta = _parse(path, b"{" + file.read(length - 1))
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path} is truncated or damaged: its header cannot be read") from error
    expected = 8 + length + sum(array["bytes"] for array in meta["arrays"].values())
    if (size := os.fstat(file.fileno()).st_size) != expected:
        raise InputError(f"{path} is truncated or damaged: expected {expected} bytes, got {size}")
    return meta


def _parse(path: str | Path, head: bytes) -> JsonObject:
    table = json.loads(head)
    text = table.pop("__metadata__", {}).get(KEY)
    if text is None:
        raise InputError(f"{path} is not a fieldmorph checkpoint but another tool's safetensors file")
    meta = json.loads(text)
    if (version := int(meta["format"])) > FORMAT:
        raise InputError(f"{path} has checkpoint format {version}; this fieldmorph reads up to {FORMAT}")
    valid = version == FORMAT and meta["kind"] in KINDS and isinstance(meta["header"], dict)
    if not (valid and re.fullmatch("[0-9a-f]{64}", meta["sha256"])):
        raise ValueError("metadata")
    meta["arrays"] = {}
    for name, entry in table.items():
        size = int(entry["data_offsets"][1]) - int(entry["data_offsets"][0])
        meta["arrays"][name] = {"dtype": entry["dtype"], "shape": entry["shape"], "bytes": size}
    result: JsonObject = meta
    return result


def _destination(path: str | Path) -> Path:
    """Return the file that `path` names, links followed, checked to be one that may be replaced."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it is a folder or a device")
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: folder {target.parent} does not exist")
    return target


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".fieldmorph-{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "nt":  # a folder cannot be opened there
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the new name last
    finally:
        os.close(folder)
