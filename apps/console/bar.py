"""One line of a terminal with a bar, as wide as the terminal: what matters least is left out where there is no room."""

import re
from dataclasses import dataclass
from typing import Any

MAX_BAR, MIN_BAR = 40, 8  # columns
GAP = "  "
COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Texts:
    """The texts around a bar.

    Attributes:
        label: what is done.
        percent: how much of it.
        count: units that are done, and of how many where that is known.
        rate: units per second; may be empty, as the others below.
        detail: what else there is to say.
        remaining: time that is left.
    """

    label: str
    percent: str
    count: str
    rate: str = ""
    detail: str = ""
    remaining: str = ""

    def variants(self) -> list[list[str]]:
        """Return what may stand after the bar, the most complete first."""
        return [
            [text for text in texts if text]
            for texts in (
                (self.percent, self.count, self.rate, self.detail, self.remaining),
                (self.percent, self.count, self.detail, self.remaining),
                (self.percent, self.count, self.remaining),
                (self.percent, self.remaining),
                (self.percent,),
            )
        ]


class TerminalBar:
    """The line of a terminal that is drawn again and again; rich, which draws the bar, is imported for it.

    Args:
        stream: the terminal as a text file.
    """

    def __init__(self, stream: Any):
        from rich.console import Console

        self.stream = stream
        self.console = Console(file=stream, force_terminal=True, highlight=False)
        self.drawn = 0  # columns of the line that stands there

    def draw(self, texts: Texts, fraction: float) -> None:
        """Draw the line over the last one.

        Args:
            fraction: of the bar that is full, in [0, 1].
        """
        line = self._line(texts, fraction, max(self.console.size.width - 1, 1))
        width = len(COLORS.sub("", line))
        print("\r" + line + " " * (self.drawn - width), end="", file=self.stream, flush=True)
        self.drawn = width

    def clear(self) -> None:
        """Remove the line, so that another can be printed in its place."""
        if self.drawn:
            print("\r" + " " * self.drawn, end="\r", file=self.stream, flush=True)
        self.drawn = 0

    def end(self) -> None:
        """Leave the line as it is and begin another one."""
        if self.drawn:
            print(file=self.stream, flush=True)
        self.drawn = 0

    def _line(self, texts: Texts, fraction: float, columns: int) -> str:
        """Return the most complete line that fits, with a bar if one of `MIN_BAR` columns has room."""
        for after in texts.variants():
            tail = GAP.join(after)
            room = columns - len(texts.label) - len(tail) - 2 * len(GAP)
            if room >= MIN_BAR:
                bar = self._bar(min(room, MAX_BAR), fraction)
                return f"{texts.label}{GAP}{bar}{GAP}{tail}"
        return f"{texts.label}{GAP}{texts.percent}"[:columns]

    def _bar(self, width: int, fraction: float) -> str:
        from rich.progress_bar import ProgressBar

        with self.console.capture() as captured:
            self.console.print(ProgressBar(total=1.0, completed=fraction, width=width), end="")
        return captured.get().rstrip("\n")
