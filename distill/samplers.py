"""Sources of a stage's samples: points by rendering weight, or whole rays.

A source draws indices from a block, compares teacher and student there, and says which rays the indices belong to.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from fieldmorph.distill.comparison import PointComparison, RayComparison, compare_rays, student_values
from fieldmorph.distill.teacher_samples import Block
from fieldmorph.fields.base import VolumeField

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
