"""Child processes that run one function each: a crash, a kill or a memory peak stays theirs.

The parent writes one call as a line of JSON to the child's standard input and keeps it open; the child ends with it,
however the parent was ended. A function may wait there for a character of the parent's. The child writes messages as
lines of JSON to its standard output: progress, where the function reports some, and at last `{"result": ...}` or
`{"error": ..., "message": ...}`. What the function prints goes to standard error.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fieldmorph.apps.console.exits import explain
from fieldmorph.fields.runtime import use_threads

COMMAND = (sys.executable, "-P", "-c", "from fieldmorph.apps.jobs.worker import serve; serve()")

Report = Callable[[Mapping[str, Any]], None]  # sends a message, JSON values

_received = threading.Semaphore(0)  # characters from the parent that no function has waited for


@dataclass(frozen=True)
class WorkerCall:
    """A function to run in a child process.

    Attributes:
        module, name: of the function; it returns JSON values, or an object whose `as_json` does.
        settings: keyword arguments, JSON values or paths.
        threads: of torch and the kernels; None: all cores.
        reports: whether the function takes `report`, a function that sends a message.
        nice: added to the child's nice value.
        folder: removed where the parent is gone.
    """

    module: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    reports: bool = False
    nice: int = 0
    folder: str | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], settings: Mapping[str, Any], **options: Any) -> "WorkerCall":
        """Make the call of a module's function."""
        return cls(function.__module__, function.__name__, settings, **options)

    def line(self) -> str:
        """Return the call as one line of JSON, with paths as text."""
        return json.dumps(asdict(self), default=str) + "\n"


def run_in_child(call: WorkerCall) -> Any:
    """Return what a function returns in a child process, or `{"error": ...}`."""
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(call.line())
            process.stdin.flush()
            messages = process.stdout.read().splitlines()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if not messages:
        return {"error": no_result(code)}
    last = json.loads(messages[-1])
    return last["result"] if "result" in last else {"error": last["error"]}


def no_result(code: int | None) -> str:
    """Return what to say of a child that ended without a result."""
    return f"worker exited with code {code} before returning a result"


def serve() -> None:
    """Run the call that standard input holds: the child's side."""
    output, sys.stdout = sys.stdout, sys.stderr
    call = WorkerCall(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_read_input, args=(call.folder,), daemon=True).start()
    if call.nice and hasattr(os, "nice"):
        os.nice(call.nice)
    use_threads(call.threads)

    def report(message: Mapping[str, Any]) -> None:
        print(json.dumps(message, allow_nan=False, default=str), file=output, flush=True)

    try:
        function = getattr(importlib.import_module(call.module), call.name)
        result = function(**call.settings, **({"report": report} if call.reports else {}))
        report({"result": result.as_json() if hasattr(result, "as_json") else result})
    except (Exception, SystemExit) as error:
        known = explain(error)
        if known is None:
            traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        report({"error": text, "message": known.message if known else text.splitlines()[0]})


def wait_for_parent() -> None:
    """Wait, without using CPU time, until the parent writes a character: for a function that runs in a child.

    The parent writes none before the function has reported that it waits.
    """
    _received.acquire()


def _read_input(folder: str | None) -> None:
    """Count the characters of the parent until standard input ends, and end the process then."""
    while received := os.read(0, 1):
        _received.release(len(received))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
