"""Fields in a notebook: a picture that can be turned, in the cell itself, without a server."""

from html import escape
from pathlib import Path

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import torch

from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import page
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import step_size_for
from fieldmorph.fields.store import load_field

RESOLUTION = 128  # cells along the longest side: one or two megabytes in the notebook
CAMERAS = 24  # round a field that comes without any
OCCUPANCY = 64  # cells along a side


class ShownField:
    """What a notebook draws: the baked field's own page in a frame.

    Attributes:
        page: the whole page as HTML, which can also be written to a file.
    """

    def __init__(self, page: str, height: int):
        self.page, self._height = page, height

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.page)}" title="3-D viewer" sandbox="allow-scripts allow-downloads" '
            f'allow="fullscreen" style="width: 100%; height: {self._height}px; border: 0"></iframe>'
        )


def show_field(
    field: VolumeField | RenderableField | str | Path,
    *,
    name: str = "field",
    resolution: int = RESOLUTION,
    height: int = 480,
    seed: int = 0,
) -> ShownField:
    """A field, or the one in a file, baked into a page for a notebook's cell.

    Args:
        resolution: cells along the longest side, a multiple of 8.
        height: of the cell in pixels.
        seed: of the places and directions that are looked at.

    Raises:
        InputError: nothing of it is to be seen, or a file that cannot be read.
        SettingError: another resolution.
    """
    if isinstance(field, str | Path):
        name, field = Path(field).stem, load_field(field)
    stored = field if isinstance(field, RenderableField) else _seen_from_around(field, seed)
    return ShownField(page(bake(stored, BakeConfig(resolution, seed=seed), name=name)), height)


def _seen_from_around(field: VolumeField, seed: int) -> RenderableField:
    """A field without cameras, looked at from all sides of its box."""
    cameras, occupancy = orbit_box(field.box(), CAMERAS), OccupancyGrid(OCCUPANCY)
    step = step_size_for(cameras, field)
    occupancy.rebuild(field, step, torch.Generator().manual_seed(seed))
    return RenderableField(field, occupancy, step, cameras)
