"""Student-t noise as a scale mixture of Gaussians, which makes a fit robust to outliers.

Row n has the noise precision tau w_n with w_n ~ Gamma(nu / 2, nu / 2), whose posterior is a Gamma distribution again
(Bishop 2006, section 2.3.7).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import gammainccinv, gammaincinv
from torch import Tensor

from fieldmorph.bayes.entries import Entries

MIN_DEGREES = 2.0  # up to which the noise has no finite variance
NODES = 64  # of the integral over scales
MIXTURES = 513  # of a Gaussian and noise, for which half-widths are tabulated
BISECTIONS = 50
TAIL = 1e-12  # probability on either side of the nodes


def scale_mixture(degrees: float | None) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Return weights and variances of centered Gaussians whose mixture is Student-t noise of unit variance.

    They are nodes of the trapezoidal rule over log w. Without degrees of freedom the noise is one Gaussian.
    """
    if degrees is None:
        return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    half = degrees / 2
    low, high = float(gammaincinv(half, TAIL)) / half, float(gammainccinv(half, TAIL)) / half
    w = torch.linspace(math.log(low), math.log(high), NODES, dtype=torch.float64).exp()
    weights = w**half * (-half * w).exp()  # the density of w times dw / d log w, but for a factor
    return weights / weights.sum(), (degrees - 2) / degrees / w


def central_factors(level: float, noise: Float[Tensor, "*n"], degrees: float) -> Float[Tensor, "*n"]:
    """Return half-widths of central intervals of a Gaussian plus Student-t noise, in standard deviations of the sum.

    Args:
        level: probability of the interval, in [0, 1).
        noise: fraction of the variance that is the noise's.
        degrees: of freedom, above 2.
    """
    weights, scales = scale_mixture(degrees)
    mixtures = torch.linspace(0, 1, MIXTURES, dtype=torch.float64)
    sd = (1 - mixtures[:, None] + mixtures[:, None] * scales).sqrt()
    low, high = torch.zeros_like(mixtures), torch.full_like(mixtures, (1 - level) ** -0.5)  # Chebyshev's
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = torch.erf(middle[:, None] / sd / math.sqrt(2)) @ weights > level
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.from_numpy(np.interp(noise.numpy(), mixtures.numpy(), high.numpy()))


@dataclass(frozen=True)
class StudentTRows:
    """The rows of a fit with Student-t noise.

    Attributes:
        degrees: of freedom, above 2.
        values: of each row, standardized.
        place: of each row among the entries.
        weights: of each row as the user gave them.
    """

    degrees: float
    values: Float[Tensor, "rows"]
    place: Int[Tensor, "rows"]
    weights: Float[Tensor, "rows"]

    def subtract_mean(self, constant: float) -> "StudentTRows":
        """Return the rows with a constant subtracted from every value."""
        return replace(self, values=self.values - constant)

    def reweigh(
        self, entries: Entries, mean: Float[Tensor, "n"], second: Float[Tensor, "n"], precision: float
    ) -> tuple[Entries, float]:
        """Return entries with the rows' new expected weights, and the weights' part of the bound, in nats.

        Args:
            mean, second: moments of the function at every place.
            precision: mean of the noise's.
        """
        nu, y = self.degrees, self.values
        squared = y.square() - 2 * y * mean[self.place] + second[self.place]
        shape, rate = (nu + 1) / 2, (nu + precision * squared) / 2
        scale = shape / rate
        weights = self.weights * scale
        weight, total = (
            torch.zeros_like(entries.weight).index_add_(0, self.place, x) for x in (weights, weights * y)
        )
        mean_log = float(torch.digamma(torch.tensor(shape).double())) - rate.log()
        divergence = (
            (shape - nu / 2) * mean_log
            - math.lgamma(shape)
            + math.lgamma(nu / 2)
            + shape * rate.log()
            - nu / 2 * math.log(nu / 2)
            - shape
            + nu / 2 * scale
        )
        gain = float((self.weights * (mean_log / 2 - divergence)).sum())
        return replace(entries, weight=weight, total=total, squares=float((weights * y.square()).sum())), gain
