"""Scenes to train from: images with their cameras by split, and the box that holds the content."""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.scenes import blender, transforms
from fieldmorph.fields.scenes.frames import SceneReader, read_images
from fieldmorph.fields.scenes.table import READERS
from fieldmorph.fields.types import JsonObject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The views of one split: images and their cameras.

    Attributes:
        cameras: one per image.
        images: sRGB RGBA, **premultiplied**: over a background b a pixel is `rgb + (1 - a) * b`.
        names: each image's path inside the data folder.
    """

    cameras: Cameras
    images: UInt8[Tensor, "n height width 4"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def pixels_over(
        self,
        camera_indices: Int[Tensor, "n_rays"],
        pixels: Int[Tensor, "n_rays 2"],
        render_bkgd: Float[Tensor, "n_rays 3"],
    ) -> Float[Tensor, "n_rays 3"]:
        """Return colors in [0, 1] of the pixels (x, y), each over its own background.

        Args:
            camera_indices: the view of each pixel.
            pixels: whole columns and rows, from 0.
            render_bkgd: sRGB behind each pixel.
        """
        return _over(self.images[camera_indices, pixels[:, 1], pixels[:, 0]], render_bkgd)

    def view_over(self, index: int, render_bkgd: Float[Tensor, "3"]) -> Float[Tensor, "height width 3"]:
        """Return a whole view in [0, 1] over one background."""
        return _over(self.images[index], render_bkgd)


@dataclass(frozen=True)
class Scene:
    """Splits by name and the box of the content: 6 numbers, min then max, world units."""

    name: str
    splits: dict[str, Split]
    aabb: tuple[float, ...]


def load_scene(
    path: str | Path,
    *,
    downscale: int = 1,
    aabb: Sequence[float] | None = None,
    splits: Sequence[str] | None = None,
) -> Scene:
    """Return the scene in a folder (or of one transforms file), whatever format it has.

    A folder with `transforms_train.json` is read as Blender's data sets, one with `transforms.json` as
    instant-ngp's or nerfstudio's. Poses keep the world units of the files. The box is `aabb` where given,
    else that of the masks' visual hull, else instant-ngp's (`aabb_scale`), else a cube around the
    point the cameras look at; it is estimated from the training views where they are read.

    Args:
        path: the folder, or the transforms file.
        downscale: a whole number by which images shrink; box averages, left-over rows and columns cut off.
        aabb: the box in world units, min then max; by default it is estimated.
        splits: read only these; by default all there are.

    Raises:
        InputError: data that cannot be used.
        UnsafeError: a frame's file lies outside the folder.
        SettingError: a bad `downscale` or `aabb`, or a split that does not exist.
    """
    if isinstance(downscale, bool) or not isinstance(downscale, int) or downscale < 1:
        raise SettingError(f"downscale must be a whole number of at least 1; got {downscale!r}")
    given = None if aabb is None else _checked_box(aabb)
    files = _reader_for(Path(path)).read(Path(path), splits)
    if not files.frames:
        raise SettingError("splits must name at least one split; got none")
    loaded = {
        name: Split(*read_images(part, downscale), tuple(frame.name for frame in part))
        for name, part in files.frames.items()
    }
    if not any(bool(split.images[..., 3].any()) for split in loaded.values()):
        raise InputError(f"{files.source}: every pixel of every image is transparent")
    for name, split in loaded.items():
        width, height = split.cameras.width, split.cameras.height
        log.debug(
            "read %d views of %d x %d, split %s, from %s", len(split), width, height, name, files.source
        )
    reference = loaded.get("train") or next(iter(loaded.values()))
    return Scene(files.source.parent.resolve().name, loaded, given or _estimate_box(reference, files.values))


def camera_digests(path: str | Path) -> dict[str, str]:
    """Return a SHA-256 of each split of a scene, over names and cameras of its images; no image is decoded.

    Equal digests mean the same cameras, whatever the size to which images are shrunk. A split whose files cannot be
    used has none.

    Args:
        path: the folder, or the transforms file.
    """
    digests = {}
    for split in ("train", "val", "test"):
        try:
            frames = _reader_for(Path(path)).read(Path(path), [split]).frames[split]
        except (InputError, SettingError, LookupError):
            continue
        digest = hashlib.sha256()
        for frame in frames:
            numbers = [*frame.camera_to_world.ravel().tolist(), *frame.intrinsics, frame.width, frame.height]
            digest.update(f"{frame.name} {' '.join(f'{x:.5g}' for x in numbers)}\n".encode())
        digests[split] = digest.hexdigest()
    return digests


def _reader_for(path: Path) -> SceneReader:
    """Return the first reader that matches."""
    if not path.exists():
        raise InputError(f"{path}: no such folder or transforms file")
    readers = [reader() for reader in READERS.values()]
    for reader in readers:
        if reader.matches(path):
            return reader
    expected = " or ".join(reader.file_name for reader in readers)
    raise InputError(f"{path}: {expected} expected; found none")


def _estimate_box(split: Split, values: JsonObject) -> tuple[float, ...]:
    return (
        blender.mask_box(split.cameras, split.images[..., 3])
        or transforms.ngp_box(values)
        or transforms.camera_box(split.cameras)
    )


def _checked_box(aabb: Sequence[float]) -> tuple[float, ...]:
    try:
        box = tuple(float(v) for v in aabb)
    except (TypeError, ValueError):
        box = ()
    if len(box) != 6 or not all(map(math.isfinite, box)) or any(box[i] >= box[i + 3] for i in range(3)):
        raise SettingError(f"aabb must be 6 finite numbers, min then max on every axis; got {aabb!r}")
    return box


def _over(
    rgba: UInt8[Tensor, "*batch 4"], render_bkgd: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch 3"]:
    rgba = rgba.to(render_bkgd) / 255
    return torch.clamp(rgba[..., :3] + (1 - rgba[..., 3:]) * render_bkgd, 0.0, 1.0)
