"""Maps of a tensor model's mean and standard deviation, at a few times or other values of the third mode."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from fieldmorph.apps.tensor.date_words import words_for
from fieldmorph.apps.tensor.labels import label
from fieldmorph.apps.tensor.map_layers import NO_LAYERS, MapLayers, check_kept, map_modes
from fieldmorph.apps.tensor.plot_style import INK, LAND, MEAN_MAP, SD_MAP, color_bar, name_axis, positions
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.posterior import Posterior

CELLS = 240  # along either side of a map
SLICES = 4
WIDE = 2.5  # ratio of width to height above which mean and deviation are next to each other
MIN_RATIO = 0.4
COAST = "#3a3a3a"
DOTS = 3000.0  # square points that all measured places of a map take together, at most


def plot_maps(posterior: Posterior, layers: MapLayers = NO_LAYERS) -> Figure:
    """Plot mean and deviation of the function over longitude and latitude, or over the first two modes.

    Args:
        layers: mask, coastlines and measured places.
    """
    across, up, through = map_modes(posterior.modes)
    points = [process.points for process in posterior.processes]
    axes = [p.quantile(0.5)[None] for p in points]
    for k in (across, up):
        axes[k] = torch.linspace(float(points[k][0]), float(points[k][-1]), CELLS, dtype=torch.float64)
    if through is not None:
        axes[through] = slices(points[through])
    found = posterior.predict_grid(posterior.factors(axes))
    front = [k for k in range(len(axes)) if k not in (up, across)]
    kept = layers.kept(axes[across], axes[up])
    maps = [
        part.permute([*front, up, across]).reshape(-1, CELLS, CELLS).numpy()
        for part in (found.mean, found.latent_sd)
    ]
    if kept is not None:
        check_kept(kept, layers)
        maps = [np.where(kept, part, np.nan) for part in maps]
    ratio = map_ratio(posterior.modes, across, up, points)
    words = [words_for(mode, p) for mode, p in zip(posterior.modes, points, strict=True)]
    titles = [""] if through is None else words[through](axes[through])
    unit = label("", posterior.value_unit)
    value = label(posterior.value_name, posterior.value_unit)
    figure = draw_maps(
        maps,
        posterior.modes[across],
        posterior.modes[up],
        axes[across],
        axes[up],
        titles,
        ratio,
        value,
        unit,
        layers,
    )
    fixed = [words[k](axes[k])[0] for k in front if k != through]
    if fixed:
        figure.suptitle("At " + ", ".join(fixed), x=0.01, ha="left")
    return figure


def draw_maps(
    maps: Sequence[np.ndarray],
    x: Mode,
    y: Mode,
    at_x: Float[Tensor, "nx"],
    at_y: Float[Tensor, "ny"],
    titles: Sequence[str],
    ratio: float,
    value: str,
    unit: str,
    layers: MapLayers = NO_LAYERS,
) -> Figure:
    """Draw mean and deviation next to each other (wide maps) or one above the other, each with one color scale.

    Args:
        maps: mean and deviation, (maps, ny, nx); NaN where there is no value.
        x, y, at_x, at_y: modes along the maps, and the coordinates of their cells.
        titles: one for each map.
        ratio: width of a map over its height.
        value, unit: labels of the color bars.
        layers: coastlines and measured places.
    """
    n, wide = len(titles), ratio > WIDE
    if wide:
        figure = Figure(figsize=(10.5, 0.9 + n * max(1.15, 0.3 + 4.6 / ratio)))
        panels = figure.subplots(n, 2, squeeze=False, sharex=True, sharey=True)
    else:
        width = 1.2 + max(2.2, 8.5 / n)
        figure = Figure(figsize=(1.3 + n * (width - 1.2), 2 * (width - 1.2) / max(ratio, MIN_RATIO) + 0.9))
        panels = figure.subplots(2, n, squeeze=False, sharex=True, sharey=True).T
    extent = (*edges(positions(x, at_x)), *edges(positions(y, at_y)))
    for kind, (cells, colormap) in enumerate(zip(maps, (MEAN_MAP, SD_MAP), strict=True)):
        low, high = (0.0 if kind else float(np.nanmin(cells))), float(np.nanmax(cells))
        for i, title in enumerate(titles):
            panel = panels[i, kind]
            image = panel.imshow(
                cells[i],
                origin="lower",
                aspect="auto",
                cmap=colormap,
                vmin=low,
                vmax=high,
                interpolation="nearest",
                extent=extent,
            )
            draw_layers(panel, layers, x, y, extent)
            if title and (wide or kind == 0):
                panel.set_title(title)
            where = panel.get_subplotspec()
            name_axis(panel.xaxis, x, bare=not where.is_last_row())
            name_axis(panel.yaxis, y, bare=not where.is_first_col())
        words = f"standard deviation{unit}" if kind else value
        color_bar(figure, image, panels[:, kind].tolist(), words, below=wide)
    return figure


def draw_layers(
    panel: Axes, layers: MapLayers, x: Mode, y: Mode, extent: tuple[float, float, float, float]
) -> None:
    """Draw coastlines and measured places over a map, and gray below the cells without a value.

    Args:
        x, y: modes along the map.
        extent: left, right, bottom and top of the map, to which the panel is limited.
    """
    panel.set_facecolor(LAND)
    if layers.coasts:
        panel.add_collection(LineCollection(layers.coasts, colors=COAST, linewidths=0.6), autolim=False)
    if layers.measured is not None:
        at = [
            positions(mode, torch.from_numpy(numbers))
            for mode, numbers in zip((x, y), layers.measured, strict=True)
        ]
        size = min(6.0, DOTS / len(at[0]))
        panel.scatter(at[0], at[1], s=size, color=INK, alpha=0.6, linewidths=0, gid="measured")
    panel.set(xlim=extent[:2], ylim=extent[2:])


def map_ratio(modes: Sequence[Mode], across: int, up: int, points: Sequence[Tensor]) -> float:
    """Return width over height: by the middle latitude for places on the globe, 1.25 for other modes."""
    if modes[across].kind != "longitude":
        return 1.25
    width, height = (float(points[k][-1] - points[k][0]) for k in (across, up))
    middle = math.radians(float(points[up][0] + points[up][-1]) / 2)
    return max(MIN_RATIO, width * math.cos(middle) / max(height, 1e-9))


def slices(points: Float[Tensor, "n"]) -> Float[Tensor, "_"]:
    """Return a few of the points, evenly spread over their order."""
    chosen = torch.linspace(0, len(points) - 1, 2 * SLICES + 1)[1::2].round().long().unique()
    return points[chosen]


def edges(centers: np.ndarray) -> tuple[float, float]:
    """Return the outer edges of evenly spaced cells with these centers."""
    half = (centers[-1] - centers[0]) / max(len(centers) - 1, 1) / 2 or 0.5
    return float(centers[0] - half), float(centers[-1] + half)
