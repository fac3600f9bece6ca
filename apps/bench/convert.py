"""The same student distilled from a hash grid and trained from photographs: PSNR over core-seconds."""

import statistics
from pathlib import Path
from typing import Any

from fieldmorph.apps.bench.runner import Bench, failures, markdown, train
from fieldmorph.apps.bench.snapshots import Looks, judged_pixels, own_grid, pixel_psnr
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.runtime import compile_kernels
from fieldmorph.fields.store import load_field

TEACHER = "hashgrid"
TEACHER_CORE_SECONDS = 200.0
STUDENTS = {"small": 180.0, "paper": 400.0}  # MLP presets with core-seconds of distillation
RUNS = {
    "distilled": 1.0,
    "distilled, briefly": 0.05,
    "from photographs": 1.0,
    "from photographs, 4 x": 4.0,
}
LOOKS = 8  # at each run, at times in equal ratios
FEWEST_CORE_SECONDS = 5.0  # of any run, however small the scale; the brief one is otherwise a twentieth

Run = dict[str, Any]


def bench_convert(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 3,
    scale: float = 1.0,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Every run of every student with every seed: its PSNR on test photographs over core-seconds.

    Times are CPU time of all threads, the teacher's samples included, the teacher's training not (it is
    stated apart). Both kinds of run use the same renderer and empty-space skipping, and their results are judged alike,
    with an occupancy grid rebuilt from the field. Rows are resumed as `Bench` says; beside what it writes, the folder
    gets `convert.png`.

    Args:
        scale: multiplies all budgets.

    Raises:
        SettingError, InputError: before anything is written.
    """
    bench = Bench.of_scene("convert", data, output, downscale, force, quiet)
    for seed in range(n_seeds):
        taught = bench.teach(TEACHER, scale * TEACHER_CORE_SECONDS, seed, teach)
        for preset, core_seconds in STUDENTS.items():
            for kind, times in RUNS.items():
                budget = max(scale * core_seconds * times, FEWEST_CORE_SECONDS)
                what: Run = {"kind": kind, "preset": preset, "budget": budget, "seed": seed}
                if not kind.startswith("distilled"):
                    bench.run(what, learn, **bench.settings, **what, teacher=None)
                elif "error" in taught:
                    bench.fail(what, f"no teacher: {taught['error']}")
                else:
                    what_too = {**what, "teacher_sha256": taught["sha256"]}
                    bench.run(what_too, learn, **bench.settings, **what, teacher=taught["path"])
    good = [run for run in bench.rows if "error" not in run]
    plot_runs(good, bench.folder / "convert.png")
    return bench.finish({"scale": scale, "seeds": n_seeds, "summary": summarize(good)}, convert_table)


def teach(data: str, downscale: int, output: str, **settings: Any) -> Run:
    """A job: a teacher, judged as the students are."""
    trained = train(data, downscale, output, **settings)
    pixels = judged_pixels(open_scene(data, "test", downscale=downscale).splits["test"])
    return {**trained, "psnr": pixel_psnr(own_grid(load_field(output)), *pixels)}


def learn(
    data: str,
    downscale: int,
    teacher: str | None,
    preset: str,
    kind: str,
    budget: float,
    seed: int,
    quiet: bool,
) -> Run:
    """A job: one run; snapshots are taken on the way and judged afterwards, so that judging costs it no time."""
    compile_kernels()
    scene, time = open_scene(data, "train", "test", downscale=downscale), Budget(core_seconds=budget)
    field = make_field("mlp", preset, aabb=scene.aabb, seed=seed)
    with ProgressLine(f"mlp {preset}, {kind}, seed {seed}", quiet) as line:
        if teacher is None:
            looks = Looks(field, LOOKS, line)
            views = scene.splits["train"]
            stored, loop = fit_images(field, views, time, FitConfig(seed=seed), on_progress=looks)
        else:
            taught = load_field(teacher)
            looks = Looks(field, LOOKS, line)
            stored, report = convert(taught, field, time, ConvertConfig(seed=seed), on_progress=looks)
            loop = report.loop
        spent = looks.end()
    curve = looks.judged(stored, *judged_pixels(scene.splits["test"]))
    return {"steps": loop.steps, "core_seconds": spent, "curve": curve, "psnr": curve[-1][1]}


def summarize(runs: list[Run]) -> list[dict[str, Any]]:
    """Per student: medians over the seeds of final PSNR, its time, and how much sooner distillation is as good.

    Seeds of which a run is missing do not count. `speedup` is the time of training from photographs over the time at
    which a distillation first reaches the PSNR that training ends with, None where it does not; `gain_db` is the
    distance at equal time.
    """
    rows = []
    students = [run for run in runs if run["kind"] in RUNS]
    for preset in sorted({run["preset"] for run in students}, key=list(STUDENTS).index):
        by_seed: dict[int, dict[str, Run]] = {}
        for run in students:
            if run["preset"] == preset:
                by_seed.setdefault(run["seed"], {})[run["kind"]] = run
        complete = [kinds for kinds in by_seed.values() if len(kinds) == len(RUNS)]
        if not complete:
            continue
        speedups = [_speedup(kinds) for kinds in complete]
        row: dict[str, Any] = {"preset": preset}
        for kind in RUNS:
            of_kind = [kinds[kind] for kinds in complete]
            row[kind] = statistics.median(run["psnr"] for run in of_kind)
            row[f"{kind}, core_seconds"] = statistics.median(run["core_seconds"] for run in of_kind)
        row["gain_db"] = row["distilled"] - row["from photographs"]
        row["speedup"] = None if None in speedups else statistics.median(s for s in speedups if s is not None)
        rows.append(row)
    return rows


def convert_table(result: dict[str, Any]) -> str:
    """A Markdown table of what `bench_convert` returned."""
    teachers = [run for run in result["rows"] if run["kind"] == "teacher" and "error" not in run]
    told = "no teacher"
    if teachers:
        psnr, spent = (statistics.median(run[key] for run in teachers) for key in ("psnr", "core_seconds"))
        told = f"{TEACHER} small, {psnr:.2f} dB after {spent:.0f} core-seconds, not counted below"
    about = f"Scene {result['scene']}, {result['seeds']} seeds (medians), PSNR in dB on test photographs."
    rows = []
    for row in result["summary"]:
        figures = (f"{row[kind]:.2f} ({row[f'{kind}, core_seconds']:.0f} cs)" for kind in RUNS)
        sooner = "never" if row["speedup"] is None else f"{row['speedup']:.1f} x sooner"
        rows.append([f"mlp {row['preset']}", *figures, f"{row['gain_db']:+.2f} dB", sooner])
    head = ["student", *RUNS, "gain at equal time", "as good as from photographs"]
    return "\n".join([f"{about} Teacher: {told}.", "", markdown(head, rows), *failures(result)])


def plot_runs(runs: list[Run], path: Path) -> None:
    """PSNR over core-seconds, one panel per student, one colour per kind, one line per seed."""
    from matplotlib.figure import Figure  # takes a second

    presets = [
        preset for preset in STUDENTS if any(run["preset"] == preset for run in runs if run["kind"] in RUNS)
    ]
    figure = Figure(figsize=(5.2 * max(len(presets), 1), 4), layout="constrained")
    panels = figure.subplots(1, max(len(presets), 1), squeeze=False)[0]
    for axes, preset in zip(panels, presets, strict=False):
        for color, kind in enumerate(RUNS):
            lines = [run["curve"] for run in runs if run["kind"] == kind and run["preset"] == preset]
            for i, curve in enumerate(lines):
                axes.plot(*zip(*curve, strict=True), color=f"C{color}", lw=1.5, label=None if i else kind)
        axes.set(
            title=f"mlp {preset}", xscale="log", xlabel="core-seconds", ylabel="PSNR on test photographs, dB"
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=140)


def _speedup(kinds: dict[str, Run]) -> float | None:
    """Time of training over the time of the first distilled look that is at least as good as its end."""
    trained = kinds["from photographs"]
    goal = trained["curve"][-1][1]
    curves = (point for kind, run in kinds.items() if kind.startswith("distilled") for point in run["curve"])
    reached = [at for at, psnr in curves if psnr >= goal]
    return trained["core_seconds"] / min(reached) if reached else None
