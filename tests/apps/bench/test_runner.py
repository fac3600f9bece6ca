"""Rows of a benchmark: run once, in a process of their own, and whole or not at all."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.runner import Bench, Contestant, chosen, failures, in_child, markdown
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.runtime import peak_memory

WHAT = {"kind": "conversion", "budget": 1.5, "seed": 0}


def job(**settings: Any) -> dict[str, Any]:
    return {"psnr": 20.0 + settings.get("more", 0)}


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requested jobs; they run here."""
    calls = []

    def inline(job: Any, *, threads: int, **settings: Any) -> dict[str, Any]:
        calls.append(settings)
        return job(**settings)

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


@pytest.fixture
def open_bench(few_views: Path) -> Callable[..., Bench]:
    """A benchmark in a folder."""

    def opened(folder: Path, *, downscale: int = 1, force: bool = False) -> Bench:
        return Bench.of_scene("tea", few_views, folder, downscale, force, True)

    return opened


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tea.jsonl").read_text().splitlines()]


def test_a_row_is_run_once(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    first = open_bench(tmp_path).run(WHAT, job, more=1)
    assert first["psnr"] == 21.0
    assert {name: first[name] for name in WHAT} == WHAT
    assert (first["scene"], first["downscale"]) == ("spot", 1)
    assert open_bench(tmp_path).run(WHAT, job, more=1) == first
    assert requested == [{"more": 1}]
    assert lines(tmp_path) == [first]


@pytest.mark.parametrize("other", [{"budget": 1.6}, {"seed": 1}, {"kind": "teacher"}, {"student": "vm"}])
def test_other_settings_are_another_row(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path, other: dict[str, Any]
) -> None:
    open_bench(tmp_path).run(WHAT, job)
    bench = open_bench(tmp_path)
    bench.run({**WHAT, **other}, job)
    assert len(requested) == len(lines(tmp_path)) == 2
    assert len(bench.rows) == 1


def test_another_scene_or_version_is_another_row(
    monkeypatch: pytest.MonkeyPatch,
    requested: list[dict[str, Any]],
    open_bench: Callable[..., Bench],
    tmp_path: Path,
) -> None:
    open_bench(tmp_path).run(WHAT, job)
    smaller = open_bench(tmp_path, downscale=2)
    smaller.common["downscale"] = 1
    smaller.run(WHAT, job)  # they differ by the images' digest
    assert len(requested) == 2
    monkeypatch.setattr("importlib.metadata.version", lambda _: "9.9")
    open_bench(tmp_path).run(WHAT, job)
    assert len(requested) == 3


def test_force_forgets_the_rows(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    open_bench(tmp_path).run(WHAT, job)
    open_bench(tmp_path, force=True).run(WHAT, job, more=3)
    assert [row["psnr"] for row in lines(tmp_path)] == [23.0]


def test_a_folder_with_other_things_needs_force(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    tmp_path.joinpath("mine").write_text("mine")
    with pytest.raises(SettingError, match="--force"):
        open_bench(tmp_path)
    open_bench(tmp_path, force=True).run(WHAT, job)
    open_bench(tmp_path).run(WHAT, job)
    assert len(requested) == 1


@pytest.mark.parametrize("left", [b'{"psnr": 2', b"{}", b'{"psnr": 21.0}', b"\xff\x00", b"[1]\n"])
def test_what_is_left_of_a_line_is_dropped(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path, left: bytes
) -> None:
    first = open_bench(tmp_path).run(WHAT, job)
    with open(tmp_path / "tea.jsonl", "ab") as file:
        file.write(left)
    bench = open_bench(tmp_path)
    assert lines(tmp_path) == [first]
    other = bench.run({**WHAT, "seed": 1}, job)
    assert lines(tmp_path) == [first, other]


def test_an_error_is_a_row_and_is_tried_again(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = open_bench(tmp_path)
    bench.run(WHAT, lambda: {"error": "OSError: no room"})
    bench.fail({**WHAT, "seed": 1}, "no teacher")
    result = bench.finish({"scale": 1.0}, lambda result: "\n".join(failures(result)))
    assert result["failed"] == 2
    assert json.loads((tmp_path / "tea.json").read_text()) == result
    reported = (tmp_path / "tea.md").read_text()
    assert "- failed: conversion, 0: OSError: no room\n- failed: conversion, 1: no teacher\n" in reported
    again = open_bench(tmp_path)
    assert again.run(WHAT, job)["psnr"] == 20.0
    assert again.finish({}, lambda _: "")["failed"] == 0


def test_a_lost_or_changed_product_is_made_again(
    requested: list[dict[str, Any]], open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    product = tmp_path / "teacher.fm"

    def make() -> dict[str, Any]:
        product.write_bytes(b"field")
        return {"sha256": hashlib.sha256(b"field").hexdigest()}

    for spoil, calls in ((lambda: None, 1), (lambda: None, 1), (product.unlink, 2)):
        spoil()
        open_bench(tmp_path).run(WHAT, make, product)
        assert len(requested) == calls
    product.write_bytes(b"another")
    open_bench(tmp_path).run(WHAT, make, product)
    assert len(requested) == 3


def test_unknown_fields_list_the_known() -> None:
    assert chosen(None, ["vm", "cp"]) == ["vm", "cp"]
    assert chosen(("cp",), ["vm", "cp"]) == ["cp"]
    with pytest.raises(SettingError, match="'tea'; known: cp, vm"):
        chosen(("tea",), ["vm", "cp"])


def test_the_table_is_markdown() -> None:
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_contestants_are_in_the_file_as_they_end_and_run_once(
    monkeypatch: pytest.MonkeyPatch, open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    contestants = [Contestant({**WHAT, "seed": seed}, job, {"more": seed}) for seed in range(3)]
    requested = []

    def last_first(calls: Any, on_end: Callable[[int, Any], object]) -> None:
        requested.append([(call.name, call.settings, call.reports) for call in calls])
        for index in reversed(range(len(calls))):
            if len(requested) == 1 and index == 0:
                raise KeyboardInterrupt
            on_end(index, job(**calls[index].settings))
            assert lines(tmp_path)[-1]["seed"] == calls[index].settings["more"]

    monkeypatch.setattr(runner, "run_in_turns", last_first)
    with pytest.raises(KeyboardInterrupt):
        open_bench(tmp_path).run_in_turns(contestants)
    assert [(row["seed"], row["psnr"]) for row in lines(tmp_path)] == [(2, 22.0), (1, 21.0)]
    bench = open_bench(tmp_path)
    bench.run_in_turns(contestants)
    assert requested[1] == [("job", {"more": 0}, True)]
    assert [row["seed"] for row in bench.rows] == [1, 2, 0]
    assert all({**row, **bench.common} == row for row in lines(tmp_path))
    open_bench(tmp_path).run_in_turns(contestants)
    assert requested[2] == []


@pytest.mark.slow
def test_a_process_of_its_own_has_its_own_end(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_child(json.dumps, threads=1, obj={"a": Path("b")}) == '{"a": "b"}'
    assert in_child(json.loads, threads=1, s="{")["error"].startswith("JSONDecodeError: ")
    reported = f"worker exited with code {-signal.SIGABRT} before returning a result"
    assert in_child(os.abort, threads=1)["error"] == reported
    assert in_child(sys.exit, threads=1, status=None)["error"].startswith("TypeError")
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is inherited elsewhere")
def test_memory_of_a_process_does_not_begin_with_its_parents() -> None:
    ballast = bytearray(1 << 30)
    ballast[:: 1 << 12] = b"x" * (1 << 18)
    assert peak_memory() > 1 << 30
    assert 1 << 27 < in_child(peak_memory, threads=1) < 1 << 30


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up there")
def test_a_job_ends_with_its_bench(tmp_path: Path) -> None:
    script = "import time; from fieldmorph.apps.bench.runner import in_child; in_child(time.sleep, threads=1)"
    bench = subprocess.Popen(
        [sys.executable, "-P", "-c", script.replace("time.sleep", "__import__('signal').pause")]
    )
    children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
    deadline = time.monotonic() + 60
    while not (started := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(4)  # until it is inside its job
    bench.kill()
    bench.wait()
    (child,) = started
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
