"""The benchmark of PVD's own sizes: equal total times, and figures of others that are never taken for its own."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING
from helpers.turns import run_inline

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.paper import KINDS, PaperPlan, bench_paper, paper_table
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP


def result_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "scene": "s",
        "scale": 0.5,
        "threads": 1,
        "image_size": [800, 800],
        "training_views": 40,
        "budgets_core_seconds": 6900.0,
        "published": {"hash grid": [35.7, 32.6]},
        "rows": rows,
    }


def row_of(kind: str, core_seconds: float, psnr: float, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "core_seconds": core_seconds, "steps": 1234, "psnr": psnr, "views": 3, **more}


def test_table_keeps_the_figures_of_others_apart() -> None:
    rows = [
        row_of("teacher", 1200.0, 33.0),
        row_of("distilled", 1500.0, 30.0, psnr_to_teacher=35.0),
        row_of("finished", 1500.0, 30.5, psnr_to_teacher=34.0),
        row_of("images_total", 2700.0, 29.0, psnr_to_teacher=31.0),
    ]
    lines = paper_table(result_of(rows)).splitlines()
    assert (
        "40 training images of 800 x 800, seed 0, 1 thread of a CPU, scale 0.5: 6,900 core-seconds"
        in lines[0]
    )
    assert "means over 3 test views" in lines[0]
    assert "| teacher, hashgrid paper | 1200.0 | 1200.0 | 1,234 | 33.00 |  |" in lines
    assert "| distilled and finished on images | 1500.0 | 2700.0 | 1,234 | 30.50 | 34.00 |" in lines
    assert "| from images, total time T | 2700.0 | 2700.0 | 1,234 | 29.00 | 31.00 |" in lines
    label = next(i for i, line in enumerate(lines) if line.startswith("Not measured here"))
    assert (
        lines.index("| hash grid | 35.70 | 32.60 |")
        > label
        > lines.index("| distilled without images | 1500.0 | 2700.0 | 1,234 | 30.00 | 35.00 |")
    )


def test_table_names_what_failed() -> None:
    lines = paper_table(
        result_of([{"kind": "teacher", "field": "hashgrid", "seed": 0, "error": "MemoryError: "}])
    )
    assert lines.splitlines()[-1] == "- failed: teacher, hashgrid, 0: MemoryError: "
    assert "no test views" in lines


def test_the_whole_takes_two_hours_on_two_cores() -> None:
    plan = PaperPlan()
    assert 0.9 * 2 * 7200 < plan.core_seconds() < 2 * 7200
    small = plan.scaled(0.1)
    assert (small.teacher, small.student, small.slice_core_seconds) == pytest.approx((240.0, 300.0, 2.0))
    assert plan.scaled(1e-9).teacher == plan.scaled(1e-9).student == 0.5


@pytest.mark.slow
def test_bench_runs_and_continues(monkeypatch: pytest.MonkeyPatch, few_views: Path, tmp_path: Path) -> None:
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(LOOP, "min_steps", 1)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    monkeypatch.setitem(MLP.presets, "paper", {"width": 16, "depth": 1})
    monkeypatch.setattr(MLP, "finish_after", 1)
    presets: list[str] = []

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        presets.append(settings["preset"])
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setitem(HashGrid.presets, "paper", {"n_levels": 4, "log2_hashmap_size": 12})
    monkeypatch.setattr(runner, "in_child", inline)
    monkeypatch.setattr(runner, "run_in_turns", run_inline)
    plan = PaperPlan(teacher=100.0, student=40.0, min_core_seconds=0.1, evaluations=2, n_pixels=64)
    result = bench_paper(few_views, tmp_path / "b", scale=0.01, quiet=True, plan=plan)
    assert result["failed"] == 0, result["rows"]
    assert presets == ["paper"]
    budgets = {row["kind"]: row["budget"] for row in result["rows"]}
    assert budgets == pytest.approx({"teacher": 1.0, "distilled": 0.4, "finished": 0.4, "images_total": 1.4})
    assert [row["kind"] for row in result["rows"]] == ["teacher", *KINDS]
    assert (tmp_path / "b/paper.md").read_text() == paper_table(result) + "\n"
    assert bench_paper(few_views, tmp_path / "b", scale=0.01, quiet=True, plan=plan) == result
    assert presets == ["paper"]
