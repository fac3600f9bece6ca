"""The losses that compare teacher and student at the same samples.

Losses are means, so that they mean the same at any batch size, and compare densities as the fraction of light that one
render step stops: a density far below or above what an image can show then contributes no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.comparison import MIN_WEIGHT, PointComparison, RayComparison

EMPTY_ALPHA = 0.002  # alpha up to which a step is empty space: low densities add up along a ray


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
