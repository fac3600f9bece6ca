"""Texts of the conversion tab as HTML: before a conversion, while it runs, when it is done or failed."""

import base64
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fieldmorph.apps.console.exits import explain
from fieldmorph.apps.console.progress import duration
from fieldmorph.apps.receipt.curve import curve_html
from fieldmorph.apps.receipt.html_parts import details, escaped
from fieldmorph.apps.receipt.page import headline
from fieldmorph.apps.viewer.conversion import ConversionProgress
from fieldmorph.apps.viewer.convert_form import CHECKED, sentence
from fieldmorph.apps.viewer.errors import BusyError

EMPTY = (
    "<h2>No conversion yet</h2><p>Choose what to convert to and how long to train. The student learns from the "
    "field itself and needs no training images. Its image and its PSNR appear here while it trains.</p>"
)
CANCELLED = "<h2>Cancelled</h2><p>Nothing was saved.</p>"
STARTING = "Starting a process for the conversion"
ACTIVITIES = {
    "start": "solving for the closed-form start",
    "features": "matching the teacher's features",
    "volume": "comparing density and color at points",
    "render": "comparing rendered pixels",
}

log = logging.getLogger(__name__)


def running_html(title: str, progress: ConversionProgress | None) -> str:
    """Return HTML about a conversion that runs; None before it has started."""
    if progress is None:
        return f"<h2>{title}</h2>{_bar(None)}<p>{STARTING} …</p>"
    if progress.measuring is not None:
        text = (
            f"Training finished. Rendering the {progress.measuring} for the receipt: {progress.fraction:.0%}"
        )
    elif not progress.step:
        text = f"{escaped(progress.activity or STARTING)} …"
    else:
        activity = ACTIVITIES.get(progress.activity or "", progress.activity or "")
        parts = [f"step {progress.step:,}", duration(progress.seconds)]
        if 0 < progress.fraction < 1 and progress.seconds > 1:
            parts.append(f"about {duration(progress.seconds * (1 / progress.fraction - 1))} left")
        parts += [escaped(activity)] if activity else []
        text = f"Training: {progress.fraction:.0%} · {' · '.join(parts)}"
    psnr = (
        "" if progress.psnr is None else f'<p class="psnr"><b>{progress.psnr:.1f}</b> dB to the teacher</p>'
    )
    fraction = progress.fraction if progress.step else None
    return (
        f"<h2>{title}</h2>{_bar(fraction)}<p>{text}</p>{warnings_html(progress.warnings)}"
        f'<div class="now">{_images(progress.images)}{psnr}</div>{curve_html(progress.evaluations)}'
    )


def done_html(title: str, receipt: Mapping[str, Any], page: str, warnings: Sequence[str] = ()) -> str:
    """Return HTML about a finished conversion: figures, curve, and the receipt's page in a frame without scripts.

    Args:
        warnings: of the conversion.
    """
    frame = f'<iframe sandbox title="Receipt" loading="lazy" srcdoc="{escaped(page)}"></iframe>'
    curve = [point for point in receipt["curve"] if point["psnr"] is not None]
    left_out = [f"stage left out: {name}, {reason}" for name, reason in receipt.get("dropped", {}).items()]
    return (
        f"<h2>{title}</h2>{warnings_html([*warnings, *left_out])}{headline(receipt)}{curve_html(curve)}"
        f"{details('Full receipt', frame)}"
    )


def failed_html(error: Exception) -> str:
    """Return HTML with the error in one line; an unexpected error is logged with its traceback."""
    known = explain(error)
    if known is None and not isinstance(error, BusyError):
        log.error("a conversion failed", exc_info=error)
    message = known.message if known else str(error) or type(error).__name__
    return f'<h2>The conversion failed</h2><p role="alert" class="failed">{escaped(message)}</p>'


def mistakes_html(mistakes: Mapping[str, str]) -> str:
    """Return HTML that names the fields of the form to correct."""
    items = [f"<li><b>{CHECKED[name].label}</b>: {escaped(text)}</li>" for name, text in mistakes.items()]
    return f'<h2>Not started</h2><div role="alert" class="failed"><ul>{"".join(items)}</ul></div>'


def warnings_html(warnings: Sequence[str]) -> str:
    """Return HTML with warnings as a list; empty where there is none."""
    if not warnings:
        return ""
    items = "".join(f"<li>{escaped(sentence(text))}.</li>" for text in warnings)
    return f'<ul class="warnings" role="status" aria-label="Warnings">{items}</ul>'


def _images(images: Mapping[str, bytes]) -> str:
    """Return PNG images of teacher and student side by side."""
    figures = [
        f'<figure><img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, png in images.items()
    ]
    return "".join(figures)


def _bar(fraction: float | None) -> str:
    value = "" if fraction is None else f' value="{fraction:.4f}"'
    return f'<progress max="1"{value} aria-label="Progress of the conversion"></progress>'
