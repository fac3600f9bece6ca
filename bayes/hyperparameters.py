"""Kernel hyperparameters of a mode: defaults from its extent, and their optimization by the collapsed evidence."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from gpytorch.kernels import Kernel
from gpytorch.priors import LogNormalPrior
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.kalman import log_evidence
from fieldmorph.bayes.state_space import from_gpytorch

PRIOR_MEDIAN = 0.2  # of the lengthscale's prior, as a fraction of the mode's extent
PRIOR_SD = 1.0  # of the lengthscale's logarithm; without a prior, lengthscales collapse to the sampling step
ITERATIONS = 3
MAX_CHANGE = 0.7  # of a logarithm in one update
STEP = 1e-3  # finite difference of the logarithms, for the gradient


@dataclass(frozen=True)
class PointRuns:
    """Evenly spread runs of neighboring points, on which an update of many points is found.

    Attributes:
        n_runs: number of runs.
        length: points of each.
    """

    n_runs: int = 64
    length: int = 1024

    def indices(self, n: int) -> slice | Tensor:
        """Return indices of runs of n points; all of them where there are few."""
        if n <= self.n_runs * self.length:
            return slice(None)
        starts = torch.linspace(0, n - self.length, self.n_runs, dtype=torch.float64).long()
        return (starts[:, None] + torch.arange(self.length)).flatten()


def default_kernel(name: str, points: Float[Tensor, "points"]) -> Kernel:
    """Return a kernel of the table whose lengthscale has a log-normal prior around a fifth of the points' extent.

    Raises:
        SettingError: an unknown name.
    """
    entry = choice(name)
    median = PRIOR_MEDIAN * max(float(points.max() - points.min()), 1e-9)
    kernel = entry.make(lengthscale_prior=LogNormalPrior(math.log(median), PRIOR_SD))
    kernel.lengthscale = median
    return kernel


def log_prior(kernel: Kernel) -> Float[Tensor, ""]:
    """Return the log density of a kernel's priors at its hyperparameters."""
    terms = [prior.log_prob(closure(module)).sum() for _, module, prior, closure, _ in kernel.named_priors()]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)


@torch.no_grad()
def learn(
    kernel: Kernel,
    points: Float[Tensor, "points"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
    runs: PointRuns | None = None,
) -> float:
    """Maximize log evidence plus log prior over a kernel's free parameters for a few iterations of L-BFGS-B.

    The parameters' logarithms are optimized, so that the unit of a coordinate does not matter. Where there are more
    points than in all runs, the change is found on these, and applied if it is a gain for all.

    Args:
        kernel: its parameters change in place.
        points, eta, lam: coordinates, and the information on the functions there (see `Process`).
        runs: of neighbors; by default 64 of 1,024 points.

    Returns:
        The gain, in nats.
    """
    free = [
        (p, c) for _, p, c in kernel.named_parameters_and_constraints() if p.requires_grad and c is not None
    ]
    if not free or len(points) < 2:
        return 0.0
    some = (runs or PointRuns()).indices(len(points))

    def set_parameters(x: NDArray[np.float64]) -> None:
        start = 0
        for p, constraint in free:
            value = torch.from_numpy(np.exp(x[start : start + p.numel()])).reshape(p.shape)
            p.copy_(constraint.inverse_transform(value))
            start += p.numel()

    def cost(x: NDArray[np.float64], chosen: slice | Tensor = some) -> float:
        set_parameters(x)
        space, at = from_gpytorch(kernel), points[chosen]
        steps = torch.cat([at.new_zeros(1), at.diff()])
        chain = space.transition(steps), space.stationary, space.emission
        evidence = log_evidence(*chain, eta[chosen], lam[chosen])
        return -evidence * len(points) / len(at) - float(log_prior(kernel))

    initial = torch.cat([c.transform(p).flatten() for p, c in free]).double().log().numpy()
    before = cost(initial)
    found = minimize(
        cost,
        initial,
        method="L-BFGS-B",
        bounds=[(x - MAX_CHANGE, x + MAX_CHANGE) for x in initial],
        options={"maxiter": ITERATIONS, "eps": STEP},
    )
    gain = before - float(found.fun)
    if gain > 0 and not isinstance(some, slice):
        gain = cost(initial, slice(None)) - cost(found.x, slice(None))
    set_parameters(found.x if gain > 0 else initial)
    return max(gain, 0.0)
