"""The benchmark of the stages: what each contestant does, its summary over seeds and its table."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING
from helpers.turns import run_inline

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench import stages as bench
from fieldmorph.apps.bench.stages import VARIANTS, StagesPlan, bench_stages, stages_table, summarize
from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.stages import PVD_STAGES
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.registry import FIELDS
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.tensorf import VM


def run_of(
    name: str, seed: int, to_teacher: float, psnr: float = 20.0, student: str = "vm"
) -> dict[str, Any]:
    return {
        "kind": "conversion",
        "student": student,
        "stages_on": name,
        "seed": seed,
        "steps": 100 + seed,
        "core_seconds": 60.5,
        "psnr_to_teacher": to_teacher,
        "psnr": psnr,
    }


ROWS = [
    {"kind": "teacher", "psnr": 33.0, "core_seconds": 100.25, "views": 13},
    *(run_of("all", seed, psnr) for seed, psnr in enumerate((30.0, 32.0, 31.0))),
    *(run_of("without render", seed, psnr, 19.5) for seed, psnr in enumerate((29.5, 31.9, 30.7))),
    run_of("volume alone", 3, 25.0),
    {**run_of("render alone", 0, 0.0), "error": "x"},
]


def test_summary_compares_with_all_of_the_same_seed() -> None:
    everything, without, alone = summarize(ROWS)
    assert [entry["stages_on"] for entry in (everything, without, alone)] == [
        "all",
        "without render",
        "volume alone",
    ]
    assert (everything["psnr_to_teacher"]["mean"], everything["psnr_to_teacher"]["std"]) == (31.0, 1.0)
    assert without["psnr_to_teacher_gain"]["values"] == pytest.approx([-0.5, -0.1, -0.3])
    assert without["psnr_gain"]["values"] == [-0.5] * 3
    assert alone["psnr_gain"]["values"] == []  # all has no such seed
    assert without["steps"] == 101
    other = run_of("without render", 0, 10.0, student="mlp")
    assert summarize([*ROWS, other])[-1]["psnr_gain"]["values"] == []  # nor has another student's


def test_table_has_mean_deviation_and_differences() -> None:
    result = {
        "scene": "s",
        "downscale": 2,
        "seeds": 3,
        "scale": 0.5,
        "threads": 1,
        "slice_core_seconds": 10.0,
        "budgets_core_seconds": 1900.0,
        "whole_core_seconds": 3800.0,
        "rows": ROWS,
        "summary": summarize(ROWS),
    }
    lines = stages_table(result).splitlines()
    assert "teacher hashgrid small, trained once: 33.00 dB after 100.2 core-seconds" in lines[0]
    assert "3 seeds, scale 0.5, 1 thread" in lines[0]
    assert "means over 13 test views" in lines[0]
    assert "1,900 core-seconds; both students at scale 1 with 3 seeds 3,800" in lines[1]
    assert lines[4] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[5] == "| hashgrid to vm | all | 31.00 ± 1.00 | 20.00 ± 0.00 |  |  | 101 | 60.5 |"
    gains = "-0.30 ± 0.20 (-0.50, -0.10, -0.30) | -0.50 ± 0.00 (-0.50, -0.50, -0.50)"
    assert (
        lines[6]
        == f"| hashgrid to vm | without render | 30.70 ± 1.20 | 19.50 ± 0.00 | {gains} | 101 | 60.5 |"
    )
    assert lines[7] == "| hashgrid to vm | volume alone | 25.00 ± 0.00 | 20.00 ± 0.00 |  |  | 103 | 60.5 |"
    assert lines[-1] == "- failed: conversion, vm, render alone, 0: x"


def test_every_stage_is_left_out_once() -> None:
    names = [stage.name for stage in PVD_STAGES if stage.share]
    assert names == ["features", "volume", "render"]
    for name in names:
        kept = [stage for stage in PVD_STAGES if stage.name != name]
        assert list(VARIANTS[f"without {name}"].stages()) == kept
    for name in ("volume", "render"):
        alone = VARIANTS[f"{name} alone"]
        assert [stage.name for stage in alone.stages() if stage.share] == [name]
        assert not alone.images
    assert [name for name, variant in VARIANTS.items() if not variant.transplant] == [
        "decoder not transplanted"
    ]
    assert VARIANTS["all"].stages() == PVD_STAGES


def test_budgets_are_computed() -> None:
    plan = StagesPlan()
    assert plan.core_seconds(["mlp", "vm"], 3) == 200 + 3 * 8 * (90 + 60) == 3800
    assert plan.scaled(0.5).core_seconds(["vm"], 2) == 100 + 2 * 8 * 30
    assert plan.scaled(0.5).slice_core_seconds == 10.0


@pytest.mark.slow
def test_every_variant_runs_with_every_seed(
    monkeypatch: pytest.MonkeyPatch, few_views: Path, tmp_path: Path
) -> None:
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(LOOP, "min_steps", 1)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    monkeypatch.setitem(MLP.presets, "small", {"width": 16, "depth": 1})
    monkeypatch.setitem(VM.presets, "small", {"resolution": 16, "density_components": 2, "app_components": 2})
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})
    configs: list[tuple[ConvertConfig, Any]] = []
    convert = bench.convert

    def convert_spied(teacher: Any, student: Any, budget: Any, config: Any, views: Any, **more: Any) -> Any:
        configs.append((config, views and views.names))
        return convert(teacher, student, budget, config, views, **more)

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    groups: list[list[str]] = []

    def in_turns(calls: Any, on_end: Any) -> None:
        groups.append([call.settings["contestant"]["stages_on"] for call in calls])
        run_inline(calls, on_end)

    monkeypatch.setattr(bench, "convert", convert_spied)
    monkeypatch.setattr(runner, "in_child", inline)
    monkeypatch.setattr(runner, "run_in_turns", in_turns)
    plan = StagesPlan(teacher_core_seconds=100.0, students={"mlp": 40.0, "vm": 40.0}, min_core_seconds=0.1)
    result = bench_stages(few_views, tmp_path, n_seeds=1, scale=0.01, quiet=True, plan=plan)
    assert result["failed"] == 0, result["rows"]
    assert groups == [list(VARIANTS)] * 2  # one student's variants are compared with each other
    assert json.loads((tmp_path / "stages.json").read_text()) == result
    assert (tmp_path / "stages.md").read_text() == stages_table(result) + "\n"
    train = load_scene(few_views, splits=["train"]).splits["train"].names
    for row, (config, names) in zip(result["rows"][1:], configs, strict=True):
        variant = VARIANTS[row["stages_on"]]
        wanted = [stage.name for stage in variant.stages() if stage.share]
        on_images = variant.images and "images" not in row["dropped"]  # a step may take longer than is left
        assert list(row["stages"]) == [*wanted, *(["images"] if on_images else [])]
        assert config.finish == FIELDS[row["student"]].finish_fraction > 0
        assert sum(row["stages"].values()) == row["steps"]
        assert config.transplant == variant.transplant
        assert names == (train if variant.images else None)
        assert row["core_seconds"] >= row["budget"] == 0.4
        assert (row["views"], row["held_out_views"]) == (2, 1)
    assert len(result["summary"]) == 16

    lines = (tmp_path / "stages.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "stages.jsonl").write_text("".join(lines[:-2]))
    again = bench_stages(few_views, tmp_path, n_seeds=1, scale=0.01, quiet=True, plan=plan)
    assert groups[2:] == [[], list(VARIANTS)[-2:]]
    assert again["rows"][:-2] == result["rows"][:-2]
