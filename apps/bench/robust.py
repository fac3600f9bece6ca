"""Convert the hash grid of each of several scenes to an MLP and to VM, and render both with other step sizes too."""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fieldmorph.apps.bench.runner import Bench, Row, distil, failures, markdown, train
from fieldmorph.apps.jobs.inputs import compile_for, open_field
from fieldmorph.apps.jobs.scenes import bundled_scene, digest, open_scene
from fieldmorph.apps.media import DIFFERENCE_GAIN, difference, save_png, sheet, to_8bit
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split
from fieldmorph.fields.scenes.table import READERS

TEACHER, STUDENTS = "hashgrid", ("mlp", "vm")
STEP_FACTORS = {"half_step": 0.5, "twice_step": 2.0}  # of the render step, for teacher and student alike
FIGURES = ("psnr_to_teacher", "worst_to_teacher", "psnr", *STEP_FACTORS, "steps")


@dataclass(frozen=True, kw_only=True)
class RobustBudgets:
    """Core-seconds of every run.

    Attributes:
        teacher, student: of a training and of a conversion.
    """

    teacher: float = 60.0
    student: float = 60.0


def bench_robust(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 1,
    scale: float = 1.0,
    force: bool = False,
    quiet: bool = False,
    budgets: RobustBudgets | None = None,
) -> Row:
    """Train a hash grid on each scene, convert it to every one of `STUDENTS` and return JSON values.

    Next to its figures each scene has an image, `robust_SCENE.png`: a test image, teacher, student and their
    difference. Rows are resumed as `Bench` says.

    Args:
        data: a scene, or a folder of scenes' folders; the bundled scene by default.
        scale: multiplies all budgets.
        budgets: core-seconds of every run at the scale 1.

    Raises:
        SettingError, InputError: before anything is written.
    """
    budgets = budgets or RobustBudgets()
    folders = scene_folders(Path(data or bundled_scene()))
    digests = {folder: _digest(folder, downscale) for folder in folders}
    bench = Bench("robust", output, {"downscale": downscale}, {"quiet": quiet}, force, quiet)
    for folder in folders:
        for seed in range(n_seeds):
            scene: Row = {"data": folder.name, "scene_sha256": digests[folder], "seed": seed}
            _run_scene(bench, folder, scene, scale * budgets.teacher, scale * budgets.student)
        _save_image(bench, folder, downscale)
    result = {
        "scale": scale,
        "seeds": n_seeds,
        "budgets": [scale * budgets.teacher, scale * budgets.student],
        "conversions": summarize(bench.rows),
    }
    return bench.finish(result, robust_table)


def scene_folders(data: Path) -> list[Path]:
    """Return the folder if it is a scene, else those folders in it that are, by name.

    Raises:
        InputError: there is none.
    """
    names = [reader().file_name for reader in READERS.values()]
    inside = sorted(path for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    for folders in ([data], inside):
        if found := [folder for folder in folders if any((folder / name).is_file() for name in names)]:
            return found
    raise InputError(f"{data} is neither a scene nor a folder of scenes: no {' or '.join(names)}")


def convert_and_compare(
    data: str, downscale: int, teacher: str, student: str, output: str, budget: float, seed: int, quiet: bool
) -> Row:
    """Convert a field as a job; return what `distil` does, and PSNR to the teacher at each of `STEP_FACTORS`."""
    row = distil(data, downscale, teacher, student, output, budget, seed, quiet)
    fields = [open_field(path) for path in (teacher, output)]
    for field in fields:
        compile_for(field)
    views = open_scene(data, "test", downscale=downscale, aabb=fields[0].field.box()).splits["test"]
    return {
        **row,
        **{name: psnr_at(fields[0], fields[1], views, factor) for name, factor in STEP_FACTORS.items()},
    }


def psnr_at(teacher: RenderableField, student: RenderableField, views: Split, factor: float) -> float:
    """Return the mean PSNR in dB of student to teacher over the views, both with `factor` times their render step."""
    a, b = (replace(field, render_step_size=factor * field.render_step_size) for field in (teacher, student))
    psnrs = [capped_psnr(b.render(camera)["colors"], a.render(camera)["colors"]) for camera in views.cameras]
    return statistics.fmean(psnrs)


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return for each scene and student with figures the medians of the seeds, the teacher's PSNR among them."""
    good = [row for row in rows if "error" not in row]
    teachers = {(row["data"], row["seed"]): row["psnr"] for row in good if row["kind"] == "teacher"}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in good:
        if row["kind"] == "conversion":
            figures = {name: row[name] for name in FIGURES}
            figures["teacher_psnr"] = teachers[row["data"], row["seed"]]
            groups.setdefault((row["data"], row["student"]), []).append(figures)
    return [
        {
            "data": data,
            "student": student,
            **{name: statistics.median(figures[name] for figures in of_seeds) for name in of_seeds[0]},
        }
        for (data, student), of_seeds in groups.items()
    ]


def robust_table(result: Row) -> str:
    """Format what `bench_robust` returned as a Markdown table."""
    columns = {
        "teacher": "teacher_psnr",
        "student": "psnr",
        "to the teacher": "psnr_to_teacher",
        "worst view": "worst_to_teacher",
        "at half the step": "half_step",
        "at twice the step": "twice_step",
    }
    rows = [
        [
            row["data"],
            row["student"],
            *(f"{row[name]:.2f}" for name in columns.values()),
            f"{row['steps']:.0f}",
        ]
        for row in result["conversions"]
    ]
    seeds = "1 seed" if result["seeds"] == 1 else f"{result['seeds']} seeds (medians)"
    teacher, student = result["budgets"]
    head = (
        f"{seeds}, {result['threads']} threads, all fields small, PSNR in dB on test views, teacher {TEACHER}. "
        f"Core-seconds: {teacher:g} for a teacher, {student:g} for a conversion. At half the step and at twice, "
        "teacher and student are both rendered so."
    )
    table = markdown(["scene", "to", *columns, "steps"], rows)
    return "\n".join([head, "", table, *failures(result)])


def _run_scene(bench: Bench, folder: Path, scene: Row, teacher_budget: float, budget: float) -> None:
    """Run the rows of one scene and seed: a teacher and its conversions."""
    settings = {
        **bench.settings,
        "data": folder,
        "downscale": bench.common["downscale"],
        "seed": scene["seed"],
    }
    stem = f"{folder.name}_{{}}_{scene['seed']}.fm"
    path = bench.fields() / stem.format(TEACHER)
    trained = bench.run(
        {"kind": "teacher", "field": TEACHER, "budget": teacher_budget, **scene},
        train,
        path,
        **settings,
        output=path,
        field=TEACHER,
        budget=teacher_budget,
    )
    for student in STUDENTS:
        what: Row = {"kind": "conversion", "teacher": TEACHER, "student": student, "budget": budget, **scene}
        if "error" in trained:
            bench.fail(what, f"no teacher: {trained['error']}")
            continue
        output = bench.fields() / stem.format(student)
        bench.run(
            {**what, "teacher_sha256": trained["sha256"]},
            convert_and_compare,
            output,
            **settings,
            teacher=path,
            student=student,
            output=output,
            budget=budget,
        )


def _save_image(bench: Bench, folder: Path, downscale: int) -> None:
    """Write the image of one scene, from the fields of the first seed that are there."""
    paths = {name: bench.fields() / f"{folder.name}_{name}_0.fm" for name in (TEACHER, *STUDENTS)}
    if not paths[TEACHER].exists():
        return
    teacher = open_field(paths[TEACHER])
    compile_for(teacher)
    views = open_scene(folder, "test", downscale=downscale, aabb=teacher.field.box()).splits["test"]
    camera, truth = views.cameras[0], views.view_over(0, torch.ones(3))
    expected = teacher.render(camera)["colors"]
    rows, captions = [], []
    for name in STUDENTS:
        if paths[name].exists():
            student = open_field(paths[name])
            compile_for(student)
            image = student.render(camera)["colors"]
            shown = [to_8bit(pixels) for pixels in (truth, expected, image)]
            rows.append([*shown, difference(image, expected)])
            captions.append(
                ["", f"{capped_psnr(expected, truth):.1f} dB", name, f"{capped_psnr(image, expected):.1f} dB"]
            )
    if rows:
        titles = ["test image", "teacher", "student", f"difference x {DIFFERENCE_GAIN:g}"]
        save_png(bench.folder / f"robust_{folder.name}.png", sheet(rows, titles, captions, width=200))


def _digest(folder: Path, downscale: int) -> str:
    scene = open_scene(folder, "train", "test", downscale=downscale)
    parts = [f"{name} {digest(views)}" for name, views in sorted(scene.splits.items())]
    return hashlib.sha256(f"{scene.aabb} {parts}".encode()).hexdigest()
