"""Scenes that jobs read: the bundled one, splits of any, and a digest that identifies one."""

import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path

from fieldmorph.fields.errors import InputError, UnsafeError
from fieldmorph.fields.scene import Scene, Split, load_scene


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
    try:
        return load_scene(data, downscale=downscale, aabb=aabb, splits=splits)
    except UnsafeError as error:
        raise InputError(str(error)) from None


def digest(views: Split) -> str:
    """Return the sha256 over images and cameras."""
    digest = hashlib.sha256()
    for tensor in (views.images, views.cameras.camera_to_world, views.cameras.intrinsics):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
