"""Student-t noise as a mixture of scales: a few wild values then cost little, and bend nothing.

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

MIN_DEGREES = 2.0  # at which the noise has a variance no more
NODES = 64  # of the integral over scales
BLENDS = 513  # of a Gaussian and noise, for which half-widths are found
HALVINGS = 50
LEFT_OUT = 1e-12  # probability, on either side of the nodes


def scale_mixture(degrees: float | None) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Shares and variances of centred Gaussians that together are noise of unit variance; without degrees it is one.

    The trapezoidal rule over log w.
    """
    if degrees is None:
        return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    half = degrees / 2
    low, high = float(gammaincinv(half, LEFT_OUT)) / half, float(gammainccinv(half, LEFT_OUT)) / half
    w = torch.linspace(math.log(low), math.log(high), NODES, dtype=torch.float64).exp()
    shares = w**half * (-half * w).exp()  # the density of w times dw / d log w, but for a factor
    return shares / shares.sum(), (degrees - 2) / degrees / w


def central_factors(level: float, share: Float[Tensor, "*n"], degrees: float) -> Float[Tensor, "*n"]:
    """Half-widths, in standard deviations, that hold this share of a Gaussian plus Student-t noise around its centre.

    Args:
        share: of the whole variance that is the noise's.
    """
    shares, scales = scale_mixture(degrees)
    blends = torch.linspace(0, 1, BLENDS, dtype=torch.float64)
    sd = (1 - blends[:, None] + blends[:, None] * scales).sqrt()
    low, high = torch.zeros_like(blends), torch.full_like(blends, (1 - level) ** -0.5)  # Chebyshev's
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = torch.erf(middle[:, None] / sd / math.sqrt(2)) @ shares > level
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.from_numpy(np.interp(share.numpy(), blends.numpy(), high.numpy()))


@dataclass(frozen=True)
class Tails:
    """Every row's value, its place among the entries, its weight as the user gave it, and the degrees of freedom."""

    degrees: float
    values: Float[Tensor, "rows"]
    place: Int[Tensor, "rows"]
    weights: Float[Tensor, "rows"]

    def less(self, constant: float) -> "Tails":
        """The same with this taken off every value."""
        return replace(self, values=self.values - constant)

    def reweigh(
        self, entries: Entries, mean: Float[Tensor, "n"], second: Float[Tensor, "n"], precision: float
    ) -> tuple[Entries, float]:
        """Entries with the rows' new mean weights, and what these add to the evidence lower bound.

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
            (shape - nu / 2) * mean_log - math.lgamma(shape) + math.lgamma(nu / 2)
            + shape * rate.log() - nu / 2 * math.log(nu / 2) - shape + nu / 2 * scale
        )  # fmt: skip
        gain = float((self.weights * (mean_log / 2 - divergence)).sum())
        return replace(entries, weight=weight, total=total, squares=float((weights * y.square()).sum())), gain
