"""What teacher and student have at the same samples, and the losses that compare it.

Losses are means, so that they mean the same at any batch size, and compare densities as the share of light that one
render step stops: what lies far under or over what a picture can show then has no pull.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.teacher_samples import Pixels, TeacherSamples

SEEN = 1e-3  # rendering weight from which a sample's colour is compared
FOG = 0.002  # share of light that counts in full in empty space: thin fog adds up along a ray


def stopped(sigma: Float[Tensor, "n"], step_size: float) -> Float[Tensor, "n"]:
    """The share of light, in [0, 1], that a step of this length stops at densities per world unit."""
    return -torch.expm1(-sigma * step_size)


@dataclass(frozen=True)
class StudentValues:
    """What the student has at the teacher's samples; `colors`, `opacities` and `weights` only along rays."""

    sigma: Float[Tensor, "n"]
    features: Float[Tensor, "n features"]
    rgb: Float[Tensor, "n 3"] | None = None
    colors: Float[Tensor, "n_rays 3"] | None = None
    opacities: Float[Tensor, "n_rays"] | None = None
    weights: Float[Tensor, "n"] | None = None

    def at_samples(self, mask: Bool[Tensor, "n"]) -> "StudentValues":
        """The same pixels with some of the samples."""
        rgb = None if self.rgb is None else self.rgb[mask]
        weights = None if self.weights is None else self.weights[mask]
        return replace(self, sigma=self.sigma[mask], features=self.features[mask], rgb=rgb, weights=weights)


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

    def both_stopped(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """The shares of light that one render step stops in the student and in the teacher."""
        return stopped(self.student.sigma, self.render_step_size), stopped(
            self.teacher.sigma, self.render_step_size
        )

    def at_samples(self, mask: Bool[Tensor, "n"]) -> "Comparison":
        """The same pixels, and of the samples those where mask is true."""
        return replace(self, teacher=self.teacher[mask], student=self.student.at_samples(mask))


def density_loss(c: Comparison) -> Tensor:
    """Smooth L1 between the shares of light that one step stops."""
    return F.smooth_l1_loss(*c.both_stopped(), beta=0.05)


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


def empty_space_loss(learned: Float[Tensor, "n"], taught: Float[Tensor, "n"]) -> Tensor:
    """Of shares of light at points anywhere: the thinnest fog counts where there is none, elsewhere squares do.

    Counted alike, the few points at surfaces would be noise beside what rays teach there: up to a decibel.
    """
    fog = F.smooth_l1_loss(learned, taught, beta=FOG, reduction="none")
    return torch.where(taught < FOG, fog, (learned - taught).square()).mean()


LOSSES: dict[str, Callable[[Comparison], Tensor]] = {
    "features": feature_loss,
    "density": density_loss,
    "color": color_loss,
    "pixel": pixel_loss,
}


@torch.no_grad()
def point_errors(c: Comparison) -> Float[Tensor, "n"]:
    """How wrong the student is at each sample: share of light that a step stops, and colour where it is seen."""
    learned, taught = c.both_stopped()
    errors = (learned - taught).abs()
    if c.student.rgb is None:
        return errors
    return errors + (c.student.rgb - c.teacher.rgb).abs().mean(-1) * (c.teacher.weights > SEEN)


@torch.no_grad()
def ray_errors(c: Comparison) -> Float[Tensor, "n_rays"]:
    """How wrong the student's pixels are."""
    learned, taught = c.both_pixels()
    return (learned - taught).abs().mean(-1)
