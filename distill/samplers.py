"""Sources of a stage's samples: points by rendering weight, or whole rays.

A source draws indices from a block, compares teacher and student there, and says which rays the indices belong to.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.distill.losses import PointComparison, RayComparison, StudentPixels, StudentValues
from fieldmorph.distill.teacher_samples import Block, Pixels, TeacherSamples
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.kernels.ops import composite

SOLVE = "solve"  # the source of a stage that is one step of a closed form and draws no samples


@runtime_checkable
class Source(Protocol):
    """A line of `SOURCES`: draws indices from a block and compares teacher and student there."""

    @property
    def level(self) -> str:
        """Level of active learning that draws its hardest samples again: `point` or `ray`."""

    @property
    def gives(self) -> frozenset[str]:
        """Needs of losses that it meets; `rgb` is computed where a loss of the stage needs it."""

    def draw(self, block: Block, n_samples: int, generator: torch.Generator) -> Int[Tensor, "n"]:
        """Return indices into the block, of about n_samples samples altogether."""

    def compare(
        self,
        block: Block,
        which: Int[Tensor, "n"],
        student: VolumeField,
        render_step_size: float,
        with_rgb: bool,
        generator: torch.Generator,
    ) -> PointComparison:
        """Return teacher and student at these indices; differentiable in the student's parameters.

        Args:
            block: the teacher's samples.
            which: indices into it, as `draw` returns them.
            student: the field that is trained.
            render_step_size: the teacher's, in world units.
            with_rgb: whether a loss needs the student's color.
            generator: draws backgrounds.
        """

    def rays(self, block: Block, which: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """Return the ray of the block that each index belongs to."""


class PointSource:
    """Points along the block's rays, with probability growing with their rendering weight."""

    level = "point"
    gives = frozenset({"rgb", "decoder"})

    def draw(self, block: Block, n_samples: int, generator: torch.Generator) -> Int[Tensor, "n"]:
        return block.draw_points(n_samples, generator)

    def compare(
        self,
        block: Block,
        which: Int[Tensor, "n"],
        student: VolumeField,
        render_step_size: float,
        with_rgb: bool,
        generator: torch.Generator,
    ) -> PointComparison:
        teacher = block.along[which]
        return PointComparison(teacher, student_values(student, teacher, with_rgb), render_step_size)

    def rays(self, block: Block, which: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        return block.pixels.samples.ray_indices[which]


class RaySource:
    """Random rays of the block with all their samples, over a random background."""

    level = "ray"
    gives = frozenset({"rgb", "decoder", "rays"})

    def draw(self, block: Block, n_samples: int, generator: torch.Generator) -> Int[Tensor, "n"]:
        return block.draw_rays(n_samples, generator)

    def compare(
        self,
        block: Block,
        which: Int[Tensor, "n"],
        student: VolumeField,
        render_step_size: float,
        with_rgb: bool,
        generator: torch.Generator,
    ) -> RayComparison:
        teacher, pixels = block.rays(which)
        background = torch.rand(len(pixels.colors), 3, generator=generator).to(pixels.colors.device)
        return compare_rays(student, teacher, pixels, background, render_step_size)

    def rays(self, block: Block, which: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        return which


SOURCES: dict[str, Source] = {"points": PointSource(), "rays": RaySource()}


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
