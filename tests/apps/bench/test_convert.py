"""The benchmark of distilling against training: its table, its files, and an old run that it continues."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIT, LOOP, SAMPLING
from helpers.turns import run_inline

from fieldmorph.apps.bench import comparison, runner
from fieldmorph.apps.bench import convert as bench
from fieldmorph.apps.bench.comparison import TestViews, over_seeds
from fieldmorph.apps.bench.convert import ConvertPlan, bench_convert, convert_table, summarize
from fieldmorph.apps.bench.convert_summary import CONTESTANTS, first_reached
from fieldmorph.apps.cli.main import main
from fieldmorph.distill.conversion import ConvertReport
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.scene import Split, load_scene

SMALL = ConvertPlan(
    teacher_core_seconds=100.0, students={"mlp-small": 40.0}, min_core_seconds=0.1, evaluations=3, n_pixels=64
)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs run here, in small; their names or contestants."""
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(LOOP, "min_steps", 1)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    monkeypatch.setitem(MLP.presets, "small", {"width": 16, "depth": 1})
    monkeypatch.setattr(MLP, "finish_after", 1)
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})
    calls: list[Any] = []

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        calls.append(job.__name__)
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    def in_turns(contestants: Any, on_end: Any) -> None:
        for call in contestants:
            calls.append(call.settings["contestant"]["kind"])
            assert call.reports
            assert call.threads
        run_inline(contestants, on_end)

    monkeypatch.setattr(runner, "in_child", inline)
    monkeypatch.setattr(runner, "run_in_turns", in_turns)
    return calls


def rows_of(seed: int, ends: dict[str, float], student: str = "mlp-small") -> list[dict[str, Any]]:
    """Rows of five runs whose held-out PSNR grows linearly from 10 dB to their end, in T = 100 + 50."""
    times = {
        "distilled": 50.0,
        "finished": 50.0,
        "images": 50.0,
        "images_total": 150.0,
        "images_4_total": 600.0,
    }
    return [
        {
            "kind": kind,
            "student": student,
            "seed": seed,
            "core_seconds": at,
            "steps": 100,
            "curve": [[0.0, 10.0], [at, ends[kind]]],
            "psnr": ends[kind] + 1,
            "psnr_to_teacher": ends[kind] + 5,
            "views": 13,
            "held_out_views": 12,
            "stages": ["volume", "render", "images"],
            "dropped": {},
        }
        for kind, at in times.items()
    ]


def teacher_of(seed: int) -> dict[str, Any]:
    return {"kind": "teacher", "field": "hashgrid", "seed": seed, "core_seconds": 100.0, "psnr": 33.0}


ENDS = {"distilled": 24.0, "finished": 30.0, "images": 16.0, "images_total": 20.0, "images_4_total": 40.0}


def test_summary_has_medians_and_the_time_at_which_one_reaches_anothers_end() -> None:
    rows = [teacher_of(seed) for seed in range(3)]
    for seed, finished in enumerate((30.0, 31.0, 35.0)):
        rows += rows_of(seed, {**ENDS, "finished": finished})
    (entry,) = summarize(rows)
    assert (entry["student"], entry["seeds"]) == ("mlp-small", [0, 1, 2])
    assert entry["finished"]["psnr"] == over_seeds([31.0, 32.0, 36.0])
    assert entry["finished"]["psnr"]["median"] == 32.0
    assert entry["finished"]["psnr"]["spread"] == 5.0
    assert entry["images_4_total"]["psnr_to_teacher"]["median"] == 45.0
    assert [entry[kind]["core_seconds"] for kind in CONTESTANTS] == [50.0, 50.0, 50.0, 150.0, 600.0]
    # The teacher's time is paid by those it teaches, and by no others.
    assert [entry[kind]["total"] for kind in CONTESTANTS] == [150.0, 150.0, 50.0, 150.0, 600.0]
    assert entry["gain_db"]["values"] == [10.0, 11.0, 15.0]
    # From 10 dB to 30, 31 and 35 in 50 core-seconds after the teacher's 100: 20 dB in 25, 500 / 21 and 20 of them.
    at_total = entry["reaches"]["finished_to_images_total"]
    assert at_total["values"] == pytest.approx([125.0, 100 + 500 / 21, 120.0])
    assert at_total["median"] == pytest.approx(100 + 500 / 21)
    assert entry["reaches"]["finished_to_images_4_total"] == {"values": [None] * 3, "median": None}
    # From 10 dB to 40 in 600 without a teacher.
    assert entry["reaches"]["images_4_total_to_finished"]["values"] == pytest.approx([400.0, 420.0, 500.0])


def test_the_median_is_never_where_most_seeds_never_get_there() -> None:
    rows = [teacher_of(seed) for seed in range(3)]
    for seed, goal in enumerate((20.0, 30.5, 31.0)):
        rows += rows_of(seed, {**ENDS, "images_total": goal})
    (entry,) = summarize(rows)
    reached = entry["reaches"]["finished_to_images_total"]
    assert reached["values"] == [125.0, None, None]
    assert reached["median"] is None


def test_seeds_with_a_run_missing_do_not_count() -> None:
    rows = [teacher_of(0), *rows_of(0, ENDS), *rows_of(1, ENDS)]
    (entry,) = summarize(rows)  # the second seed has no teacher
    assert entry["seeds"] == [0]
    assert summarize([row for row in rows if row["kind"] != "images"]) == []


def test_first_reached_is_linear_between_points() -> None:
    curve = [[2.0, 10.0], [4.0, 20.0], [6.0, 15.0], [8.0, 30.0]]
    assert first_reached(curve, 5.0) == 2.0
    assert first_reached(curve, 15.0) == 3.0
    assert first_reached(curve, 20.0) == 4.0
    assert first_reached(curve, 22.5) == 7.0
    assert first_reached(curve, 30.5) is None
    assert first_reached([], 1.0) is None


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    result = {
        "scene": "s",
        "downscale": 2,
        "seeds": 2,
        "scale": 0.5,
        "threads": 1,
        "slice_core_seconds": 10.0,
        "n_pixels": 64,
        "budgets_core_seconds": 1950.0,
        "whole_core_seconds": 25440.0,
        "rows": rows,
        "summary": summarize([row for row in rows if "error" not in row]),
    }
    return convert_table(result).splitlines()


def test_table_reads_its_own_figures() -> None:
    rows = [teacher_of(0), teacher_of(1), *rows_of(0, ENDS), *rows_of(1, ENDS)]
    rows += rows_of(0, {**ENDS, "finished": 19.0}, "mlp-paper") + rows_of(
        1, {**ENDS, "finished": 18.0}, "mlp-paper"
    )
    rows += rows_of(0, {**ENDS, "finished": 19.0}, "vm-small") + rows_of(1, ENDS, "vm-small")
    lines = table_of(rows)
    assert lines[0] == (
        "At equal total time, the teacher's training included: "
        "mlp-small distilled and finished beats training from images by 10.00 dB (by seed +10.00, +10.00); "
        "mlp-paper from images beats distilling and finishing by 1.50 dB (by seed -1.00, -2.00); "
        "vm-small undecided, the seeds disagree (finished above images by seed -1.00, +10.00 dB)."
    )
    text = "\n".join(lines)
    assert (
        "images reduced 2 times, 2 seeds, scale 0.5, 1 thread. PSNR in dB, means over 13 test views" in text
    )
    assert "hashgrid small, 33.00 dB after 100.0 core-seconds; `total` includes its time" in text
    assert "slices of 10 core-seconds" in text
    assert "1,950 core-seconds; all students at scale 1 with 3 seeds 25,440" in text
    finished = (
        "| mlp-paper | distilled and finished on images | 50.0 | 150.0 | 100 | 19.50 (1.00) | 23.50 (1.00) |"
    )
    assert finished in lines
    assert "| mlp-small | from images, 4 T | 600.0 | 600.0 | 100 | 41.00 (0.00) | 45.00 (0.00) |" in lines
    assert "on 64 pixels of 12 others, which choose nothing" in text
    assert "| mlp-small | 125.0 of 150.0 | never of 600.0 | 400.0 of 150.0 |" in lines
    assert "not finished" not in text
    assert "failed" not in text


def test_table_names_what_failed_and_what_was_not_finished() -> None:
    rows = [teacher_of(0), *rows_of(0, ENDS)]
    rows[2].update(stages=["volume", "render"], dropped={"images": "the budget is too short"})
    rows.append({"kind": "images", "student": "vm-small", "seed": 0, "error": "MemoryError: "})
    lines = table_of(rows)
    assert "- not finished on images: mlp-small, seed 0: the budget is too short" in lines
    assert lines[-1] == "- failed: images, vm-small, 0: MemoryError: "
    assert table_of(rows[-1:])[0] == "No student has all its runs."


def test_budgets_are_equal_times_at_every_scale() -> None:
    plan = ConvertPlan()
    assert plan.core_seconds(list(plan.students), 3) == 25_440
    assert plan.budgets("mlp-paper") == {
        "distilled": 400.0,
        "finished": 400.0,
        "images": 400.0,
        "images_total": 600.0,
        "images_4_total": 2400.0,
    }
    small = plan.scaled(0.25)
    assert small.core_seconds(["vm-small"], 2) == 2 * (50 + 3 * 20 + 70 + 280)
    assert small.slice_core_seconds == 5.0
    assert plan.scaled(2.0).slice_core_seconds == 20.0
    floored = plan.scaled(1e-6)
    assert floored.budgets("vm-small") == {
        **dict.fromkeys(("distilled", "finished", "images"), 0.5),
        "images_total": 1.0,
        "images_4_total": 4.0,
    }


def test_held_out_views_are_in_no_figure(few_views: Path) -> None:
    views = load_scene(few_views, splits=["test"]).splits["test"]
    halves = TestViews.of(views)
    assert (halves.figures.names, halves.held_out.names) == (views.names[::2], views.names[1::2])
    assert len(halves.held_out.cameras) == len(halves.held_out) == 1
    one = Split(views.cameras[:1], views.images[:1], views.names[:1])
    assert TestViews.of(one).held_out.names == one.names


@pytest.mark.slow
def test_bench_runs_and_leaves_its_files(
    monkeypatch: pytest.MonkeyPatch, requested: list[Any], few_views: Path, tmp_path: Path
) -> None:
    trained_on: list[tuple[str, ...] | None] = []
    fit, convert = bench.fit_images, bench.convert

    def fit_spied(field: Any, views: Split, *args: Any, **kwargs: Any) -> Any:
        trained_on.append(views.names)
        return fit(field, views, *args, **kwargs)

    def convert_spied(*args: Any, **kwargs: Any) -> tuple[Any, ConvertReport]:
        trained_on.append(args[4] and args[4].names)
        return convert(*args, **kwargs)

    monkeypatch.setattr(bench, "fit_images", fit_spied)
    monkeypatch.setattr(bench, "convert", convert_spied)
    result = bench_convert(few_views, tmp_path / "b", n_seeds=1, scale=0.01, quiet=True, plan=SMALL)
    assert result["failed"] == 0, result["rows"]
    files = {"convert.json", "convert.jsonl", "convert.md", "convert.png", "convert_fields"}
    assert {p.name for p in (tmp_path / "b").iterdir()} == files
    raw = [json.loads(line) for line in (tmp_path / "b/convert.jsonl").read_text().splitlines()]
    assert [run["kind"] for run in raw] == ["teacher", *CONTESTANTS]
    assert requested == ["teach", *CONTESTANTS]
    assert json.loads((tmp_path / "b/convert.json").read_text()) == result
    assert result["rows"] == raw
    train = load_scene(few_views, splits=["train"]).splits["train"].names
    assert trained_on == [None, train, train, train, train]  # never on images that are measured
    budgets = {run["kind"]: run["budget"] for run in raw[1:]}
    assert budgets == pytest.approx(SMALL.scaled(0.01).budgets("mlp-small"))
    assert result["budgets_core_seconds"] == pytest.approx(1 + 3 * 0.4 + 1.4 + 5.6)
    for run in raw[1:]:
        times = [at for at, _ in run["curve"]]
        assert times == sorted(times)
        assert times[-1] == run["core_seconds"] >= run["budget"]
        assert (run["views"], run["held_out_views"]) == (2, 1)
        assert 0 < run["psnr"] < 100
        assert 0 < run["psnr_to_teacher"] < 100
        assert run["teacher_sha256"] == raw[0]["sha256"]
    distilled, finished = raw[1:3]
    # A step may take longer than the part of the budget that is left for images.
    assert ("images" in finished["stages"]) != ("images" in finished["dropped"])
    assert finished["stages"][:3] == ["features", "volume", "render"]
    assert distilled["stages"] == ["features", "volume", "render"]
    (entry,) = result["summary"]
    assert entry["student"] == "mlp-small"


def test_bench_continues_an_old_run_and_starts_anew_with_force(
    monkeypatch: pytest.MonkeyPatch, few_views: Path, tmp_path: Path
) -> None:
    requested: list[str] = []
    broken = {"teach"}

    def teach(job: Any, *, threads: int, output: Path, **settings: Any) -> dict[str, Any]:
        requested.append("teach")
        if broken:
            return {"error": "MemoryError: "}
        output.write_bytes(b"teacher")
        return {"core_seconds": 1.0, "psnr": 20.0, "sha256": runner.file_sha256(output)}

    def in_turns(calls: Any, on_end: Any) -> None:
        for index, call in enumerate(calls):
            kind = call.settings["contestant"]["kind"]
            requested.append(kind)
            if kind == "images_total" and requested.count(kind) == 1:
                raise KeyboardInterrupt
            on_end(index, {**rows_of(0, ENDS)[0], "stages": ["images"]})

    monkeypatch.setattr(runner, "in_child", teach)
    monkeypatch.setattr(runner, "run_in_turns", in_turns)
    line = ["bench", "convert", "--data", str(few_views), "--seeds", "1", "--quiet", "--only", "vm-small"]
    line += ["-o", str(tmp_path / "b")]
    assert main(line) == 1  # no teacher, so nothing to compare with
    assert requested == ["teach"]
    assert (tmp_path / "b/convert.md").read_text().count("no teacher: MemoryError") == 5
    broken.clear()
    requested.clear()
    assert main(line) == 130
    kinds = list(CONTESTANTS)
    assert requested == ["teach", *kinds[:4]]
    assert main(line) == 0
    assert requested[5:] == kinds[3:]  # those that had ended are not run again
    assert main([*line, "--force"]) == 0
    assert requested[7:] == ["teach", *kinds]


def test_unknown_students_list_the_known(few_views: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"unknown student 'mlp'.*known: mlp-paper, mlp-small, vm-small"):
        bench_convert(few_views, tmp_path / "b", only=["mlp"])
    assert not (tmp_path / "b").exists()


def test_without_values_there_are_no_figures() -> None:
    assert comparison.over_seeds([])["median"] is None
    assert comparison.over_seeds([3.0])["std"] == 0.0
    assert comparison.number(1, "seed") == "1 seed"
