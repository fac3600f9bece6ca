"""The tensor tab: maps and curves of a model, experimental design, the functions of each mode, calibration."""

import base64
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache, partial
from typing import Any

import gradio as gr
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from fieldmorph.apps.receipt.curve import nice_ticks
from fieldmorph.apps.tensor.explorer import Explorer
from fieldmorph.apps.tensor.jobs import noise_sd
from fieldmorph.apps.tensor.labels import label, percent, with_unit
from fieldmorph.apps.tensor.maps import edges
from fieldmorph.apps.tensor.plot_style import MEAN_MAP, SD_MAP, name_axis, positions
from fieldmorph.apps.tensor.plot_svg import page_svg
from fieldmorph.apps.tensor.plots import draw_coverage, draw_curve, draw_levels, plot_intervals, plot_mode
from fieldmorph.apps.viewer.errors import BusyError
from fieldmorph.apps.viewer.render_pool import FairRenderPool
from fieldmorph.apps.web import assets
from fieldmorph.bayes.core import TuckerCore
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.kinds import DEGREE_LIMITS
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.types import JsonObject

WIDTHS = (280, 1600)  # minimum and maximum of a curve, in pixels
CURVE_HEIGHT = 250  # pixels
PIXELS_PER_INCH = 96
MAP_UNITS = 1000.0  # width and height of the map in its coastlines and measured places
MAX_DOTS = 10_000  # measured places that are drawn
TIMEOUT = 60.0  # seconds until an answer, time in the queue included

Measured = tuple[Tensor, Tensor]  # coordinates (n, modes) and values (n,)
Answer = Callable[[Any], JsonObject]


def add_tensor_tab(
    explorer: Explorer, pool: FairRenderPool, *, measured: Measured | None = None, title: str = "Tensor model"
) -> None:
    """Add the tab to the page that is being built.

    Args:
        pool: computes the answers.
        measured: coordinates and values that the model was not fitted to, to plot its calibration.
    """
    with gr.Tab(title, id="tensor"):
        gr.HTML(
            page_model(explorer),
            html_template=assets.text("tensor/tensor.html"),
            css_template=assets.style("tensor/map.css", "tensor/tensor.css"),
            js_on_load=assets.script("tensor/main.js"),
            apply_default_css=False,
            padding=False,
            server_functions=[_in_pool(f, pool) for f in tensor_answers(explorer, measured)],
        )


def tensor_answers(explorer: Explorer, measured: Measured | None = None) -> list[Answer]:
    """Return the functions that the page calls.

    Each takes and returns JSON values, and raises InputError or SettingError for a bad request.
    """

    def tensor_map(request: Mapping[str, Any]) -> JsonObject:
        return {"png": base64.b64encode(explorer.image(request["show"], request["place"])).decode()}

    def tensor_curve(request: Mapping[str, Any]) -> JsonObject:
        return curve_answer(explorer, request["place"], request["along"], request["width"])

    def tensor_next(request: Mapping[str, Any]) -> JsonObject:
        picks = explorer.where_next(request["place"], request["n"])
        unit, (before, *_, after) = explorer.posterior.value_unit, picks.sd
        return {
            "places": picks.places,
            "words": [place_text(explorer, place, (explorer.up, explorer.across)) for place in picks.places],
            "summary": "Measurements here are expected to reduce the root mean square of the standard deviation on "
            f"this map from {before:.3g} to {with_unit(f'{after:.3g}', unit)}. {_choice_words(explorer)}",
        }

    @cache
    def figures() -> list[JsonObject]:
        return figure_sections(explorer.posterior, measured)

    def tensor_figures(_request: Any) -> JsonObject:
        return {"sections": figures()}

    @cache
    def layers() -> JsonObject:
        return map_layers(explorer)

    def tensor_layers(_request: Any) -> JsonObject:
        return layers()

    return [tensor_map, tensor_curve, tensor_next, tensor_figures, tensor_layers]


def page_model(explorer: Explorer) -> JsonObject:
    """Return what the page needs to know of a model at the start, as JSON values."""
    posterior = explorer.posterior
    modes = [
        {"name": mode.name.replace("_", " "), "words": explorer.words(k)}
        for k, mode in enumerate(posterior.modes)
    ]
    return {
        "title": label(posterior.value_name, posterior.value_unit),
        "about": about(posterior),
        "modes": modes,
        "across": explorer.across,
        "up": explorer.up,
        "sliders": explorer.sliders if explorer.across is not None else [],
        "along": explorer.sliders[0] if explorer.sliders else explorer.across,
        "place": explorer.middle(),
        "map": None if explorer.across is None else _page_map(explorer),
    }


def about(posterior: Posterior) -> str:
    """Return modes, ranks, number of measurements and noise in one line."""
    *names, last = (mode.name.replace("_", " ") for mode in posterior.modes)
    ranks = " × ".join(map(str, posterior.ranks))
    kind = f"Tucker {ranks}" if isinstance(posterior.core, TuckerCore) else f"CP {posterior.ranks[0]}"
    parts = [f"over {', '.join(names)} and {last}" if names else f"over {last}", kind]
    if isinstance(rows := posterior.provenance.get("rows"), int):
        parts.append(f"{rows:,} measurements")
    parts.append(f"noise {with_unit(f'{noise_sd(posterior):.3g}', posterior.value_unit)}")
    if posterior.intervals.levels:
        parts.append(f"calibrated intervals, guaranteed up to {percent(posterior.intervals.guaranteed)}")
    return " · ".join(parts)


def curve_answer(explorer: Explorer, place: Sequence[int], along: int, width: Any) -> JsonObject:
    """Return a curve along one mode as JSON values: SVG, place, reading there, and fractions of the axis.

    Args:
        place: index of a stop along each mode.
        along: index of the mode.
        width: of the figure in pixels, clamped to WIDTHS.

    Raises:
        InputError: the model has no such place or mode, or the width is not a number.
    """
    x, found = explorer.curve(place, along)
    if not isinstance(width, int | float) or not math.isfinite(width):
        raise InputError(f"the width must be a number of pixels; got {width!r:.40}")
    posterior, frame = explorer.posterior, {}
    mode, narrow = posterior.modes[along], min(max(int(width), WIDTHS[0]), WIDTHS[1])

    def draw() -> Figure:
        figure = Figure(figsize=(narrow / PIXELS_PER_INCH, CURVE_HEIGHT / PIXELS_PER_INCH))
        panel = figure.subplots()
        draw_curve(panel, posterior, along, x, found)
        figure.draw_without_rendering()
        frame["left"], frame["right"] = panel.get_position().x0, panel.get_position().x1
        return figure

    stop = int((x - explorer.stops[along][place[along]]).abs().argmin())
    low, high = (end[stop] for end in found.interval(0.95))
    unit, digits = posterior.value_unit, _digits(10 * float(found.sd.min()))
    value, spread = f"{float(found.mean[stop]):.{digits}f}", f"{float(found.latent_sd[stop]):.{digits + 1}f}"
    others = [k for k in range(len(posterior.modes)) if k != along]
    where = place_text(explorer, place, others)
    reading = (
        f"{explorer.words(along)[place[along]]}: {with_unit(value, unit)} ± {spread}; 95 % of new measurements "
        f"from {float(low):.{digits}f} to {float(high):.{digits}f}"
    )
    svg = page_svg(draw, f"{label(posterior.value_name, unit)} along {mode.name}. {reading}")
    stops = positions(mode, explorer.stops[along])
    span = positions(mode, x[[0, -1]])
    fractions = (stops - span[0]) / ((span[1] - span[0]) or 1.0)
    return {
        "svg": svg,
        "where": where or "The function",
        "reading": reading,
        "axis": {**frame, "stops": fractions.tolist()},
    }


def figure_sections(posterior: Posterior, measured: Measured | None) -> list[JsonObject]:
    """Return the functions of each mode and the calibration as sections: title, description and SVGs."""
    functions = [
        page_svg(partial(plot_mode, posterior, k), f"Functions of {mode.name} with 95 % bands")
        for k, mode in enumerate(posterior.modes)
    ]
    sections = [
        {
            "title": "Functions of each mode",
            "description": "Posterior mean and 95 % band of each, with the fraction of the variance that it explains.",
            "figures": functions,
        }
    ]
    if measured is not None:
        found, values = posterior.predict(measured[0]), measured[1]
        parts = {
            "Coverage of the intervals at every level": draw_coverage,
            "Distribution of the predicted probabilities of the measurements": draw_levels,
        }
        drawn = [page_svg(partial(_panel, draw, found, values), words) for words, draw in parts.items()]
        description = "Coverage of the predictive intervals on measurements that the model was not fitted to."
    elif posterior.intervals.levels:
        drawn = [page_svg(partial(plot_intervals, posterior.intervals), "Widths of calibrated intervals")]
        description = (
            "Width of the intervals after calibration on held-out rows; coverage needs test rows (--data)."
        )
    else:
        return sections
    return [*sections, {"title": "Calibration", "description": description, "figures": drawn}]


def place_text(explorer: Explorer, place: Sequence[int], modes: Sequence[int | None]) -> str:
    """Return the coordinates of a place along some modes as text."""
    return ", ".join(explorer.words(k)[place[k]] for k in modes if k is not None)


def _choice_words(explorer: Explorer) -> str:
    if (mask := explorer.layers.mask) is not None:
        return f"Only places that the mask keeps count: {mask.words}."
    return "The model does not know which places cannot be measured: --mask limits the choice."


def _page_map(explorer: Explorer) -> JsonObject:
    posterior, layers = explorer.posterior, explorer.layers
    name, unit = label(posterior.value_name, posterior.value_unit), label("", posterior.value_unit)
    kinds = {"mean": (name, MEAN_MAP), "sd": (f"standard deviation{unit}", SD_MAP)}
    scales = {}
    for quantity, (words, colors) in kinds.items():
        low, high = explorer.limits[quantity]
        table = (colormaps[colors](range(256))[:, :3] * 255).round().astype(int)
        ticks = [[(value - low) / (high - low), f"{value:g}"] for value in nice_ticks(low, high)]
        scales[quantity] = {
            "name": words,
            "low": low,
            "high": high,
            "digits": _digits(high - low),
            "unit": with_unit("", posterior.value_unit),
            "ticks": ticks,
            "colors": table.flatten().tolist(),
        }
    sides = {"x": explorer.across, "y": explorer.up}
    stops = {side: explorer.stops[k] for side, k in sides.items() if k is not None}
    modes = {side: posterior.modes[k] for side, k in sides.items() if k is not None}
    return {
        "size": [len(stops["x"]), len(stops["y"])],
        "ratio": explorer.ratio,
        "scales": scales,
        "ticks": {side: _ticks(modes[side], stops[side]) for side in sides},
        "names": {side: _axis_name(modes[side]) for side in sides},
        "mask": layers.mask.words if layers.mask is not None else "",
    }


def map_layers(explorer: Explorer) -> JsonObject:
    """Return coastlines as an SVG's path, and measured places, for a map `MAP_UNITS` wide and high."""
    if explorer.across is None or explorer.up is None:
        return {"coasts": "", "dots": []}
    layers, sides = explorer.layers, {"x": explorer.across, "y": explorer.up}
    modes = {side: explorer.posterior.modes[k] for side, k in sides.items()}
    stops = {side: explorer.stops[k] for side, k in sides.items()}
    return {
        "coasts": _path(layers.coasts, modes, stops),
        "dots": [] if layers.measured is None else _dots(layers.measured, modes, stops),
    }


def _path(lines: Sequence[np.ndarray], modes: Mapping[str, Mode], stops: Mapping[str, Tensor]) -> str:
    """Return lines as the path of an SVG that covers the map, `MAP_UNITS` wide and high."""
    parts = []
    for line in lines:
        x, y = (_on_map(line[:, k], modes[side], stops[side]) for k, side in enumerate("xy"))
        parts.append("M" + "L".join(f"{a:.1f} {MAP_UNITS - b:.1f}" for a, b in zip(x, y, strict=True)))
    return "".join(parts)


def _dots(
    places: tuple[np.ndarray, np.ndarray], modes: Mapping[str, Mode], stops: Mapping[str, Tensor]
) -> list[float]:
    """Return x and y of measured places in turn, at most `MAX_DOTS` places; y from above."""
    x, y = (_on_map(numbers, modes[side], stops[side]) for numbers, side in zip(places, "xy", strict=True))
    found = np.stack([x, MAP_UNITS - y], axis=1).round(1)
    distinct = np.unique(found, axis=0)
    some = distinct[:: -(-len(distinct) // MAX_DOTS)]
    flat: list[float] = some.ravel().tolist()
    return flat


def _on_map(coordinates: np.ndarray, mode: Mode, cells: Tensor) -> np.ndarray:
    """Return positions along an axis of cells, from 0 to `MAP_UNITS`."""
    at, low, high = positions(mode, torch.from_numpy(coordinates)), *edges(positions(mode, cells))
    return MAP_UNITS * (at - low) / (high - low)


def _ticks(mode: Mode, cells: Tensor) -> list[tuple[float, str]]:
    """Return the ticks of an axis of cells: fraction of its length, and label."""
    axis, (low, high) = Figure().subplots().xaxis, edges(positions(mode, cells))
    axis.axes.set_xlim(low, high)
    name_axis(axis, mode)
    numbers = [number for number in axis.get_ticklocs() if low <= number <= high]
    texts = axis.get_major_formatter().format_ticks(numbers)
    return [((number - low) / (high - low), text) for number, text in zip(numbers, texts, strict=True)]


def _axis_name(mode: Mode) -> str:
    """Return the label of an axis; empty for degrees, whose ticks have units."""
    if mode.kind in DEGREE_LIMITS:
        return ""
    return label(mode.name, None if mode.kind == "time" else mode.unit)


def _digits(span: float) -> int:
    """Return the number of decimals that resolves a hundredth of a span."""
    return min(max(0, math.ceil(-math.log10(span / 100))), 8) if span > 0 else 3


def _panel(draw: Callable[..., None], *parts: Any) -> Figure:
    figure = Figure(figsize=(3.7, 3.5))
    draw(figure.subplots(), *parts)
    return figure


def _in_pool(answer: Answer, pool: FairRenderPool) -> Answer:
    """Wrap an answer so that a thread of the pool computes it, and errors become one line under `error`."""

    def answer_in_pool(body: Any) -> JsonObject:
        request = body[0] if isinstance(body, list) and body else body
        found: Future[JsonObject] = Future()

        def finish(error: BaseException | None) -> None:
            if error is not None:
                found.set_exception(error)

        try:
            pool.submit(secrets.token_hex(8), [partial(answer, request)], found.set_result, finish)
            return found.result(TIMEOUT)
        except (InputError, SettingError, BusyError) as error:
            return {"error": str(error)}
        except (LookupError, TypeError):
            return {"error": "this page sends no such request"}
        except TimeoutError:
            return {"error": "the server is busy; try again in a moment"}

    answer_in_pool.__name__ = answer.__name__
    return answer_in_pool
