"""Style of plots of tensor models, and labels of their axes: dates, degrees, units."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import dates, rc_context
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from fieldmorph.apps.tensor.labels import coordinate, label, with_unit
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.kinds import DEGREE_LIMITS
from fieldmorph.fields.files import replaced

LINE, FAINT, SOFT, INK, LAND = "#20557a", "#9aa3aa", "#c3d3de", "#222222", "#d9d9d9"
MEAN_MAP, SD_MAP, DIFFERENCE_MAP = "viridis", "magma_r", "RdBu_r"
DAY, YEAR = 86400.0, 365.2425 * 86400
STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "figure.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Set the style of figures that are made and written inside."""
    with rc_context(STYLE):
        yield


def save_figures(folder: str | Path, figures: Mapping[str, Figure], dpi: int = 160) -> None:
    """Write each figure as a PNG of its name, atomically, at this number of pixels per inch."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with replaced(Path(folder) / name) as part, styled():
            figure.savefig(part, dpi=dpi, format="png", facecolor="white")


def positions(mode: Mode, coordinates: Float[Tensor, "n"]) -> np.ndarray:
    """Return positions of a mode's coordinates on a plot's axis: days since 1970 for dates."""
    numbers = coordinates.double().numpy()
    if mode.kind != "time":
        return numbers
    return numbers / (DAY if mode.calendar is None else YEAR)


def name_axis(axis: Axis, mode: Mode, bare: bool = False) -> None:
    """Set ticks and label of an axis along a mode.

    Args:
        bare: leave out numbers and label, which a neighboring axis has.
    """
    if mode.kind == "time" and mode.calendar is None:
        locator = dates.AutoDateLocator(minticks=3, maxticks=6)
        axis.set_major_locator(locator)
        axis.set_major_formatter(dates.ConciseDateFormatter(locator))
    elif mode.kind in DEGREE_LIMITS:
        steps = [1, 1.5, 3, 6, 9, 10] if mode.kind == "longitude" else [1, 1.5, 2, 3, 5, 10]
        axis.set_major_locator(MaxNLocator(6, steps=steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _: degrees(value, mode.kind)))
    else:
        axis.set_major_locator(MaxNLocator(5))
        if not bare:
            years = mode.kind == "time"
            axis.set_label_text(
                f"years since 1970, {mode.calendar} calendar" if years else label(mode.name, mode.unit)
            )
    if bare:
        axis.set_tick_params(labelleft=False, labelbottom=False)


def degrees(value: float, kind: str) -> str:
    """Return degrees as `30°N`, `120°W`, `0°`."""
    if kind == "longitude":
        value = (value + 180) % 360 - 180
    value = round(float(value), 6)
    sides = "NS" if kind == "latitude" else "EW"
    side = "" if value == 0 or abs(value) == 180 else sides[value < 0]
    return f"{abs(value):g}°{side}"


def place(mode: Mode, value: float) -> str:
    """Return one coordinate as text: a date, `30.5°N`, or `pressure 1012 hPa`."""
    if mode.kind == "time":
        return coordinate(value, mode.kind, mode.calendar).replace("T", " ")
    if mode.kind == "number":
        return f"{mode.name.replace('_', ' ')} {with_unit(f'{value:.4g}', mode.unit)}"
    return degrees(round(value, 2), mode.kind)


def color_bar(figure: Figure, image: Any, panels: list[Any], words: str, below: bool) -> None:
    """Add one color bar for several panels."""
    bar = figure.colorbar(
        image,
        ax=panels,
        location="bottom" if below else "right",
        shrink=0.6 if below else 0.8,
        aspect=36 if below else 24,
        pad=0.02,
    )
    bar.set_label(words)
    bar.outline.set_linewidth(0)
    bar.ax.tick_params(width=0.6, length=3)
