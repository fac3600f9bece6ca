"""A few threads that work for many viewers, one piece after the other, each viewer getting the same share of time."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.fields.runtime import use_threads

MOST_WORKS = 64  # that may wait or run at once

Piece = Callable[[], Any]

log = logging.getLogger(__name__)


class BusyError(RuntimeError):
    """More viewers wait than the pool takes."""


@dataclass(eq=False)
class Work:
    """Pieces that belong together, such as the tiles of a picture.

    Attributes:
        owner: whose it is; new work of an owner takes the place of the old.
        upcoming, rest: pieces still to be done, the next one and those after it, made as they are needed.
        deliver: called with what each piece returned, in the thread that did it.
        finish: called once, after the last delivery: with None, with the error of a piece, or with `Cancelled`.
    """

    owner: str
    rest: Iterator[Piece]
    deliver: Callable[[Any], None]
    finish: Callable[[BaseException | None], None]
    upcoming: Piece | None = None
    running: int = 0
    ended: BaseException | None = None
    number: int = field(default_factory=itertools.count().__next__)

    def advance(self) -> Piece | None:
        """The next piece, which is then no longer upcoming."""
        piece, self.upcoming = self.upcoming, next(self.rest, None)
        return piece

    def stop(self, why: BaseException) -> None:
        """No further piece; the first reason counts."""
        self.upcoming, self.rest = None, iter(())
        self.ended = self.ended or why


class Cancelled(Exception):
    """The work's owner wants something else by now."""


class Pool:
    """Threads of one core each.

    One thread per core beats all cores on one piece: two viewers do not wait for each other, no thread waits for
    its siblings at the end of every kernel, and numba's and torch's own pools stay at rest.

    Whoever has had the least time is served next (start-time fair queueing, Goyal et al. 1996), so that a slow field,
    or one who never stops dragging, takes no more than a share.
    """

    def __init__(self, n_threads: int):
        self._works: list[Work] = []
        self._spent: dict[str, float] = {}  # core-seconds that owners with work have had
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"view-{i}", daemon=True) for i in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        owner: str,
        pieces: Iterable[Piece],
        deliver: Callable[[Any], None],
        finish: Callable[[BaseException | None], None],
    ) -> Work:
        """Begin with this instead of what the owner had asked for before.

        Raises:
            BusyError: too many wait already.
        """
        work = Work(owner, iter(pieces), deliver, finish)
        work.advance()
        with self._changed:
            old = [other for other in self._works if other.owner == owner]
            if self._closed or len(self._works) - len(old) >= MOST_WORKS:
                raise BusyError("too many viewers at once; try again in a moment")
            least = min((self._spent[other.owner] for other in self._works), default=0.0)
            self._spent[owner] = max(self._spent.get(owner, 0.0), least)
            self._works.append(work)
            self._changed.notify_all()
        for other in old:
            self.cancel(other)
        self._end(work)  # where there is no piece at all
        return work

    def cancel(self, work: Work) -> None:
        """Do no further piece of it; nothing happens where it is done."""
        with self._changed:
            if work not in self._works:
                return
            work.stop(Cancelled())
        self._end(work)

    def close(self) -> None:
        """Cancel everything and end the threads."""
        with self._changed:
            self._closed = True
            works = list(self._works)
            self._changed.notify_all()
        for work in works:
            self.cancel(work)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        use_threads(1)  # holds for this thread alone
        while (taken := self._take()) is not None:
            work, piece = taken
            start = time.thread_time()
            try:
                result = piece()
                if work.ended is None:
                    work.deliver(result)
            except Exception as error:  # a piece that fails ends its own work and nobody else's
                log.debug("a piece of %s failed", work.owner, exc_info=True)
                with self._changed:
                    work.stop(error)
            with self._changed:
                work.running -= 1
                if work.owner in self._spent:
                    self._spent[work.owner] += time.thread_time() - start
            self._end(work)

    def _take(self) -> tuple[Work, Piece] | None:
        with self._changed:
            while True:
                ready = [work for work in self._works if work.upcoming is not None]
                if ready:
                    work = min(ready, key=lambda one: (self._spent[one.owner], one.number))
                    if (piece := work.advance()) is not None:
                        work.running += 1
                        return work, piece
                if self._closed:
                    return None
                self._changed.wait()

    def _end(self, work: Work) -> None:
        """Take leave of work of which no piece is left or running."""
        with self._changed:
            if work.upcoming is not None or work.running or work not in self._works:
                return
            self._works.remove(work)
            if all(other.owner != work.owner for other in self._works):
                del self._spent[work.owner]
        work.finish(work.ended)
