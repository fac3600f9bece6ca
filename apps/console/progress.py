"""A progress line: refreshed on a terminal, a new line every few seconds elsewhere.

A job of several parts has a line, a rate and a remaining time for each of them.
"""

import sys
import time
from typing import Any

from fieldmorph.fields.progress import Progress


class ProgressLine:
    """Line on standard error with rate, remaining time and PSNR of a job; a context manager that ends the line.

    Args:
        label: the job's name.
        quiet: show nothing.
        stream: a text file to write to; standard error by default.
        refresh_seconds: between two refreshes on a terminal.
        line_seconds: between two lines where nothing can be refreshed.
    """

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
        self.refreshes = self.stream.isatty()
        self.every = refresh_seconds if self.refreshes else line_seconds
        self.part: str | None = None
        self.start = (0.0, 0.0, 0)  # clock, fraction and count at the part's first call
        self.shown_at = time.monotonic()
        self.width = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_line()

    def __call__(self, progress: Progress) -> None:
        """Show the progress of a training loop, whose `on_progress` this is."""
        quality = "" if progress.psnr is None else f"  PSNR {progress.psnr:.2f} dB"
        self.show(progress.fraction, progress.step, "step", quality)

    def count(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are done."""
        self.show(done / total, done, "image")

    def measured(self, whose: str, done: int, total: int) -> None:
        """Show how many images are done for a receipt, those of the teacher and of the student as two parts."""
        self.show(done / total, done, "image", part=f"measure the {whose}")

    def sweep(self, done: int, limit: int, bound: float) -> None:
        """Show that `done` of at most `limit` sweeps are done, with the bound in nats per row."""
        self.show(done / limit, done, "sweep", f"  bound {bound:.4f} nats/row")

    def show(self, fraction: float, n: int, unit: str, detail: str = "", part: str = "") -> None:
        """Show the line if it is time to.

        Args:
            fraction: of the part that is done, in [0, 1].
            n: number of `unit`s that are done.
            detail: added to the line.
            part: of the job, where it has several; rate and remaining time count from the part's first call.
        """
        clock = time.monotonic()
        if part != self.part:
            self._end_line()
            self.part, self.start = part, (clock, fraction, n)
        if self.quiet or (clock - self.shown_at < self.every and not (self.refreshes and fraction >= 1)):
            return
        self.shown_at = clock
        since, first_fraction, first_n = self.start
        elapsed, gone = clock - since, fraction - first_fraction
        rate = f"  {(n - first_n) / elapsed:.1f} {unit}s/s" if elapsed > 0 else ""
        left = f"  ETA {duration(elapsed * (1 - fraction) / gone)}" if gone > 0 else ""
        label = f"{self.label}, {part}" if part else self.label
        text = f"{label}  {fraction:4.0%}  {unit} {n}{rate}{detail}{left}"
        if self.refreshes:
            print("\r" + text.ljust(self.width), end="", file=self.stream, flush=True)
            self.width = len(text)
        else:
            print(text, file=self.stream, flush=True)

    def _end_line(self) -> None:
        if self.width:
            print(file=self.stream, flush=True)
        self.width = 0


def duration(seconds: float) -> str:
    """Format a duration as 1:05 (minutes and seconds) or 2:00:07 (hours)."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
