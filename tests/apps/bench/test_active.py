"""The benchmark of active learning: five settings, the same seeds, and differences within each seed."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.active import (
    SETTINGS,
    STUDENT_CORE_SECONDS,
    TEACHER_CORE_SECONDS,
    active_table,
    bench_active,
    summarize,
)
from fieldmorph.distill.config import ConvertConfig
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Jobs run here, in small; the requests."""
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setattr(LOOP, "min_steps", 1)
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    monkeypatch.setitem(MLP.presets, "small", {"width": 16, "depth": 1})
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})
    calls = []

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        calls.append(settings)
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


def active(call: dict[str, Any]) -> str:
    """The setting of a job."""
    return Path(call["output"]).stem.partition("_")[0]


def run_of(active: str, seed: int, psnr: float, worst: float = 20.0) -> dict[str, Any]:
    figures = {"psnr_to_teacher": psnr, "worst_to_teacher": worst, "psnr": psnr - 5, "steps": 100}
    return {"kind": "conversion", "active": active, "seed": seed, **figures}


def test_differences_are_between_runs_of_one_seed() -> None:
    rows = [run_of("off", seed, psnr) for seed, psnr in enumerate((30.0, 32.0, 31.0))]
    rows += [run_of("ray", seed, psnr, 20.5) for seed, psnr in ((2, 31.5), (0, 30.1), (1, 32.3))]
    rows += [{"kind": "conversion", "active": "all", "seed": 0, "error": "x"}, run_of("all", 3, 29.0)]
    off, ray, everything = summarize(rows)
    assert (off["active"], ray["active"], everything["active"]) == ("off", "ray", "all")
    assert off["psnr_to_teacher"] == {"values": [30.0, 32.0, 31.0], "mean": 31.0, "std": 1.0, "spread": 2.0}
    assert ray["psnr_to_teacher_gain"]["values"] == pytest.approx([0.5, 0.1, 0.3])
    assert ray["psnr_to_teacher_gain"]["mean"] == pytest.approx(0.3)
    assert ray["psnr_to_teacher_gain"]["std"] == pytest.approx(0.2)
    assert ray["worst_to_teacher_gain"]["mean"] == 0.5
    assert everything["psnr_to_teacher_gain"]["values"] == []
    result = {
        "scene": "s",
        "budget": 72.0,
        "seeds": 3,
        "threads": 1,
        "rows": rows,
        "summary": [off, ray, everything],
    }
    table = active_table(result).splitlines()
    assert table[4] == "| off | 31.00 ± 1.00 (2.00) | 20.00 ± 0.00 (0.00) | 26.00 ± 1.00 (2.00) |  |  | 100 |"
    assert "| +0.30 ± 0.20 (+0.50, +0.10, +0.30) | +0.50 | 100 |" in table[5]
    assert table[6].endswith("|  |  | 100 |")
    assert table[-1] == "- failed: conversion, 0: x"


def test_all_settings_run_once_with_each_seed_in_another_order(
    monkeypatch: pytest.MonkeyPatch, requested: list[dict[str, Any]], few_views: Path, tmp_path: Path
) -> None:
    seen = []

    def configured(**settings: Any) -> ConvertConfig:
        seen.append(settings["active"])
        return ConvertConfig(**settings)

    monkeypatch.setattr("fieldmorph.apps.jobs.request.ConvertConfig", configured)
    result = bench_active(few_views, tmp_path, n_seeds=2, scale=0.001, quiet=True)
    assert result["failed"] == 0, result["rows"]
    names = list(SETTINGS)
    assert names == ["off", "pose", "ray", "point", "all"]
    assert [active(call) for call in requested[1:]] == [*names, *names[1:], names[0]]
    everything = ("pose", "ray", "point")
    levels = [(), ("pose",), ("ray",), ("point",), everything]
    assert seen == [*levels, *levels[1:], levels[0]]
    assert [call["seed"] for call in requested[1:]] == 5 * [0] + 5 * [1]
    assert [entry["active"] for entry in result["summary"]] == names
    assert json.loads((tmp_path / "active.json").read_text()) == result
    assert (tmp_path / "active.md").read_text() == active_table(result) + "\n"
    for entry in result["summary"]:
        assert len(entry["psnr_to_teacher"]["values"]) == 2
    budgets = [0.001 * TEACHER_CORE_SECONDS] + 10 * [0.001 * STUDENT_CORE_SECONDS]
    assert [call["budget"] for call in requested] == [row["budget"] for row in result["rows"]] == budgets

    lines = (tmp_path / "active.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "active.jsonl").write_text("".join(lines[:-1]) + lines[-1][:9])
    done = len(requested)
    bench_active(few_views, tmp_path, n_seeds=2, scale=0.001, quiet=True)
    assert [(active(call), call["seed"]) for call in requested[done:]] == [("off", 1)]


def test_without_a_teacher_nothing_is_converted(
    monkeypatch: pytest.MonkeyPatch, requested: list[dict[str, Any]], few_views: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "in_child", lambda *_a, **_k: {"error": "MemoryError: "})
    result = bench_active(few_views, tmp_path, n_seeds=1, quiet=True)
    assert result["failed"] == 6
    assert result["summary"] == []
    assert "no teacher: MemoryError" in active_table(result)
