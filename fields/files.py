"""Checks of output paths before the work begins, JSON files, digests and atomic replacement."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldmorph.fields.checkpoint import write_file
from fieldmorph.fields.errors import InputError, SettingError


def check_folder(path: str | Path, force: bool = False) -> None:
    """Check that files can be written to a folder, which need not exist yet, without creating it.

    Raises:
        SettingError: it has files in it and `force` is false.
        InputError: it is no folder, or cannot be written to.
    """
    path = Path(path)
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise InputError(f"cannot write to {path}: {existing} is not a folder")
    try:
        tempfile.TemporaryFile(dir=existing).close()
        taken = path.exists() and any(path.iterdir())
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}") from None
    if taken and not force:
        raise SettingError(f"{path} exists and is not empty; use --force to write into it")


def check_ending(path: str | Path, endings: Sequence[str]) -> None:
    """Check that an output that is not a folder's name ends as one of the known kinds of files does.

    A folder has no ending or is written with a slash at its end. What exists is left to `check_folder`.

    Raises:
        SettingError: the name has another ending.
    """
    ending = Path(path).suffix.lower()
    if not ending or ending in endings or str(path).endswith(("/", os.sep)) or Path(path).exists():
        return
    known = " or ".join(filter(None, [", ".join(endings[:-1]), endings[-1]]))
    raise SettingError(f"expected a name that ends in {known}, or a folder, as {path}/; got {path}")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, at once or not at all."""
    write_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; its file takes the name where nothing is raised, else is removed."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
