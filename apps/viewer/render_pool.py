"""Threads that render for many clients at once, unit by unit, dividing their time equally between the clients."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.fields.runtime import lower_priority, use_threads

MAX_TASKS = 64  # waiting or running at once
NICE = 5  # added to the nice value of the threads, so that responses and coarse bakes come before images

Unit = Callable[[], Any]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class RenderTask:
    """Units of work that belong together, such as the tiles of an image.

    Attributes:
        owner: the client; a new task of an owner supersedes the previous one.
        rest: units after the upcoming one, made as they are needed.
        deliver: called with the result of each unit, in the thread that computed it.
        finish: called once, after the last delivery: with None, with the error of a unit, or with `Cancelled`.
        upcoming: the next unit; None when none is left to start.
        running: number of units that threads are computing.
        ended: why no further unit will start, or None.
        number: order of submission.
    """

    owner: str
    rest: Iterator[Unit]
    deliver: Callable[[Any], None]
    finish: Callable[[BaseException | None], None]
    upcoming: Unit | None = None
    running: int = 0
    ended: BaseException | None = None
    number: int = field(default_factory=itertools.count().__next__)

    def advance(self) -> Unit | None:
        """Return the upcoming unit, and make the one after it the upcoming one."""
        unit, self.upcoming = self.upcoming, next(self.rest, None)
        return unit

    def stop(self, reason: BaseException) -> None:
        """Start no further unit; the first reason is kept."""
        self.upcoming, self.rest = None, iter(())
        self.ended = self.ended or reason


class FairRenderPool:
    """Threads of one core each, shared fairly by all owners.

    One thread per core beats all cores on one unit: two clients do not wait for each other, no thread waits for its
    siblings at the end of every kernel, and the thread pools of numba and torch stay idle.

    The owner that has had the least time is served next (start-time fair queueing, Goyal et al. 1996), so that neither
    a slow field nor a client that never stops dragging takes more than its fair part.
    """

    def __init__(self, n_threads: int):
        self._tasks: list[RenderTask] = []
        self._spent: dict[str, float] = {}  # core-seconds that owners with tasks have had
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"render-{i}", daemon=True) for i in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        owner: str,
        units: Iterable[Unit],
        deliver: Callable[[Any], None],
        finish: Callable[[BaseException | None], None],
    ) -> RenderTask:
        """Queue a task, which supersedes earlier tasks of the same owner; arguments as for `RenderTask`.

        Raises:
            BusyError: MAX_TASKS tasks of other owners are waiting or running, or the pool is closed.
        """
        task = RenderTask(owner, iter(units), deliver, finish)
        task.advance()
        with self._changed:
            old = [other for other in self._tasks if other.owner == owner]
            if self._closed or len(self._tasks) - len(old) >= MAX_TASKS:
                raise BusyError("too many viewers at once; try again in a moment")
            min_spent = min((self._spent[other.owner] for other in self._tasks), default=0.0)
            self._spent[owner] = max(self._spent.get(owner, 0.0), min_spent)
            self._tasks.append(task)
            self._changed.notify_all()
        for other in old:
            self.cancel(other)
        self._finish_if_done(task)  # where there is no unit at all
        return task

    def cancel(self, task: RenderTask) -> None:
        """Start no further unit of a task; a finished task stays as it is."""
        with self._changed:
            if task not in self._tasks:
                return
            task.stop(Cancelled())
        self._finish_if_done(task)

    def close(self) -> None:
        """Cancel all tasks and end the threads."""
        with self._changed:
            self._closed = True
            tasks = list(self._tasks)
            self._changed.notify_all()
        for task in tasks:
            self.cancel(task)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        use_threads(1)  # holds for this thread alone
        lower_priority(NICE)
        while (taken := self._take()) is not None:
            task, unit = taken
            start = time.thread_time()
            try:
                result = unit()
                if task.ended is None:
                    task.deliver(result)
            except Exception as error:  # a unit that fails ends its own task and no other
                log.debug("a unit of %s failed", task.owner, exc_info=True)
                with self._changed:
                    task.stop(error)
            with self._changed:
                task.running -= 1
                if task.owner in self._spent:
                    self._spent[task.owner] += time.thread_time() - start
            self._finish_if_done(task)

    def _take(self) -> tuple[RenderTask, Unit] | None:
        """Wait for a unit; None once the pool is closed and none is left."""
        with self._changed:
            while True:
                ready = [task for task in self._tasks if task.upcoming is not None]
                if ready:
                    task = min(ready, key=lambda one: (self._spent[one.owner], one.number))
                    if (unit := task.advance()) is not None:
                        task.running += 1
                        return task, unit
                if self._closed:
                    return None
                self._changed.wait()

    def _finish_if_done(self, task: RenderTask) -> None:
        """Remove a task of which no unit is left or running, and call its `finish`."""
        with self._changed:
            if task.upcoming is not None or task.running or task not in self._tasks:
                return
            self._tasks.remove(task)
            if all(other.owner != task.owner for other in self._tasks):
                del self._spent[task.owner]
        task.finish(task.ended)
