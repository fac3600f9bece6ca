"""One transforms file for all views, as instant-ngp and nerfstudio write it, and its scene box."""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldmorph.fields.cameras import Cameras, look_at_point
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.scenes.frames import (
    Frame,
    SceneFiles,
    choose_splits,
    number,
    read_frames,
    read_transforms,
)
from fieldmorph.fields.types import JsonObject

HELD_OUT = 8  # every so many views become test where the file names no split
NGP_SCALE = 0.33  # instant-ngp's scale and offset where the file has none
NGP_OFFSET = (0.5, 0.5, 0.5)


class TransformsReader:
    """A transforms file of any name, or a folder with `transforms.json`."""

    file_name = "transforms.json"

    def matches(self, path: Path) -> bool:
        return path.is_file() or (path / self.file_name).is_file()

    def read(self, path: Path, splits: Sequence[str] | None = None) -> SceneFiles:
        file = path if path.is_file() else path / self.file_name
        return SceneFiles(file, *split_frames(file, splits))


def split_frames(
    file: Path, splits: Sequence[str] | None = None
) -> tuple[dict[str, list[Frame]], JsonObject]:
    """Return the frames of each split, and the file's other values.

    The split is nerfstudio's (`train_filenames` and so on) where the file has one; otherwise the 1st, 9th,
    17th ... view by name are `test` and the rest `train`. A single view is `train`.
    """
    content = read_transforms(file)
    frames = sorted(read_frames(content, file), key=lambda frame: frame.name)
    listed = {name: content.get(f"{name}_filenames") for name in ("train", "val", "test")}
    if any(listed.values()):
        parts = {name: _listed_frames(frames, names, file) for name, names in listed.items() if names}
    elif len(frames) == 1:
        parts = {"train": frames}
    else:
        parts = {
            "train": [frame for i, frame in enumerate(frames) if i % HELD_OUT],
            "test": frames[::HELD_OUT],
        }
    return {name: parts[name] for name in choose_splits(parts, splits)}, content


def ngp_box(content: JsonObject) -> tuple[float, ...] | None:
    """Return instant-ngp's box in the world units of the file, or None where it has no `aabb_scale`.

    instant-ngp works in units of its own, `scale * position + offset`, where the scene fills a cube of side
    `aabb_scale` around 0.5. Poses are left in the file's units, so that cube is mapped back instead.
    """
    if content.get("aabb_scale") is None:
        return None
    side = number(content, "aabb_scale", "transforms")
    scale = number(content, "scale", "transforms", NGP_SCALE)
    if side <= 0 or scale <= 0:
        raise InputError(f"aabb_scale and scale must be positive; got {side:g} and {scale:g}")
    offset = content.get("offset") or NGP_OFFSET
    if not isinstance(offset, list | tuple) or len(offset) != 3:
        raise InputError(f"offset must be 3 numbers; got {reprlib.repr(offset)}")
    origin = [number({"offset": value}, "offset", "transforms") for value in offset]
    return tuple((0.5 + sign * side / 2 - o) / scale for sign in (-1, 1) for o in origin)


def camera_box(cameras: Cameras) -> tuple[float, ...]:
    """Return the cube around the cameras' look-at point that reaches the farthest camera.

    Raises:
        InputError: the cameras do not look at a common point, so nothing says how far the scene goes.
    """
    centre = look_at_point(cameras)
    pose = cameras.camera_to_world
    towards = centre - pose[:, :, 3]
    reach = float(towards.norm(dim=-1).max())
    if not float((towards * pose[:, :, 2]).sum(-1).median()) > 1e-3 * reach:
        raise InputError("the cameras do not look at a common point, so the box is unknown; give aabb")
    return (*(centre - reach).tolist(), *(centre + reach).tolist())


def _listed_frames(frames: Sequence[Frame], names: Any, file: Path) -> list[Frame]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: a split must be a list of file names; got {reprlib.repr(names)}")
    by_name = {frame.name: frame for frame in frames}
    clean = [Path(name).as_posix() for name in names]
    for name in clean:
        if name not in by_name:
            raise InputError(f"{file}: split lists {name!r}, which is no frame's file_path")
    return [by_name[name] for name in clean]
