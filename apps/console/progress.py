"""Progress of a job: a bar on a terminal, a new line every few seconds elsewhere.

A job of several parts has a line and a rate for each of them; the remaining time is that of the whole job, as far as
the parts to come are announced.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fieldmorph.fields.progress import Progress

if TYPE_CHECKING:
    from fieldmorph.apps.console.bar import TerminalBar


class ProgressLine:
    """Line on standard error with rate, remaining time and PSNR of a job; a context manager that ends the line.

    Args:
        label: the job's name.
        quiet: show nothing.
        stream: a text file to write to; standard error by default.
        refresh_seconds: between two refreshes on a terminal.
        line_seconds: between two lines where nothing can be refreshed.
    """

    shown: "ProgressLine | None" = None  # the one whose line stands on the terminal

    def __init__(
        self,
        label: str,
        quiet: bool = False,
        stream: Any = None,
        *,
        refresh_seconds: float = 0.1,
        line_seconds: float = 5.0,
    ):
        self.label, self.quiet = label, quiet
        self.stream = sys.stderr if stream is None else stream
        self.refreshes = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.every = refresh_seconds if self.refreshes else line_seconds
        self.part: str | None = None
        self.start = (0.0, 0.0, 0)  # clock, fraction and count at the part's first call
        self.shown_at = time.monotonic()
        self.expected: dict[str, float] = {}
        self.bar: TerminalBar | None = None

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_line()

    def __call__(self, progress: Progress) -> None:
        """Show the progress of a training loop, whose `on_progress` this is."""
        quality = "" if progress.psnr is None else f"PSNR {progress.psnr:.2f} dB"
        self.show(progress.fraction, progress.step, "step", quality)

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Add to the remaining time what will be measured.

        Args:
            seconds: about how long that takes, by the names that `measured` gets.
        """
        self.expected = {_measuring(whose): value for whose, value in seconds.items()}

    def count(self, done: int, total: int) -> None:
        """Show that `done` of `total` views are done."""
        self.show(done / total, done, "view", total=total)

    def measured(self, whose: str, done: int, total: int) -> None:
        """Show how many views are done for a receipt, those of the teacher and of the student as two parts."""
        self.show(done / total, done, "view", part=_measuring(whose), total=total)

    def sweep(self, done: int, limit: int, bound: float) -> None:
        """Show that `done` of at most `limit` sweeps are done, with the bound in nats per row."""
        self.show(done / limit, done, "sweep", f"bound {bound:.4f} nats/row")

    def show(
        self, fraction: float, n: int, unit: str, detail: str = "", part: str = "", total: int | None = None
    ) -> None:
        """Show the line if it is time to.

        Args:
            fraction: of the part that is done, in [0, 1].
            n: number of `unit`s that are done.
            detail: added to the line.
            part: of the job, where it has several; its rate counts from its first call.
            total: number of units in all, where it is known.
        """
        clock = time.monotonic()
        if part != self.part:
            self._end_line()
            self.part, self.start = part, (clock, fraction, n)
            self.expected.pop(part, None)
        if self.quiet or (clock - self.shown_at < self.every and not (self.refreshes and fraction >= 1)):
            return
        self.shown_at = clock
        since, first_fraction, first_n = self.start
        elapsed, gone = clock - since, fraction - first_fraction
        rate = f"{(n - first_n) / elapsed:.1f} {unit}s/s" if elapsed > 0 else ""
        left = elapsed * (1 - fraction) / gone + sum(self.expected.values()) if gone > 0 else None
        remaining = "" if left is None else f"ETA {duration(left)}"
        count = f"{unit} {n}" if total is None else f"{n}/{total} {unit}s"
        percent = f"{fraction:4.0%}"
        if self.refreshes:
            self._draw(fraction, part or self.label, percent, count, rate, detail, remaining)
        else:
            label = f"{self.label}, {part}" if part else self.label
            texts = (label, percent, count, rate, detail, remaining)
            print("  ".join(text for text in texts if text), file=self.stream, flush=True)

    def clear(self) -> None:
        """Remove the line from a terminal until it is drawn again."""
        if self.bar is not None:
            self.bar.clear()

    def _draw(self, fraction: float, *texts: str) -> None:
        from fieldmorph.apps.console.bar import TerminalBar, Texts

        self.bar = self.bar or TerminalBar(self.stream)
        ProgressLine.shown = self
        self.bar.draw(Texts(*texts), fraction)

    def _end_line(self) -> None:
        if self.bar is not None:
            self.bar.end()
        if ProgressLine.shown is self:
            ProgressLine.shown = None


def _measuring(whose: str) -> str:
    return f"measure the {whose}"


def duration(seconds: float) -> str:
    """Format a duration as 1:05 (minutes and seconds) or 2:00:07 (hours)."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
