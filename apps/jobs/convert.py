"""Conversion from file to file: distil, save, measure, write the receipt."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from fieldmorph.apps.jobs.conversion_images import ConversionImages, open_images
from fieldmorph.apps.jobs.estimate import receipt_seconds
from fieldmorph.apps.jobs.inputs import open_field
from fieldmorph.apps.jobs.lifecycle import SavedRun, check_settings, claim, finish, forget
from fieldmorph.apps.jobs.quality_gate import Gate, Measured, extend
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.jobs.resume import (
    Outcome,
    begun_settings,
    convert_once,
    distilled_path,
    interruptible,
    state_paths,
)
from fieldmorph.apps.jobs.scenes import digest
from fieldmorph.apps.receipt.page import receipt_paths, write_receipt
from fieldmorph.distill.conversion import ConvertConfig, ConvertReport
from fieldmorph.distill.fidelity import EvaluationViews, ExampleView, measure, reference
from fieldmorph.distill.finish import IMAGES
from fieldmorph.distill.pixel_sample import compare_pixels
from fieldmorph.distill.receipt import describe_field, plain, receipt
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.loop import LoopReport
from fieldmorph.fields.progress import OnExpected, OnPart, OnProgress
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.types import JsonObject


@dataclass(frozen=True)
class ConvertResult(SavedRun):
    """A converted field; times and steps are those of all that ran.

    Attributes:
        stages: names of the stages that made the student.
        dropped: why other stages did not run, by name.
        teacher, teacher_sha256: the teacher's file.
        quality: means over the `held_out` and the `off_trajectory` views; None without a receipt.
        gate: the requested quality and whether it is met; None where none was requested.
        images: PSNR `before` and `after` the training on images, as in the receipt; None where there was none.
        receipt: files of the receipt, JSON and page; None without one.
    """

    stages: tuple[str, ...]
    dropped: Mapping[str, str]
    teacher: str
    teacher_sha256: str
    quality: Mapping[str, Mapping[str, float | None]] | None = None
    gate: Gate | None = None
    images: JsonObject | None = None
    receipt: tuple[str, str] | None = None

    def as_json(self) -> JsonObject:
        """Return the values of `--json`: without a receipt nothing of quality is in them."""
        values: JsonObject = plain(self)
        if self.images is None:
            del values["images"]
        if self.receipt is None:
            for name in ("quality", "gate", "receipt"):
                del values[name]
        return values


def convert_file(
    teacher: str | Path,
    output: str | Path,
    request: ConversionRequest,
    *,
    data: str | Path | None = None,
    downscale: int = 1,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
    on_image: OnPart = lambda _whose, _done, _total: None,
    on_expected: OnExpected | None = None,
) -> ConvertResult:
    """Distil the field in a file into a new one, save it and its receipt.

    It has a callback for each kind of progress, which is why its arguments are more than ten.

    Args:
        teacher: file of the teacher.
        output: file to write; the receipt's names begin with it.
        request: settings of the conversion and the student.
        data: scene on whose training images the student is trained at the end, and on whose test images the receipt
            measures; none are needed to convert.
        downscale: factor by which these are shrunk.
        resume, force: continue an interrupted run; overwrite what exists.
        on_progress: called after each step of the optimiser.
        on_image: called after each image that is rendered for the receipt.
        on_expected: called before the training with the seconds that these images take, about, by `teacher` and
            `student`; not where there is no receipt.

    Raises:
        SettingError, InputError: before anything is written; InputError also for a student above `max_bytes`.
        Interrupted: the state is saved.
    """
    run = ConversionRun(
        teacher,
        output,
        request,
        data=data,
        downscale=downscale,
        device=device,
        resume=resume,
        force=force,
        on_progress=on_progress,
        on_image=on_image,
        on_expected=on_expected,
    )
    return run.run()


class ConversionRun:
    """One conversion from file to file: made once everything is checked, then `run` once.

    Arguments, of which there are more than ten, and errors are those of `convert_file`.

    Attributes:
        teacher: the field to distil.
        origin: what the student's provenance says of it.
        overrides: the student's constructor arguments over the preset's.
        images: of the scene, where there are any.
        states: files of an interrupted run, those of the extensions after the conversion's own.
        student: the field that is trained; None before there is one.
        examples: views that the receipt's page shows; none before `run`, or without a receipt.
    """

    def __init__(
        self,
        teacher: str | Path,
        output: str | Path,
        request: ConversionRequest,
        *,
        data: str | Path | None,
        downscale: int,
        device: str,
        resume: bool,
        force: bool,
        on_progress: OnProgress,
        on_image: OnPart,
        on_expected: OnExpected | None,
    ):
        check_settings(request.to, request.preset, request.overrides)
        request.check(has_images=data is not None)
        self.config = request.config().for_student(FIELDS[request.to])
        self.device = choose_device(device)
        self.request, self.output, self.teacher_file = request, output, teacher
        self.on_progress, self.on_image, self.on_expected = on_progress, on_image, on_expected
        if Path(output).resolve() == Path(teacher).resolve():
            raise SettingError(f"the output {output} is the teacher itself; choose another name")
        claim(output, resume, force)
        self.states = state_paths(output, request.extra_parts)
        self.resume = resume and self.states[0].exists()
        for path in receipt_paths(output) if request.receipt else ():
            check_output(path, force=True)
        self.teacher, self.sha256 = _load_teacher(teacher), file_sha256(teacher)
        self.origin = {
            "field": self.teacher.field.name,
            "sha256": self.sha256,
            "provenance": self.teacher.provenance,
        }
        self.overrides = request.student_settings(self.teacher, self.origin)
        check_settings(request.to, request.preset, self.overrides, self.teacher.occupancy.occupied)
        self.student: VolumeField | None = None
        self._evaluation: tuple[EvaluationViews, EvaluationViews] | None = None
        self.examples: list[ExampleView] = []
        begun = begun_settings(self.states[0]) if self.resume else {}
        self.images = ConversionImages()
        if data is not None:
            # A resumed run ends as it began, and one of version 0.1 used no training images.
            train = request.uses_images and (not begun or IMAGES in begun)
            self.images = open_images(data, downscale, teacher, self.teacher, train)
            if request.finish and self.images.training is None:
                raise SettingError(f"--finish: {data} has no training images of the teacher's scene")

    def run(self) -> ConvertResult:
        """Distil, save, and measure where a receipt is requested; return what was made."""
        self.teacher.field.to(self.device)
        if not self.resume:
            self._forget_states()
        with interruptible(self.states[0]):
            student = make_field(
                self.request.to,
                self.request.preset,
                aabb=self.teacher.field.box(),
                seed=self.request.seed,
                **self.overrides,
            )
            student = student.to(self.device)
            if self.request.receipt and self.on_expected is not None:
                self.on_expected(
                    receipt_seconds(self.teacher, student, self.images.test, self.request.fidelity)
                )
            stored, report = self.learn(0, student, self.request.budget, self.config)
            for path in receipt_paths(self.output):
                path.unlink(missing_ok=True)  # of the file that is replaced
            self._saved = self.save(stored, (report,))
            result = self._saved[1]
            self._check_size(result.bytes)
            if self.request.receipt:
                result = self._write_receipt(report)
            self._forget_states()
        return result

    def learn(self, part: int, student: VolumeField, budget: Budget, config: ConvertConfig) -> Outcome:
        """Train a student from its teacher: the conversion itself (part 0) or an extension."""
        self.student = student
        settings: JsonObject = {"teacher_sha256": self.sha256, "steps": self.request.budget.steps}
        if self.images.training is not None:
            settings[IMAGES] = digest(self.images.training)
        if part:  # which student an extension continues depends on the images
            settings["photographs"] = self.images.identity
        return convert_once(
            self.teacher,
            student,
            budget,
            config,
            state=self.states[part],
            resume=self.resume,
            keep=self.request.receipt,
            settings=settings,
            on_progress=self.on_progress,
            views=self.images.training,
        )

    def save(
        self, stored: RenderableField, made_by: Sequence[ConvertReport]
    ) -> tuple[RenderableField, ConvertResult]:
        """Write a student with its provenance.

        Args:
            made_by: reports of the conversion and of the extensions that made it, in order.
        """
        stages = tuple(stage.name for report in made_by for stage in report.stages)
        dropped = made_by[0].dropped
        job = {
            "job": "convert",
            "teacher": self.origin,
            "preset": self.request.preset,
            "stages": list(stages),
            "dropped": dropped,
        }
        report = _total(made_by)
        stored, saved = finish(stored, report, self.output, job, self.request.preset, self.request.seed)
        return stored, ConvertResult(
            **vars(saved),
            stages=stages,
            dropped=dropped,
            teacher=str(self.teacher_file),
            teacher_sha256=self.sha256,
        )

    def assess(self, student: RenderableField) -> tuple[JsonObject, list[ExampleView]]:
        """Measure a student: figures and example views."""
        return measure(self._evaluated(), student, partial(self.on_image, "student"))

    def _evaluated(self) -> tuple[EvaluationViews, EvaluationViews]:
        """Return the views that students are compared on; the teacher's images are rendered once."""
        if self._evaluation is None:
            self._evaluation = reference(
                self.teacher,
                self.images.test,
                partial(self.on_image, "teacher"),
                self.request.fidelity,
            )
        return self._evaluation

    def _write_receipt(self, report: ConvertReport) -> ConvertResult:
        """Measure the student, extend its training where it misses the quality, and write the receipt."""
        limit = self.request.max_psnr_drop
        images = self._gain_of_images(self._saved[0], report)
        first = Measured(self._saved[0], (report,), *self.assess(self._saved[0]))
        extension = extend(
            first,
            self.request.budget,
            self.config,
            limit,
            self.learn,
            self.assess,
            self._save_better,
            self.request.extra_parts,
        )
        stored, result = self._saved
        gate = None if limit is None else extension.gate(limit)
        contents = receipt(
            teacher=describe_field(
                self.teacher, self.teacher_file, Path(self.teacher_file).stat().st_size, self.sha256
            ),
            student=describe_field(stored, self.output, result.bytes, result.sha256, self.request.preset),
            quality={**extension.best.quality, "training_images": images},
            settings=self.config,
            budget=self.request.budget,
            runs=extension.runs,
            seed=self.request.seed,
            test_images=self.images.described(),
            device=self.device,
            gate=None if gate is None else asdict(gate),
        )
        self.examples = extension.best.images
        write_receipt(self.output, contents, self.examples)
        data, page = receipt_paths(self.output)
        return replace(
            result,
            **contents["budget"]["used"],
            quality={name: contents["quality"][name]["mean"] for name in ("held_out", "off_trajectory")},
            gate=gate,
            images=images,
            receipt=(str(data), str(page)),
        )

    def _gain_of_images(self, student: RenderableField, report: ConvertReport) -> JsonObject | None:
        """Return figures of the student before and after it was trained on images; None where it was not."""
        if report.distilled is None:
            return None
        held_out = self._evaluated()[0]
        return {
            "before": compare_pixels(held_out, report.distilled),
            "after": compare_pixels(held_out, student),
        }

    def _save_better(self, student: Measured) -> None:
        self._saved = self.save(student.stored, student.made_by)

    def _check_size(self, n_bytes: int) -> None:
        max_bytes = self.request.max_bytes
        if max_bytes is not None and n_bytes > max_bytes:
            self._forget_states()
            raise InputError(
                f"{self.output} has {n_bytes} bytes, more than the {max_bytes} of --max-bytes; it is kept"
            )

    def _forget_states(self) -> None:
        """Remove all states, the conversion's own last: the others are searched for only where it exists."""
        for path in reversed(self.states):
            forget(path, resume=False)
            forget(distilled_path(path), resume=False)


def _load_teacher(path: str | Path) -> RenderableField:
    """Load the teacher.

    Raises:
        InputError: it is empty, before anything is spent.
    """
    teacher = open_field(path)
    if not teacher.occupancy.occupied.any():
        raise InputError(f"the teacher {path} is empty: none of its cells is occupied")
    return teacher


def _total(made_by: Sequence[ConvertReport]) -> LoopReport:
    """Sum up the reports of conversions that ran one after another."""
    loops = [report.loop for report in made_by]
    spent = sum((loop.spent for loop in loops), Spent())
    return LoopReport(sum(loop.steps for loop in loops), spent, loops[-1].psnr, [])
