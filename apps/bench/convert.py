"""The same student distilled from a hash grid and trained from images: PSNR over core-seconds."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmorph.apps.bench.runner import Bench, Row, failures, markdown, train
from fieldmorph.apps.bench.snapshots import SnapshotRecorder, evaluation_pixels, pixel_psnr, with_own_grid
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.kinds import PRESETS
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.store import load_field

TEACHER = "hashgrid"
RUNS = {
    "distilled": 1.0,
    "distilled, briefly": 0.05,
    "from photographs": 1.0,
    "from photographs, 4 x": 4.0,
}


@dataclass(frozen=True, kw_only=True)
class ConvertPlan:
    """Budgets of the benchmark, and how often it evaluates.

    Attributes:
        teacher_core_seconds: of training.
        students: presets of the MLP, with core-seconds of distillation.
        min_core_seconds: of any run, however small the scale; the brief one is otherwise a twentieth.
        evaluations: of each run, at times in equal ratios.
        n_pixels: of all test views that an evaluation renders.
    """

    teacher_core_seconds: float = 200.0
    students: tuple[tuple[str, float], ...] = (("small", 180.0), ("paper", 400.0))
    min_core_seconds: float = 5.0
    evaluations: int = 8
    n_pixels: int = 8192


def bench_convert(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 3,
    scale: float = 1.0,
    force: bool = False,
    quiet: bool = False,
    plan: ConvertPlan | None = None,
) -> Row:
    """Run every student with every seed; return its PSNR on test images over core-seconds as JSON values.

    Times are CPU time of all threads, with the teacher's samples and without the teacher's training (which is
    stated separately). Both kinds of run use the same renderer and empty-space skipping, and their results are
    evaluated alike, with an occupancy grid rebuilt from the field. Rows are resumed as `Bench` says; the folder also
    gets `convert.png`.

    Args:
        scale: multiplies all budgets.
        plan: budgets and evaluations.

    Raises:
        SettingError, InputError: before anything is written.
    """
    plan = plan or ConvertPlan()
    pixels = {"n_pixels": plan.n_pixels}
    evaluated: Row = {**pixels, "evaluations": plan.evaluations}
    bench = Bench.of_scene("convert", data, output, downscale, force, quiet)
    for seed in range(n_seeds):
        teacher = bench.train_teacher(TEACHER, scale * plan.teacher_core_seconds, seed, teach, **pixels)
        for preset, core_seconds in plan.students:
            for kind, times in RUNS.items():
                budget = max(scale * core_seconds * times, plan.min_core_seconds)
                what: Row = {"kind": kind, "preset": preset, "budget": budget, "seed": seed}
                if not kind.startswith("distilled"):
                    bench.run(what, learn, **bench.settings, **evaluated, **what, teacher=None)
                elif "error" in teacher:
                    bench.fail(what, f"no teacher: {teacher['error']}")
                else:
                    what_too = {**what, "teacher_sha256": teacher["sha256"]}
                    bench.run(what_too, learn, **bench.settings, **evaluated, **what, teacher=teacher["path"])
    good = [run for run in bench.rows if "error" not in run]
    plot_runs(good, bench.folder / "convert.png")
    return bench.finish({"scale": scale, "seeds": n_seeds, "summary": summarize(good)}, convert_table)


def teach(data: str, downscale: int, output: str, n_pixels: int, **settings: Any) -> Row:
    """Train a teacher as a job; evaluate it as the students are."""
    trained = train(data, downscale, output, **settings)
    pixels = evaluation_pixels(open_scene(data, "test", downscale=downscale).splits["test"], n_pixels)
    return {**trained, "psnr": pixel_psnr(with_own_grid(load_field(output)), *pixels)}


def learn(
    data: str,
    downscale: int,
    teacher: str | None,
    preset: str,
    kind: str,
    budget: float,
    seed: int,
    evaluations: int,
    n_pixels: int,
    quiet: bool,
) -> Row:
    """Make one student as a job; its snapshots are evaluated afterwards, which costs the run no time."""
    compile_kernels()
    scene, time = open_scene(data, "train", "test", downscale=downscale), Budget(core_seconds=budget)
    field = make_field("mlp", preset, aabb=scene.aabb, seed=seed)
    with ProgressLine(f"mlp {preset}, {kind}, seed {seed}", quiet) as line:
        if teacher is None:
            recorder = SnapshotRecorder(field, evaluations, line)
            views = scene.splits["train"]
            stored, loop = fit_images(field, views, time, FitConfig(seed=seed), on_progress=recorder)
        else:
            source = load_field(teacher)
            recorder = SnapshotRecorder(field, evaluations, line)
            stored, report = convert(source, field, time, ConvertConfig(seed=seed), on_progress=recorder)
            loop = report.loop
        spent = recorder.end()
    curve = recorder.curve(stored, *evaluation_pixels(scene.splits["test"], n_pixels))
    return {"steps": loop.steps, "core_seconds": spent, "curve": curve, "psnr": curve[-1][1]}


def summarize(runs: list[Row]) -> list[Row]:
    """Summarise each student: medians over the seeds of final PSNR, its time, and the speed-up of distillation.

    Seeds of which a run is missing do not count. `speedup` is the time of training from images over the time at
    which a distillation first reaches the PSNR that training ends with, None where it does not; `gain_db` is the
    difference at equal time.
    """
    rows = []
    students = [run for run in runs if run["kind"] in RUNS]
    for preset in sorted({run["preset"] for run in students}, key=list(PRESETS).index):
        by_seed: dict[int, dict[str, Row]] = {}
        for run in students:
            if run["preset"] == preset:
                by_seed.setdefault(run["seed"], {})[run["kind"]] = run
        complete = [kinds for kinds in by_seed.values() if len(kinds) == len(RUNS)]
        if not complete:
            continue
        speedups = [_speedup(kinds) for kinds in complete]
        row: Row = {"preset": preset}
        for kind in RUNS:
            of_kind = [kinds[kind] for kinds in complete]
            row[kind] = statistics.median(run["psnr"] for run in of_kind)
            row[f"{kind}, core_seconds"] = statistics.median(run["core_seconds"] for run in of_kind)
        row["gain_db"] = row["distilled"] - row["from photographs"]
        row["speedup"] = None if None in speedups else statistics.median(s for s in speedups if s is not None)
        rows.append(row)
    return rows


def convert_table(result: Row) -> str:
    """Format what `bench_convert` returned as a Markdown table."""
    teachers = [run for run in result["rows"] if run["kind"] == "teacher" and "error" not in run]
    about_teacher = "no teacher"
    if teachers:
        psnr, spent = (statistics.median(run[key] for run in teachers) for key in ("psnr", "core_seconds"))
        about_teacher = f"{TEACHER} small, {psnr:.2f} dB after {spent:.0f} core-seconds, not counted below"
    about = f"Scene {result['scene']}, {result['seeds']} seeds (medians), PSNR in dB on test images."
    rows = []
    for row in result["summary"]:
        figures = (f"{row[kind]:.2f} ({row[f'{kind}, core_seconds']:.0f} cs)" for kind in RUNS)
        sooner = "never" if row["speedup"] is None else f"{row['speedup']:.1f} x faster"
        rows.append([f"mlp {row['preset']}", *figures, f"{row['gain_db']:+.2f} dB", sooner])
    head = ["student", *map(_title, RUNS), "gain at equal time", "time to the PSNR from images"]
    return "\n".join([f"{about} Teacher: {about_teacher}.", "", markdown(head, rows), *failures(result)])


def plot_runs(runs: list[Row], path: Path) -> None:
    """Plot PSNR over core-seconds: one panel per student, one colour per kind, one line per seed."""
    from matplotlib.figure import Figure  # takes a second

    presets = [
        preset for preset in PRESETS if any(run["preset"] == preset for run in runs if run["kind"] in RUNS)
    ]
    figure = Figure(figsize=(5.2 * max(len(presets), 1), 4), layout="constrained")
    panels = figure.subplots(1, max(len(presets), 1), squeeze=False)[0]
    for axes, preset in zip(panels, presets, strict=False):
        for color, kind in enumerate(RUNS):
            lines = [run["curve"] for run in runs if run["kind"] == kind and run["preset"] == preset]
            for i, curve in enumerate(lines):
                axes.plot(
                    *zip(*curve, strict=True), color=f"C{color}", lw=1.5, label=None if i else _title(kind)
                )
        axes.set(title=f"mlp {preset}", xscale="log", xlabel="core-seconds", ylabel="PSNR on test images, dB")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=140)


def _title(kind: str) -> str:
    """Return how tables and plots name a kind of run."""
    return kind.replace("photographs", "images")


def _speedup(kinds: dict[str, Row]) -> float | None:
    """Return the time of training over that of the first distilled evaluation at least as good as its end."""
    trained = kinds["from photographs"]
    goal = trained["curve"][-1][1]
    curves = (point for kind, run in kinds.items() if kind.startswith("distilled") for point in run["curve"])
    reached = [at for at, psnr in curves if psnr >= goal]
    return trained["core_seconds"] / min(reached) if reached else None
