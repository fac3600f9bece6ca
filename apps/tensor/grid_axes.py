"""Axes of a grid: as a user writes them, or the coordinates of the fit."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.data.kinds import DEGREE_LIMITS
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.errors import SettingError, known

MAX_OWN_POINTS = 500  # a mode with more distinct coordinates gets evenly spaced ones by default
DEFAULT_POINTS = 50  # evenly spaced
MAX_POINTS = 10_000_000  # of one axis
DATE = r"\d{4}-\d\d?(?:-\d\d?)?(?:[T ]\d\d?:\d\d(?::\d\d)?)?Z?"
STEPS = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 7 * 86400}
MONTHS = {"M": 1, "Y": 12}


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Attributes:
        coordinates: in the model's units (`Mode.parse`).
        written: as they are written to the file, ascending or descending.
    """

    mode: Mode
    coordinates: Float[Tensor, "n"]
    written: np.ndarray


def grid_axes(posterior: Posterior, ranges: Mapping[str, str]) -> list[Axis]:
    """Return the axes of the grid, in the order of the model's modes.

    Args:
        ranges: by name or kind of a mode, as in `parse_axis`; other modes have `default_axis`.

    Raises:
        SettingError: an unknown mode, one that is given twice, or a bad range.
    """
    given: dict[str, str] = {}
    for name, text in ranges.items():
        mode = find_mode(posterior.modes, name)
        if mode.name in given:
            raise SettingError(f"{mode.name} is given twice")
        given[mode.name] = text
    return [
        parse_axis(mode, given[mode.name]) if mode.name in given else default_axis(mode, process.points)
        for mode, process in zip(posterior.modes, posterior.processes, strict=True)
    ]


def find_mode(modes: Sequence[Mode], name: str) -> Mode:
    """Return the mode of this name, or the first of this kind: `latitude`, `longitude`, `time`.

    Raises:
        SettingError: there is none.
    """
    found = [m for m in modes if m.name == name] or [m for m in modes if m.kind == name != "number"]
    if not found:
        raise known("mode", name, [m.name for m in modes])
    return found[0]


def default_axis(mode: Mode, points: Float[Tensor, "n"]) -> Axis:
    """Return an axis with the points of the fit, or with evenly spaced ones if there are many."""
    if len(points) > MAX_OWN_POINTS:
        points = torch.linspace(float(points[0]), float(points[-1]), DEFAULT_POINTS, dtype=torch.float64)
    written = points.numpy()
    if mode.kind == "longitude" and (np.diff(as_data := mode.format(points)) > 0).all():
        written = as_data  # otherwise on the model's branch of longitudes
    return Axis(mode, points, written)


def parse_axis(mode: Mode, text: str) -> Axis:
    """Parse an axis: `from:to:step` (both ends included), one coordinate, or several with commas.

    Raises:
        SettingError: the text cannot be parsed, or its coordinates are out of range.
    """
    if mode.kind == "time":
        seconds = _times(mode, text)
        return Axis(mode, seconds, seconds.numpy())
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            values = _steps(first, last, step, _decimals(text))
        else:
            values = np.array([float(part) for part in text.split(",")])
    except SettingError:
        raise
    except (ValueError, TypeError):
        raise SettingError(
            f"{mode.name}: expected from:to:step, as 30:60:0.5, a number or several with commas; got {text!r}"
        ) from None
    limit = DEGREE_LIMITS.get(mode.kind, math.inf)
    if not np.isfinite(values).all() or (np.abs(values) > limit).any():
        raise SettingError(f"{mode.name}: {text!r} goes beyond ±{limit:g}")
    return Axis(mode, mode.parse(values), values)


def _times(mode: Mode, text: str) -> Float[Tensor, "n"]:
    match = re.fullmatch(rf"({DATE}):({DATE}):(\d*)({'|'.join([*STEPS, *MONTHS])})", text)
    listed = [part.strip() for part in text.split(",")]
    if match is None and not all(re.fullmatch(DATE, part) for part in listed):
        raise SettingError(
            f"{mode.name}: expected from:to:step, as 2020-01-01:2020-12-31:1D (steps in s, min, h, D, W, M or Y), "
            f"a date or several with commas; got {text!r}"
        )
    try:
        if match is None:
            return mode.parse(listed)
        first, last = mode.parse([match[1], match[2]]).tolist()
    except ValueError as error:
        raise SettingError(f"{mode.name}: {error}") from None
    count = int(match[3] or 1)
    if count and match[4] in STEPS:
        return torch.from_numpy(_steps(first, last, float(count * STEPS[match[4]]), 6))
    if not count or last < first or mode.calendar is not None:
        why = (
            "steps of months and years need the usual calendar"
            if mode.calendar
            else "the step does not lead from start to end"
        )
        raise SettingError(f"{mode.name}: {why}; got {text!r}")
    begin, months = pd.Timestamp(first, unit="s"), count * MONTHS[match[4]]
    dates: list[pd.Timestamp] = []
    while (date := begin + pd.DateOffset(months=months * len(dates))).timestamp() <= last:
        dates.append(date)
    return mode.parse(pd.Series(dates))


def _steps(first: float, last: float, step: float, decimals: int) -> np.ndarray:
    steps = (last - first) / step if step else -1.0
    if not 0 <= steps < MAX_POINTS:
        reason = f"more than {MAX_POINTS} steps" if steps > 0 else "the step does not lead from start to end"
        raise SettingError(f"from {first:g} to {last:g} by {step:g}: {reason}")
    n = math.floor(steps + 1e-9) + 1
    return np.round(first + step * np.arange(n), decimals)


def _decimals(text: str) -> int:
    """Return the decimals of numbers as written, so that 30.3 is not 30.299999999999997; 12 with exponents."""
    found = re.findall(r"\.(\d+)", text)
    return 12 if "e" in text.lower() else max(map(len, found), default=0)
