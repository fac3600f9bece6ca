"""Plots of a tensor model: the functions of each mode, maps, and calibration on test measurements."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from fieldmorph.apps.tensor.jobs import read_measurements
from fieldmorph.apps.tensor.labels import label, percent
from fieldmorph.apps.tensor.map_layers import MapSettings, open_layers
from fieldmorph.apps.tensor.maps import plot_maps
from fieldmorph.apps.tensor.next_map import plot_next
from fieldmorph.apps.tensor.plot_style import FAINT, LINE, SOFT, name_axis, positions, save_figures, styled
from fieldmorph.apps.tensor.results import PlotResult
from fieldmorph.bayes.conformal import Intervals
from fieldmorph.bayes.core import TuckerCore
from fieldmorph.bayes.posterior import Posterior, Prediction
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.files import check_folder

MAX_ROWS = 6  # functions of a mode that are shown: those with the largest fraction of the variance
SAMPLES = 400  # along a function
NORMAL_95 = 1.959964
LEVELS = np.linspace(0.02, 0.98, 49)
BINS = 20


def plot_file(
    model: str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    maps: MapSettings | None = None,
    n_next: int = 0,
    force: bool = False,
) -> PlotResult:
    """Write plots of a model as PNGs to a folder.

    Args:
        data: test measurements, for a plot of the calibration.
        maps: mask and measured places of the maps.
        n_next: number of places to measure next, on a map in the middle of the other modes; 0 for no such map.

    Raises:
        SettingError, InputError: before anything is written.
    """
    check_folder(output, force)
    posterior = load_posterior(model)
    measured = None if data is None else read_measurements(data, posterior)
    layers = open_layers(posterior, maps or MapSettings())
    with styled():
        figures = {"factors.png": plot_factors(posterior)}
        if len(posterior.modes) == 1:
            figures["curve.png"] = plot_curve(posterior)
        else:
            figures["maps.png"] = plot_maps(posterior, layers)
        if n_next:
            figures["next.png"] = plot_next(posterior, n_next, layers)
        if measured is not None:
            figures["calibration.png"] = plot_calibration(posterior, *measured)
        elif posterior.intervals.levels:
            figures["calibration.png"] = plot_intervals(posterior.intervals)
    save_figures(output, figures)
    return PlotResult(str(output), sorted(figures))


def plot_factors(posterior: Posterior) -> Figure:
    """Plot posterior mean and pointwise 95 % band of functions: a column for each mode, a row for each function."""
    n_modes, n_rows = len(posterior.modes), min(MAX_ROWS, max(posterior.ranks))
    figure = Figure(figsize=(0.4 + 2.9 * n_modes, 0.8 + 0.95 * n_rows))
    panels = figure.subplots(n_rows, n_modes, squeeze=False, sharey="col")
    for k, fractions in enumerate(importance(posterior)):
        draw_functions(panels[:, k].tolist(), posterior, k, fractions)
    figure.suptitle(
        "Functions of each mode with 95 % bands; at the right the fraction of the variance that each explains",
        x=0.01,
        ha="left",
    )
    return figure


def plot_mode(posterior: Posterior, k: int) -> Figure:
    """Plot one column of `plot_factors`."""
    n_rows = min(MAX_ROWS, posterior.ranks[k])
    figure = Figure(figsize=(3.6, 0.5 + 0.95 * n_rows))
    panels = figure.subplots(n_rows, 1, squeeze=False, sharey="col")
    draw_functions(panels[:, 0].tolist(), posterior, k, importance(posterior)[k])
    return figure


def draw_functions(panels: list[Axes], posterior: Posterior, k: int, fractions: Float[Tensor, "r"]) -> None:
    """Draw a mode's functions with the largest fractions of the variance, one in each panel."""
    mode, process = posterior.modes[k], posterior.processes[k]
    ends = float(process.points[0]), float(process.points[-1])
    x = torch.cat([process.points, torch.linspace(*ends, SAMPLES, dtype=torch.float64)]).unique()
    mean, covariance = process.at(x)
    half = NORMAL_95 * covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    places, order = positions(mode, x), fractions.argsort(descending=True).tolist()[: len(panels)]
    for panel, r in zip(panels, order, strict=False):
        panel.axhline(0, color=FAINT, linewidth=0.5)
        low, high = (mean[:, r] - half[:, r]).numpy(), (mean[:, r] + half[:, r]).numpy()
        panel.fill_between(places, low, high, color=SOFT, linewidth=0)
        panel.plot(places, mean[:, r].numpy(), color=LINE, linewidth=1.1 if len(x) < 2 * SAMPLES else 0.6)
        panel.margins(x=0)
        panel.yaxis.set_major_locator(MaxNLocator(3))
        name_axis(panel.xaxis, mode, bare=r != order[-1])
        panel.set_title(f"{100 * float(fractions[r]):.0f} %", loc="right", color="#777777", pad=2)
    for panel in panels[len(order) :]:
        panel.set_visible(False)
    some = f" ({len(order)} of {len(fractions)})" if len(order) < len(fractions) else ""
    panels[0].set_title(mode.name.replace("_", " ") + some, fontweight="bold", pad=2)


def plot_curve(posterior: Posterior) -> Figure:
    """Plot the function of a model of one mode, its 95 % band, and the interval of new measurements."""
    figure = Figure(figsize=(6.4, 3.2))
    panel, (process,) = figure.subplots(), posterior.processes
    x = torch.linspace(float(process.points[0]), float(process.points[-1]), SAMPLES, dtype=torch.float64)
    draw_curve(panel, posterior, 0, x, posterior.predict(x[:, None]))
    panel.set_title("Mean with 95 % band, and 95 % interval of new measurements", pad=6)
    return figure


def draw_curve(panel: Axes, posterior: Posterior, k: int, x: Float[Tensor, "n"], found: Prediction) -> None:
    """Draw predictions along a mode: mean, its 95 % band, and the interval of new measurements."""
    mode, half = posterior.modes[k], NORMAL_95 * found.latent_sd
    bands = [("#e6ecf0", *found.interval(0.95)), (SOFT, found.mean - half, found.mean + half)]
    places = positions(mode, x)
    for color, low, high in bands:
        panel.fill_between(places, low.numpy(), high.numpy(), color=color, linewidth=0)
    panel.plot(places, found.mean.numpy(), color=LINE, linewidth=1.1)
    panel.margins(x=0)
    panel.set_ylabel(label(posterior.value_name, posterior.value_unit))
    name_axis(panel.xaxis, mode)


def importance(posterior: Posterior) -> list[Tensor]:
    """Return for each mode its functions' fractions of the mean model's sum of squares, without mixed terms."""
    energies = [process.marginals().mean.square().mean(0) for process in posterior.processes]
    if isinstance(posterior.core, TuckerCore):
        whole = posterior.core.mean.square().reshape(posterior.ranks)
        for k, energy in enumerate(energies):
            whole = whole * energy.reshape([-1 if j == k else 1 for j in range(len(energies))])
        sums = [whole.movedim(k, 0).flatten(1).sum(1) for k in range(len(energies))]
    else:
        sums = [torch.stack(energies).prod(0)] * len(energies)
    return [s / s.sum() for s in sums]


def plot_calibration(
    posterior: Posterior, coordinates: Float[Tensor, "n modes"], values: Float[Tensor, "n"]
) -> Figure:
    """Plot coverage of central intervals of every level, and a histogram of predicted probabilities."""
    found = posterior.predict(coordinates)
    figure = Figure(figsize=(7.4, 3.5))
    left, right = figure.subplots(1, 2)
    draw_coverage(left, found, values)
    draw_levels(right, found, values)
    return figure


def draw_coverage(panel: Axes, found: Prediction, values: Float[Tensor, "n"]) -> None:
    """Draw the fraction of measurements inside central intervals of every level."""
    own = "Gaussian" if found.degrees is None else "Student's t"
    lines = [(own, Intervals(), LINE)]
    if found.intervals.levels:
        lines = [(own, Intervals(), "#999999"), ("calibrated", found.intervals, LINE)]
    for row, (name, intervals, color) in enumerate(reversed(lines)):
        of = replace(found, intervals=intervals)
        covered = [inside(of, values, float(level)) for level in LEVELS]
        panel.plot(LEVELS, covered, color=color, linewidth=1.4, zorder=3)
        text = f"{name}: {percent(inside(of, values, 0.95))} in 95 %"
        panel.text(0.04, 0.96 - 0.07 * row, text, color=color, transform=panel.transAxes, va="top")
    chance = NORMAL_95 * np.sqrt(LEVELS * (1 - LEVELS) / len(values))
    panel.fill_between(LEVELS, LEVELS - chance, LEVELS + chance, color="#e9e9e9", linewidth=0)
    panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.7)
    panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the interval", ylabel="measurements inside it")
    panel.set_aspect("equal")
    panel.set_title(f"{len(values):,} test measurements", pad=8)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def inside(found: Prediction, values: Float[Tensor, "n"], level: float) -> float:
    """Return the fraction of measurements that lie in the interval of this level."""
    low, high = found.interval(level)
    return float(((low <= values) & (values <= high)).double().mean())


def draw_levels(panel: Axes, found: Prediction, values: Float[Tensor, "n"]) -> None:
    """Draw a histogram of predicted probabilities of a smaller value; it is flat if the model's Gaussians hold."""
    probabilities = 0.5 * (1 + torch.erf((values - found.mean) / found.sd / math.sqrt(2))).numpy()
    counts, edges = np.histogram(probabilities, bins=BINS, range=(0, 1))
    panel.bar(edges[:-1], counts / len(probabilities) * BINS, width=0.92 / BINS, align="edge", color=SOFT)
    panel.axhline(1, color=FAINT, linewidth=0.7)
    panel.set(xlim=(0, 1), xlabel="predicted probability of a smaller value", ylabel="density")
    panel.set_title("Flat if the model's Gaussians hold", pad=8)
    panel.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def plot_intervals(intervals: Intervals) -> Figure:
    """Plot half-widths of calibrated intervals against those of a Gaussian."""
    figure = Figure(figsize=(3.9, 3.5))
    panel = figure.subplots()
    gaussian = [Intervals().factor(level) for level in intervals.levels]
    limit = 1.08 * max(*gaussian, *intervals.factors)
    panel.plot([0, limit], [0, limit], color=FAINT, linewidth=0.7)
    panel.plot([0, *gaussian], [0, *intervals.factors], "o-", color=LINE, markersize=4, linewidth=1.3)
    for x, y, level in zip(gaussian, intervals.factors, intervals.levels, strict=True):
        panel.annotate(percent(level), (x, y), (-6, 4), textcoords="offset points", ha="right")
    panel.set(xlim=(0, limit), ylim=(0, limit), xlabel="half-width of a Gaussian's interval (sd)")
    panel.set(ylabel="half-width after calibration (sd)")
    panel.set_title("Intervals calibrated on held-out rows", pad=8)
    return figure
