"""The benchmark of closed-form starts: runs with one and without, and when each is nearly done."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.snapshots import SnapshotRecorder
from fieldmorph.apps.bench.warm_starts import RUNS, bench_starts, starts_table, summarize
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.budget import Spent
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.tensorf import CP, VM
from fieldmorph.fields.voxels import Voxels

BRIEFLY = {"evaluations": 3, "n_pixels": 256}


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Jobs run here, in small; the requests."""
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setattr(LOOP, "min_steps", 1)
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    small = {"resolution": 16, "density_components": 4, "app_components": 4}
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})
    monkeypatch.setitem(Voxels.presets, "small", {"resolution": 16})
    monkeypatch.setitem(VM.presets, "small", small)
    monkeypatch.setitem(CP.presets, "small", small)
    calls = []

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        calls.append(settings)
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


def run_of(
    run: str, curve: list[list[float]], end: float, seed: int = 0, student: str = "vm"
) -> dict[str, Any]:
    start = {"start_seconds": 6.0, "start_core_seconds": 5.0} if "with," in f"{run}," else {}
    return {
        "kind": "conversion",
        "student": student,
        "run": run,
        "seed": seed,
        "curve": curve,
        "psnr_to_teacher": end,
        **start,
    }


def test_near_is_within_a_decibel_of_the_end_without_a_start() -> None:
    rows = [
        {"kind": "teacher", "psnr": 30.0},
        run_of("with", [[6.0, 28.0], [12.0, 29.5], [240.0, 33.0]], 33.5),
        run_of("without", [[6.0, 15.0], [60.0, 29.6], [240.0, 30.5]], 31.0),
        run_of("with, a tenth", [[6.0, 28.0], [24.0, 32.0]], 32.75),
        run_of("without, a tenth", [[24.0, 25.0]], 25.0),
    ]
    (entry,) = summarize(rows)
    assert (entry["start_core_seconds"], entry["start_psnr"]) == (5.0, 28.0)
    assert (entry["near with"], entry["near without"], entry["speedup"]) == (12.0, 60.0, 5.0)
    assert entry["brief_db"] == -0.75
    result = {"scene": "s", "budget": 240.0, "seeds": 1, "threads": 1, "rows": rows, "summary": [entry]}
    cells = "vm | 5.0 | 28.00 | 12.0 | 60.0 | 5.0 x | 33.50 | 31.00 | 32.75 | 25.00 | -0.75"
    assert starts_table(result).splitlines()[-1] == f"| {cells} |"

    rows[1]["curve"] = [[6.0, 28.0], [240.0, 29.0]]
    rows[3] = {**rows[3], "error": "too short"}
    (entry,) = summarize(rows)
    assert (entry["near with"], entry["speedup"], entry["brief_db"]) == (None, None, None)
    table = starts_table({**result, "summary": [entry], "rows": rows})
    assert "| vm | 5.0 | 28.00 | never | 60.0 |  | 33.50 | 31.00 |  | 25.00 |  |" in table
    assert "- failed: conversion, vm, 0: too short" in table
    rows[2]["error"] = "x"
    assert summarize(rows) == []


def test_snapshots_are_at_equal_ratios_and_after_the_first_step() -> None:
    field = make_field("mlp", aabb=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0), width=16, depth=1)
    shown = []
    recorder = SnapshotRecorder(field, 4, shown.append, early=True)
    taken = []
    for step in range(1, 1001):
        recorder(Progress(step, step / 1000, None, Spent()))
        if len(recorder.taken) > len(taken):
            taken.append(step)
    assert taken == [1, 20, 54, 142, 377]
    assert len(shown) == 1000
    recorder.end()
    times = [at for at, _ in recorder.taken]
    assert times == sorted(times)
    assert len(times) == 6
    with_jump = SnapshotRecorder(field, 4, shown.append)
    for step, fraction in ((1, 0.5), (2, 0.6), (3, 1.0)):
        with_jump(Progress(step, fraction, None, Spent()))
    assert len(with_jump.taken) == 1


@pytest.mark.slow
def test_every_student_runs_with_its_start_and_without(
    requested: list[dict[str, Any]], few_views: Path, tmp_path: Path
) -> None:
    students = ["voxels", "cp"]
    assert set(students) < {*STARTS}
    result = bench_starts(few_views, tmp_path, scale=0.004, quiet=True, only=students, **BRIEFLY)
    runs = [(call["student"], call["run"]) for call in requested[1:]]
    assert runs == [(student, run) for student in students for run in RUNS]
    for row in result["rows"][1:]:
        if "error" in row:  # a start may take more than a tenth of so little
            assert "a tenth" in row["run"]
            continue
        times = [at for at, _ in row["curve"]]
        assert times == sorted(times)
        assert times[-1] == row["core_seconds"]
        assert ("start" in row["stages"]) == ("without" not in row["run"])
        assert (row["start_seconds"] is None) == ("without" in row["run"])
        if "without" not in row["run"]:
            assert times[0] >= row["start_core_seconds"] > 0
    for entry in result["summary"]:
        assert entry["start_psnr"] > 15
    assert [entry["student"] for entry in result["summary"]] == students
    assert json.loads((tmp_path / "starts.json").read_text()) == result
    assert (tmp_path / "starts.md").read_text() == starts_table(result) + "\n"
    done, failed = len(requested), result["failed"]
    bench_starts(few_views, tmp_path, scale=0.004, quiet=True, only=("voxels",), **BRIEFLY)
    assert len(requested) - done <= failed
