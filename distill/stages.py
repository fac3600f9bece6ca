"""The stages of progressive volume distillation as data (PVD, Fang et al. 2023).

From shallow to deep: features of the first parts, density and color at points, pixels.
"""

from dataclasses import dataclass, replace

from fieldmorph.distill.losses import LOSSES
from fieldmorph.distill.samplers import SOLVE, SOURCES
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Spent
from fieldmorph.fields.errors import SettingError, known


@dataclass(frozen=True)
class StageReport:
    """Steps that a stage took and their time, without evaluations of the quality."""

    name: str
    steps: int
    seconds: float
    core_seconds: float

    def plus(self, spent: Spent) -> "StageReport":
        """Return the report after one more step."""
        return StageReport(
            self.name, self.steps + 1, self.seconds + spent.seconds, self.core_seconds + spent.core_seconds
        )


@dataclass(frozen=True)
class Stage:
    """One stage of a conversion: its part of the budget, its samples and its losses.

    Attributes:
        name: for reports.
        share: fraction of the whole budget; in saved states by this name.
        losses: weight of each loss by its name in `LOSSES`.
        source: where samples come from, by its name in `SOURCES`; `solve` is one step of a closed form.
        requires: what the pair must have: `decoder`, of the same kind on both sides; `closed form` for the student.
    """

    name: str
    share: float
    losses: dict[str, float]
    source: str = "points"
    requires: tuple[str, ...] = ()


PVD_STAGES = (
    Stage("start", 0.0, {}, source=SOLVE, requires=("closed form",)),
    Stage("features", 0.1, {"features": 0.1, "density": 1.0}, requires=("decoder",)),
    Stage("volume", 0.5, {"features": 0.05, "density": 1.0, "color": 0.3}),
    Stage("render", 0.4, {"pixel": 1.0, "density": 0.1, "color": 0.03}, source="rays"),
)


def plan_stages(
    stages: tuple[Stage, ...], teacher: VolumeField, student: VolumeField, start: bool | None = None
) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """Return the stages that suit this pair, without losses that do not, and why the others were dropped.

    Args:
        stages: those of the settings, in order.
        teacher, student: the pair.
        start: whether to begin with the student's closed form, if it has one; None: where that helps.

    Raises:
        SettingError: nothing is left, or a stage names an unknown loss or source, or a loss needs what its source
            does not give.
    """
    lacking = (
        {}
        if same_decoder(teacher, student)
        else {"decoder": "teacher and student have no decoder of one kind"}
    )
    if no_start := _why_no_start(student, start):
        lacking["closed form"] = no_start
    kept, dropped = [], {}
    for stage in stages:
        for loss in stage.losses:
            if loss not in LOSSES:
                raise known("loss", loss, list(LOSSES))
        _check_source(stage)
        missing = [r for r in stage.requires if r in lacking]
        losses = {k: v for k, v in stage.losses.items() if not LOSSES[k].needs & set(lacking)}
        if missing or (stage.losses and not losses):
            dropped[stage.name] = "; ".join(lacking[r] for r in missing or ["decoder"])
        else:
            kept.append(replace(stage, losses=losses))
    if not any(stage.share for stage in kept):
        raise SettingError(f"no stage suits this pair: {dropped}")
    return tuple(kept), dropped


def _check_source(stage: Stage) -> None:
    """Check that the source exists and gives what the losses need."""
    if stage.source == SOLVE:
        return
    if stage.source not in SOURCES:
        raise known("source", stage.source, [*SOURCES, SOLVE])
    for loss in stage.losses:
        if missing := LOSSES[loss].needs - SOURCES[stage.source].gives:
            raise SettingError(
                f"loss {loss!r} of stage {stage.name!r} needs {', '.join(sorted(missing))}, which source "
                f"{stage.source!r} does not give"
            )


def _why_no_start(student: VolumeField, wanted: bool | None) -> str | None:
    if student.name not in STARTS:
        return "this student has no closed form"
    if wanted is None:
        return None if STARTS[student.name].helps else "disabled by default for this student"
    return None if wanted else "disabled by --no-start"


def same_decoder(teacher: VolumeField, student: VolumeField) -> bool:
    """Return whether both have a decoder of one specification, so that it can be transplanted."""
    a, b = teacher.decoder, student.decoder
    return a is not None and b is not None and a.spec == b.spec


def transplant_decoder(teacher: VolumeField, student: VolumeField) -> None:
    """Copy the teacher's decoder to the student where both have the same kind."""
    if same_decoder(teacher, student) and teacher.decoder is not None and student.decoder is not None:
        student.decoder.load_state_dict(teacher.decoder.state_dict())


def stage_at(stages: tuple[Stage, ...], progress: float) -> Stage:
    """Return the stage at a fraction of the budget; a stage of no length is the first step's alone.

    Args:
        stages: at least one; their parts of the budget are scaled to fill it.
        progress: fraction of the budget that is used, in [0, 1].
    """
    total = sum(stage.share for stage in stages)
    start = 0.0
    for stage in stages[:-1]:
        start += stage.share / total
        if progress < start:
            return stage
    return stages[-1]
