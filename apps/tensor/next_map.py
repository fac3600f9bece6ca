"""Map of the places whose measurement would reduce the standard deviation most."""

import numpy as np
from matplotlib.figure import Figure

from fieldmorph.apps.tensor.explorer import Explorer
from fieldmorph.apps.tensor.labels import label, with_unit
from fieldmorph.apps.tensor.map_layers import NO_LAYERS, MapLayers
from fieldmorph.apps.tensor.maps import draw_layers, edges
from fieldmorph.apps.tensor.plot_style import SD_MAP, color_bar, name_axis, positions
from fieldmorph.bayes.posterior import Posterior

PIN = "#0f6b74"
WIDTH = 9.0  # inches


def plot_next(posterior: Posterior, n: int, layers: MapLayers = NO_LAYERS) -> Figure:
    """Plot the standard deviation of the function in the middle of the other modes, with the next n places to measure.

    Args:
        layers: mask, coastlines and measured places.

    Raises:
        SettingError: the model has no map, or n is out of range.
    """
    explorer = Explorer(posterior, layers)
    place = explorer.middle()
    picks, sd = explorer.where_next(place, n), explorer.map(place).latent_sd.numpy()
    across, up = explorer.map_modes()
    x, y = (positions(posterior.modes[k], explorer.stops[k]) for k in (across, up))
    if explorer.kept is not None:
        sd = np.where(explorer.kept, sd, np.nan)
    figure = Figure(figsize=(WIDTH, min(8.0, max(2.6, 1.4 + 0.85 * WIDTH / explorer.ratio))))
    panel, extent = figure.subplots(), (*edges(x), *edges(y))
    image = panel.imshow(
        sd,
        origin="lower",
        aspect="auto",
        cmap=SD_MAP,
        vmin=0,
        vmax=float(np.nanmax(sd)),
        interpolation="nearest",
        extent=extent,
    )
    draw_layers(panel, layers, posterior.modes[across], posterior.modes[up], extent)
    for number, pick in enumerate(picks.places, start=1):
        at = x[pick[across]], y[pick[up]]
        panel.plot(*at, "o", color=PIN, markersize=13, markeredgecolor="white", zorder=4)
        panel.annotate(
            str(number), at, ha="center", va="center_baseline", color="white", fontweight="bold", zorder=5
        )
    name_axis(panel.xaxis, posterior.modes[across])
    name_axis(panel.yaxis, posterior.modes[up])
    where = ", ".join(explorer.words(k)[place[k]] for k in explorer.sliders)
    before, after = picks.sd[0], with_unit(f"{picks.sd[-1]:.3g}", posterior.value_unit)
    what = "Next place to measure" if n == 1 else f"Next {n} places to measure"
    panel.set_title(
        f"{what}{f', {where}' if where else ''}: the standard deviation of the map is expected to fall from "
        f"{before:.3g} to {after}"
    )
    color_bar(
        figure,
        image,
        [panel],
        f"standard deviation{label('', posterior.value_unit)}",
        below=explorer.ratio > 2.5,
    )
    return figure
