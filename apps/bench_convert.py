"""The same student distilled from a hash grid and trained from photographs: PSNR over core-seconds."""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import torch

from fieldmorph.apps.jobs import bundled_scene, open_scene
from fieldmorph.apps.outputs import check_folder
from fieldmorph.apps.progress import ProgressLine
from fieldmorph.distill.convert import ConvertConfig, convert
from fieldmorph.fields.budget import Budget, now
from fieldmorph.fields.cameras import camera_rays
from fieldmorph.fields.catalog import make_field
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.loop import Progress
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.render import render_rays
from fieldmorph.fields.scene import Scene
from fieldmorph.fields.store import StoredField

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
FIRST_LOOK = 0.02  # share of the run's time
JUDGED_PIXELS = 8192  # of all test views, at random, the same for every figure

Snapshot = tuple[float, dict[str, torch.Tensor]]
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

    Times are CPU time of all threads since the call, the teacher's samples included, the teacher's training
    not (it is stated apart). Both kinds of run use the same renderer and empty-space skipping, and their results are
    judged alike, with an occupancy grid rebuilt from the field. Written to the folder as they come:
    `convert.jsonl`, one run a line; at the end `convert.md` and `convert.png`.

    Args:
        scale: multiplies all budgets.

    Raises:
        SettingError, InputError: before anything is written.
    """
    folder = Path(output)
    check_folder(folder, force)
    scene = open_scene(data or bundled_scene(), "train", "test", downscale=downscale)
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    with open(folder / "convert.jsonl", "w", encoding="utf-8") as raw:

        def keep(run: Run) -> None:
            runs.append(run)
            print(json.dumps(run), file=raw, flush=True)

        for seed in range(n_seeds):
            teacher, run = _teach(scene, scale * TEACHER_CORE_SECONDS, seed, quiet)
            keep(run)
            for preset, core_seconds in STUDENTS.items():
                for kind, times in RUNS.items():
                    keep(_learn(scene, teacher, preset, kind, scale * core_seconds * times, seed, quiet))
    result = {
        "scene": scene.name, "downscale": downscale, "scale": scale, "seeds": n_seeds,
        "threads": torch.get_num_threads(), "runs": runs, "summary": summarize(runs),
    }  # fmt: skip
    (folder / "convert.md").write_text(convert_table(result) + "\n", encoding="utf-8")
    plot_runs(runs, folder / "convert.png")
    return result


def summarize(runs: list[Run]) -> list[dict[str, Any]]:
    """Per student: medians over the seeds of final PSNR, its time, and how much sooner distillation is as good.

    `speedup` is the time of training from photographs over the time at which a distillation first reaches the
    PSNR that training ends with, None where it does not; `gain_db` is the distance at equal time.
    """
    rows = []
    for preset in sorted({run["preset"] for run in runs if run["kind"] in RUNS}, key=list(STUDENTS).index):
        mine = [run for run in runs if run["preset"] == preset]
        by_seed = {
            seed: {run["kind"]: run for run in mine if run["seed"] == seed}
            for seed in {r["seed"] for r in mine}
        }
        speedups = [_speedup(kinds) for kinds in by_seed.values()]
        row: dict[str, Any] = {"preset": preset}
        for kind in RUNS:
            of_kind = [run for run in mine if run["kind"] == kind]
            row[kind] = statistics.median(run["psnr"] for run in of_kind)
            row[f"{kind}, core_seconds"] = statistics.median(run["core_seconds"] for run in of_kind)
        row["gain_db"] = row["distilled"] - row["from photographs"]
        row["speedup"] = None if None in speedups else statistics.median(s for s in speedups if s is not None)
        rows.append(row)
    return rows


def convert_table(result: dict[str, Any]) -> str:
    """A Markdown table of what `bench_convert` returned."""
    teachers = [run for run in result["runs"] if run["kind"] == "teacher"]
    psnr, spent = (statistics.median(run[key] for run in teachers) for key in ("psnr", "core_seconds"))
    lines = [
        f"Scene {result['scene']}, {result['seeds']} seeds (medians), PSNR in dB on test photographs. "
        f"Teacher: hashgrid small, {psnr:.2f} dB after {spent:.0f} core-seconds, not counted below.",
        "",
        f"| student | {' | '.join(RUNS)} | gain at equal time | as good as from photographs |",
        "| --- |" + " ---: |" * (len(RUNS) + 2),
    ]
    for row in result["summary"]:
        figures = " | ".join(f"{row[kind]:.2f} ({row[f'{kind}, core_seconds']:.0f} cs)" for kind in RUNS)
        sooner = "never" if row["speedup"] is None else f"{row['speedup']:.1f} x sooner"
        lines.append(f"| mlp {row['preset']} | {figures} | {row['gain_db']:+.2f} dB | {sooner} |")
    return "\n".join(lines)


def plot_runs(runs: list[Run], path: Path) -> None:
    """PSNR over core-seconds, one panel per student, one colour per kind, one line per seed."""
    from matplotlib.figure import Figure  # takes a second

    presets = [
        preset for preset in STUDENTS if any(run["preset"] == preset for run in runs if run["kind"] in RUNS)
    ]
    figure = Figure(figsize=(5.2 * len(presets), 4), layout="constrained")
    for axes, preset in zip(figure.subplots(1, len(presets), squeeze=False)[0], presets, strict=True):
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


def _teach(scene: Scene, core_seconds: float, seed: int, quiet: bool) -> tuple[StoredField, Run]:
    field, start = make_field("hashgrid", aabb=scene.aabb, seed=seed), now()
    with ProgressLine(f"teacher, seed {seed}", quiet) as progress:
        teacher, _ = fit_images(
            field,
            scene.splits["train"],
            Budget(core_seconds=core_seconds),
            FitConfig(seed=seed),
            on_progress=progress,
        )
    spent = (now() - start).core_seconds
    run = {"kind": "teacher", "preset": "small", "seed": seed, "core_seconds": spent, "curve": []}
    return teacher, {**run, "psnr": _psnr(teacher, scene)}


def _learn(
    scene: Scene, teacher: StoredField, preset: str, kind: str, core_seconds: float, seed: int, quiet: bool
) -> Run:
    """One run; snapshots are taken on the way and judged afterwards, so that judging costs it no time."""
    start = now()
    field = make_field("mlp", preset, aabb=scene.aabb, seed=seed)
    snapshots: list[Snapshot] = []
    with ProgressLine(f"mlp {preset}, {kind}, seed {seed}", quiet) as line:

        def look(progress: Progress) -> None:
            if progress.share < 1 and progress.share >= FIRST_LOOK ** (1 - len(snapshots) / LOOKS):
                weights = {name: value.clone() for name, value in field.state_dict().items()}
                snapshots.append(((now() - start).core_seconds, weights))
            line(progress)

        budget = Budget(core_seconds=max(core_seconds, FEWEST_CORE_SECONDS))
        if kind.startswith("distilled"):
            stored, report = convert(teacher, field, budget, ConvertConfig(seed=seed), on_progress=look)
            steps = report.loop.steps
        else:
            stored, loop_report = fit_images(
                field, scene.splits["train"], budget, FitConfig(seed=seed), on_progress=look
            )
            steps = loop_report.steps
    spent = (now() - start).core_seconds
    final = {name: value.clone() for name, value in field.state_dict().items()}
    curve = [(at, _judge(stored, weights, scene)) for at, weights in [*snapshots, (spent, final)]]
    run = {
        "kind": kind,
        "preset": preset,
        "seed": seed,
        "steps": steps,
        "core_seconds": spent,
        "curve": curve,
    }
    return {**run, "psnr": curve[-1][1]}


def _judge(stored: StoredField, weights: dict[str, torch.Tensor], scene: Scene) -> float:
    kept = {name: value.clone() for name, value in stored.field.state_dict().items()}
    stored.field.load_state_dict(weights)
    value = _psnr(_own_grid(stored), scene)
    stored.field.load_state_dict(kept)
    return value


def _own_grid(stored: StoredField) -> StoredField:
    occupancy = OccupancyGrid(stored.occupancy.resolution)
    occupancy.rebuild(stored.field, stored.render_step_size, torch.Generator().manual_seed(0))
    return replace(stored, occupancy=occupancy)


def _psnr(stored: StoredField, scene: Scene) -> float:
    """On the same random pixels of the test views, over white."""
    views, generator = scene.splits["test"], torch.Generator().manual_seed(0)
    which = torch.randint(len(views), (JUDGED_PIXELS,), generator=generator)
    size = torch.tensor([views.cameras.width, views.cameras.height])
    pixels = (torch.rand(JUDGED_PIXELS, 2, generator=generator) * size).long()
    white = torch.ones(JUDGED_PIXELS, 3)
    with torch.no_grad():
        rendered = render_rays(
            stored.field, camera_rays(views.cameras, which, pixels), stored.occupancy, stored.render_step_size,
            white,
        )  # fmt: skip
    error = (rendered.colors.clamp(0, 1) - views.pixels_over(which, pixels, white)).square().mean()
    return float(-10 * torch.log10(error))


def _speedup(kinds: dict[str, Run]) -> float | None:
    """Time of training over the time of the first distilled look that is at least as good as its end."""
    trained = kinds["from photographs"]
    goal = trained["curve"][-1][1]
    curves = (point for kind, run in kinds.items() if kind.startswith("distilled") for point in run["curve"])
    reached = [at for at, psnr in curves if psnr >= goal]
    return trained["core_seconds"] / min(reached) if reached else None
