"""Effect of closed-form warm starts: PSNR to the teacher over core-seconds, with and without one."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from fieldmorph.apps.bench.runner import Bench, Row, chosen, failures, markdown, quality
from fieldmorph.apps.bench.snapshots import SnapshotRecorder, evaluation_pixels, ray_colors
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.evaluate import evaluate
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.store import load_field

TEACHER = "hashgrid"
TEACHER_CORE_SECONDS = 300.0
STUDENT_CORE_SECONDS = 240.0
RUNS = {  # whether there is a start, and the fraction of the time, on which schedules depend
    "with": (True, 1.0),
    "without": (False, 1.0),
    "with, a tenth": (True, 0.1),
    "without, a tenth": (False, 0.1),
}
NEAR_DB = 1.0  # below the end of the run without a start


def bench_starts(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 1,
    scale: float = 1.0,
    only: Sequence[str] | None = None,
    force: bool = False,
    quiet: bool = False,
    evaluations: int = 16,
    n_pixels: int = 8192,
) -> Row:
    """Convert one hash grid to every field that has a warm start, with it and without; return JSON values.

    Each run of `RUNS` is evaluated on the way, whose cost is not counted. Rows are resumed as `Bench` says.

    Args:
        scale: multiplies all budgets.
        only: names of the students; all by default.
        evaluations: of each run.
        n_pixels: of all test views that an evaluation renders.

    Raises:
        SettingError, InputError: before anything is written.
    """
    students = chosen(only, list(STARTS))
    bench = Bench.of_scene("starts", data, output, downscale, force, quiet)
    for seed in range(n_seeds):
        trained = bench.train_teacher(TEACHER, scale * TEACHER_CORE_SECONDS, seed)
        for student in students:
            for name, (_, fraction) in RUNS.items():
                budget = scale * STUDENT_CORE_SECONDS * fraction
                what = {
                    "kind": "conversion",
                    "student": student,
                    "run": name,
                    "budget": budget,
                    "seed": seed,
                }
                if "error" in trained:
                    bench.fail(what, f"no teacher: {trained['error']}")
                    continue
                bench.run(
                    {**what, "teacher_sha256": trained["sha256"]},
                    learn,
                    **bench.settings,
                    teacher=trained["path"],
                    student=student,
                    run=name,
                    budget=budget,
                    seed=seed,
                    evaluations=evaluations,
                    n_pixels=n_pixels,
                )
    summary = summarize(bench.rows)
    result = {"scale": scale, "seeds": n_seeds, "budget": scale * STUDENT_CORE_SECONDS, "summary": summary}
    return bench.finish(result, starts_table)


def learn(
    data: str,
    downscale: int,
    teacher: str,
    student: str,
    run: str,
    budget: float,
    seed: int,
    evaluations: int,
    n_pixels: int,
    quiet: bool,
) -> Row:
    """Convert as a job; return the curve over time and the quality at the end."""
    compile_kernels()
    source, (starts, _) = load_field(teacher), RUNS[run]
    views = open_scene(data, "test", downscale=downscale, aabb=source.field.box()).splits["test"]
    field = make_field(student, aabb=source.field.box(), seed=seed)
    with ProgressLine(f"{student} {run}, seed {seed}", quiet) as line:
        recorder = SnapshotRecorder(field, evaluations, line, early=starts)
        config = ConvertConfig(start=starts, seed=seed)
        stored, report = convert(source, field, Budget(core_seconds=budget), config, on_progress=recorder)
        spent = recorder.end()
    rays, _ = evaluation_pixels(views, n_pixels)
    first = report.stages[0] if starts else None
    return {
        "stages": [stage.name for stage in report.stages],
        "steps": report.loop.steps,
        "seconds": report.loop.spent.seconds,
        "core_seconds": spent,
        "start_seconds": first and first.seconds,
        "start_core_seconds": first and first.core_seconds,
        "curve": recorder.curve(stored, rays, ray_colors(source, rays)),
        **quality(evaluate(stored, views, source)),
    }


def summarize(rows: list[Row]) -> list[Row]:
    """Return for each student the medians over the seeds that have both runs of the whole time.

    `near` is the time of the first evaluation within `NEAR_DB` of where the run without a start ends, None where none
    gets there; `speedup` is that of the run without over that of the one with a start. `brief_db` is the PSNR of a
    tenth of the time above that of the whole, both with a start; a tenth may be too short for a start, which leaves
    its figures None.
    """
    runs: dict[str, dict[int, dict[str, Row]]] = {}
    for row in rows:
        if row["kind"] == "conversion" and "error" not in row:
            runs.setdefault(row["student"], {}).setdefault(row["seed"], {})[row["run"]] = row
    summary = []
    for student, seeds in runs.items():
        figures = [_figures(kinds) for kinds in seeds.values() if {"with", "without"} <= {*kinds}]
        if figures:
            entry: Row = {"student": student}
            for name in figures[0]:
                values = [one[name] for one in figures]
                entry[name] = None if None in values else statistics.median(values)
            summary.append(entry)
    return summary


def starts_table(result: Row) -> str:
    """Format what `bench_starts` returned as a Markdown table."""
    rows = []
    for entry in result["summary"]:
        speedup = "" if entry["speedup"] is None else f"{entry['speedup']:.1f} x"
        rows.append(
            [
                entry["student"],
                f"{entry['start_core_seconds']:.1f}",
                f"{entry['start_psnr']:.2f}",
                _time(entry["near with"]),
                _time(entry["near without"]),
                speedup,
                *("" if entry[name] is None else f"{entry[name]:.2f}" for name in RUNS),
                "" if entry["brief_db"] is None else f"{entry['brief_db']:+.2f}",
            ]
        )
    head = [
        "student",
        "start, cs",
        "right after it",
        "near, with",
        "near, without",
        "sooner",
        *RUNS,
        "a tenth against all",
    ]
    seeds = "1 seed" if result["seeds"] == 1 else f"{result['seeds']} seeds (medians)"
    about = (
        f"Scene {result['scene']}, teacher {TEACHER} small, students small, {result['budget']:.0f} core-seconds, "
        f"{seeds}, {result['threads']} threads. PSNR to the teacher in dB on test views; near: core-seconds to the "
        f"first evaluation within {NEAR_DB:g} dB of the end of the run without a start."
    )
    return "\n".join([about, "", markdown(head, rows), *failures(result)])


def _figures(kinds: dict[str, Row]) -> Row:
    goal = kinds["without"]["curve"][-1][1] - NEAR_DB
    near = {name: _first(kinds[name]["curve"], goal) for name in ("with", "without")}
    sooner = near["without"] / near["with"] if near["without"] and near["with"] else None
    ends = {name: kinds[name]["psnr_to_teacher"] if name in kinds else None for name in RUNS}
    brief, whole = ends["with, a tenth"], ends["with"]
    return {
        **{name: kinds["with"][name] for name in ("start_seconds", "start_core_seconds")},
        "start_psnr": kinds["with"]["curve"][0][1],
        **{f"near {name}": at for name, at in near.items()},
        "speedup": sooner,
        **ends,
        "brief_db": None if brief is None else brief - whole,
    }


def _first(curve: Sequence[Sequence[float]], goal: float) -> float | None:
    return next((at for at, psnr in curve if psnr >= goal), None)


def _time(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"
