"""Child processes that take turns: their order, whatever way one ends, and the end of all with their parent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fieldmorph.apps.bench import turns
from fieldmorph.apps.bench.turns import PAUSED, Turn, run_in_turns
from fieldmorph.apps.jobs.worker import WorkerCall

FUNCTIONS = """
import os, signal, time
from fieldmorph.apps.bench.turns import Turn

def note(log, text):
    with open(log, "a") as file:
        print(text, file=file, flush=True)

def work(log, name, parts, report, end=None):
    turn, waited = Turn(report, 0.0), 0.0  # every call ends a slice
    for i in range(parts):
        note(log, f"{name} begins {os.getpid()}")
        sum(range(1 << 20))
        if i == 1 and end == "kill":
            killed = [line.split()[2] for line in open(log) if line.startswith("e ")][0]
            os.kill(int(killed), signal.SIGKILL)
        note(log, f"{name} ends {os.getpid()}")
        if end == "crash":
            os._exit(3)
        if end == "fail":
            raise KeyError("x")
        if end == "stay":
            time.sleep(600)
        began = time.process_time()
        turn()
        waited += time.process_time() - began
    return {"name": name, "waited": waited}
"""


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "functions_in_turns.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def settings_of(log: Path, name: str, parts: int, end: str | None) -> dict[str, Any]:
    return {"log": str(log), "name": name, "parts": parts, "end": end}


@pytest.mark.slow
def test_one_computes_at_a_time_and_whatever_ends_passes_its_turn_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    contestants = [("a", 3, "kill"), ("b", 9, "crash"), ("c", 2, None), ("d", 9, "fail"), ("e", 9, None)]
    calls = [
        WorkerCall("functions_in_turns", "work", settings_of(log, *one), threads=1, reports=True)
        for one in contestants
    ]
    ended: list[tuple[int, Any]] = []
    run_in_turns(calls, lambda index, result: ended.append((index, result)))
    noted = [line.split()[:2] for line in log.read_text().splitlines()]
    order = ["a", "b", "c", "d", "e", "a", "c", "a"]
    assert noted == [[name, word] for name in order for word in ("begins", "ends")]
    results = dict(ended)
    assert [index for index, _ in ended] == [1, 3, 4, 2, 0]
    assert results[1]["error"] == "worker exited with code 3 before returning a result"
    assert results[3]["error"] == "KeyError: 'x'"
    assert results[4]["error"] == "worker exited with code -9 before returning a result"
    assert (results[0]["name"], results[2]["name"]) == ("a", "c")
    # While a waited the others imported torch, which takes seconds of CPU time; waiting takes next to none.
    assert results[0]["waited"] < 0.5


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up there")
def test_an_interrupt_ends_those_that_compute_and_those_that_wait(tmp_path: Path) -> None:
    log = tmp_path / "log"
    contestants = [settings_of(log, "a", 2, None), settings_of(log, "b", 1, "stay")]
    script = f"""
import json, signal
from fieldmorph.apps.bench.turns import run_in_turns
from fieldmorph.apps.jobs.worker import WorkerCall
contestants = json.loads({json.dumps(contestants)!r})
calls = [WorkerCall("functions_in_turns", "work", one, threads=1, reports=True) for one in contestants]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
run_in_turns(calls, print)
"""
    bench = subprocess.Popen([sys.executable, "-P", "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (log.exists() and "b ends" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = {line.split()[2] for line in log.read_text().splitlines()}
    assert len(started) == 2
    assert all(Path(f"/proc/{child}").exists() for child in started)
    bench.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in bench.communicate(timeout=60)[1]
    assert bench.returncode != 0
    assert [child for child in started if Path(f"/proc/{child}").exists()] == []


def test_a_slice_ends_with_the_first_call_after_its_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reported, waits = [0.0], [], []
    monkeypatch.setattr(turns.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(turns, "wait_for_parent", lambda: waits.append(clock[0]))
    turn = Turn(reported.append, 20.0)
    for clock[0] in (5.0, 19.0, 21.0, 22.0, 40.0, 41.5, 60.0, 62.0):
        turn("anything")
    assert waits == [21.0, 41.5, 62.0]
    assert reported == [PAUSED] * 3


def test_without_others_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "wait_for_parent", lambda: pytest.fail("waits"))
    Turn(None, 0.0)()


def test_children_end_where_a_result_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Child:
        def __init__(self, call: Any):
            self.call, self.killed = call, False
            made.append(self)

        def take_turn(self) -> bool:
            return bool(self.call.name == "second")

        def result(self) -> str:
            return "result"

        def kill(self) -> None:
            self.killed = True

    def full(index: int, result: Any) -> None:
        raise OSError(28, f"no room for {result} of {index}")

    monkeypatch.setattr(turns, "_Child", Child)
    with pytest.raises(OSError, match="no room for result of 1"):
        run_in_turns([WorkerCall("module", name) for name in ("first", "second", "third")], full)
    assert [child.killed for child in made] == [True] * 3
