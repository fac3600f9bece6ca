"""A plot of PSNR over core-seconds for a page without scripts: lines in SVG, labels in HTML.

The SVG stretches with the page, and text in it would stretch too; so the labels lie over it at the same percentages.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

N_TICKS = 6
MIN_RANGE = 1.0  # of the vertical axis, in dB
RIGHT_ALIGNED = 70.0  # percent of the width from which the name of a stage is right-aligned, to stay inside


def curve_html(curve: Sequence[Mapping[str, Any]]) -> str:
    """Return the plot as HTML; empty where there is no point.

    Args:
        curve: evaluations in order, each with `core_seconds`, `psnr` in dB or None, and `stage`.
    """
    points = [(p["core_seconds"], p["psnr"], str(p["stage"] or "")) for p in curve if p["psnr"] is not None]
    if not points:
        return ""
    low, high = (pick(p[1] for p in points) for pick in (min, max))
    room = max(0.0, MIN_RANGE - (high - low)) / 2  # a single evaluation is in the middle of its chart
    low, high = low - room, high + room
    y_ticks = nice_ticks(low, high)
    end = (points[-1][0] or 1.0) * (2 if len(points) == 1 else 1)
    bottom, top = min(low, y_ticks[0]), max(high, y_ticks[-1])
    top += 0.16 * (top - bottom)  # room for the names of the stages

    def x(value: float) -> float:
        return 100 * value / end

    def y(value: float) -> float:
        return 100 * (value - bottom) / (top - bottom)

    shapes, labels, start = [], [], 0.0
    for i, (name, stop) in enumerate(_bands(points)):
        left, width = x(start), x(stop) - x(start)
        odd = " odd" if i % 2 else ""
        shapes.append(f'<rect class="band{odd}" x="{left:.2f}" y="0" width="{width:.2f}" height="100"/>')
        place = f"left:{left:.2f}%" if left < RIGHT_ALIGNED else f"right:{100 - left - width:.2f}%"
        row = 0.45 + 1.15 * (
            i % 2
        )  # neighbors in two rows, since the name of a short stage is wider than the stage
        labels.append(f'<span class="stage" style="{place};top:{row:.2f}rem">{html.escape(name)}</span>')
        start = stop
    for value in y_ticks:
        level = 100 - y(value)
        shapes.append(f'<path class="grid" d="M0 {level:.2f}H100" vector-effect="non-scaling-stroke"/>')
        labels.append(f'<span class="y" style="bottom:{y(value):.2f}%">{value:g}</span>')
    for value in nice_ticks(0.0, end):
        labels.append(f'<span class="x" style="left:{x(value):.2f}%">{value:g}</span>')
    places = [f"{x(t):.2f} {100 - y(v):.2f}" for t, v, _ in points]
    shapes.append(
        f'<path class="line" d="M{"L".join(places)}" vector-effect="non-scaling-stroke"/>'
        f'<path class="dot" d="{"".join(f"M{p}h0" for p in places)}" vector-effect="non-scaling-stroke"/>'
    )
    seconds, psnr, _ = points[-1]
    labels.append(
        f'<span class="last" style="right:{100 - x(seconds):.2f}%;bottom:{y(psnr):.2f}%">{psnr:.1f} dB</span>'
    )
    text = f"PSNR to the teacher: {psnr:.1f} dB after {seconds:.1f} core-seconds"
    if len(points) > 1:
        text += f", {points[0][1]:.1f} dB at first"
    return (
        f'<div class="chart" role="img" aria-label="{text}">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{"".join(shapes)}</svg>'
        f'<div aria-hidden="true">{"".join(labels)}<span class="unit">core-seconds</span>'
        '<span class="psnr-unit">dB</span></div></div>'
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Return about six multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    rough = (high - low) / N_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _bands(points: Sequence[tuple[float, float, str]]) -> list[tuple[str, float]]:
    """Return each stage, in order, with the core-seconds at its last evaluation."""
    bands: dict[str, float] = {}
    for seconds, _, name in points:
        bands[name] = seconds
    return list(bands.items())
