"""A fitted posterior of three modes as a scene: fog where values are high, coloured by them.

The file it makes is a voxel grid like any other, so that it can be rendered, viewed and converted.
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
FAINT = 0.05  # share of the way from low to high below which nothing is shown
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
    colours: str | None = None,
) -> RenderableField:
    """The posterior on a grid of its coordinates: the modes in their order are x, y and z.

    Args:
        quantity: `mean`, or `sd`: the standard deviation of the function.
        low, high: clear at `low`, opaque at `high`, by the square of the share between; by default the grid's median
            and maximum.
        nodes: along each side.
        sides: of the box, in world units, its centre being the origin.
        ranges: of each mode's coordinate; by default from the first measurement to the last.
        colours: a colour map of matplotlib's.

    Raises:
        SettingError: not three modes, an unknown quantity or colour map, a range of no length, `low` above `high`.
        InputError: nothing of the posterior is above `low`.
    """
    if quantity not in QUANTITIES:
        raise known("quantity", quantity, QUANTITIES)
    if len(posterior.modes) != 3:
        raise SettingError(f"a scene has three axes; this model has {len(posterior.modes)} modes")
    name = colours or {"mean": "viridis", "sd": "magma"}[quantity]
    if name not in colormaps:
        raise SettingError(f"{name!r} is no colour map of matplotlib's")
    ranges = ranges or [(float(p.points[0]), float(p.points[-1])) for p in posterior.processes]
    if not all(first < last for first, last in ranges):
        raise SettingError(f"every mode needs a range from a lower to a higher coordinate; got {ranges}")
    axes = [torch.linspace(first, last, nodes, dtype=torch.float64) for first, last in ranges]
    found = posterior.predict_grid(posterior.factors(axes))
    values = found.mean if quantity == "mean" else found.latent_sd
    low = float(values.median()) if low is None else low
    high = float(values.max()) if high is None else high
    if not low < high:
        raise SettingError(f"low must be less than high; got {low:g} and {high:g}")
    share = ((values - low) / (high - low)).clamp(0, 1).float()
    if not (share > FAINT).any():
        raise InputError(
            f"nothing of the posterior is above {low:g}: its largest value is {float(values.max()):g}"
        )
    corner = torch.tensor([*sides]) / 2
    field = Voxels(aabb=[*(-corner).tolist(), *corner.tolist()], resolution=nodes)
    field.activate(share > FAINT, _rows(share[share > FAINT], name))
    cameras = box_cameras(field.box())
    step = step_size_for(cameras, field)
    occupancy = OccupancyGrid(CELLS)
    occupancy.rebuild(field, step, torch.Generator().manual_seed(0))
    told = {
        "quantity": quantity,
        "low": low,
        "high": high,
        "colours": name,
        "ranges": [list(r) for r in ranges],
    }
    modes = [mode.name for mode in posterior.modes]
    provenance = {"job": "tensor scene", **told, "modes": modes, "model": posterior.provenance}
    return RenderableField(field, occupancy, step, cameras, provenance)


def _rows(share: Float[Tensor, "n"], colours: str) -> Float[Tensor, "n 28"]:
    """Log-density per box length, then harmonics of which the first alone is not zero: a colour from all sides."""
    rgb = torch.from_numpy(colormaps[colours](share.numpy())[:, :3]).float()
    harmonics = torch.zeros(len(share), 3, N_HARMONICS)
    harmonics[:, :, 0] = torch.logit(rgb.clamp(0.01, 0.99)) / FIRST_HARMONIC
    return torch.cat([torch.log(OPAQUE * share.square())[:, None], harmonics.flatten(1)], dim=1)
