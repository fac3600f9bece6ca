"""The demo: a hash grid trained on the bundled scene, an MLP distilled from it, and one page that shows both."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.convert import ConversionRun, ConvertResult
from fieldmorph.apps.jobs.demo_page import demo_page
from fieldmorph.apps.jobs.exports.web import export_web
from fieldmorph.apps.jobs.lifecycle import state_path
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.jobs.scenes import bundled_scene
from fieldmorph.apps.jobs.train import TrainResult, train_scene
from fieldmorph.apps.media import DIFFERENCE_GAIN, ByteImage, difference, save_png, sheet, to_8bit
from fieldmorph.distill.fidelity import ExampleView, FidelityConfig
from fieldmorph.fields.budget import Budget, Spent, TooShortError, now
from fieldmorph.fields.checkpoint import write_file
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.files import check_folder, write_json
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.runtime import peak_memory
from fieldmorph.fields.types import JsonObject

TRAIN_FRACTION = 0.22  # of the budget; the rest converts
NEW_POSES_SIDE = 128  # pixels of the receipt's images from poses to the side of the cameras
WEB_RESOLUTION = 144  # cells along the longest side of a field's page
COMPILE, CONVERT, MEASURE = "compile kernels (once)", "convert it to an MLP", "measure both on test images"
FILES = (
    "comparison.png",
    "index.html",
    "student.fm",
    "student.fm.receipt.html",
    "student.fm.receipt.json",
    "student.html",
    "teacher.fm",
    "teacher.html",
)


@dataclass(frozen=True)
class DemoResult:
    """Teacher and student of the demo.

    Attributes:
        output: the folder.
        trained, converted: the runs that made teacher and student.
        receipt: of the conversion; all figures of quality come from it, so that nothing is measured twice.
        parts: wall-clock and CPU time of each part of the demo, by name, in order.
        peak_memory_bytes: of the process; None where the system does not report it.
    """

    output: str
    trained: TrainResult
    converted: ConvertResult
    receipt: JsonObject
    parts: dict[str, Spent]
    peak_memory_bytes: int | None

    @property
    def spent(self) -> Spent:
        """Return the time of all parts together."""
        return sum(self.parts.values(), Spent())

    def quality(self, role: str) -> JsonObject:
        """Return the means over the test images that the receipt compares with, for `teacher` or `student`."""
        held_out = self.receipt["quality"]["held_out"]
        means = {name: held_out["mean"][f"{role}_{name}"] for name in ("psnr", "ssim")}
        if role == "student":
            means |= {name: held_out["mean"][name] for name in ("psnr_to_teacher", "ssim_to_teacher")}
        return {
            **means,
            "views": held_out["views"],
            "image_size": held_out["image_size"],
            "core_seconds_per_image": held_out["core_seconds_per_image"][role],
        }

    def as_json(self) -> JsonObject:
        """Return the values of `--json` and of `summary.json`."""
        return {
            "output": self.output,
            "teacher": {"train": self.trained.as_json(), "eval": self.quality("teacher")},
            "student": {"convert": self.converted.as_json(), "eval": self.quality("student")},
            "core_seconds_by_part": {name: spent.core_seconds for name, spent in self.parts.items()},
            "seconds": self.spent.seconds,
            "core_seconds": self.spent.core_seconds,
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
    web_resolution: int = WEB_RESOLUTION,
) -> DemoResult:
    """Train, convert and render on the bundled scene, and write a page that shows all of it.

    The folder gets `index.html` (everything in one page that opens offline), both fields (`teacher.fm`,
    `student.fm`) and their pages, the conversion's receipt, `comparison.png` and `summary.json`.

    Args:
        budget: of training and conversion together.
        downscale: factor by which the images are shrunk.
        web_resolution: cells along the longest side of the fields' pages.

    Raises:
        SettingError, InputError: before anything is written.
    """
    folder, data = Path(output), bundled_scene()
    check_folder(folder, force)
    parts: dict[str, Spent] = {}
    files = folder / "teacher.fm", folder / "student.fm"
    with _fields_of(folder, files):
        with _part(parts, COMPILE, quiet):
            compile_kernels(FIELDS["hashgrid"], FIELDS["mlp"])
        with (
            _fraction_of(budget, TRAIN_FRACTION) as part,
            _part(parts, "train a hash grid", quiet) as progress,
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
            _part(parts, CONVERT, quiet) as progress,
        ):
            conversion = ConversionRun(
                files[0],
                files[1],
                # At this length training on images gained nothing; small images from new poses cost little.
                ConversionRequest(part, finish=0.0, fidelity=FidelityConfig(longest_side=NEW_POSES_SIDE)),
                data=data,
                downscale=downscale,
                device="auto",
                resume=False,
                force=True,
                on_progress=progress,
                on_image=progress.measured,
                on_expected=progress.expect,
            )
            converted = conversion.run()
        learning = Spent(converted.seconds, converted.core_seconds)
        parts[MEASURE], parts[CONVERT] = parts[CONVERT] - learning, learning
    pages = []
    for file, role in zip(files, ("teacher", "student"), strict=True):
        with _part(parts, f"web page of the {role}", quiet) as progress:
            pages.append(_web_page(file, role, web_resolution, progress))
    save_png(folder / "comparison.png", comparison(conversion.examples, (trained.field, converted.field)))
    receipt = json.loads((folder / "student.fm.receipt.json").read_text(encoding="utf-8"))
    result = DemoResult(str(folder), trained, converted, receipt, parts, peak_memory())
    write_file(
        folder / "index.html",
        demo_page(receipt, conversion.examples, pages, parts, str(folder), str(data)).encode(),
    )
    write_json(folder / "summary.json", result.as_json())
    return result


def comparison(examples: Sequence[ExampleView], fields: tuple[str, str]) -> ByteImage:
    """Draw a sheet of test image, teacher, student and their difference: the typical view and the worst one.

    Args:
        fields: names of the representations of teacher and student.
    """
    titles = (
        "test image",
        f"teacher: {fields[0]}",
        f"student: {fields[1]}",
        f"difference x {DIFFERENCE_GAIN:g}",
    )
    rows, captions = [], []
    for example in examples:
        if example.test_image is None:
            continue
        shown = [example.test_image, example.teacher, example.student]
        rows.append([*map(to_8bit, shown), difference(example.student, example.teacher)])
        psnr = "" if example.psnr is None else f"{example.psnr:.1f} dB to the teacher"
        captions.append([f"{example.rank} view, {Path(example.view).stem}", "", "", psnr])
    return sheet(rows, titles, captions)


def demo_table(result: DemoResult) -> str:
    """Format a demo's result as a table with a row for each field."""
    lines = [
        f"{'':<8} {'field':<9} {'PSNR':>7} {'SSIM':>7} {'to teacher':>11} {'params':>8} {'core-s':>7} "
        f"{'core-s/image':>13}"
    ]
    for role, made in (("teacher", result.trained), ("student", result.converted)):
        measured = result.quality(role)
        to_teacher = f"{measured['psnr_to_teacher']:.2f}" if role == "student" else ""
        lines.append(
            f"{role:<8} {made.field:<9} {measured['psnr']:7.2f} {measured['ssim']:7.4f} {to_teacher:>11} "
            f"{made.params:8} {made.core_seconds:7.0f} {measured['core_seconds_per_image']:13.3f}"
        )
    peak, spent = result.peak_memory_bytes, result.spent
    memory = "" if peak is None else f", {peak / 1e9:.2f} GB at most"
    lines.append(f"{spent.seconds:.0f} s in all ({spent.core_seconds:.0f} core-seconds){memory}")
    lines.append(f"Open {Path(result.output) / 'index.html'} in a browser.")
    return "\n".join(lines)


def _web_page(file: Path, role: str, resolution: int, progress: ProgressLine) -> str:
    """Export a field as a page next to its file, and return the page."""
    page = file.with_suffix(".html")
    export_web(
        file,
        page,
        resolution=resolution,
        name=role.capitalize(),
        force=True,
        on_progress=lambda what, done, total: progress.show(done / total, done, "part", part=what),
    )
    return page.read_text(encoding="utf-8")


@contextmanager
def _part(parts: dict[str, Spent], name: str, quiet: bool) -> Iterator[ProgressLine]:
    """Show the progress of a part of the demo, and add its time to `parts`."""
    start = now()
    with ProgressLine(name, quiet) as progress:
        yield progress
    parts[name] = now() - start


@contextmanager
def _fraction_of(budget: Budget, fraction: float) -> Iterator[Budget]:
    """Yield a part of the budget; the message about one that is too short names the whole."""
    try:
        yield budget.part(fraction)
    except TooShortError as error:
        raise error.of_whole(fraction) from None


@contextmanager
def _fields_of(folder: Path, files: Sequence[Path]) -> Iterator[None]:
    """Make the folder; on the way out leave no state and, where nothing was made, no new folder."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.signum, None) from None  # no state is left to resume from
    finally:
        for file in files:  # the demo starts over each time
            state_path(file).unlink(missing_ok=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
