"""Messages that the library logs, as lines on standard error while a command runs."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fieldmorph.apps.console.progress import ProgressLine

QUIET, NORMAL, VERBOSE = logging.ERROR, logging.INFO, logging.DEBUG  # levels from which lines are shown


@contextmanager
def shown_messages(level: int) -> Iterator[None]:
    """Print what fieldmorph logs from a level on, one line each, as long as the block lasts."""
    logger, handler = logging.getLogger("fieldmorph"), _Lines()
    before = logger.level
    handler.setLevel(level)
    logger.setLevel(min(level, logging.WARNING))  # handlers of others still get warnings
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Lines(logging.Handler):
    """Print a record in one line in the place of a progress line, which is drawn again later."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        if ProgressLine.shown is not None:
            ProgressLine.shown.clear()
        text = " ".join(record.getMessage().split())
        print(f"fieldmorph: {self._prefix(record.levelno)}{text}", file=sys.stderr, flush=True)

    def _prefix(self, level: int) -> str:
        if level < logging.INFO:
            return f"{time.monotonic() - self.start:.1f} s: "
        return "warning: " if level == logging.WARNING else ""
