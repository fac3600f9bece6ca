"""Scenes that jobs read: the bundled one, splits of any, and digests that identify one."""

import hashlib
import importlib.resources
import logging
from collections.abc import Sequence
from pathlib import Path

from fieldmorph.apps.jobs.inputs import refuse_measurements
from fieldmorph.fields.errors import InputError, UnsafeError
from fieldmorph.fields.scene import Scene, Split, camera_digests, load_scene
from fieldmorph.fields.types import JsonObject

CAMERAS = "cameras_sha256"  # key of a provenance: digests of the cameras by split, from version 0.2 on

SPLITS = ("train", "val", "test")  # the first that is there identifies a scene

log = logging.getLogger(__name__)


def bundled_scene() -> Path:
    """Return the folder of the scene that comes with the package."""
    return Path(str(importlib.resources.files("fieldmorph.apps") / "data" / "spot"))


def open_scene(
    data: str | Path, *splits: str, downscale: int = 1, aabb: Sequence[float] | None = None
) -> Scene:
    """Load some splits of a scene.

    Args:
        data: folder with `transforms_*.json`.
        splits: names of the splits to read, at least one.
        downscale: factor by which the images are shrunk.
        aabb: the scene's box, min then max; estimated by default.

    Raises:
        InputError: bad data, a path that leaves the folder included: nothing in a scene is run.
        SettingError: a split that does not exist.
    """
    refuse_measurements(data, "a scene")
    try:
        return load_scene(data, downscale=downscale, aabb=aabb, splits=splits)
    except UnsafeError as error:
        raise InputError(str(error)) from None


def same_scene(provenance: JsonObject, data: str | Path) -> bool | None:
    """Return whether a scene is the one that a field was trained on, or its teacher, however many conversions ago.

    It is if its training split has the cameras of then; without that split, one that is there. Scenes that were
    rendered from one path have equal test cameras; those with equal training cameras count as one. None stands for
    what is unknown: files of version 0.1 do not say, nor do fields that were trained without files.

    Args:
        provenance: of the field.
        data: the scene's folder.
    """
    trained_on = _trained_on(provenance)
    if not trained_on:
        return None
    found = camera_digests(data)
    common = [split for split in SPLITS if split in trained_on and split in found]
    return bool(common) and found[common[0]] == trained_on[common[0]]


def warn_of_other_scene(path: str | Path, provenance: JsonObject, data: str | Path) -> bool | None:
    """Return what `same_scene` does, and log a warning where it is another one."""
    same = same_scene(provenance, data)
    if same is False:
        log.warning(
            "%s is not the scene that %s was trained on: its cameras or image names differ", data, path
        )
    return same


def _trained_on(provenance: JsonObject | None) -> JsonObject:
    """Return the digests of cameras in a provenance, or in that of the teacher in it."""
    while isinstance(provenance, dict):  # a file may hold anything
        if isinstance(digests := provenance.get(CAMERAS), dict):
            return digests
        teacher = provenance.get("teacher")
        provenance = teacher.get("provenance") if isinstance(teacher, dict) else None
    return {}


def digest(views: Split) -> str:
    """Return the sha256 over images and cameras."""
    digest = hashlib.sha256()
    for tensor in (views.images, views.cameras.camera_to_world, views.cameras.intrinsics):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
