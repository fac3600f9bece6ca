"""The demo: a hash grid trained on the bundled scene, an MLP distilled from it, and both compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.convert import ConvertResult, convert_file
from fieldmorph.apps.jobs.evaluate import EvalResult, evaluate_file
from fieldmorph.apps.jobs.lifecycle import state_path
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.jobs.scenes import bundled_scene, open_scene
from fieldmorph.apps.jobs.train import TrainResult, train_scene
from fieldmorph.apps.media import DIFFERENCE_GAIN, ByteImage, difference, save_png, save_video, sheet, to_8bit
from fieldmorph.fields.budget import Budget, TooShortError, now
from fieldmorph.fields.cameras import Cameras, orbit_like, resize
from fieldmorph.fields.files import check_folder, write_json
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.progress import OnCount
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import peak_memory
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import load_field
from fieldmorph.fields.types import JsonObject

TRAIN_FRACTION = 0.25  # of the budget; the rest converts
SHEET_VIEWS = 4
FILES = (
    "comparison.png",
    "side_by_side.mp4",
    "student.fm",
    "student.fm.receipt.html",
    "student.fm.receipt.json",
    "student.mp4",
    "teacher.fm",
    "teacher.mp4",
)


@dataclass(frozen=True)
class DemoResult:
    """Teacher and student of the demo.

    Attributes:
        output: the folder.
        trained, converted: the runs that made teacher and student.
        teacher, student: their figures on the test images.
        seconds, core_seconds: wall-clock and CPU time of all.
        peak_memory_bytes: of the process; None where the system does not report it.
    """

    output: str
    trained: TrainResult
    teacher: EvalResult
    converted: ConvertResult
    student: EvalResult
    seconds: float
    core_seconds: float
    peak_memory_bytes: int | None

    def as_json(self) -> JsonObject:
        """Return the values of `--json` and of `summary.json`."""
        return {
            "output": self.output,
            "teacher": {"train": self.trained.as_json(), "eval": self.teacher.as_json()},
            "student": {"convert": self.converted.as_json(), "eval": self.student.as_json()},
            "seconds": self.seconds,
            "core_seconds": self.core_seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "files": list(FILES),
        }


def run_demo(
    output: str | Path,
    budget: Budget,
    *,
    downscale: int = 1,
    force: bool = False,
    quiet: bool = False,
    orbit_frames: int = 48,
    orbit_size: int = 160,
) -> DemoResult:
    """Train, convert, evaluate and render on the bundled scene.

    A quarter of the budget trains. The folder gets both fields (`teacher.fm`, `student.fm`), the conversion's receipt,
    `comparison.png`, the videos `teacher.mp4`, `student.mp4` and `side_by_side.mp4`, and `summary.json`.

    Args:
        budget: of training and conversion together.
        downscale: factor by which the images are shrunk.
        orbit_frames, orbit_size: of the videos: number, and side in pixels.

    Raises:
        SettingError, InputError: before anything is written.
    """
    folder, data, start = Path(output), bundled_scene(), now()
    check_folder(folder, force)
    files = folder / "teacher.fm", folder / "student.fm"
    trained, converted = _make_fields(files, data, budget, downscale, quiet)
    with ProgressLine("evaluate the hash grid", quiet) as progress:
        teacher_eval = evaluate_file(files[0], data, downscale=downscale, on_image=progress.count)
    with ProgressLine("evaluate the MLP", quiet) as progress:
        student_eval = evaluate_file(
            files[1], data, downscale=downscale, teacher=files[0], on_image=progress.count
        )
    teacher, student = map(load_field, files)
    views = open_scene(data, "test", downscale=downscale, aabb=teacher.field.box()).splits["test"]
    save_png(folder / "comparison.png", comparison(teacher, student, views))
    with ProgressLine("render videos", quiet) as progress:
        orbit = orbit_like(teacher.cameras, teacher.field.box(), orbit_frames)
        _save_videos(folder, teacher, student, resize(orbit, orbit_size, orbit_size), progress.count)
    spent = now() - start
    result = DemoResult(
        output=str(folder),
        trained=trained,
        teacher=teacher_eval,
        converted=converted,
        student=student_eval,
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
        peak_memory_bytes=peak_memory(),
    )
    write_json(folder / "summary.json", result.as_json())
    return result


def comparison(teacher: RenderableField, student: RenderableField, views: Split) -> ByteImage:
    """Draw a sheet of test image, teacher, student and their difference for a few views spread over the split."""
    chosen = [round((i + 0.5) * len(views) / SHEET_VIEWS - 0.5) for i in range(SHEET_VIEWS)]
    rows, captions = [], []
    for i in sorted({min(max(c, 0), len(views) - 1) for c in chosen}):
        truth = views.view_over(i, torch.ones(3))
        by_teacher, by_student = (stored.render(views.cameras[i])["colors"] for stored in (teacher, student))
        apart = difference(by_student, by_teacher)
        rows.append([to_8bit(truth), to_8bit(by_teacher), to_8bit(by_student), apart])
        scores = [f"{capped_psnr(image, truth):.1f} dB" for image in (by_teacher, by_student)]
        to_teacher = f"{capped_psnr(by_student, by_teacher):.1f} dB to the teacher"
        captions.append([Path(views.names[i]).stem, *scores, to_teacher])
    return sheet(rows, _titles(teacher, student), captions)


def demo_table(result: DemoResult) -> str:
    """Format a demo's result as a table with a row for each field."""
    lines = [
        f"{'':<8} {'field':<9} {'PSNR':>7} {'SSIM':>7} {'to teacher':>11} {'params':>8} {'core-s':>7} {'s/image':>8}"
    ]
    for role, made, measured in (
        ("teacher", result.trained, result.teacher.evaluation),
        ("student", result.converted, result.student.evaluation),
    ):
        psnr = measured.psnr_to_teacher
        to_teacher = "" if psnr is None else f"{psnr:.2f}"
        lines.append(
            f"{role:<8} {made.field:<9} {measured.psnr:7.2f} {measured.ssim:7.4f} {to_teacher:>11} "
            f"{made.params:8} {made.core_seconds:7.0f} {measured.seconds_per_image:8.3f}"
        )
    peak = result.peak_memory_bytes
    memory = "" if peak is None else f", {peak / 1e9:.2f} GB at most"
    lines.append(f"{result.seconds:.0f} s in all{memory}; images, videos and fields are in {result.output}")
    return "\n".join(lines)


def _make_fields(
    files: tuple[Path, Path], data: Path, budget: Budget, downscale: int, quiet: bool
) -> tuple[TrainResult, ConvertResult]:
    """Make teacher and student; leave no state and, where nothing was made, no new folder."""
    folder = files[0].parent
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            _fraction_of(budget, TRAIN_FRACTION) as part,
            ProgressLine("train a hash grid", quiet) as progress,
        ):
            trained = train_scene(
                data,
                files[0],
                part,
                downscale=downscale,
                force=True,
                on_progress=progress,
            )
        with (
            _fraction_of(budget, 1 - TRAIN_FRACTION) as part,
            ProgressLine("convert it to an MLP", quiet) as progress,
        ):
            converted = convert_file(
                files[0],
                files[1],
                ConversionRequest(part),
                data=data,
                downscale=downscale,
                force=True,
                on_progress=progress,
                on_image=progress.measured,
                on_expected=progress.expect,
            )
    except Interrupted as error:
        raise Interrupted(error.signum, None) from None  # no state is left to resume from
    finally:
        for file in files:  # the demo starts over each time
            state_path(file).unlink(missing_ok=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
    return trained, converted


@contextmanager
def _fraction_of(budget: Budget, fraction: float) -> Iterator[Budget]:
    """Yield a part of the budget; the message about one that is too short names the whole."""
    try:
        yield budget.part(fraction)
    except TooShortError as error:
        raise error.of_whole(fraction) from None


def _save_videos(
    folder: Path,
    teacher: RenderableField,
    student: RenderableField,
    cameras: Cameras,
    on_image: OnCount,
) -> None:
    frames: dict[str, list[ByteImage]] = {"teacher": [], "student": [], "side_by_side": []}
    for i, camera in enumerate(cameras):
        pair = [to_8bit(stored.render(camera)["colors"]) for stored in (teacher, student)]
        frames["teacher"].append(pair[0])
        frames["student"].append(pair[1])
        frames["side_by_side"].append(sheet([pair], _titles(teacher, student)[1:3]))
        on_image(i + 1, len(cameras))
    for name, video in frames.items():
        save_video(folder / f"{name}.mp4", video)


def _titles(teacher: RenderableField, student: RenderableField) -> list[str]:
    names = [f"{role}: {stored.field.name}" for role, stored in (("teacher", teacher), ("student", student))]
    return ["test image", *names, f"difference x {DIFFERENCE_GAIN:g}"]
