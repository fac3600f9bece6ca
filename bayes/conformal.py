"""Conformal prediction intervals: half-widths from the residuals of held-out measurements.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): of n held-out residuals, each divided by its standard
deviation, the ceil((n + 1) level)-th smallest covers a new one with at least that probability, whatever the model.
Where whole blocks are held out, coverage is that of a new block: every block has the same weight, and of K blocks the
fraction level (K + 1) / K is covered (Lee, Barber & Willett 2023, "Distribution-free inference with hierarchical
data").
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.errors import SettingError

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
ROUNDING = 1e-9  # tolerance of sums of weights


@dataclass(frozen=True)
class Intervals:
    """Half-widths of central intervals, in standard deviations of a new measurement; Gaussian without levels.

    Attributes:
        levels: probabilities that a new measurement is covered, ascending.
        factors: half-widths of these intervals.
        guaranteed: highest level for which enough rows or blocks were held out. Factors of higher levels are that of
            the largest residual, or the Gaussian's if larger, and may be too small.
    """

    levels: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()
    guaranteed: float = 0.0

    def factor(self, level: float) -> float:
        """Return the half-width of an interval of this level; between the levels it is linear in the Gaussian's.

        Raises:
            SettingError: a level outside [0, 1).
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


def calibrate_intervals(
    scores: Float[Tensor, "n"], blocks: Int[Tensor, "n"] | None = None, levels: tuple[float, ...] = LEVELS
) -> Intervals:
    """Return intervals from the absolute residuals of held-out rows, divided by their standard deviations.

    Args:
        scores: these residuals.
        blocks: label of the block that each row was held out with; by default every row is a block.
        levels: of the intervals, ascending.

    Raises:
        SettingError: there are no rows.
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
    """Return the half-width of a Gaussian's central interval, in standard deviations."""
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
