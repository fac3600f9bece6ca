"""A trained field as one file: parameters, occupancy, render step, cameras, where it came from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.catalog import rebuild_field
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.occupancy import OccupancyGrid


@dataclass(frozen=True)
class StoredField:
    """What a file holds.

    Attributes:
        field: the representation.
        occupancy: its occupancy grid; a file keeps which cells are occupied, one bit each, not how dense they are.
        render_step_size: in world units.
        cameras: the poses the scene was photographed from (no pictures): new views are drawn near them.
        provenance: how the field came about, as JSON values; no times, so that equal runs give equal bytes.
    """

    field: VolumeField
    occupancy: OccupancyGrid
    render_step_size: float
    cameras: Cameras
    provenance: dict[str, Any] = field(default_factory=dict)


def save_field(path: str | Path, stored: StoredField) -> str:
    """Write the file atomically; its sha256. Errors are `write_checkpoint`'s."""
    arrays: dict[str, Tensor] = {f"field.{k}": v.detach().cpu() for k, v in stored.field.state_dict().items()}
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
    return write_checkpoint(path, header, arrays)


def load_field(path: str | Path) -> StoredField:
    """The field in a file. Nothing in the file is run.

    Raises:
        InputError: a damaged file, or one that does not fit this version.
        UnsafeError: a pickle.
    """
    header, arrays = read_checkpoint(path)
    try:
        rebuilt = rebuild_field(header["field"], header["config"])
        prefix = "field."
        rebuilt.load_state_dict(
            {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        )
        width, height = header["image_size"]
        cameras = Cameras(arrays["cameras.camera_to_world"], arrays["cameras.intrinsics"], width, height)
        if cameras.camera_to_world.shape[1:] != (3, 4) or cameras.intrinsics.shape != (len(cameras), 4):
            raise ValueError("its cameras are not n x 3 x 4 poses and n x 4 intrinsics")
        return StoredField(
            rebuilt,
            OccupancyGrid.from_bits(arrays["occupancy.bits"], header["occupancy_resolution"]),
            float(header["render_step_size"]),
            cameras,
            header["provenance"],
        )
    except (LookupError, RuntimeError, TypeError, ValueError) as error:  # SettingError is a ValueError
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} does not hold a field that this version knows: {reason}") from None
