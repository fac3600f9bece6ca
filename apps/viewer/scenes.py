"""The scenes of a viewer: each by an id that nobody can guess, with its facts and, once it is made, its bake."""

import json
import os
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.bake.build import first_view
from fieldmorph.apps.receipt.page import receipt_paths
from fieldmorph.apps.viewer.tiles import Pace
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.store import load_field

MOST_SCENES = 32  # that were opened on the page; the oldest makes room
MOST_RECEIPT = 16 << 20  # bytes

Facts = tuple[tuple[str, str], ...]


@dataclass(eq=False)
class SceneBake:
    """How far the browser's volume of a scene is, and its files by name once it is ready.

    Attributes:
        state: `state` is absent, waiting, working, ready or failed; `share` of the work; `reason` of a failure.
        files: None until they are ready.
    """

    state: dict[str, Any] = field(default_factory=lambda: {"state": "absent"})
    files: dict[str, bytes] | None = None


@dataclass(eq=False)
class Scene:
    """One field on the shelf. It owns its bake, so that evicting the scene frees both.

    Attributes:
        id: what a browser calls it: 128 random bits, so that a session sees what it was given and nothing else.
        name: text for people, as the file is called; it may hold anything.
        facts: architecture, parameters, bytes, quality: name and value, texts for people.
        sha256: of the file.
        is_open: false once the scene has made room for others.
    """

    id: str
    name: str
    stored: RenderableField
    facts: Facts
    sha256: str | None = None
    pace: Pace = field(default_factory=Pace)
    bake: SceneBake = field(default_factory=SceneBake)
    is_open: bool = True

    @cached_property
    def first_view(self) -> dict[str, object]:
        """Where a browser begins: `eye`, `target`, `up`, and `focal` over the image's shorter side."""
        return first_view(self.stored)


class Shelf:
    """All scenes of one server."""

    def __init__(self, device: str = "auto"):
        self._device = choose_device(device)
        self._scenes: dict[str, Scene] = {}
        self._passing: deque[str] = deque()  # ids of scenes that may make room
        self._lock = threading.Lock()

    def open(self, path: str | Path, passing: bool = False) -> Scene:
        """Read a file and put it on the shelf.

        Args:
            passing: it was opened on the page, and makes room when there are many.

        Raises:
            InputError, UnsafeError: as `load_field`.
        """
        path = Path(path)
        stored = load_field(path)
        return self.add(path.stem, stored, file_facts(path, stored), file_sha256(path), passing)

    def add(
        self, name: str, stored: RenderableField, facts: Facts, sha256: str | None = None, passing: bool = False
    ) -> Scene:
        """Put a field on the shelf."""
        stored.field.to(self._device).requires_grad_(False)
        scene = Scene(secrets.token_urlsafe(16), name, stored, facts, sha256)
        with self._lock:
            self._scenes[scene.id] = scene
            if passing:
                self._passing.append(scene.id)
                if len(self._passing) > MOST_SCENES:
                    self._scenes.pop(self._passing.popleft()).is_open = False
        return scene

    def get(self, name: Any) -> Scene:
        """The scene of this id.

        Raises:
            InputError: there is none, or no longer.
        """
        scene = self._scenes.get(name) if isinstance(name, str) else None
        if scene is None:
            raise InputError("this scene is not open any more; load the page again")
        return scene


def file_facts(path: Path, stored: RenderableField) -> Facts:
    """What people may want to know of a field in a file."""
    config = {name: value for name, value in stored.field.config().items() if name != "aabb"}
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in config.items() if value is not None
    )
    preset = stored.provenance.get("preset")
    facts = [
        ("architecture", f"{stored.field.name} {preset}" if preset else stored.field.name),
        ("settings", settings),
        ("parameters", f"{stored.field.n_parameters():,}"),
        ("file", byte_text(os.path.getsize(path))),
        *quality_facts(receipt_of(path)),
        ("made by", _made_by(stored.provenance)),
    ]
    return tuple((name, value) for name, value in facts if value)


def receipt_of(path: Path) -> dict[str, Any]:
    """The receipt beside a file; empty where there is none that can be read."""
    data = receipt_paths(path)[0]
    try:
        if data.stat().st_size > MOST_RECEIPT:
            return {}
        receipt = json.loads(data.read_bytes())
    except (OSError, ValueError):
        return {}
    return receipt if isinstance(receipt, dict) else {}


def quality_facts(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """PSNR to the teacher and, where there were photographs, to these, from a receipt of any origin."""
    try:
        mean = receipt["quality"]["held_out"]["mean"]
        known = {
            "PSNR to its teacher": mean.get("psnr_to_teacher"),
            "PSNR to photographs": mean.get("student_psnr"),
            "below its teacher": mean.get("psnr_drop"),
        }
        return [(name, f"{float(value):.2f} dB") for name, value in known.items() if value is not None]
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def byte_text(n_bytes: float) -> str:
    """`3.7 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}" if unit != "bytes" else f"{n_bytes:.0f} bytes"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def _made_by(provenance: Mapping[str, Any]) -> str:
    """`convert from hashgrid, 3,000 steps`, as far as a file tells."""
    job, teacher, steps = (provenance.get(name) for name in ("job", "teacher", "steps"))
    origin = teacher.get("field") if isinstance(teacher, Mapping) else provenance.get("scene")
    words = [str(job)] if job else []
    if origin:
        words.append(f"from {origin}" if isinstance(teacher, Mapping) else f"on {origin}")
    told = " ".join(words)
    return f"{told}, {steps:,} steps" if told and isinstance(steps, int) else told
