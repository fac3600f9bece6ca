"""The stages of progressive volume distillation as data, and the losses they weigh (PVD, Fang et al. 2023).

From shallow to deep: features of the first parts, density and colour at points, pixels. Losses are means, so that
they mean the same at any batch size, and compare densities as the share of light that one render step stops:
what lies far under or over what a picture can show then has no pull.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.samples import Pixels, TeacherSamples
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.errors import SettingError, known

SEEN = 1e-3  # rendering weight from which a sample's colour is compared


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: for reports.
        share: of the whole budget.
        losses: weight of each loss by its name in `LOSSES`.
        source: where samples come from: `points` or `rays`.
        requires: what the pair must have in common: `decoder`.
    """

    name: str
    share: float
    losses: dict[str, float]
    source: str = "points"
    requires: tuple[str, ...] = ()


PVD_STAGES = (
    Stage("features", 0.1, {"features": 0.1, "density": 1.0}, requires=("decoder",)),
    Stage("volume", 0.5, {"features": 0.05, "density": 1.0, "color": 0.3}),
    Stage("render", 0.4, {"pixel": 1.0, "density": 0.1, "color": 0.03}, source="rays"),
)


@dataclass(frozen=True)
class StudentValues:
    """What the student has at the teacher's samples; `colors` and `opacities` only along rays."""

    sigma: Float[Tensor, "n"]
    features: Float[Tensor, "n features"]
    rgb: Float[Tensor, "n 3"] | None = None
    colors: Float[Tensor, "n_rays 3"] | None = None
    opacities: Float[Tensor, "n_rays"] | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything a loss may look at."""

    teacher: TeacherSamples
    student: StudentValues
    render_step_size: float
    pixels: Pixels | None = None
    background: Float[Tensor, "n_rays 3"] | None = None

    def both_pixels(self) -> tuple[Float[Tensor, "n_rays 3"], Float[Tensor, "n_rays 3"]]:
        """The student's and the teacher's pixels over the background."""
        learned, taught = self.student, self.pixels
        assert learned.colors is not None
        assert learned.opacities is not None
        assert taught is not None
        assert self.background is not None
        return (
            learned.colors + (1 - learned.opacities)[:, None] * self.background,
            taught.colors + (1 - taught.opacities)[:, None] * self.background,
        )


def plan_stages(
    stages: tuple[Stage, ...], teacher: VolumeField, student: VolumeField
) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """The stages that suit this pair, without losses that do not, and why the others were dropped.

    Raises:
        SettingError: nothing is left, or a stage names an unknown loss or source.
    """
    shared = {"decoder"} if same_decoder(teacher, student) else set()
    kept, dropped = [], {}
    for stage in stages:
        for loss in stage.losses:
            if loss not in LOSSES:
                raise known("loss", loss, list(LOSSES))
        if stage.source not in ("points", "rays"):
            raise known("source", stage.source, ["points", "rays"])
        missing = [r for r in stage.requires if r not in shared]
        # Features mean nothing without the decoder that reads them.
        losses = {k: v for k, v in stage.losses.items() if k != "features" or "decoder" in shared}
        if missing or not losses:
            dropped[stage.name] = f"teacher and student do not share: {', '.join(missing) or 'decoder'}"
        else:
            kept.append(replace(stage, losses=losses))
    if not kept:
        raise SettingError(f"no stage suits this pair: {dropped}")
    return tuple(kept), dropped


def same_decoder(teacher: VolumeField, student: VolumeField) -> bool:
    """Whether both have a decoder of one specification, so that it can be transplanted."""
    a, b = teacher.decoder, student.decoder
    return a is not None and b is not None and a.spec == b.spec


def transplant_decoder(teacher: VolumeField, student: VolumeField) -> None:
    """Give the student the teacher's decoder where both have the same kind."""
    if same_decoder(teacher, student) and teacher.decoder is not None and student.decoder is not None:
        student.decoder.load_state_dict(teacher.decoder.state_dict())


def stage_at(stages: tuple[Stage, ...], progress: float) -> Stage:
    """The stage at a share of the budget."""
    total = sum(stage.share for stage in stages)
    start = 0.0
    for stage in stages[:-1]:
        start += stage.share / total
        if progress < start:
            return stage
    return stages[-1]


def density_loss(c: Comparison) -> Tensor:
    """Smooth L1 between the shares of light that one step stops."""
    taught = -torch.expm1(-c.teacher.sigma * c.render_step_size)
    learned = -torch.expm1(-c.student.sigma * c.render_step_size)
    return F.smooth_l1_loss(learned, taught, beta=0.05)


def color_loss(c: Comparison) -> Tensor:
    """L1 between colours of samples that the picture shows."""
    assert c.student.rgb is not None
    seen = (c.teacher.weights > SEEN).float()
    return ((c.student.rgb - c.teacher.rgb).abs().mean(-1) * seen).sum() / seen.sum().clamp(min=1)


def feature_loss(c: Comparison) -> Tensor:
    """L1 between features, in units of the teacher's spread, of samples that the picture shows."""
    assert c.teacher.features is not None
    seen = (c.teacher.weights > SEEN).float()
    spread = c.teacher.features.std(0, correction=0).clamp(min=1e-3)
    error = ((c.student.features - c.teacher.features) / spread).abs().mean(-1)
    return (error * seen).sum() / seen.sum().clamp(min=1)


def pixel_loss(c: Comparison) -> Tensor:
    """Smooth L1 between pixels over the same background."""
    return F.smooth_l1_loss(*c.both_pixels(), beta=0.05)


LOSSES: dict[str, Callable[[Comparison], Tensor]] = {
    "features": feature_loss,
    "density": density_loss,
    "color": color_loss,
    "pixel": pixel_loss,
}
