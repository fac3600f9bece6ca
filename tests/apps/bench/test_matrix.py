"""The matrix of conversions: every pair once, figures of the whole row, and a failure that costs one row."""

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.matrix import MatrixBudgets, bench_matrix, matrix_table
from fieldmorph.apps.cli.main import main
from fieldmorph.fields.registry import FIELDS
from fieldmorph.fields.runtime import STATUS

NAMES = list(FIELDS)


class Pretend:
    """In place of a process: figures that follow from the settings, and a list of what was requested."""

    def __init__(self) -> None:
        self.requested: list[tuple[str, ...]] = []
        self.broken: tuple[str, ...] | None = None

    def __call__(self, job: Any, *, threads: int, **settings: Any) -> dict[str, Any]:
        if job is runner.train:
            requested = ("train", settings["field"], Path(settings["output"]).stem)
            psnr = 30.0 + NAMES.index(settings["field"]) + (0.5 if "alone" in requested[2] else 0)
            found = {"psnr": psnr, "ssim": 0.9}
        else:
            kind = "finished" if settings["finish"] is None else "distilled"
            requested = (kind, Path(settings["teacher"]).stem, settings["student"])
            psnr = 25 + len(self.requested) / 100
            found = {"psnr": psnr, "ssim": 0.8, "psnr_to_teacher": psnr + 5, "worst_to_teacher": psnr + 4}
            short = kind == "distilled" or settings["student"] == "mlp"
            found["stages"] = ["volume"] if short else ["volume", "images"]
        self.requested.append(requested)
        if requested == self.broken:
            return {"error": "MemoryError: "}
        output = Path(settings["output"])
        output.write_text(repr(requested))
        sha256 = hashlib.sha256(output.read_bytes()).hexdigest()
        spent = {"steps": 9, "seconds": 2.0, "core_seconds": 1.9, "peak_memory_bytes": 10**9}
        return {**found, **spent, "sha256": sha256, "budget of": settings["budget"]}


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """No process is started."""
    instead = Pretend()
    monkeypatch.setattr(runner, "in_child", instead)
    return instead


@pytest.fixture
def run(few_views: Path) -> Callable[..., dict[str, Any]]:
    """The benchmark into a folder."""
    return lambda folder, **settings: bench_matrix(few_views, folder, quiet=True, **settings)


def test_every_pair_is_there(pretend: Pretend, run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run(tmp_path, scale=0.5)
    pairs = [(pair["teacher"], pair["student"]) for pair in result["pairs"]]
    assert pairs == [(a, b) for a in NAMES for b in NAMES]
    assert len(pretend.requested) == len(set(pretend.requested)) == 5 + 2 * 25 + 5
    assert result["failed"] == 0
    budgets = {row["kind"]: row["budget of"] for row in result["rows"]}
    assert budgets == {"teacher": 150.0, "distilled": 120.0, "finished": 120.0, "images": 270.0}
    for pair in result["pairs"]:
        assert pair["teacher_psnr"] == 30.0 + NAMES.index(pair["teacher"])
        assert pair["images_psnr"] == 30.5 + NAMES.index(pair["student"])
        for kind in ("distilled", "finished"):
            assert pair[f"{kind}_gain_db"] == pytest.approx(pair[f"{kind}_psnr"] - pair["images_psnr"])
        assert pair["finished_psnr"] == pytest.approx(pair["distilled_psnr"] + 0.01)  # each its own row
        assert pair["images_used"] == (pair["student"] != "mlp")
    assert json.loads((tmp_path / "matrix.json").read_text()) == result


def test_the_table_says_what_the_json_says(
    pretend: Pretend, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = run(tmp_path)
    text = (tmp_path / "matrix.md").read_text()
    assert text == matrix_table(result) + "\n"
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    glance, gains = ({row[0]: row[1:] for row in cells[n : n + 5]} for n in (2, 9))
    assert cells[0][1:] == cells[7][1:] == NAMES
    rows = {row[0]: row[1:] for row in cells[16:]}
    assert len(rows) == 25
    for pair in result["pairs"]:
        names = ("distilled_psnr_to_teacher", "distilled_worst_to_teacher", "distilled_psnr", "finished_psnr")
        shown = [f"{pair[name]:.2f}" for name in (*names, "teacher_psnr", "images_psnr")]
        shown += [
            f"{pair['finished_psnr'] - pair['teacher_psnr']:+.2f}",
            f"{pair['finished_gain_db']:+.2f}",
        ]
        assert rows[f"{pair['teacher']} to {pair['student']}"] == [*shown, "9", "9", "1.00"]
        column = NAMES.index(pair["student"])
        assert glance[pair["teacher"]][column] == shown[0]
        assert gains[pair["teacher"]][column] == shown[-1]
    finished = [pair["finished_gain_db"] for pair in result["pairs"]]
    assert f"Of 25 pairs {sum(g > 0 for g in finished)} gain, {sum(g >= -0.3 for g in finished)} lose" in text
    assert f"the worst has {min(finished):+.2f} dB" in text
    short = ", ".join(f"{teacher} to mlp" for teacher in NAMES)
    assert f"No image finished these, by the default of the student or for lack of time: {short}." in text


def test_seeds_are_summed_up_as_medians(
    pretend: Pretend, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = run(tmp_path, n_seeds=2, only=("vm", "cp"))
    assert len(result["pairs"]) == 4
    (found,) = (pair for pair in result["pairs"] if (pair["teacher"], pair["student"]) == ("vm", "cp"))
    for kind in ("distilled", "finished"):
        wanted = (kind, "vm", "cp")
        of_seeds = [
            row["psnr"]
            for row in result["rows"]
            if (row["kind"], row.get("teacher"), row.get("student")) == wanted
        ]
        assert len(of_seeds) == 2
        assert found[f"{kind}_psnr"] == pytest.approx(sum(of_seeds) / 2)


def test_a_second_run_continues(pretend: Pretend, run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first = run(tmp_path, only=("mlp", "vm"))
    done = len(pretend.requested)
    assert run(tmp_path, only=("mlp", "vm")) == first
    assert len(pretend.requested) == done
    raw = tmp_path / "matrix.jsonl"
    lines = raw.read_bytes().splitlines(keepends=True)
    raw.write_bytes(b"".join(lines[:-1]) + lines[-1][:-20])
    assert run(tmp_path, only=("mlp", "vm"))["failed"] == 0
    assert pretend.requested[done:] == [("train", "vm", "vm_alone_0")]
    assert len([json.loads(line) for line in raw.read_text().splitlines()]) == len(lines)


def test_another_teacher_means_other_conversions(
    pretend: Pretend, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run(tmp_path, only=("mlp", "vm"))
    done = len(pretend.requested)
    (tmp_path / "matrix_fields/vm_0.fm").unlink()
    run(tmp_path, only=("mlp", "vm"))
    assert pretend.requested[done:] == [("train", "vm", "vm_0")]  # the same bytes: its conversions stand
    (tmp_path / "matrix.jsonl").write_text(
        "".join(
            line.replace('"teacher": "vm"', '"teacher": "vm", "x": 1').replace(
                '"teacher_sha256": "', '"teacher_sha256": "0'
            )
            for line in (tmp_path / "matrix.jsonl").read_text().splitlines(keepends=True)
        )
    )
    done = len(pretend.requested)
    run(tmp_path, only=("mlp", "vm"))
    assert len(pretend.requested) == done + 2 * 4


def test_a_failing_pair_costs_one_row(
    pretend: Pretend, few_views: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = ["bench", "matrix", "--only", "mlp,vm", "--data", str(few_views), "--quiet", "-o", str(tmp_path)]
    pretend.broken = ("finished", "mlp_0", "vm")
    assert main(line) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "- failed: finished, mlp, vm, 0: MemoryError" in shown.out
    result = json.loads((tmp_path / "matrix.json").read_text())
    assert [(pair["teacher"], pair["student"]) for pair in result["pairs"]] == [
        ("mlp", "mlp"),
        ("vm", "mlp"),
        ("vm", "vm"),
    ]
    assert len(pretend.requested) == 2 + 2 * 4 + 2
    pretend.broken = None
    assert main([*line, "--json"]) == 0
    assert pretend.requested[12:] == [("finished", "mlp_0", "vm")]
    assert len(json.loads(capsys.readouterr().out)["pairs"]) == 4


def test_a_failing_teacher_costs_its_row_of_pairs(
    pretend: Pretend, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    pretend.broken = ("train", "mlp", "mlp_0")
    result = run(tmp_path, only=("mlp", "vm"))
    assert result["failed"] == 1 + 2 * 2
    assert [(pair["teacher"], pair["student"]) for pair in result["pairs"]] == [("vm", "mlp"), ("vm", "vm")]
    pretend.broken = ("train", "mlp", "mlp_alone_0")
    result = run(tmp_path, only=("mlp", "vm"), force=True)
    assert [pair["finished_gain_db"] is None for pair in result["pairs"]] == [True, False, True, False]
    assert len(result["pairs"]) == 4


def test_unknown_fields_are_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", "matrix", "--only", "mlp,tea", "-o", str(tmp_path / "b")]) == 2
    assert "'tea'; known: cp, hashgrid, mlp, vm, voxels" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run here, and a reading of a clock comes 100 ms after the one before: speed does not matter."""
    clocks = {"monotonic": itertools.count(), "process_time": itertools.count()}
    readings = {name: lambda ticks=ticks: next(ticks) / 10 for name, ticks in clocks.items()}
    monkeypatch.setattr("fieldmorph.fields.budget.time", SimpleNamespace(**readings))

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setattr(runner, "in_child", inline)


@pytest.mark.slow
def test_rows_come_from_whole_jobs(ticking: None, few_views: Path, tmp_path: Path) -> None:
    budgets = MatrixBudgets(student=400.0, alone=350.0)
    result = bench_matrix(few_views, tmp_path, scale=0.03, only=("hashgrid",), quiet=True, budgets=budgets)
    assert result["failed"] == 0, result["rows"]
    (pair,) = result["pairs"]
    teacher, student, finished, alone = result["rows"]
    assert 100 > pair["distilled_psnr_to_teacher"] > pair["distilled_worst_to_teacher"] > 15
    assert student["stages"] == finished["stages"] == ["features", "volume", "render"]
    assert not pair["images_used"]  # fewer steps than a hash grid is distilled for before images
    for row, seconds in ((teacher, 9.0), (student, 12.0), (finished, 12.0), (alone, 10.5)):
        assert row["core_seconds"] >= row["budget"] == pytest.approx(seconds)
        assert 20 <= row["steps"] <= 10 * seconds  # a step reads the clock at least once
        assert 0.2e9 < row["peak_memory_bytes"] < 4e9 or not STATUS.exists()
    assert {path.name for path in (tmp_path / "matrix_fields").iterdir()} == {
        "hashgrid_0.fm",
        "hashgrid_to_hashgrid_distilled_0.fm",
        "hashgrid_to_hashgrid_finished_0.fm",
        "hashgrid_alone_0.fm",
    }
