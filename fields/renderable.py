"""A field with all that is needed to render it: occupancy, render step and the cameras of its scene."""

from dataclasses import dataclass, field

from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.rendering import render_image
from fieldmorph.fields.types import JsonObject

RAYS_PER_CHUNK = 2048  # as fast as larger chunks, in less memory


@dataclass(frozen=True)
class RenderableField:
    """A field that can be rendered, which is what a file holds.

    Attributes:
        field: the representation.
        occupancy: its occupancy grid; a file keeps which cells are occupied, one bit each, not how dense they are.
        render_step_size: in world units.
        cameras: those of the training images, which are not kept: new views are drawn near them.
        provenance: how the field came about, as JSON values; no times, so that equal runs give equal bytes.
    """

    field: VolumeField
    occupancy: OccupancyGrid
    render_step_size: float
    cameras: Cameras
    provenance: JsonObject = field(default_factory=dict)

    def render(self, camera: Cameras, background: float = 1.0) -> dict[str, Tensor]:
        """Return one view, rendered on the field's device, on the CPU.

        Args:
            camera: exactly one.
            background: gray level in [0, 1].

        Returns:
            `colors` (h, w, 3) in sRGB, in [0, 1]; `opacities` (h, w); `depths` (h, w) in world units.

        Raises:
            SettingError: `camera` is not exactly one camera.
        """
        placed = camera.to(self.field.aabb.device)
        rendered = render_image(
            self.field, placed, self.occupancy, self.render_step_size, background, RAYS_PER_CHUNK
        )
        return {name: image.cpu() for name, image in rendered.items()}
