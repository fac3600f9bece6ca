"""Teacher and student at the same samples: what the losses of a conversion compare."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fieldmorph.distill.active import salient_samples
from fieldmorph.distill.teacher_samples import Pixels, TeacherSamples
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.kernels.ops import composite

MIN_WEIGHT = 1e-3  # rendering weight above which a sample's color and features are compared


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


def compare_rays(
    student: VolumeField,
    teacher: TeacherSamples,
    pixels: Pixels,
    background: Float[Tensor, "n_rays 3"],
    render_step_size: float,
) -> RayComparison:
    """Return teacher and student along rays, the student composited from the teacher's samples.

    Args:
        student: the field that is trained.
        teacher, pixels: as `Block.rays` returns them.
        background: sRGB behind each ray.
        render_step_size: the teacher's, in world units.
    """
    values = student_values(student, teacher, with_rgb=True)
    assert values.rgb is not None
    s = pixels.samples
    weights, colors, opacities, _ = composite(values.sigma, values.rgb, s.t_starts, s.t_ends, s.offsets)
    return RayComparison(
        teacher, values, render_step_size, pixels, StudentPixels(colors, opacities, weights), background
    )


def student_values(student: VolumeField, at: TeacherSamples, with_rgb: bool) -> StudentValues:
    """Return the student at the teacher's samples; its color is left out unless `with_rgb`."""
    log_sigma, features = student.geometry(at.positions)
    sigma = student.density(log_sigma, at.positions)
    rgb = student.radiance(features, at.positions, at.directions) if with_rgb else None
    return StudentValues(sigma, features, rgb)
