"""The scenes that a viewer has open: each with an unguessable id, facts about its file and, once made, its bake."""

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

from fieldmorph.apps.bake.build import first_view
from fieldmorph.apps.receipt.page import receipt_paths
from fieldmorph.apps.viewer.setting_names import settings_text
from fieldmorph.apps.viewer.tiles import RayCostEstimator
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.store import load_field
from fieldmorph.fields.types import JsonObject

MAX_EVICTABLE = 32  # scenes that were opened on the page; one more evicts the oldest
MAX_RECEIPT_BYTES = 16 << 20

Facts = tuple[tuple[str, str], ...]


@dataclass(eq=False)
class SceneBake:
    """State of the volumes that the browser draws by itself, and their files once they are there.

    Attributes:
        state: JSON values: `state` is absent, waiting, working, ready or failed; `fraction` of the work that is done,
            which never falls; `cells` along the longest side of the finest volume that is there; `reason` of a failure.
        files: of each volume by name, by its number of cells.
    """

    state: JsonObject = field(default_factory=lambda: {"state": "absent"})
    files: dict[int, dict[str, bytes]] = field(default_factory=dict)


@dataclass(eq=False)
class OpenScene:
    """A field that the viewer shows. It owns its bake, so that evicting the scene frees both.

    Attributes:
        id: its name in URLs: 128 random bits, so that a session sees the scenes that it was given and no others.
        name: text for people, the file's stem; it may contain any characters.
        facts: architecture, parameters, bytes, quality: name and value, texts for people.
        sha256: of the file.
        ray_cost, quick_ray_cost: what a ray of this field costs, and one of a quick image, learned from its tiles.
        is_open: false once the scene has been evicted.
        status, revision: of a field that is being trained: text for people, and a number that rises with each state.
        receipt_page: the page of the receipt next to the file, HTML from outside; None where there is none.
    """

    id: str
    name: str
    stored: RenderableField
    facts: Facts
    sha256: str | None = None
    ray_cost: RayCostEstimator = field(default_factory=RayCostEstimator)
    quick_ray_cost: RayCostEstimator = field(default_factory=RayCostEstimator)
    bake: SceneBake = field(default_factory=SceneBake)
    is_open: bool = True
    status: str | None = None
    revision: int | None = None
    receipt_page: str | None = None

    @property
    def quality(self) -> str | None:
        """Return the most telling figure of the receipt, for people; None where there is none."""
        known = dict(self.facts)
        name = next((name for name in ("PSNR to the teacher", "PSNR to test images") if name in known), None)
        return None if name is None else f"{known[name]} {name.removeprefix('PSNR ')}"

    @cached_property
    def first_view(self) -> dict[str, object]:
        """Camera a browser starts with: `eye`, `target`, `up`, and `focal` over the image's shorter side."""
        return first_view(self.stored)


class SceneStore:
    """All open scenes of one server.

    Args:
        device: that fields are moved to, as `fieldmorph.fields.runtime.choose_device` takes it.
    """

    def __init__(self, device: str = "auto"):
        self._device = choose_device(device)
        self._scenes: dict[str, OpenScene] = {}
        self._evictable: deque[str] = deque()  # ids, the oldest first
        self._lock = threading.Lock()

    def open(self, path: str | Path, evictable: bool = False, name: str | None = None) -> OpenScene:
        """Read a file and add its field.

        Args:
            name: for people; the file's stem by default.
            evictable: whether the scene may be evicted when there are more than MAX_EVICTABLE such scenes.

        Raises:
            InputError, UnsafeError: as `load_field`.
        """
        path = Path(path)
        stored = load_field(path)
        scene = self.add(name or path.stem, stored, file_facts(path, stored), file_sha256(path), evictable)
        scene.receipt_page = receipt_page(path)
        return scene

    def add(
        self,
        name: str,
        stored: RenderableField,
        facts: Facts,
        sha256: str | None = None,
        evictable: bool = False,
    ) -> OpenScene:
        """Add a field, and evict the oldest evictable scene where there are too many."""
        stored.field.to(self._device).requires_grad_(False)
        scene = OpenScene(secrets.token_urlsafe(16), name, stored, facts, sha256)
        with self._lock:
            self._scenes[scene.id] = scene
            if evictable:
                self._evictable.append(scene.id)
                if len(self._evictable) > MAX_EVICTABLE:
                    self._scenes.pop(self._evictable.popleft()).is_open = False
        return scene

    def get(self, scene_id: Any) -> OpenScene:
        """Return the scene of this id, which may come from outside.

        Raises:
            InputError: there is none, or it has been evicted.
        """
        scene = self._scenes.get(scene_id) if isinstance(scene_id, str) else None
        if scene is None:
            raise InputError("this scene is no longer open; reload the page")
        return scene


def file_facts(path: Path, stored: RenderableField) -> Facts:
    """Return facts about a field in a file, name and value, those that are empty left out."""
    preset = stored.provenance.get("preset")
    facts = [
        ("architecture", f"{stored.field.name} {preset}" if preset else stored.field.name),
        ("settings", settings_text(stored.field.config())),
        ("parameters", f"{stored.field.n_parameters():,}"),
        ("file", byte_text(os.path.getsize(path))),
        *quality_facts(receipt_of(path)),
        ("made by", _made_by(stored.provenance)),
    ]
    return tuple((name, value) for name, value in facts if value)


def receipt_of(path: Path) -> JsonObject:
    """Return the receipt next to a file; empty where there is none that can be read."""
    data = receipt_paths(path)[0]
    try:
        if data.stat().st_size > MAX_RECEIPT_BYTES:
            return {}
        receipt = json.loads(data.read_bytes())
    except (OSError, ValueError):
        return {}
    return receipt if isinstance(receipt, dict) else {}


def receipt_page(path: Path) -> str | None:
    """Return the page of the receipt next to a file; None where there is none that can be read."""
    page = receipt_paths(path)[1]
    try:
        return page.read_text(encoding="utf-8") if page.stat().st_size <= MAX_RECEIPT_BYTES else None
    except (OSError, ValueError):
        return None


def quality_facts(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the PSNR to the teacher and, where there were some, to test images, from an untrusted receipt."""
    try:
        mean = receipt["quality"]["held_out"]["mean"]
        known = {
            "PSNR to the teacher": mean.get("psnr_to_teacher"),
            "PSNR to test images": mean.get("student_psnr"),
            "below the teacher": mean.get("psnr_drop"),
        }
        return [(name, f"{float(value):.2f} dB") for name, value in known.items() if value is not None]
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def byte_text(n_bytes: float) -> str:
    """Return a size with its unit, such as `3.73 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}" if unit != "bytes" else f"{n_bytes:.0f} bytes"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def _made_by(provenance: Mapping[str, Any]) -> str:
    """Return `convert from hashgrid, 3,000 steps`, or as much of it as a file states."""
    job, teacher, steps = (provenance.get(name) for name in ("job", "teacher", "steps"))
    origin = teacher.get("field") if isinstance(teacher, Mapping) else provenance.get("scene")
    words = [str(job)] if job else []
    if origin:
        words.append(f"from {origin}" if isinstance(teacher, Mapping) else f"on {origin}")
    text = " ".join(words)
    return f"{text}, {steps:,} steps" if text and isinstance(steps, int) else text
