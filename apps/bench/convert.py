"""Distilling against training from images at equal time: quality, and the time at which one is as good as another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldmorph.apps.bench.comparison import (
    TEACHER,
    SteppingLine,
    TestViews,
    figures,
    run_contestants,
    teach,
)
from fieldmorph.apps.bench.convert_summary import convert_table as convert_table
from fieldmorph.apps.bench.convert_summary import plot_runs, summarize
from fieldmorph.apps.bench.registry import CONVERT_STUDENTS
from fieldmorph.apps.bench.runner import Bench, Row, chosen
from fieldmorph.apps.bench.snapshots import SnapshotRecorder, evaluation_pixels
from fieldmorph.apps.bench.turns import SLICE_CORE_SECONDS, Turn
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.apps.jobs.worker import Report
from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.loop import LoopConfig
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.store import load_field

HELD_OUT_SEED = 1  # of the pixels for times
GRID_RESOLUTION = 32  # of evaluations on the way: a finer one costs a large MLP more than the rays


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """Budgets of the benchmark, and how often it evaluates.

    Attributes:
        teacher_core_seconds: of training.
        students: core-seconds of distillation by the student's name: representation and preset.
        min_core_seconds: of the teacher and of a distillation, however small the scale.
        slice_core_seconds: of CPU time in which one contestant computes before the next one does.
        evaluations: of each run on the way, at times in equal ratios.
        n_pixels: of the held-out test views that such an evaluation renders.
    """

    teacher_core_seconds: float = 200.0
    students: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(CONVERT_STUDENTS, (180.0, 400.0, 80.0), strict=True))
    )
    min_core_seconds: float = 0.5
    slice_core_seconds: float = SLICE_CORE_SECONDS
    evaluations: int = 12
    n_pixels: int = 4096

    def scaled(self, scale: float) -> "ConvertPlan":
        """Return the plan with all budgets multiplied, and slices that are shorter where the budgets are."""
        return replace(
            self,
            teacher_core_seconds=max(scale * self.teacher_core_seconds, self.min_core_seconds),
            students={name: max(scale * own, self.min_core_seconds) for name, own in self.students.items()},
            slice_core_seconds=min(scale, 1.0) * self.slice_core_seconds,
        )

    def budgets(self, student: str) -> dict[str, float]:
        """Return the core-seconds of each contestant by its kind; those from images have no teacher to pay for."""
        own = self.students[student]
        total = self.teacher_core_seconds + own
        return {
            "distilled": own,
            "finished": own,
            "images": own,
            "images_total": total,
            "images_4_total": 4 * total,
        }

    def core_seconds(self, students: Sequence[str], n_seeds: int) -> float:
        """Return the core-seconds of all runs, teachers included, without evaluations."""
        runs = sum(sum(self.budgets(student).values()) for student in students)
        return n_seeds * (self.teacher_core_seconds + runs)


def bench_convert(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 3,
    scale: float = 1.0,
    only: Sequence[str] | None = None,
    force: bool = False,
    quiet: bool = False,
    plan: ConvertPlan | None = None,
) -> Row:
    """Make every student in five ways with every seed; return quality over core-seconds as JSON values.

    The ways, after one teacher for each seed: distilled without images; distilled and finished on images; and from
    images alone in the time of the distillation, in the total time T (the teacher's training included), and in 4 T.
    Each has a run of its own, since learning rates depend on the budget. The five of one student and seed take turns,
    so that all see the same load of the machine. The training split alone trains. PSNR is the mean over every second
    test view, as `fieldmorph eval` has it; the times at which one first reaches another's end are on pixels of the
    other test views, which choose nothing, with an occupancy grid rebuilt from the field. All times are CPU time.

    Rows are resumed as `Bench` says; a run that was cut off starts anew. The folder also gets `convert.png`.

    Args:
        scale: multiplies all budgets.
        only: names of the students; all by default.
        plan: budgets and evaluations at the scale 1.

    Raises:
        SettingError, InputError: before anything is written.
    """
    whole = plan or ConvertPlan()
    students, plan = chosen(only, list(whole.students), "student"), whole.scaled(scale)
    bench = Bench.of_scene("convert", data, output, downscale, force, quiet)
    settings: Row = {"evaluations": plan.evaluations, "n_pixels": plan.n_pixels}
    for seed in range(n_seeds):
        teacher = bench.train_teacher(TEACHER, plan.teacher_core_seconds, seed, teach)
        for student in students:
            contestants: list[Row] = [
                {"kind": kind, "student": student, "budget": budget, "seed": seed}
                for kind, budget in plan.budgets(student).items()
            ]
            run_contestants(bench, teacher, learn, contestants, settings, plan.slice_core_seconds)
    good = [row for row in bench.rows if "error" not in row]
    summary = summarize(good)
    plot_runs(good, students, bench.folder / "convert.png")
    result = {
        "scale": scale,
        "seeds": n_seeds,
        "students": students,
        "slice_core_seconds": plan.slice_core_seconds,
        "n_pixels": plan.n_pixels,
        "budgets_core_seconds": plan.core_seconds(students, n_seeds),
        "whole_core_seconds": whole.core_seconds(list(whole.students), 3),
        "summary": summary,
    }
    return bench.finish(result, convert_table)


def learn(
    data: str,
    downscale: int,
    teacher: str,
    contestant: Row,
    evaluations: int,
    n_pixels: int,
    slice_core_seconds: float,
    quiet: bool,
    report: Report | None = None,
) -> Row:
    """Make one student as a job, in turns with others; evaluate its snapshots afterwards, at no cost to the run."""
    compile_kernels()
    kind, seed = contestant["kind"], contestant["seed"]
    name, preset = contestant["student"].split("-")
    source, turn = load_field(teacher), Turn(report, slice_core_seconds)
    scene = open_scene(data, "train", "test", downscale=downscale, aabb=source.field.box())
    train, views = scene.splits["train"], TestViews.of(scene.splits["test"])
    student = make_field(name, preset, aabb=source.field.box(), seed=seed)
    compile_kernels(source.field, student)
    time, loop_config = Budget(core_seconds=contestant["budget"]), LoopConfig(min_steps=1)
    stages: Row = {}
    with ProgressLine(f"{name} {preset}, {kind}, seed {seed}", quiet) as line:
        recorder = SnapshotRecorder(student, evaluations, SteppingLine(line, turn))
        if kind.startswith("images"):
            config = FitConfig(seed=seed, loop=loop_config)
            stored, loop = fit_images(student, train, time, config, on_progress=recorder)
        else:
            stored, made = convert(
                source,
                student,
                time,
                ConvertConfig(seed=seed, loop=loop_config),
                train if kind == "finished" else None,
                on_progress=recorder,
            )
            loop = made.loop
            stages = {"stages": [stage.name for stage in made.stages], "dropped": made.dropped}
        spent = recorder.end()
    rays, colors = evaluation_pixels(views.held_out, n_pixels, HELD_OUT_SEED)
    curve = recorder.curve(stored, rays, colors, turn, GRID_RESOLUTION)
    return {
        "steps": loop.steps,
        "core_seconds": spent,
        "curve": curve,
        **stages,
        **figures(stored, views, source, turn),
    }
