"""Gamma posterior of the noise precision."""

import math
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Noise:
    """Gamma(shape, rate) distribution of the precision tau of Gaussian or Student-t noise.

    Attributes:
        degrees: of freedom of Student-t noise, above 2; None: the noise is Gaussian.
    """

    shape: float
    rate: float
    degrees: float | None = None

    @property
    def mean(self) -> float:
        """Mean of the precision, E[tau]."""
        return self.shape / self.rate

    @property
    def variance(self) -> float:
        """Variance of the noise at the mean precision, for standardized values."""
        return (1.0 if self.degrees is None else self.degrees / (self.degrees - 2)) / self.mean

    def divergence(self, prior: "Noise") -> float:
        """Return the KL divergence from the prior, in nats."""
        digamma = float(torch.digamma(torch.tensor(self.shape, dtype=torch.float64)))
        return (
            (self.shape - prior.shape) * digamma
            - math.lgamma(self.shape)
            + math.lgamma(prior.shape)
            + prior.shape * (math.log(self.rate) - math.log(prior.rate))
            + self.shape * (prior.rate - self.rate) / self.rate
        )

    def given(self, rows: float, loss: float) -> "Noise":
        """Return the posterior after so many more rows, of which the expected sum of squared errors is `loss`."""
        return replace(self, shape=self.shape + rows / 2, rate=self.rate + loss / 2)

    def mean_log(self) -> float:
        """Return E[log tau]."""
        return float(torch.digamma(torch.tensor(self.shape, dtype=torch.float64))) - math.log(self.rate)
