"""Convert every field into every other: PSNR to the teacher, to images, and against training from images."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from fieldmorph.apps.bench.runner import (
    Bench,
    Row,
    chosen,
    distil,
    failures,
    markdown,
    train,
)
from fieldmorph.fields.registry import FIELDS


@dataclass(frozen=True, kw_only=True)
class MatrixBudgets:
    """Core-seconds of every run.

    Attributes:
        teacher, student: of a training and of a conversion.
        alone: of a student without a teacher, which has the time of both.
    """

    teacher: float = 300.0
    student: float = 240.0
    alone: float = 540.0


def bench_matrix(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 1,
    scale: float = 1.0,
    only: Sequence[str] | None = None,
    force: bool = False,
    quiet: bool = False,
    budgets: MatrixBudgets | None = None,
) -> Row:
    """Convert every ordered pair of fields, each `small`, on one scene; return JSON values.

    Each row is a training or a conversion and then an evaluation in a child process, whose memory is stated up to
    the evaluation. A field from images gets as much time as teacher and conversion together. Rows are
    resumed as `Bench` says.

    Args:
        scale: multiplies all budgets.
        only: names of the fields; all by default.
        budgets: core-seconds of every run at the scale 1.

    Raises:
        SettingError, InputError: before anything is written.
    """
    fields, budgets = chosen(only, list(FIELDS)), budgets or MatrixBudgets()
    bench = Bench.of_scene("matrix", data, output, downscale, force, quiet)
    for seed in range(n_seeds):
        teachers = {field: bench.train_teacher(field, scale * budgets.teacher, seed) for field in fields}
        for teacher, student in itertools.product(fields, repeat=2):
            _convert(bench, teachers[teacher], teacher, student, scale * budgets.student, seed)
        for field in fields:
            what: Row = {
                "kind": "photographs",
                "field": field,
                "budget": scale * budgets.alone,
                "seed": seed,
            }
            path = bench.fields() / f"{field}_alone_{seed}.fm"
            settings = {name: what[name] for name in ("field", "budget", "seed")}
            bench.run(what, train, **bench.settings, **settings, output=path)
    result = {
        "scale": scale,
        "seeds": n_seeds,
        "fields": fields,
        "pairs": summarize(bench.rows),
        "budgets": [scale * budget for budget in astuple(budgets)],
    }
    return bench.finish(result, matrix_table)


def summarize(rows: list[Row]) -> list[Row]:
    """Return the medians over its seeds for each pair with figures.

    `gain_db` is the PSNR on test images above the better of the teacher's and of the student's own after training
    from images for the whole time.
    """
    good = [row for row in rows if "error" not in row]
    alone = {
        (row["kind"], row["field"], row["seed"]): row["psnr"] for row in good if row["kind"] != "conversion"
    }
    names = (
        "psnr",
        "ssim",
        "psnr_to_teacher",
        "worst_to_teacher",
        "seconds",
        "core_seconds",
        "peak_memory_bytes",
    )
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in good:
        if row["kind"] == "conversion":
            teacher_psnr = alone[("teacher", row["teacher"], row["seed"])]
            trained_psnr = alone.get(("photographs", row["student"], row["seed"]))
            gain = None if trained_psnr is None else row["psnr"] - max(teacher_psnr, trained_psnr)
            compared = {"teacher_psnr": teacher_psnr, "photographs_psnr": trained_psnr, "gain_db": gain}
            figures = {**{name: row[name] for name in names}, **compared}
            pairs.setdefault((row["teacher"], row["student"]), []).append(figures)
    summary = []
    for (teacher, student), of_seeds in pairs.items():
        pair: Row = {"teacher": teacher, "student": student}
        for name in of_seeds[0]:
            values = [figures[name] for figures in of_seeds]
            pair[name] = None if None in values else statistics.median(values)
        summary.append(pair)
    return summary


def matrix_table(result: Row) -> str:
    """Format what `bench_matrix` returned as Markdown tables: fidelity at a glance, then every figure."""
    fields, pairs = result["fields"], {(pair["teacher"], pair["student"]): pair for pair in result["pairs"]}
    seeds = "1 seed" if result["seeds"] == 1 else f"{result['seeds']} seeds (medians)"
    glance = [
        [teacher, *(_db(pairs.get((teacher, student), {}).get("psnr_to_teacher")) for student in fields)]
        for teacher in fields
    ]
    rows = [
        [
            f"{pair['teacher']} to {pair['student']}",
            *(_db(pair[name]) for name in ("psnr_to_teacher", "worst_to_teacher", "psnr")),
            *(_db(pair[name]) for name in ("teacher_psnr", "photographs_psnr")),
            "" if pair["gain_db"] is None else f"{pair['gain_db']:+.2f}",
            f"{pair['seconds']:.0f} ({pair['core_seconds']:.0f})",
            "" if pair["peak_memory_bytes"] is None else f"{pair['peak_memory_bytes'] / 1e9:.2f}",
        ]
        for pair in result["pairs"]
    ]
    lines = [
        f"Scene {result['scene']}, {seeds}, {result['threads']} threads, all fields small, PSNR in dB on test views. "
        "Core-seconds: {:.0f} for a teacher, {:.0f} for a conversion, {:.0f} from images.".format(
            *result["budgets"]
        ),
        "",
        "PSNR to the teacher (rows: teacher, columns: student):",
        "",
        markdown(["", *fields], glance),
        "",
        "On test images; the gain is over the better of the teacher and the student trained from images:",
        "",
        markdown(
            [
                "pair",
                "to the teacher",
                "worst view",
                "student",
                "teacher",
                "from images",
                "gain",
                "seconds (core-seconds)",
                "peak GB",
            ],
            rows,
        ),
    ]
    return "\n".join([*lines, *failures(result)])


def _convert(bench: Bench, trained: Row, teacher: str, student: str, budget: float, seed: int) -> None:
    pair = {"kind": "conversion", "teacher": teacher, "student": student, "budget": budget, "seed": seed}
    if "error" in trained:
        bench.fail(pair, f"no teacher: {trained['error']}")
        return
    bench.run(
        {**pair, "teacher_sha256": trained["sha256"]},
        distil,
        **bench.settings,
        teacher=trained["path"],
        student=student,
        output=bench.fields() / f"{teacher}_to_{student}_{seed}.fm",
        budget=budget,
        seed=seed,
    )


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
