"""Settings of a conversion."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fieldmorph.distill.levels import LEVELS, check_levels
from fieldmorph.distill.stages import PVD_STAGES, Stage
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.checks import check_nonnegative, check_positive, check_whole
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.loop import LoopConfig
from fieldmorph.fields.settings import SINCE_0_2

# Settings of learning rates and samples, which a user may change one by one, and how each is checked.
LEARNING: dict[str, Callable[[str, Any], None]] = {
    "lr_share": check_positive,
    "lr_grid": check_positive,
    "lr_network": check_positive,
    "lr_decay": check_positive,
    "lr_final": check_nonnegative,
    "warmup_steps": check_whole,
    "finish_lr_share": check_positive,
    "samples_per_step": check_whole,
    "empty_share": check_nonnegative,
}


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of a conversion.

    Attributes:
        stages: in order; those that do not suit the pair are dropped.
        start: whether a closed form begins, where the student has one; None: where that helps.
        active: levels of active learning: `pose`, `ray`, `point`.
        samples_per_step: samples of a step; None takes the student's own.
        empty_share: points from anywhere in the box, as a fraction of the samples of a step and in addition to them.
        lr_grid, lr_network: learning rates at the start; None takes the student's own.
        lr_share: factor of all learning rates.
        lr_decay: fraction of them that an exponential decay leaves, in addition to a linear decay to zero; None takes
            the student's own.
        fresh: the student is untrained: it takes the teacher's decoder and grows from coarse to fine.
        transplant: whether an untrained student takes the teacher's decoder, where both have the same kind.
        seed: of everything random.
        probe_seed: of the rays on which the quality is evaluated during training; None takes `seed`.
        probe_rays: how many these are, at most the `block_rays` of `sampling`.
        warmup_steps: over which the learning rates rise linearly.
        lr_final: fraction of the learning rates that is left at the very end.
        note_every: steps between two updates of the difficulty of poses, rays and points.
        finish: fraction of the budget in which the student trains on images at the end, where there are some; None
            takes the student's own, or nothing where the budget is too short to distill it first.
        finish_lr_share: factor of the learning rates of that training.
        sampling: how the teacher is sampled.
        loop: evaluations and saving on the way.

    Raises:
        SettingError: an unknown level of active learning, a number that its setting does not take, or more probe rays
            than a block has.
    """

    stages: tuple[Stage, ...] = PVD_STAGES
    start: bool | None = None
    active: tuple[str, ...] = LEVELS
    samples_per_step: int | None = None
    empty_share: float = 0.2
    lr_grid: float | None = None
    lr_network: float | None = None
    lr_share: float = 1.0
    lr_decay: float | None = None
    fresh: bool = True
    seed: int = 0
    probe_seed: int | None = None
    probe_rays: int = field(default=2048, metadata=SINCE_0_2)
    warmup_steps: int = field(default=30, metadata=SINCE_0_2)
    lr_final: float = field(default=0.005, metadata=SINCE_0_2)
    note_every: int = field(default=4, metadata=SINCE_0_2)
    finish: float | None = field(default=None, metadata=SINCE_0_2)
    finish_lr_share: float = field(default=0.4, metadata=SINCE_0_2)
    transplant: bool = field(default=True, metadata=SINCE_0_2)
    sampling: SamplingConfig = field(default_factory=SamplingConfig, metadata=SINCE_0_2)
    loop: LoopConfig = field(default_factory=LoopConfig, metadata=SINCE_0_2)

    def __post_init__(self) -> None:
        check_levels(self.active)
        if self.finish is not None and not 0 <= self.finish < 1:
            raise SettingError(
                f"the fraction of the budget for images is at least 0 and below 1; got {self.finish}"
            )
        for name, check in LEARNING.items():
            if getattr(self, name) is not None:
                check(name, getattr(self, name))
        for name in ("probe_rays", "note_every"):
            check_whole(name, getattr(self, name))
        if self.probe_rays > self.sampling.block_rays:
            raise SettingError(
                f"probe_rays must be at most {self.sampling.block_rays}, the rays of a block; got {self.probe_rays}"
            )

    def for_student(self, student: VolumeField | type[VolumeField]) -> "ConvertConfig":
        """Return these settings with the student's own decay of the learning rates where none is given."""
        return replace(self, lr_decay=self.lr_decay or student.conversion_lr_decay)
