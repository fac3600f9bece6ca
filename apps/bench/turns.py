"""Child processes that take turns: one computes at any moment, so that all see the same load of the machine.

Steps that a core-second buys depend on what else the machine does, which changes over minutes. Runs that are compared
therefore alternate in slices of some seconds of CPU time. A child starts when its first turn comes. Once it has used
its slice it reports so and waits for its parent, see `Turn`; a child that ends, whatever the way, passes its turn on.
"""

import contextlib
import json
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from fieldmorph.apps.jobs.worker import COMMAND, Report, WorkerCall, no_result, wait_for_parent

SLICE_CORE_SECONDS = 20.0
PAUSED = {"paused": True}  # message of a child whose slice is used


class Turn:
    """The child's side: an `on_progress`, or any other callback, that waits once the slice of CPU time is used.

    Args:
        report: sends a message to the parent; None where no other process is waited for.
        core_seconds: of a slice; it ends with the first call after them.
    """

    def __init__(self, report: Report | None, core_seconds: float = SLICE_CORE_SECONDS):
        self.report, self.core_seconds = report, core_seconds
        self.end = core_seconds  # in CPU time of this process: its start belongs to the first slice

    def __call__(self, *_: object) -> None:
        """Return at once, or when the next turn of this process has come."""
        if self.report is not None and time.process_time() >= self.end:
            self.report(PAUSED)
            wait_for_parent()
            self.end = time.process_time() + self.core_seconds


def run_in_turns(calls: Sequence[WorkerCall], on_end: Callable[[int, Any], object]) -> None:
    """Run functions in child processes that take turns, the first one first.

    Args:
        calls: of functions that take `report` and call a `Turn` now and then; their other messages are ignored.
        on_end: called with a call's index and its result, or `{"error": ...}`, as soon as it has ended.

    Raises:
        BaseException: whatever interrupts it, Ctrl-C included, after the end of all children.
    """
    children = [_Child(call) for call in calls]
    waiting = deque(enumerate(children))
    try:
        while waiting:
            index, child = waiting.popleft()
            if child.take_turn():
                on_end(index, child.result())
            else:
                waiting.append((index, child))
    finally:
        for child in children:
            child.kill()


class _Child:
    """The parent's side of one process."""

    def __init__(self, call: WorkerCall):
        self.call = call
        self.process: subprocess.Popen[str] | None = None
        self.last: dict[str, Any] = {}

    def take_turn(self) -> bool:
        """Let the process compute until its slice is used; return whether it has ended."""
        if self.process is None:
            self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            text = self.call.line()
        else:
            text = "\n"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):  # it has ended while it waited, as its output says
            self.process.stdin.write(text)
            self.process.stdin.flush()
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # the rest of a line that a crash cut off
                self.last = json.loads(line)
            if self.last == PAUSED:
                return False
        self.process.wait()
        return True

    def result(self) -> Any:
        """Return what the function returned, or `{"error": ...}`."""
        assert self.process is not None
        if "result" in self.last:
            return self.last["result"]
        return {"error": self.last.get("error", no_result(self.process.returncode))}

    def kill(self) -> None:
        """End the process if it still runs."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what a dead process has not read
                pipe and pipe.close()
