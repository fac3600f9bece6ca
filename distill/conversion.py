"""Conversion of any field to any other: one loop over the stages, teacher and student on the same samples."""

import importlib.metadata
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from fieldmorph.distill.config import ConvertConfig as ConvertConfig
from fieldmorph.distill.finish import IMAGES, FinishingLearner
from fieldmorph.distill.learner import ConvertLearner
from fieldmorph.distill.stages import StageReport as StageReport
from fieldmorph.distill.stages import plan_stages
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, now
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.loop import LoopReport, run_loop
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.progress import OnProgress, Progress
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.scene import Split
from fieldmorph.fields.settings import saved_settings
from fieldmorph.fields.types import JsonObject

LONG_START = 0.5  # fraction of the budget after which a closed form leaves too little to learn in

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertReport:
    """The report of a conversion.

    Attributes:
        loop: steps, time and evaluations.
        stages: those that ran, in order.
        dropped: why others did not, by name.
        distilled: the student before it was trained on images; None where it was not.
    """

    loop: LoopReport
    stages: tuple[StageReport, ...]
    dropped: dict[str, str]
    distilled: RenderableField | None = None


def convert(
    teacher: RenderableField,
    student: VolumeField,
    budget: Budget,
    config: ConvertConfig | None = None,
    views: Split | None = None,
    *,
    state_path: Path | None = None,
    resume: bool = False,
    settings: JsonObject | None = None,
    on_progress: OnProgress = lambda _: None,
) -> tuple[RenderableField, ConvertReport]:
    """Distill `teacher` into `student`, in place (PVD, Fang et al. 2023); no training images are needed.

    Where both have the same kind of decoder the teacher's is transplanted. Where there are training images, the last
    part of the budget trains the student on them alone.

    Args:
        teacher: from `load_field`, or any function through `callable_teacher`.
        student: a fresh field of the same box, from `make_field`.
        budget: steps or time of the whole conversion.
        config: settings; the defaults of `ConvertConfig` if left out.
        views: training images of the teacher's scene; never those that quality is measured on.
        state_path: file in which the run is saved every few seconds; the caller removes it at the end.
        resume: continue from `state_path` if it exists.
        settings: JSON values that must be the same when the run is resumed.
        on_progress: called after each step.

    Returns:
        The student with an occupancy grid of its own and its provenance, and a report.

    Raises:
        InputError: the teacher is empty.
        SettingError: no stage suits the pair, or the saved run had other settings.
        FruitlessError: the time was too short to do anything, or the run diverged.
        Interrupted: after SIGINT or SIGTERM, the state being saved.
    """
    compile_kernels(teacher.field, student)
    config, started = (config or ConvertConfig()).for_student(student), now()
    stages, dropped = plan_stages(config.stages, teacher.field, student, config.start)
    distilling = ConvertLearner(teacher, student, stages, config)
    fraction = student.finish_fraction if config.finish is None else config.finish
    finishing = FinishingLearner(distilling, views) if views is not None and fraction else None
    learner = finishing or distilling
    everything = {**(settings or {}), **saved_settings(config), "student": student.name, **student.config()}

    def with_stage(progress: Progress) -> None:
        on_progress(replace(progress, activity=learner.activity))

    best, report = run_loop(
        learner,
        budget,
        state_path=state_path,
        resume=resume,
        settings=everything,
        on_progress=with_stage,
        started=started,
        config=replace(config.loop, min_steps=1) if distilling.solves else config.loop,
    )
    looped = now()
    distilled = 1 - ((finishing.fraction or 0.0) if finishing else 0.0)  # part of the budget
    if distilling.solves and (report.steps == 1 or distilling.begun * distilled > LONG_START):
        log.warning("the closed-form start took more than half of the budget; a longer budget is better")
    student.load_state_dict(best["field"])
    student.refine(1.0)
    without_images = None if finishing is None else finishing.distilled
    reports = tuple(distilling.reports.values())
    if finishing is not None and without_images is None:
        dropped = {**dropped, IMAGES: "the budget is too short to distill the student first"}
    elif finishing is not None:
        reports += (finishing.report,)
    provenance = _provenance(teacher, reports, dropped, config.seed, report.steps)
    stored = _with_occupancy(student, teacher, config.seed, provenance)
    report = replace(report, spent=report.spent + (now() - looped))
    if without_images is None:
        return stored, ConvertReport(report, reports, dropped)
    before = _with_occupancy(without_images, teacher, config.seed, {})
    return stored, ConvertReport(report, reports, dropped, before)


def _provenance(
    teacher: RenderableField, reports: tuple[StageReport, ...], dropped: dict[str, str], seed: int, steps: int
) -> JsonObject:
    return {
        "job": "convert",
        "teacher": {"field": teacher.field.name, "provenance": teacher.provenance},
        "stages": [stage.name for stage in reports],
        "dropped": dropped,
        "seed": seed,
        "steps": steps,
        "fieldmorph": importlib.metadata.version("fieldmorph"),
    }


def _with_occupancy(
    student: VolumeField, teacher: RenderableField, seed: int, provenance: JsonObject
) -> RenderableField:
    """Return a student with an occupancy grid of its own."""
    occupancy = OccupancyGrid(teacher.occupancy.resolution)
    occupancy.rebuild(student, teacher.render_step_size, seeded(seed, "occupancy"))
    return RenderableField(student, occupancy, teacher.render_step_size, teacher.cameras, provenance)
