"""A trained field as one file: parameters, occupancy, render step, cameras, where it came from."""

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError, known
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import FIELDS, rebuild_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.types import JsonObject

PREFIX = "field."  # of the parameters' names
MAX_STEPS_PER_BOX = 1 << 16  # across the box, in a file that can be trusted
MAX_PIXELS = 1 << 16  # along one side of an image

log = logging.getLogger(__name__)


def save_field(path: str | Path, stored: RenderableField) -> str:
    """Write a field to a file, atomically, and return the file's sha256 (hexadecimal).

    The extension is yours; the format is that of `fieldmorph.fields.checkpoint`.

    Raises:
        SettingError: a field that no file can bring back, such as a callable.
        InputError: a folder that does not exist.
        OSError: the disk is full or fails; the old file is intact.
    """
    if stored.field.name not in FIELDS:
        raise known("field to save", stored.field.name, FIELDS)
    arrays: dict[str, Tensor] = {
        f"{PREFIX}{k}": v.detach().cpu() for k, v in stored.field.state_dict().items()
    }
    arrays["occupancy.bits"] = stored.occupancy.to_bits()
    arrays["cameras.camera_to_world"] = stored.cameras.camera_to_world
    arrays["cameras.intrinsics"] = stored.cameras.intrinsics
    header = {
        "field": stored.field.name,
        "config": stored.field.config(),
        "render_step_size": stored.render_step_size,
        "occupancy_resolution": stored.occupancy.resolution,
        "image_size": [stored.cameras.width, stored.cameras.height],
        "provenance": stored.provenance,
    }
    sha256 = write_checkpoint(path, header, arrays)
    log.debug("wrote %s: %s, sha256 %s", path, stored.field.name, sha256)
    return sha256


def load_field(path: str | Path) -> RenderableField:
    """Return the field in a file, on the CPU. Nothing in the file is run.

    Raises:
        InputError: a damaged file, or one that does not fit this version.
        UnsafeError: a pickle.
    """
    header, arrays = read_checkpoint(path)
    try:
        rebuilt = rebuild_field(header["field"], header["config"])
        state = {k.removeprefix(PREFIX): v for k, v in arrays.items() if k.startswith(PREFIX)}
        _check_shapes(rebuilt, state)
        rebuilt.load_state_dict(state)
        width, height = header["image_size"]
        cameras = Cameras(arrays["cameras.camera_to_world"], arrays["cameras.intrinsics"], width, height)
        render_step_size = float(header["render_step_size"])
        _check(rebuilt, render_step_size, cameras)
        return RenderableField(
            rebuilt,
            OccupancyGrid.from_bits(arrays["occupancy.bits"], header["occupancy_resolution"]),
            render_step_size,
            cameras,
            header["provenance"],
        )
    except (LookupError, RuntimeError, TypeError, ValueError) as error:  # SettingError is a ValueError
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} does not hold a field that this version knows: {reason}") from None


def describe_field(header: JsonObject, arrays: dict[str, Tensor]) -> JsonObject:
    """Return a field's name, settings, box, size and provenance as JSON values, with nothing built from it.

    Args:
        header, arrays: as `read_checkpoint` returns them.
    """
    config = header.get("config")
    return {
        "field": header.get("field"),
        "config": config,
        "aabb": config.get("aabb") if isinstance(config, dict) else None,
        "params": sum(array.numel() for name, array in arrays.items() if name.startswith(PREFIX)),
        "render_step_size": header.get("render_step_size"),
        "image_size": header.get("image_size"),
        "cameras": len(arrays.get("cameras.intrinsics", ())),
        "provenance": header.get("provenance"),
    }


def _check_shapes(field: VolumeField, state: dict[str, Tensor]) -> None:
    """Reject arrays whose shapes differ from the configuration's; `load_state_dict` would take their shapes."""
    for name, own in field.state_dict().items():
        if name in state and state[name].shape != own.shape:
            sizes = f"{tuple(state[name].shape)} instead of {tuple(own.shape)}"
            raise ValueError(f"size mismatch for {name}: {sizes}")


def _check(field: VolumeField, render_step_size: float, cameras: Cameras) -> None:
    """Reject values with which rendering would fail or never end."""
    if not field.extent / MAX_STEPS_PER_BOX <= render_step_size < math.inf:
        raise ValueError(f"a render step of {render_step_size} does not suit a box of {field.extent}")
    sizes = (cameras.width, cameras.height)
    if not all(type(n) is int and 0 < n <= MAX_PIXELS for n in sizes):
        raise ValueError(f"an image size of {sizes} is not one")
    poses, intrinsics = cameras.camera_to_world, cameras.intrinsics
    if not len(poses) or poses.shape[1:] != (3, 4) or intrinsics.shape != (len(poses), 4):
        raise ValueError("its cameras are not n x 3 x 4 poses and n x 4 intrinsics")
    numbers = [poses, intrinsics, *field.parameters()]
    if not all(t.dtype == torch.float32 and bool(t.isfinite().all()) for t in numbers):
        raise ValueError("parameters and cameras must be finite float32 numbers")
    if not bool((intrinsics[:, :2] > 0).all()):
        raise ValueError("focal lengths must be positive")
