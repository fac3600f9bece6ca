"""A function in a child process: its messages, its result or error, and its end with the parent."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fieldmorph.apps.jobs.worker import COMMAND, WorkerCall, run_in_child

pytestmark = pytest.mark.slow  # each child imports torch

FUNCTIONS = """
import os, pathlib, time
from fieldmorph.fields.errors import SettingError

class Result:
    def as_json(self):
        return {"steps": 3}

def result():
    print("not a message")
    return Result()

def count(report, n):
    for i in range(n):
        report({"done": i + 1})
    return os.nice(0)

def refuse():
    raise SettingError("no such\\nfield")

def fail():
    raise KeyError("x")

def stay(file):
    pathlib.Path(file).touch()
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "functions_of_a_worker.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def call(name: str, **options: Any) -> WorkerCall:
    return WorkerCall("functions_of_a_worker", name, threads=1, **options)


@contextmanager
def child(requested: WorkerCall) -> Iterator[subprocess.Popen[str]]:
    """A child that has its call, whose standard input stays open."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(requested.line())
        process.stdin.flush()
        yield process


def messages(requested: WorkerCall) -> list[dict[str, Any]]:
    with child(requested) as process:
        assert process.stdout is not None
        return [json.loads(line) for line in process.stdout]


def test_an_object_comes_as_its_json_values() -> None:
    assert run_in_child(call("result")) == {"steps": 3}


def test_threads_are_set() -> None:
    assert run_in_child(WorkerCall("torch", "get_num_threads", threads=1)) == 1


def test_messages_come_before_the_result() -> None:
    niceness = os.nice(0)
    reported = messages(call("count", settings={"n": 2}, reports=True, nice=3))
    assert reported == [{"done": 1}, {"done": 2}, {"result": niceness + 3}]


def test_errors_have_one_line_and_defects_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    (reported,) = messages(call("refuse"))
    assert reported == {"error": "SettingError: no such\nfield", "message": "no such field"}
    assert "Traceback" not in capfd.readouterr().err
    assert run_in_child(call("fail")) == {"error": "KeyError: 'x'"}
    assert "Traceback" in capfd.readouterr().err


def test_a_child_ends_with_its_parent_and_takes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with child(call("stay", settings={"file": folder / "begun"}, folder=str(folder))) as process:
        deadline = time.monotonic() + 120
        while not (folder / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (folder / "begun").exists()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 1
    assert not folder.exists()
