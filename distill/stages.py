"""The stages of progressive volume distillation as data (PVD, Fang et al. 2023).

From shallow to deep: features of the first parts, density and color at points, pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fieldmorph.distill.losses import LOSSES
from fieldmorph.distill.samplers import SOLVE, SOURCES
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Spent
from fieldmorph.fields.checks import check_nonnegative
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

# Stages that have no settings of their own, and what decides on them.
SWITCHED = {"start": "--start and --no-start switch it", "images": "--finish sets its part of the budget"}


def change_stages(changes: Mapping[str, Any], stages: tuple[Stage, ...] = PVD_STAGES) -> tuple[Stage, ...]:
    """Return stages with other settings; those that are not named stay as they are.

    Args:
        changes: by the name of the stage and of its setting: `volume.share`, `volume.source`, and the weights of
            losses, `volume.losses.color`. A 0 removes the stage or the loss.
        stages: in order.

    Raises:
        SettingError: an unknown name, a value that its setting does not take, a stage without a loss, or no stage is
            left.
    """
    by_stage: dict[str, dict[str, Any]] = {stage.name: {} for stage in stages if stage.source != SOLVE}
    for key, value in changes.items():
        name, _, setting = key.partition(".")
        if name in SWITCHED:
            raise SettingError(f"stage {name!r} has no settings: {SWITCHED[name]}")
        if name not in by_stage:
            raise known("stage", name, by_stage)
        by_stage[name][setting] = value
    changed = [_changed(stage, by_stage.get(stage.name, {})) for stage in stages]
    if not any(stage.share for stage in changed):
        raise SettingError(f"no stage is left: share is 0 for {', '.join(by_stage)}")
    return tuple(stage for stage in changed if stage.share or stage.source == SOLVE)


def _changed(stage: Stage, changes: Mapping[str, Any]) -> Stage:
    """Return a stage with other settings, `share`, `source` or `losses.NAME`."""
    if not changes:
        return stage
    weights = [f"losses.{name}" for name in LOSSES]
    for key, value in changes.items():
        if key not in ("share", "source", *weights):
            raise known(f"setting of stage {stage.name!r}", key, ["share", "source", *weights])
        if key != "source":
            check_nonnegative(f"{stage.name}.{key}", value)
        elif value not in list(SOURCES):
            raise known("source", str(value), SOURCES)
    # In the order of the table where the stage lacks a loss: sums are the same in whatever order they are given.
    others = {key.partition(".")[2]: changes[key] for key in weights if key in changes}
    losses = {name: weight for name, weight in {**stage.losses, **others}.items() if weight}
    settings = {key: changes[key] for key in ("share", "source") if key in changes}
    made = replace(stage, losses=losses, **settings)
    if made.share:
        if not losses:
            raise SettingError(
                f"stage {stage.name!r} has no loss left; {stage.name}.share 0 removes the stage"
            )
        _check_source(made)
    return made


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
