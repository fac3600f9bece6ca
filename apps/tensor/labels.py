"""Text for coordinates, lengths and kernels of tensor models, from a file's header alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fieldmorph.bayes.covariances.table import of_description
from fieldmorph.bayes.data.kinds import DEGREE_LIMITS

DURATIONS = {"years": 365.2425 * 86400, "days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


def length(value: float, kind: str, unit: str | None) -> str:
    """Return a distance along a mode as text: `45 days`, `3.2°`, `12 hPa`."""
    if kind == "time":
        name, size = next((n, s) for n, s in DURATIONS.items() if abs(value) >= s or s == 1)
        text = f"{value / size:.3g}"
        return f"{text} {name.removesuffix('s') if text == '1' else name}"
    return f"{value:.3g}°" if kind in DEGREE_LIMITS else with_unit(f"{value:.3g}", unit)


def coordinate(value: float, kind: str, calendar: str | None = None) -> str:
    """Return a coordinate as text: `2006-04-16`, `2006-04-16T12:00`, `-3.5`."""
    if kind != "time":
        return f"{round(value, 9):g}"
    if calendar is not None:
        return f"day {value / 86400:g} since 1970-01-01 ({calendar})"
    text = str(np.datetime64(round(value), "s"))
    return text.removesuffix("T00:00:00").removesuffix(":00")


def with_unit(text: str, unit: str | None) -> str:
    """Return a number with its unit, if there is one."""
    return text if unit in (None, "", "1") else f"{text} {unit}"


def percent(fraction: float) -> str:
    """Return a fraction as `95 %`, `96.7 %`."""
    return f"{round(100 * fraction, 1):g} %"


def label(name: str, unit: str | None) -> str:
    """Return an axis label: `surface temperature (K)` for `surface_temperature` in K."""
    shown = name.replace("_", " ")
    return shown if unit in (None, "", "1") else f"{shown} ({unit})"


def kernel_words(described: Mapping[str, Any], kind: str, unit: str | None) -> str:
    """Return a kernel that `bayes.store` describes in words: `Matern-3/2, lengthscale 45 days`."""
    entry = of_description(described)
    if parts := [kernel_words(part, kind, unit) for part in described.get("parts", ())]:
        scale = f"{described['outputscale']:.3g} times " if "outputscale" in described else ""
        joiner = entry.joiner if entry else ", "
        return scale + (f"({joiner.join(parts)})" if joiner else parts[0])
    words = [entry.title if entry else described["kernel"]]
    if "period_length" in described:
        words.append(f"period {length(described['period_length'], kind, unit)}")
    if "lengthscale" in described:  # a periodic kernel's has no unit
        shown = (
            f"{described['lengthscale']:.3g}"
            if "period_length" in described
            else length(described["lengthscale"], kind, unit)
        )
        words.append(f"lengthscale {shown}")
    if "constant" in described:
        words.append(f"{described['constant']:.3g}")
    return ", ".join(words)
