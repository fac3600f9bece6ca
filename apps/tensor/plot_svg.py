"""Figures as SVG for a page, with the page's colors, light or dark, and its font."""

import html
import io
import re
import threading
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.figure import Figure

from fieldmorph.apps.tensor.plot_style import FAINT, INK, LINE, SOFT, styled

PAGE_COLORS = {
    INK: "var(--plot-ink)",
    LINE: "var(--plot-line)",
    SOFT: "var(--plot-band)",
    FAINT: "var(--plot-faint)",
    "#444444": "var(--plot-soft)",
    "#666666": "var(--plot-soft)",
    "#777777": "var(--plot-soft)",
    "#999999": "var(--plot-soft)",
    "#e6ecf0": "var(--plot-wash)",
    "#e9e9e9": "var(--plot-wash)",
}
_style_lock = threading.Lock()  # matplotlib's style belongs to the whole process


def page_svg(draw: Callable[[], Figure], description: str) -> str:
    """Return a figure as an <svg> element as wide as its container, with a description for screen readers.

    Colors of the figures' style become the page's `--plot-*` variables; text stays text. Thread-safe.

    Args:
        draw: makes the figure, within the style of `styled`.
        description: text for screen readers.
    """
    written = io.StringIO()
    with _style_lock, styled(), rc_context({"svg.fonttype": "none"}):
        figure = draw()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[\w.]+">', "<g>", text)  # ids would not be unique next to another figure
    text = re.sub(r'(style="[^"]*?)font: ([^;"]*?)([\d.]+px) [^;"]*', r"\1font: \2\3 var(--font)", text)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    for color, variable in PAGE_COLORS.items():
        text = text.replace(color, variable)
    width, height = (72 * side for side in figure.get_size_inches())
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = (
        f'<svg {names} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(description)}"'
    )
    return head + text[text.index(">") :]
