"""The main job on the bundled scene: a hash grid from photographs, an MLP from the hash grid, both side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.convert import convert_file
from fieldmorph.apps.jobs.evaluate import evaluate_file
from fieldmorph.apps.jobs.train import bundled_scene, open_scene, state_path, train_scene
from fieldmorph.apps.media import Picture, difference, save_mp4, save_png, sheet, to_8bit
from fieldmorph.fields.budget import Budget, now
from fieldmorph.fields.cameras import orbit_like
from fieldmorph.fields.files import check_folder, write_json
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.memory import peak_memory
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.renderable import RenderableField, picture, resize
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import load_field

TRAIN_SHARE = 0.25  # of the budget; the rest converts
SHEET_VIEWS = 4
ORBIT_FRAMES = 48
ORBIT_SIZE = 160
DIFFERENCE_GAIN = 5

Counter = Callable[[int, int], None]


def run_demo(
    output: str | Path,
    budget: Budget,
    *,
    downscale: int = 1,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train, convert, measure and show; `summary.json` of the folder as JSON values.

    A quarter of the budget goes into training. Besides the summary the folder gets both fields (`teacher.fm`,
    `student.fm`), the conversion's receipt, `comparison.png` and the films `teacher.mp4`, `student.mp4` and
    `side_by_side.mp4`.

    Raises:
        SettingError, InputError: before anything is written.
    """
    folder, data, start = Path(output), bundled_scene(), now()
    check_folder(folder, force)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    files = {"teacher": folder / "teacher.fm", "student": folder / "student.fm"}
    try:
        with ProgressLine("train a hash grid", quiet) as progress:
            trained = train_scene(
                data, files["teacher"], budget.part(TRAIN_SHARE), downscale=downscale, force=True,
                on_progress=progress,
            )  # fmt: skip
        with ProgressLine("convert it to an MLP", quiet) as progress:
            converted = convert_file(
                files["teacher"], files["student"], budget.part(1 - TRAIN_SHARE), data=data, downscale=downscale,
                force=True, on_progress=progress, on_picture=progress.measured,
            )  # fmt: skip
    except Interrupted as error:
        raise Interrupted(error.signum, None) from None  # no state is left to go on with
    finally:
        for file in files.values():  # the demo starts anew each time
            state_path(file).unlink(missing_ok=True)
        if made and not any(folder.iterdir()):  # it came to nothing
            folder.rmdir()
    with ProgressLine("measure the hash grid", quiet) as progress:
        measured = evaluate_file(files["teacher"], data, downscale=downscale, on_picture=progress.count)
    with ProgressLine("measure the MLP", quiet) as progress:
        measured_student = evaluate_file(
            files["student"], data, downscale=downscale, teacher=files["teacher"], on_picture=progress.count
        )
    teacher, student = load_field(files["teacher"]), load_field(files["student"])
    views = open_scene(data, "test", downscale=downscale, aabb=teacher.field.box()).splits["test"]
    save_png(folder / "comparison.png", comparison(teacher, student, views))
    with ProgressLine("film", quiet) as progress:
        _save_films(folder, teacher, student, progress.count)
    spent = now() - start
    summary = {
        "output": str(folder),
        "teacher": {"train": trained, "eval": measured},
        "student": {"convert": converted, "eval": measured_student},
        "seconds": spent.seconds,
        "core_seconds": spent.core_seconds,
        "peak_memory_bytes": peak_memory(),
        "files": [
            "comparison.png",
            "side_by_side.mp4",
            "student.fm",
            "student.fm.receipt.html",
            "student.fm.receipt.json",
            "student.mp4",
            "teacher.fm",
            "teacher.mp4",
        ],
    }
    write_json(folder / "summary.json", summary)
    return summary


def comparison(teacher: RenderableField, student: RenderableField, views: Split) -> Picture:
    """A sheet: photograph, teacher, student and their difference for a few views spread over the split."""
    chosen = [round((i + 0.5) * len(views) / SHEET_VIEWS - 0.5) for i in range(SHEET_VIEWS)]
    rows, captions = [], []
    for i in sorted({min(max(c, 0), len(views) - 1) for c in chosen}):
        photograph = views.view_over(i, torch.ones(3))
        taught, learned = (picture(stored, views.cameras[i]) for stored in (teacher, student))
        apart = difference(learned, taught, DIFFERENCE_GAIN)
        rows.append([to_8bit(photograph), to_8bit(taught), to_8bit(learned), apart])
        scores = [f"{capped_psnr(image, photograph):.1f} dB" for image in (taught, learned)]
        to_teacher = f"{capped_psnr(learned, taught):.1f} dB to the teacher"
        captions.append([Path(views.names[i]).stem, *scores, to_teacher])
    return sheet(rows, _titles(teacher, student), captions)


def demo_table(summary: dict[str, Any]) -> str:
    """What `run_demo` returned, for people."""
    head = f"{'':<8} {'field':<9} {'PSNR':>7} {'SSIM':>7} {'to teacher':>11} {'params':>8} {'core-s':>7} {'s/image':>8}"
    lines = [head]
    for role, job in (("teacher", "train"), ("student", "convert")):
        made, measured = summary[role][job], summary[role]["eval"]
        to_teacher = f"{measured['psnr_to_teacher']:.2f}" if "psnr_to_teacher" in measured else ""
        lines.append(
            f"{role:<8} {made['field']:<9} {measured['psnr']:7.2f} {measured['ssim']:7.4f} {to_teacher:>11} "
            f"{made['params']:8} {made['core_seconds']:7.0f} {measured['seconds_per_image']:8.3f}"
        )
    peak = summary["peak_memory_bytes"]
    memory = "" if peak is None else f", {peak / 1e9:.2f} GB at most"
    lines.append(
        f"{summary['seconds']:.0f} s in all{memory}; pictures, films and fields are in {summary['output']}"
    )
    return "\n".join(lines)


def _save_films(folder: Path, teacher: RenderableField, student: RenderableField, on_picture: Counter) -> None:
    cameras = resize(orbit_like(teacher.cameras, teacher.field.box(), ORBIT_FRAMES), ORBIT_SIZE, ORBIT_SIZE)
    frames: dict[str, list[Picture]] = {"teacher": [], "student": [], "side_by_side": []}
    for i, camera in enumerate(cameras):
        pair = [to_8bit(picture(stored, camera)) for stored in (teacher, student)]
        frames["teacher"].append(pair[0])
        frames["student"].append(pair[1])
        frames["side_by_side"].append(sheet([pair], _titles(teacher, student)[1:3]))
        on_picture(i + 1, ORBIT_FRAMES)
    for name, film in frames.items():
        save_mp4(folder / f"{name}.mp4", film)


def _titles(teacher: RenderableField, student: RenderableField) -> list[str]:
    names = [f"{role}: {stored.field.name}" for role, stored in (("teacher", teacher), ("student", student))]
    return ["photograph", *names, f"difference x {DIFFERENCE_GAIN}"]
