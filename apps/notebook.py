"""Fields in a notebook: an interactive view in the cell itself, without a server."""

from html import escape
from pathlib import Path

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
N_CAMERAS = 24  # around a field that has none of its own
OCCUPANCY_RESOLUTION = 64  # cells along a side


class ShownField:
    """A field as a notebook shows it: the page of its bake in a frame.

    Attributes:
        page: the HTML page, which can also be written to a file.
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
    """Bake a field, or the one in a file, into a page for a notebook's cell.

    Args:
        name: shown as the title; the name of the file by default.
        resolution: cells along the longest side, a multiple of 8.
        height: of the cell in pixels.
        seed: of the positions and directions at which the field is evaluated.

    Raises:
        InputError: the field is invisible, or the file cannot be read.
        SettingError: the resolution cannot be used.
    """
    if isinstance(field, str | Path):
        name, field = Path(field).stem, load_field(field)
    stored = field if isinstance(field, RenderableField) else _with_orbit(field, seed)
    return ShownField(page(bake(stored, BakeConfig(resolution, seed=seed), name=name)), height)


def _with_orbit(field: VolumeField, seed: int) -> RenderableField:
    """Return a field without cameras with an occupancy grid, and cameras on an orbit around its box."""
    cameras, occupancy = orbit_box(field.box(), N_CAMERAS), OccupancyGrid(OCCUPANCY_RESOLUTION)
    step = step_size_for(cameras, field)
    occupancy.rebuild(field, step, torch.Generator().manual_seed(seed))
    return RenderableField(field, occupancy, step, cameras)
