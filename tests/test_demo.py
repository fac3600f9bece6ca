"""The demo in small: every file is there and says the same as the summary."""

import json
import sys
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from fieldmorph.apps import bench_convert as bench
from fieldmorph.apps import demo
from fieldmorph.apps.bench_convert import bench_convert, convert_table, summarize
from fieldmorph.apps.cli import main
from fieldmorph.apps.demo import demo_table, run_demo
from fieldmorph.apps.jobs import bundled_scene
from fieldmorph.distill import samples
from fieldmorph.fields import fit, loop
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field


@pytest.fixture(autouse=True)
def _small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BLOCK_RAYS": 256, "BLOCK_EMPTY": 256, "N_BLOCKS": 2}.items():
        monkeypatch.setattr(samples, name, value)
    monkeypatch.setattr(fit, "PROBE_RAYS", 256)
    monkeypatch.setattr("fieldmorph.distill.convert.PROBE_RAYS", 256)
    monkeypatch.setitem(MLP.presets, "small", {"width": 16, "depth": 1})
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})


def test_bundled_scene_is_complete() -> None:
    scene = load_scene(bundled_scene())
    assert {name: len(split) for name, split in scene.splits.items()} == {"train": 60, "test": 20}
    assert bundled_scene().joinpath("LICENSE.md").is_file()


@pytest.mark.slow
def test_demo_leaves_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(demo, "ORBIT_FRAMES", 2)
    monkeypatch.setattr(demo, "ORBIT_SIZE", 31)
    out = tmp_path / "demo"
    summary = run_demo(out, Budget(steps=80), downscale=4, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert sorted(p.name for p in out.iterdir()) == sorted([*summary["files"], "summary.json"])
    assert json.loads(out.joinpath("summary.json").read_text()) == summary
    assert (summary["teacher"]["train"]["steps"], summary["student"]["convert"]["steps"]) == (20, 60)
    assert load_field(out / "teacher.fm").field.name == "hashgrid"
    student = load_field(out / "student.fm")
    assert student.field.name == "mlp"
    assert student.provenance["teacher"]["sha256"] == summary["teacher"]["train"]["sha256"]
    with imageio.get_reader(out / "side_by_side.mp4") as film:
        frames = [np.asarray(frame) for frame in film]
    assert len(frames) == 2
    picture = np.asarray(Image.open(out / "comparison.png"))
    assert picture.shape[1] == 4 * (256 + 12) + 12
    assert (picture[..., 0] < 200).mean() > 0.02  # the cow is on it
    table = demo_table(summary).splitlines()
    assert table[1].split()[:3] == ["teacher", "hashgrid", f"{summary['teacher']['eval']['psnr']:.2f}"]
    assert f"{summary['student']['eval']['psnr_to_teacher']:.2f}" in table[2]
    assert summary["peak_memory_bytes"] > 0
    assert "GB at most" in table[3]
    assert "GB" not in demo_table({**summary, "peak_memory_bytes": None})


def test_demo_that_comes_to_nothing_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in (tmp_path / "new", mine):
        assert main(["demo", "--budget", "0.001s", "--quiet", "-o", str(folder)]) == 2
        assert "too short to do anything" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [mine]


def test_memory_is_not_stated_where_the_system_does_not_count_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: its import fails
    assert demo._peak_memory() is None


@pytest.mark.parametrize("budget", [Budget(seconds=8.0), Budget(core_seconds=8.0), Budget(steps=8)])
def test_a_quarter_trains(budget: Budget) -> None:
    parts = [demo._part(budget, share) for share in (demo.TRAIN_SHARE, 1 - demo.TRAIN_SHARE)]
    assert [next(v for v in vars(p).values() if v) for p in parts] == [2, 6]


def run_of(kind: str, seed: int, curve: list[tuple[float, float]], preset: str = "small") -> dict[str, Any]:
    at, psnr = curve[-1]
    return {"kind": kind, "preset": preset, "seed": seed, "core_seconds": at, "curve": curve, "psnr": psnr}


def test_bench_sums_up_medians_and_the_time_to_be_as_good() -> None:
    runs = []
    for seed, reach in ((0, 10.0), (1, 5.0), (2, 20.0)):
        runs += [
            run_of("teacher", seed, [(200.0, 33.0)]),
            run_of("distilled", seed, [(2.0, 18.0), (reach, 25.0), (100.0, 30.0 + seed)]),
            run_of("distilled, briefly", seed, [(5.0, 24.0)]),
            run_of("from photographs", seed, [(50.0, 24.0), (100.0, 24.5)]),
            run_of("from photographs, 4 x", seed, [(400.0, 27.0)]),
        ]
    (row,) = summarize(runs)
    assert row["distilled"] == 31.0
    assert row["gain_db"] == 6.5
    assert row["speedup"] == 10.0
    table = convert_table({"scene": "s", "seeds": 3, "scale": 1.0, "runs": runs, "summary": [row]})
    figures = "31.00 (100 cs) | 24.00 (5 cs) | 24.50 (100 cs) | 27.00 (400 cs)"
    last = f"| mlp small | {figures} | +6.50 dB | 10.0 x sooner |"
    assert table.splitlines()[-1] == last
    assert "33.00 dB after 200 core-seconds" in table
    runs[1]["curve"] = [(100.0, 20.0)]
    runs[2]["curve"] = [(5.0, 20.0)]
    assert summarize(runs)[0]["speedup"] is None


@pytest.mark.slow
def test_bench_runs_and_leaves_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "STUDENTS", {"small": 0.5})
    monkeypatch.setattr(bench, "TEACHER_CORE_SECONDS", 2.0)
    monkeypatch.setattr(bench, "FEWEST_CORE_SECONDS", 0.3)
    monkeypatch.setattr(bench, "JUDGED_PIXELS", 256)
    monkeypatch.setattr(bench, "LOOKS", 2)
    monkeypatch.setattr(loop, "FEWEST_STEPS", 1)
    result = bench_convert(None, tmp_path / "b", downscale=8, n_seeds=1, quiet=True)
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"convert.jsonl", "convert.md", "convert.png"}
    raw = [json.loads(line) for line in (tmp_path / "b/convert.jsonl").read_text().splitlines()]
    assert [run["kind"] for run in raw] == ["teacher", *bench.RUNS]
    assert json.loads(json.dumps(result))["runs"] == raw
    for run in raw[1:]:
        times = [at for at, _ in run["curve"]]
        assert times == sorted(times)
        assert times[-1] == run["core_seconds"]
    assert raw[0]["psnr"] > 10
