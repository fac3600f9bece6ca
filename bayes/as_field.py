"""Conversion of a posterior of three modes to a voxel field: density and color show the values.

The field is an ordinary voxel grid, which can be rendered, viewed and converted.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.blackbox import box_cameras
from fieldmorph.fields.errors import InputError, SettingError, known
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import step_size_for
from fieldmorph.fields.voxels import N_HARMONICS, Voxels

QUANTITIES = ["mean", "sd"]  # the function's
OPAQUE = 12.0  # optical depth across the box of the highest value
MIN_OPACITY = 0.05  # fraction of the way from low to high below which cells stay empty
FIRST_HARMONIC = 0.5 / math.sqrt(math.pi)
CELLS = 64  # of the occupancy grid, along each side


def as_field(
    posterior: Posterior,
    quantity: str = "mean",
    *,
    low: float | None = None,
    high: float | None = None,
    nodes: int = 96,
    sides: Sequence[float] = (2.0, 2.0, 2.0),
    ranges: Sequence[tuple[float, float]] | None = None,
    colormap: str | None = None,
) -> RenderableField:
    """Return a voxel field of the posterior on a grid; its modes in their order are x, y and z.

    Args:
        quantity: `mean`, or `sd` for the standard deviation of the function.
        low, high: transparent at `low`, opaque at `high`; the optical depth grows with the square of the fraction
            between them. By default the grid's median and maximum.
        nodes: number of grid nodes along each side.
        sides: lengths of the box, in world units; its center is the origin.
        ranges: of each mode's coordinate; by default from the first measurement to the last.
        colormap: name of a matplotlib colormap.

    Raises:
        SettingError: not three modes, an unknown quantity or colormap, an empty range, or `low` not below `high`.
        InputError: nothing of the posterior is above `low`.
    """
    if quantity not in QUANTITIES:
        raise known("quantity", quantity, QUANTITIES)
    if len(posterior.modes) != 3:
        raise SettingError(f"a scene needs a model of three modes; this one has {len(posterior.modes)}")
    name = colormap or {"mean": "viridis", "sd": "magma"}[quantity]
    if name not in colormaps:
        raise SettingError(f"unknown matplotlib colormap {name!r}")
    ranges = ranges or [(float(p.points[0]), float(p.points[-1])) for p in posterior.processes]
    if not all(first < last for first, last in ranges):
        raise SettingError(f"the range of a mode must go from a lower to a higher coordinate; got {ranges}")
    axes = [torch.linspace(first, last, nodes, dtype=torch.float64) for first, last in ranges]
    found = posterior.predict_grid(posterior.factors(axes))
    values = found.mean if quantity == "mean" else found.latent_sd
    low = float(values.median()) if low is None else low
    high = float(values.max()) if high is None else high
    if not low < high:
        raise SettingError(f"low must be less than high; got {low:g} and {high:g}")
    fraction = ((values - low) / (high - low)).clamp(0, 1).float()
    if not (fraction > MIN_OPACITY).any():
        raise InputError(
            f"nothing of the posterior is above {low:g}: its largest value is {float(values.max()):g}"
        )
    corner = torch.tensor([*sides]) / 2
    field = Voxels(aabb=[*(-corner).tolist(), *corner.tolist()], resolution=nodes)
    field.activate(fraction > MIN_OPACITY, _rows(fraction[fraction > MIN_OPACITY], name))
    cameras = box_cameras(field.box())
    step = step_size_for(cameras, field)
    occupancy = OccupancyGrid(CELLS)
    occupancy.rebuild(field, step, torch.Generator().manual_seed(0))
    shown = {
        "quantity": quantity,
        "low": low,
        "high": high,
        "colours": name,
        "ranges": [list(r) for r in ranges],
    }
    modes = [mode.name for mode in posterior.modes]
    provenance = {"job": "tensor scene", **shown, "modes": modes, "model": posterior.provenance}
    return RenderableField(field, occupancy, step, cameras, provenance)


def _rows(fraction: Float[Tensor, "n"], colormap: str) -> Float[Tensor, "n 28"]:
    """Return log density per box length, then harmonics of which only the first is not 0: colors without direction."""
    rgb = torch.from_numpy(colormaps[colormap](fraction.numpy())[:, :3]).float()
    harmonics = torch.zeros(len(fraction), 3, N_HARMONICS)
    harmonics[:, :, 0] = torch.logit(rgb.clamp(0.01, 0.99)) / FIRST_HARMONIC
    return torch.cat([torch.log(OPAQUE * fraction.square())[:, None], harmonics.flatten(1)], dim=1)
