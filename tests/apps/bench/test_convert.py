"""The benchmark of distilling against training: its medians, its files, and an old run it continues."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING

from fieldmorph.apps.bench import convert as bench
from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.convert import ConvertPlan, bench_convert, convert_table, summarize
from fieldmorph.apps.cli.main import main
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs run here, in small; their names."""
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
        calls.append(job.__name__)
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


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
    table = convert_table({"scene": "s", "seeds": 3, "scale": 1.0, "rows": runs, "summary": [row]})
    figures = "31.00 (100 cs) | 24.00 (5 cs) | 24.50 (100 cs) | 27.00 (400 cs)"
    last = f"| mlp small | {figures} | +6.50 dB | 10.0 x faster |"
    assert table.splitlines()[-1] == last
    assert "33.00 dB after 200 core-seconds" in table
    lacking = [run for run in runs if (run["kind"], run["seed"]) != ("from photographs", 2)]
    (row,) = summarize(lacking)  # the third seed counts no more
    assert row["distilled"] == 30.5
    runs[1]["curve"] = [(100.0, 20.0)]
    runs[2]["curve"] = [(5.0, 20.0)]
    assert summarize(runs)[0]["speedup"] is None


@pytest.mark.slow
def test_bench_runs_and_leaves_its_files(requested: list[str], few_views: Path, tmp_path: Path) -> None:
    plan = ConvertPlan(
        teacher_core_seconds=1.0,
        students=(("small", 0.3),),
        min_core_seconds=0.2,
        evaluations=2,
        n_pixels=256,
    )
    result = bench_convert(few_views, tmp_path / "b", n_seeds=1, quiet=True, plan=plan)
    files = {"convert.json", "convert.jsonl", "convert.md", "convert.png", "convert_fields"}
    assert {p.name for p in (tmp_path / "b").iterdir()} == files
    raw = [json.loads(line) for line in (tmp_path / "b/convert.jsonl").read_text().splitlines()]
    assert [run["kind"] for run in raw] == ["teacher", *bench.RUNS]
    assert json.loads((tmp_path / "b/convert.json").read_text()) == result
    assert result["rows"] == raw
    assert requested == ["teach", *["learn"] * 4]
    for run in raw[1:]:
        times = [at for at, _ in run["curve"]]
        assert times == sorted(times)
        assert times[-1] == run["core_seconds"]
        assert run["psnr"] == run["curve"][-1][1]
    assert raw[0]["psnr"] > 10


def test_bench_continues_an_old_run_and_starts_anew_with_force(
    monkeypatch: pytest.MonkeyPatch, few_views: Path, tmp_path: Path
) -> None:
    requested = []

    def pretend(job: Any, *, threads: int, **settings: Any) -> dict[str, Any]:
        requested.append(job.__name__)
        if job is bench.teach:
            return {"error": "MemoryError: "}
        return {"steps": 9, "core_seconds": 1.0, "psnr": 20.0, "curve": [[1.0, 20.0]]}

    monkeypatch.setattr(runner, "in_child", pretend)
    line = [
        "bench",
        "convert",
        "--data",
        str(few_views),
        "--seeds",
        "1",
        "--quiet",
        "-o",
        str(tmp_path / "b"),
    ]
    assert main(line) == 1  # no teacher, so no distillation
    assert requested == ["teach", *["learn"] * 4]
    assert "no teacher: MemoryError" in (tmp_path / "b/convert.md").read_text()
    assert main(line) == 1
    assert requested[5:] == ["teach"]
    assert main([*line, "--force"]) == 1
    assert requested[6:] == requested[:5]
