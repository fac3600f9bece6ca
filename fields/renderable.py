"""Pictures of a stored field: one view rendered where the field lies, and cameras of another image size."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.rendering import render_image

RAYS_PER_CHUNK = 2048  # as fast as larger chunks, in less memory


@dataclass(frozen=True)
class RenderableField:
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


def picture(stored: RenderableField, camera: Cameras, background: float = 1.0) -> Float[Tensor, "h w 3"]:
    """The colours of one view in [0, 1], on the CPU."""
    return view(stored, camera, background)["colors"]


def view(stored: RenderableField, camera: Cameras, background: float = 1.0) -> dict[str, Tensor]:
    """`render_image` of a stored field, on its device; results on the CPU."""
    placed = camera.to(stored.field.aabb.device)
    rendered = render_image(
        stored.field, placed, stored.occupancy, stored.render_step_size, background, RAYS_PER_CHUNK
    )
    return {name: image.cpu() for name, image in rendered.items()}


def resize(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same cameras with another image size: the whole old picture is in the new one, centred."""
    scale = min(width / cameras.width, height / cameras.height)
    old = torch.tensor([cameras.width / 2, cameras.height / 2]).to(cameras.intrinsics)
    new = torch.tensor([width / 2, height / 2]).to(cameras.intrinsics)
    focal, centre = cameras.intrinsics.split(2, dim=-1)
    intrinsics = torch.cat([focal * scale, (centre - old) * scale + new], dim=-1)
    return Cameras(cameras.camera_to_world, intrinsics, width, height)
