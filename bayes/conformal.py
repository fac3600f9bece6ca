"""Prediction intervals that keep their word: half-widths learned from measurements that a model has not seen.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): of n held-out residuals, each divided by its standard
deviation, the ceil((n + 1) level)-th smallest covers a new one with at least that probability, whatever the model.
Where whole blocks are held out, a new block is what counts: every block weighs the same, and of K blocks the share
level (K + 1) / K is covered (Lee, Barber & Willett 2023, "Distribution-free inference with hierarchical data").
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.errors import SettingError

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
ROUNDING = 1e-9  # of sums of weights


@dataclass(frozen=True)
class Intervals:
    """Half-widths of central intervals, in standard deviations of a new measurement; Gaussian without any levels.

    Attributes:
        levels: shares of new measurements that are covered, ascending.
        factors: half-widths of these.
        guaranteed: the highest level for which enough was held out. Above it factors are those of the largest
            residual, or the Gaussian's if larger, and may be too small.
    """

    levels: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()
    guaranteed: float = 0.0

    def factor(self, level: float) -> float:
        """The half-width that covers this share; between the levels it is linear in the Gaussian's.

        Raises:
            SettingError: a level that does not lie in [0, 1).
        """
        if not 0 <= level < 1:
            raise SettingError(f"an interval's level must lie in [0, 1); got {level!r}")
        z = _gaussian(level)
        if not self.levels:
            return z
        known = [0.0, *map(_gaussian, self.levels)]
        if z > known[-1]:
            return z * self.factors[-1] / known[-1]
        return float(np.interp(z, known, [0.0, *self.factors]))


GAUSSIAN = Intervals()


def conformal(
    scores: Float[Tensor, "n"], blocks: Int[Tensor, "n"] | None = None, levels: tuple[float, ...] = LEVELS
) -> Intervals:
    """Intervals from the absolute residuals of held-out rows, divided by their standard deviations.

    Args:
        blocks: labels of what was held out as a whole; by default every row by itself.

    Raises:
        SettingError: not one row.
    """
    if not len(scores):
        raise SettingError("intervals cannot be calibrated: no rows are held out")
    blocks = torch.arange(len(scores)) if blocks is None else blocks
    _, block, sizes = blocks.unique(return_inverse=True, return_counts=True)
    n = len(sizes)
    ascending, order = scores.double().sort()
    covered = (1 / sizes[block][order].double()).cumsum(0) / (n + 1)
    guaranteed, factors = n / (n + 1), []
    for level in levels:
        enough = level <= guaranteed + ROUNDING
        rank = min(int((covered < level - ROUNDING).sum()), len(scores) - 1)
        factors.append(max(float(ascending[rank]), 0.0 if enough else _gaussian(level)))
    return Intervals(tuple(levels), tuple(factors), guaranteed)


def _gaussian(level: float) -> float:
    """Standard deviations to either side of the mean that hold this share of a Gaussian."""
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
