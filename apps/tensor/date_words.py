"""Coordinates as text, dates at the resolution of the data: `2008`, `June to August 2008`, `June 2008`."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from fieldmorph.apps.tensor.plot_style import DAY, place
from fieldmorph.bayes.data.coordinates import Mode

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
SEASONS = (
    "December to February",
    "March to May",
    "June to August",
    "September to November",
)  # as in climatology
MIDDLE = range(10, 21)  # days of a month on which the middle of a season may lie

Words = Callable[[Float[Tensor, "n"]], list[str]]


def words_for(mode: Mode, points: Float[Tensor, "points"]) -> Words:
    """Return a function that writes coordinates of a mode as text.

    Dates have the resolution of the points: it follows from their median distance, and distinct points have distinct
    texts.

    Args:
        points: ascending.
    """

    def exact(values: Tensor) -> list[str]:
        return [place(mode, float(value)) for value in values]

    if mode.kind != "time" or len(points) < 2:
        return exact
    gap = float(points.diff().median()) / DAY
    for shortest, text in ((360, _year), (80, _season), (27, _month)):
        if gap < shortest:
            continue
        words = _dates(mode, text)
        texts = words(points)
        if "" not in texts and len({*texts}) == len(texts):
            return words
    return exact


def _dates(mode: Mode, text: Callable[[int, int, int], str]) -> Words:
    def words(values: Tensor) -> list[str]:
        return [text(*map(int, str(date)[:10].split("-"))) for date in mode.format(values)]

    return words


def _year(year: int, _month: int, _day: int) -> str:
    return str(year)


def _season(year: int, month: int, day: int) -> str:
    """Return a season by its first or its middle month; nothing for other dates, such as those of quarters."""
    if month % 3 and not (month % 3 == 1 and day in MIDDLE):
        return ""
    return f"{SEASONS[month % 12 // 3]} {year + (month == 12)}"


def _month(year: int, month: int, _day: int) -> str:
    return f"{MONTHS[month - 1]} {year}"
