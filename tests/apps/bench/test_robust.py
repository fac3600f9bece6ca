"""The benchmark of hard scenes: a scene or a folder of them, other render steps, an image for each, failures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING
from PIL import Image

from fieldmorph.apps.bench import robust, runner
from fieldmorph.apps.bench.robust import bench_robust, psnr_at, robust_table, scene_folders, summarize
from fieldmorph.fields.blackbox import callable_teacher
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.tensorf import VM


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
    small = {"resolution": 16, "density_components": 4, "app_components": 4}
    monkeypatch.setitem(VM.presets, "small", small)
    calls = []

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        calls.append({"job": job.__name__, **settings})
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


@pytest.fixture
def two_scenes(few_views: Path, tmp_path: Path) -> Path:
    """A folder of two scenes, `spot` and `dark`, and of one that is none."""
    folder = tmp_path / "scenes"
    for name in ("spot", "dark"):
        shutil.copytree(few_views, folder / name)
    for path in (folder / "dark").rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[..., :3] //= 16
        Image.fromarray(pixels).save(path)
    (folder / "no_scene").mkdir()
    return folder


def test_every_scene_of_a_folder_is_converted(
    requested: list[dict[str, Any]], two_scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = bench_robust(two_scenes, out, scale=0.001, quiet=True)
    assert result["failed"] == 0, result["rows"]
    assert [(row["data"], row["student"]) for row in result["conversions"]] == [
        ("dark", "mlp"),
        ("dark", "vm"),
        ("spot", "mlp"),
        ("spot", "vm"),
    ]
    for row in result["rows"]:
        assert row["budget"] == pytest.approx(0.06)
        if row["kind"] == "conversion":
            shown = [row[name] for name in ("half_step", "twice_step", "psnr_to_teacher")]
            assert all(3 < value < 100 for value in shown)
            assert len(set(shown)) == 3
    teachers = {row["data"]: row["scene_sha256"] for row in result["rows"] if row["kind"] == "teacher"}
    assert len(set(teachers.values())) == 2
    for name in ("dark", "spot"):
        with Image.open(out / f"robust_{name}.png") as image:
            assert image.width > 4 * 200
            assert image.height > 2 * 200
    assert (out / "robust.md").read_text() == robust_table(result) + "\n"
    done = len(requested)
    assert bench_robust(two_scenes, out, scale=0.001, quiet=True) == result
    assert len(requested) == done == 6


def test_a_folder_is_one_scene_or_has_some(two_scenes: Path, few_views: Path, tmp_path: Path) -> None:
    assert scene_folders(few_views) == [few_views]
    assert [path.name for path in scene_folders(two_scenes)] == ["dark", "spot"]
    for nothing in (two_scenes / "no_scene", tmp_path / "missing"):
        with pytest.raises(InputError, match="neither a scene nor a folder of scenes: no transforms"):
            bench_robust(nothing, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_both_fields_are_rendered_at_the_other_step(few_views: Path) -> None:
    views = load_scene(few_views).splits["test"]
    box = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)

    def ball(sigma: float) -> Any:
        def function(positions: Any, directions: Any) -> Any:
            return directions.abs(), sigma * (positions.norm(dim=-1) < 0.8)

        return callable_teacher(function, box, cameras=views.cameras, render_step_size=0.05)

    teacher, student = ball(3.0), ball(2.0)
    assert psnr_at(teacher, teacher, views, 0.5) == 100  # the highest there is
    finer = [replace(field, render_step_size=0.025) for field in (teacher, student)]
    images = [[field.render(camera)["colors"] for camera in views.cameras] for field in finer]
    by_hand = [psnr(b, a) for a, b in zip(*images, strict=True)]
    assert psnr_at(teacher, student, views, 0.5) == pytest.approx(sum(by_hand) / len(by_hand))


def test_medians_stand_in_the_table() -> None:
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate((30.0, 34.0, 31.0)):
        rows.append({"kind": "teacher", "data": "wire", "seed": seed, "psnr": value + 1})
        figures = {"psnr_to_teacher": value + 2, "worst_to_teacher": value - 2, "psnr": value, "steps": 100}
        steps = {"half_step": value + 1.5, "twice_step": value + 0.5}
        rows.append({"kind": "conversion", "data": "wire", "student": "vm", "seed": seed, **figures, **steps})
    rows.append({"kind": "conversion", "data": "wire", "student": "mlp", "seed": 0, "error": "MemoryError: "})
    result = {
        "conversions": summarize(rows),
        "rows": rows,
        "seeds": 3,
        "threads": 1,
        "budgets": [60.0, 30.0],
    }
    text = robust_table(result)
    assert "| wire | vm | 32.00 | 31.00 | 33.00 | 29.00 | 32.50 | 31.50 | 100 |" in text
    assert "- failed: conversion, mlp, wire, 0: MemoryError" in text
    assert "3 seeds (medians), 1 threads" in text


def test_a_failing_teacher_costs_its_scene(
    requested: list[dict[str, Any]], two_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = runner.in_child

    def broken(job: Any, **settings: Any) -> Any:
        if job is robust.train and settings["data"].name == "dark":
            return {"error": "MemoryError: "}
        return inline(job, **settings)

    monkeypatch.setattr(runner, "in_child", broken)
    result = bench_robust(two_scenes, tmp_path / "out", scale=0.001, quiet=True)
    assert result["failed"] == 3
    assert [row["data"] for row in result["conversions"]] == ["spot", "spot"]
    assert not (tmp_path / "out" / "robust_dark.png").exists()
