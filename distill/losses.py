"""Teacher and student at the same samples, and the losses that compare them.

Losses are means, so that they mean the same at any batch size, and compare densities as the fraction of light that one
render step stops: a density far below or above what an image can show then contributes no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.active import salient_samples
from fieldmorph.distill.teacher_samples import Pixels, TeacherSamples
from fieldmorph.fields.kernels.composite import alpha_from_density

MIN_WEIGHT = 1e-3  # rendering weight above which a sample's color and features are compared
EMPTY_ALPHA = 0.002  # alpha up to which a step is empty space: low densities add up along a ray


@dataclass(frozen=True)
class StudentValues:
    """The student at the teacher's samples: density per world unit, features, and color where a loss needs it."""

    sigma: Float[Tensor, "n"]
    features: Float[Tensor, "n features"]
    rgb: Float[Tensor, "n 3"] | None = None

    def __getitem__(self, index: Tensor) -> "StudentValues":
        rgb = None if self.rgb is None else self.rgb[index]
        return StudentValues(self.sigma[index], self.features[index], rgb)


@dataclass(frozen=True)
class StudentPixels:
    """The student's rays: color over black and opacity, and the rendering weights of their samples."""

    colors: Float[Tensor, "n_rays 3"]
    opacities: Float[Tensor, "n_rays"]
    weights: Float[Tensor, "n"]


@dataclass(frozen=True)
class PointComparison:
    """Teacher and student at the same points."""

    teacher: TeacherSamples
    student: StudentValues
    render_step_size: float

    def alphas(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Return the fractions of light that one render step stops in the student and in the teacher."""
        step = self.render_step_size
        return alpha_from_density(self.student.sigma, step), alpha_from_density(self.teacher.sigma, step)

    @torch.no_grad()
    def errors(self) -> Float[Tensor, "..."]:
        """Return the student's error at each sample: in alpha and, where it is compared and visible, in color."""
        student, teacher = self.alphas()
        errors = (student - teacher).abs()
        if self.student.rgb is None:
            return errors
        seen = self.teacher.weights > MIN_WEIGHT
        return errors + (self.student.rgb - self.teacher.rgb).abs().mean(-1) * seen

    def salient(self) -> "PointComparison":
        """Return the comparison at the samples that matter most; points were drawn by that already."""
        return self


@dataclass(frozen=True)
class RayComparison(PointComparison):
    """Teacher and student at the same samples along rays, and the pixels of these rays."""

    teacher_pixels: Pixels
    student_pixels: StudentPixels
    background: Float[Tensor, "n_rays 3"]

    def pixels(self) -> tuple[Float[Tensor, "n_rays 3"], Float[Tensor, "n_rays 3"]]:
        """Return the student's and the teacher's pixels over the background."""
        student, teacher = self.student_pixels, self.teacher_pixels
        return (
            student.colors + (1 - student.opacities)[:, None] * self.background,
            teacher.colors + (1 - teacher.opacities)[:, None] * self.background,
        )

    @torch.no_grad()
    def errors(self) -> Float[Tensor, "..."]:
        """Return the mean absolute error of the student's pixels, one number per ray."""
        student, teacher = self.pixels()
        return (student - teacher).abs().mean(-1)

    def salient(self) -> "RayComparison":
        """Return the same pixels, and the samples that matter to the teacher's or to the student's image."""
        rays, own = self.teacher_pixels.samples.ray_indices, self.student_pixels
        teacher = salient_samples(self.teacher.weights, self.teacher_pixels.opacities, rays)
        return self.at_samples(teacher | salient_samples(own.weights.detach(), own.opacities.detach(), rays))

    def at_samples(self, mask: Bool[Tensor, "n"]) -> "RayComparison":
        """Return the same pixels, and the samples where mask is true."""
        pixels = replace(self.student_pixels, weights=self.student_pixels.weights[mask])
        return replace(self, teacher=self.teacher[mask], student=self.student[mask], student_pixels=pixels)


@dataclass(frozen=True)
class Loss:
    """A line of `LOSSES`: a function of a comparison and what it needs.

    Attributes:
        function: of a `PointComparison`, or of a `RayComparison` where it needs `rays`; a scalar.
        needs: `rgb`, the student's colors; `decoder`, of the same kind on both sides; `rays`, the pixels.
    """

    function: Callable[..., Tensor]
    needs: frozenset[str] = frozenset()

    def __call__(self, comparison: PointComparison) -> Tensor:
        return self.function(comparison)


def density_loss(c: PointComparison) -> Tensor:
    """Return the smooth L1 between the fractions of light that one step stops."""
    return F.smooth_l1_loss(*c.alphas(), beta=0.05)


def color_loss(c: PointComparison) -> Tensor:
    """Return the L1 between colors of samples that the image shows."""
    seen = (c.teacher.weights > MIN_WEIGHT).float()
    rgb = _given(c.student.rgb, "rgb")
    return ((rgb - c.teacher.rgb).abs().mean(-1) * seen).sum() / seen.sum().clamp(min=1)


def feature_loss(c: PointComparison) -> Tensor:
    """Return the L1 between features, in units of the teacher's spread, of samples that the image shows."""
    features = _given(c.teacher.features, "decoder")
    seen = (c.teacher.weights > MIN_WEIGHT).float()
    spread = features.std(0, correction=0).clamp(min=1e-3)
    error = ((c.student.features - features) / spread).abs().mean(-1)
    return (error * seen).sum() / seen.sum().clamp(min=1)


def pixel_loss(c: RayComparison) -> Tensor:
    """Return the smooth L1 between pixels over the same background."""
    return F.smooth_l1_loss(*c.pixels(), beta=0.05)


def empty_space_loss(student: Float[Tensor, "n"], teacher: Float[Tensor, "n"]) -> Tensor:
    """Return the smooth L1 on alpha where the teacher is empty, the squared error elsewhere.

    With one loss for both, the few points at surfaces would add noise to what is learned along rays: up to a decibel.

    Args:
        student, teacher: alphas of one render step at points anywhere in the box.
    """
    in_empty_space = F.smooth_l1_loss(student, teacher, beta=EMPTY_ALPHA, reduction="none")
    return torch.where(teacher < EMPTY_ALPHA, in_empty_space, (student - teacher).square()).mean()


LOSSES: dict[str, Loss] = {
    "features": Loss(feature_loss, needs=frozenset({"decoder"})),
    "density": Loss(density_loss),
    "color": Loss(color_loss, needs=frozenset({"rgb"})),
    "pixel": Loss(pixel_loss, needs=frozenset({"rays"})),
}


def _given(value: Tensor | None, need: str) -> Tensor:
    if value is None:
        raise ValueError(f"a loss uses what it does not declare: {need!r} is missing from its needs")
    return value
