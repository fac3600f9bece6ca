"""Convert every field into every other, without images and with: fidelity, and against training from images."""

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from fieldmorph.apps.bench.matrix_table import matrix_table as matrix_table
from fieldmorph.apps.bench.matrix_table import summarize
from fieldmorph.apps.bench.runner import Bench, Row, chosen, distil, train
from fieldmorph.fields.registry import FIELDS

KINDS = ("distilled", "finished")  # of a conversion: without images, and with those of training at its end


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

    Every pair is converted twice: without images, and with the training images at hand, which finish the student where
    the budget suffices for both. Each row is a training or a conversion and then an evaluation in a child process,
    whose memory is stated up to the evaluation. A field from images gets as much time as teacher and conversion
    together. Rows are resumed as `Bench` says.

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
            for kind in KINDS:
                _convert(bench, kind, teachers[teacher], teacher, student, scale * budgets.student, seed)
        for field in fields:
            what: Row = {"kind": "images", "field": field, "budget": scale * budgets.alone, "seed": seed}
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


def _convert(
    bench: Bench, kind: str, trained: Row, teacher: str, student: str, budget: float, seed: int
) -> None:
    pair = {"kind": kind, "teacher": teacher, "student": student, "budget": budget, "seed": seed}
    if "error" in trained:
        bench.fail(pair, f"no teacher: {trained['error']}")
        return
    bench.run(
        {**pair, "teacher_sha256": trained["sha256"]},
        distil,
        **bench.settings,
        teacher=trained["path"],
        student=student,
        output=bench.fields() / f"{teacher}_to_{student}_{kind}_{seed}.fm",
        budget=budget,
        seed=seed,
        finish=None if kind == "finished" else 0.0,
    )
