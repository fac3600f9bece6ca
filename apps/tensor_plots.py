"""Pictures of a tensor model: the functions of each mode, maps, and its calibration on measurements it has not seen."""

import math
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from fieldmorph.apps.outputs import check_folder
from fieldmorph.apps.plot_style import FAINT, LINE, SOFT, name_axis, positions, save_figures, styled
from fieldmorph.apps.tensor import read_measurements
from fieldmorph.apps.tensor_maps import plot_maps
from fieldmorph.apps.tensor_words import label, percent
from fieldmorph.bayes.core import TuckerCore
from fieldmorph.bayes.intervals import Intervals
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.store import load_posterior

MOST_ROWS = 6  # functions of a mode that are shown: those that carry most
SAMPLES = 400  # along a function
NORMAL_95 = 1.959964
LEVELS = np.linspace(0.02, 0.98, 49)
BINS = 20


def plot_file(
    model: str | Path, output: str | Path, *, data: str | Path | None = None, force: bool = False
) -> dict[str, Any]:
    """The pictures as PNGs in a folder; their names, as JSON values.

    Args:
        data: measurements that the model has not seen, for the picture of its calibration.

    Raises:
        SettingError, InputError: before anything is written.
    """
    check_folder(output, force)
    posterior = load_posterior(model)
    measured = None if data is None else read_measurements(data, posterior)
    with styled():
        figures = {"factors.png": plot_factors(posterior)}
        if len(posterior.modes) == 1:
            figures["curve.png"] = plot_curve(posterior)
        else:
            figures["maps.png"] = plot_maps(posterior)
        if measured is not None:
            figures["calibration.png"] = plot_calibration(posterior, *measured)
        elif posterior.intervals.levels:
            figures["calibration.png"] = plot_intervals(posterior.intervals)
    save_figures(output, figures)
    return {"output": str(output), "files": sorted(figures)}


def plot_factors(posterior: Posterior) -> Figure:
    """A column for each mode, a row for each of its functions: posterior mean and pointwise 95 % band."""
    shares, n_modes, n_rows = (
        importance(posterior),
        len(posterior.modes),
        min(MOST_ROWS, max(posterior.ranks)),
    )
    figure = Figure(figsize=(0.4 + 2.9 * n_modes, 0.8 + 0.95 * n_rows))
    panels = figure.subplots(n_rows, n_modes, squeeze=False, sharey="col")
    for k, (mode, process) in enumerate(zip(posterior.modes, posterior.processes, strict=True)):
        ends = float(process.points[0]), float(process.points[-1])
        x = torch.cat([process.points, torch.linspace(*ends, SAMPLES, dtype=torch.float64)]).unique()
        mean, covariance = process.at(x)
        half = NORMAL_95 * covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        places, order = positions(mode, x), shares[k].argsort(descending=True).tolist()[:n_rows]
        for row, panel in enumerate(panels[:, k]):
            if row >= len(order):
                panel.set_visible(False)
                continue
            r = order[row]
            panel.axhline(0, color=FAINT, linewidth=0.5)
            low, high = (mean[:, r] - half[:, r]).numpy(), (mean[:, r] + half[:, r]).numpy()
            panel.fill_between(places, low, high, color=SOFT, linewidth=0)
            panel.plot(places, mean[:, r].numpy(), color=LINE, linewidth=1.1 if len(x) < 2 * SAMPLES else 0.6)
            panel.margins(x=0)
            panel.yaxis.set_major_locator(MaxNLocator(3))
            name_axis(panel.xaxis, mode, bare=row < len(order) - 1)
            panel.set_title(f"{100 * float(shares[k][r]):.0f} %", loc="right", color="#777777", pad=2)
        some = f" ({len(order)} of {len(shares[k])})" if len(order) < len(shares[k]) else ""
        panels[0, k].set_title(mode.name.replace("_", " ") + some, fontweight="bold", pad=2)
    figure.suptitle(
        "Functions of each mode with 95 % bands; at the right the share of the variance that each carries",
        x=0.01, ha="left",
    )  # fmt: skip
    return figure


def plot_curve(posterior: Posterior) -> Figure:
    """The function of a model of one mode, its 95 % band, and the interval of new measurements."""
    figure = Figure(figsize=(6.4, 3.2))
    panel, (mode,), (process,) = figure.subplots(), posterior.modes, posterior.processes
    x = torch.linspace(float(process.points[0]), float(process.points[-1]), SAMPLES, dtype=torch.float64)
    found, places = posterior.predict(x[:, None]), positions(mode, x)
    low, high = found.interval(0.95)
    panel.fill_between(places, low.numpy(), high.numpy(), color="#e6ecf0", linewidth=0)
    half = NORMAL_95 * found.latent_sd
    panel.fill_between(
        places, (found.mean - half).numpy(), (found.mean + half).numpy(), color=SOFT, linewidth=0
    )
    panel.plot(places, found.mean.numpy(), color=LINE, linewidth=1.1)
    panel.set_xlim(places[0], places[-1])
    panel.set_ylabel(label(posterior.value_name, posterior.value_unit))
    panel.set_title("Mean with its 95 % band, and where 95 % of new measurements lie", pad=6)
    name_axis(panel.xaxis, mode)
    return figure


def importance(posterior: Posterior) -> list[Tensor]:
    """For each mode its functions' shares of the mean model's sum of squares, mixed terms left out."""
    energies = [process.marginals.mean.square().mean(0) for process in posterior.processes]
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
    """How many measurements lie in central intervals of every level, and where in their distributions they lie."""
    found = posterior.predict(coordinates)
    z = ((values - found.mean) / found.sd).numpy()
    figure = Figure(figsize=(7.4, 3.5))
    left, right = figure.subplots(1, 2)
    lines = [("Gaussian", Intervals(), LINE)]
    if posterior.intervals.levels:
        lines = [("Gaussian", Intervals(), "#999999"), ("calibrated", posterior.intervals, LINE)]
    for row, (name, intervals, colour) in enumerate(reversed(lines)):
        covered = [float((np.abs(z) <= intervals.factor(float(level))).mean()) for level in LEVELS]
        left.plot(LEVELS, covered, color=colour, linewidth=1.4, zorder=3)
        at_95 = float((np.abs(z) <= intervals.factor(0.95)).mean())
        text = f"{name}: {percent(at_95)} in 95 %"
        left.text(0.04, 0.96 - 0.07 * row, text, color=colour, transform=left.transAxes, va="top")
    chance = NORMAL_95 * np.sqrt(LEVELS * (1 - LEVELS) / len(z))
    left.fill_between(LEVELS, LEVELS - chance, LEVELS + chance, color="#e9e9e9", linewidth=0)
    left.plot([0, 1], [0, 1], color=FAINT, linewidth=0.7)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the interval", ylabel="measurements inside it")
    left.set_aspect("equal")
    left.set_title(f"{len(z):,} measurements not seen before", pad=8)
    shares = 0.5 * (1 + torch.erf(torch.from_numpy(z) / math.sqrt(2))).numpy()
    counts, edges = np.histogram(shares, bins=BINS, range=(0, 1))
    right.bar(edges[:-1], counts / len(shares) * BINS, width=0.92 / BINS, align="edge", color=SOFT)
    right.axhline(1, color=FAINT, linewidth=0.7)
    right.set(xlim=(0, 1), xlabel="predicted probability of a smaller value", ylabel="density")
    right.set_title("Level if the model's Gaussians hold", pad=8)
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


def plot_intervals(intervals: Intervals) -> Figure:
    """How wide calibrated intervals are, beside a Gaussian's."""
    figure = Figure(figsize=(3.9, 3.5))
    panel = figure.subplots()
    gaussian = [Intervals().factor(level) for level in intervals.levels]
    most = 1.08 * max(*gaussian, *intervals.factors)
    panel.plot([0, most], [0, most], color=FAINT, linewidth=0.7)
    panel.plot([0, *gaussian], [0, *intervals.factors], "o-", color=LINE, markersize=4, linewidth=1.3)
    for x, y, level in zip(gaussian, intervals.factors, intervals.levels, strict=True):
        panel.annotate(percent(level), (x, y), (-6, 4), textcoords="offset points", ha="right")
    panel.set(xlim=(0, most), ylim=(0, most), xlabel="half-width of a Gaussian's interval (sd)")
    panel.set(ylabel="half-width after calibration (sd)")
    panel.set_title("Intervals learned from rows held out", pad=8)
    return figure
