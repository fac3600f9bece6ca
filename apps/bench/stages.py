"""Effect of the stages of a conversion: each left out, some alone, the decoder transplanted or not, at equal time."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldmorph.apps.bench.comparison import (
    TEACHER,
    SteppingLine,
    TestViews,
    figures,
    number,
    over_seeds,
    run_contestants,
    teach,
)
from fieldmorph.apps.bench.registry import STAGES_STUDENTS
from fieldmorph.apps.bench.runner import Bench, Row, chosen, failures, markdown
from fieldmorph.apps.bench.turns import SLICE_CORE_SECONDS, Turn
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.apps.jobs.worker import Report
from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.distill.stages import PVD_STAGES, Stage
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.loop import LoopConfig
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.store import load_field

ALL = "all"


@dataclass(frozen=True)
class Variant:
    """A way to convert: which stages run, and with which decoder.

    Attributes:
        without: names of stages that are left out.
        images: whether the student trains on images at the end.
        transplant: whether it takes the teacher's decoder.
    """

    without: tuple[str, ...] = ()
    images: bool = True
    transplant: bool = True

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of distillation; those that are kept fill the time of those that are not."""
        return tuple(stage for stage in PVD_STAGES if stage.name not in self.without)


VARIANTS = {
    ALL: Variant(),
    "without features": Variant(without=("features",)),
    "without volume": Variant(without=("volume",)),
    "without render": Variant(without=("render",)),
    "without images": Variant(images=False),
    "volume alone": Variant(without=("features", "render"), images=False),
    "render alone": Variant(without=("features", "volume"), images=False),
    "decoder not transplanted": Variant(transplant=False),
}


@dataclass(frozen=True, kw_only=True)
class StagesPlan:
    """Budgets of the benchmark.

    Attributes:
        teacher_core_seconds: of training.
        students: core-seconds of a conversion by the student's representation.
        min_core_seconds: of any run, however small the scale.
        slice_core_seconds: of CPU time in which one contestant computes before the next one does.
    """

    teacher_core_seconds: float = 200.0
    students: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(STAGES_STUDENTS, (90.0, 60.0), strict=True))
    )
    min_core_seconds: float = 0.5
    slice_core_seconds: float = SLICE_CORE_SECONDS

    def scaled(self, scale: float) -> "StagesPlan":
        """Return the plan with all budgets multiplied, and slices that are shorter where the budgets are."""
        return replace(
            self,
            teacher_core_seconds=max(scale * self.teacher_core_seconds, self.min_core_seconds),
            students={name: max(scale * own, self.min_core_seconds) for name, own in self.students.items()},
            slice_core_seconds=min(scale, 1.0) * self.slice_core_seconds,
        )

    def core_seconds(self, students: Sequence[str], n_seeds: int) -> float:
        """Return the core-seconds of all runs, the teacher included, without evaluations."""
        conversions = len(VARIANTS) * sum(self.students[student] for student in students)
        return self.teacher_core_seconds + n_seeds * conversions


def bench_stages(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 3,
    scale: float = 1.0,
    only: Sequence[str] | None = None,
    force: bool = False,
    quiet: bool = False,
    plan: StagesPlan | None = None,
) -> Row:
    """Convert a hash grid to every student with each of `VARIANTS` and every seed; return JSON values.

    The teacher is trained once, with the seed 0; seeds are those of the conversions. All of one student and seed have
    the same core-seconds and take turns, so that they see the same load of the machine. Where images are used they
    have the student's own fraction of the time, however short that is; the stages fill the rest in the ratio of their
    own fractions. The training split alone trains; PSNR is the mean over every second test view.

    Rows are resumed as `Bench` says; a run that was cut off starts anew.

    Args:
        scale: multiplies all budgets.
        only: representations of the students; all by default.
        plan: budgets at the scale 1.

    Raises:
        SettingError, InputError: before anything is written.
    """
    whole = plan or StagesPlan()
    students, plan = chosen(only, list(whole.students), "student"), whole.scaled(scale)
    bench = Bench.of_scene("stages", data, output, downscale, force, quiet)
    teacher = bench.train_teacher(TEACHER, plan.teacher_core_seconds, 0, teach)
    for student in students:
        for seed in range(n_seeds):
            of_all = {
                "kind": "conversion",
                "student": student,
                "budget": plan.students[student],
                "seed": seed,
            }
            contestants: list[Row] = [{**of_all, "stages_on": name} for name in VARIANTS]
            run_contestants(bench, teacher, learn, contestants, {}, plan.slice_core_seconds)
    result = {
        "scale": scale,
        "seeds": n_seeds,
        "students": students,
        "budgets": plan.students,
        "slice_core_seconds": plan.slice_core_seconds,
        "budgets_core_seconds": plan.core_seconds(students, n_seeds),
        "whole_core_seconds": whole.core_seconds(list(whole.students), 3),
        "summary": summarize(bench.rows),
    }
    return bench.finish(result, stages_table)


def learn(
    data: str,
    downscale: int,
    teacher: str,
    contestant: Row,
    slice_core_seconds: float,
    quiet: bool,
    report: Report | None = None,
) -> Row:
    """Convert as a job, in turns with others; return steps, stages and quality."""
    compile_kernels()
    variant, seed, name = VARIANTS[contestant["stages_on"]], contestant["seed"], contestant["student"]
    source, turn = load_field(teacher), Turn(report, slice_core_seconds)
    scene = open_scene(data, "train", "test", downscale=downscale, aabb=source.field.box())
    student = make_field(name, aabb=source.field.box(), seed=seed)
    config = ConvertConfig(
        stages=variant.stages(),
        transplant=variant.transplant,
        finish=student.finish_fraction,
        seed=seed,
        loop=LoopConfig(min_steps=1),
    )
    with ProgressLine(f"{name}, {contestant['stages_on']}, seed {seed}", quiet) as line:
        stored, made = convert(
            source,
            student,
            Budget(core_seconds=contestant["budget"]),
            config,
            scene.splits["train"] if variant.images else None,
            on_progress=SteppingLine(line, turn),
        )
    return {
        "steps": made.loop.steps,
        "core_seconds": made.loop.spent.core_seconds,
        "stages": {stage.name: stage.steps for stage in made.stages},
        "dropped": made.dropped,
        **figures(stored, TestViews.of(scene.splits["test"]), source, turn),
    }


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Summarise each student and variant over the seeds.

    `..._gain` are differences to `all` of the same seed; with few seeds only one well above its own `std` is
    significant.
    """
    good = [row for row in rows if row["kind"] == "conversion" and "error" not in row]
    by_run = {(row["student"], row["stages_on"], row["seed"]): row for row in good}
    summary = []
    for student in dict.fromkeys(row["student"] for row in good):
        for name in VARIANTS:
            mine = [row for row in good if (row["student"], row["stages_on"]) == (student, name)]
            if not mine:
                continue
            pairs = [(row, by_run.get((student, ALL, row["seed"]))) for row in mine]
            entry: Row = {
                "student": student,
                "stages_on": name,
                "steps": statistics.mean(row["steps"] for row in mine),
                "core_seconds": statistics.mean(row["core_seconds"] for row in mine),
            }
            for figure in ("psnr_to_teacher", "psnr"):
                entry[figure] = over_seeds([row[figure] for row in mine])
                gains = [row[figure] - other[figure] for row, other in pairs if other is not None]
                entry[f"{figure}_gain"] = over_seeds(gains)
            summary.append(entry)
    return summary


def stages_table(result: Row) -> str:
    """Format what `bench_stages` returned as a Markdown table."""
    good = [row for row in result["rows"] if "error" not in row]
    teacher = next((row for row in good if row["kind"] == "teacher"), None)
    rows = []
    for entry in result["summary"]:
        plain = entry["stages_on"] == ALL
        rows.append(
            [
                f"{TEACHER} to {entry['student']}",
                entry["stages_on"],
                *(_mean(entry[name]) for name in ("psnr_to_teacher", "psnr")),
                *("" if plain else _gain(entry[f"{name}_gain"]) for name in ("psnr_to_teacher", "psnr")),
                f"{entry['steps']:,.0f}",
                f"{entry['core_seconds']:.1f}",
            ]
        )
    trained = "no teacher"
    if teacher is not None:
        trained = (
            f"teacher {TEACHER} small, trained once: {teacher['psnr']:.2f} dB after "
            f"{teacher['core_seconds']:.1f} core-seconds"
        )
    views = number(teacher["views"], "test view") if teacher is not None else "test views"
    about = [
        f"Scene {result['scene']}, images reduced {result['downscale']} times, {number(result['seeds'], 'seed')}, "
        f"scale {result['scale']:g}, {number(result['threads'], 'thread')}; {trained}; students small. PSNR in dB, "
        f"means over {views}: mean ± standard deviation over the seeds; against all: differences by seed. The "
        f"contestants of one student and seed took turns in slices of {result['slice_core_seconds']:g} core-seconds.",
        f"All runs of this table have {result['budgets_core_seconds']:,.0f} core-seconds; both students at scale 1 "
        f"with 3 seeds {result['whole_core_seconds']:,.0f}, both without evaluations.",
    ]
    head = [
        "pair",
        "stages",
        "to the teacher",
        "to test images",
        "to the teacher, against all",
        "to test images, against all",
        "steps",
        "core-seconds",
    ]
    # Two columns of text.
    table = markdown(head, rows).replace("| --- | ---: |", "| --- | --- |", 1)
    return "\n".join([*about, "", table, *failures(result)])


def _mean(figure: Row) -> str:
    return f"{figure['mean']:.2f} ± {figure['std']:.2f}"


def _gain(gain: Row) -> str:
    if not gain["values"]:
        return ""
    by_seed = ", ".join(f"{value:+.2f}" for value in gain["values"])
    return f"{gain['mean']:+.2f} ± {gain['std']:.2f} ({by_seed})"
