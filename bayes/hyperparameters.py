"""Kernels of a mode: defaults by its extent, and learning by the collapsed evidence with priors."""

import math

import numpy as np
import torch
from gpytorch.kernels import Kernel
from gpytorch.priors import LogNormalPrior
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.kalman import log_evidence
from fieldmorph.bayes.state_space import from_gpytorch

USUAL_SHARE = 0.2  # of a mode's extent: the median of the lengthscale's prior
SPREAD = 1.0  # standard deviation of its logarithm: without a prior, lengthscales collapse to the sampling interval
ITERATIONS = 3
FARTHEST = 0.7  # that a logarithm moves at once
STEP = 1e-3  # of the differences of logarithms that make the gradient
RUNS, RUN = 64, 1024  # of neighbouring points, and points of each: as many as suffice to find a step


def default_kernel(name: str, points: Float[Tensor, "points"]) -> Kernel:
    """Return a kernel of the table whose lengthscale has a log-normal prior around a fifth of the points' extent.

    Raises:
        SettingError: an unknown name.
    """
    entry = choice(name)
    usual = USUAL_SHARE * max(float(points.max() - points.min()), 1e-9)
    kernel = entry.make(lengthscale_prior=LogNormalPrior(math.log(usual), SPREAD))
    kernel.lengthscale = usual
    return kernel


def log_prior(kernel: Kernel) -> Float[Tensor, ""]:
    """Sum of the logarithms of a kernel's priors at its hyperparameters."""
    terms = [prior.log_prob(closure(module)).sum() for _, module, prior, closure, _ in kernel.named_priors()]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)


@torch.no_grad()
def learn(
    kernel: Kernel,
    points: Float[Tensor, "points"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> float:
    """A few ascents of log evidence plus log prior in the kernel's free parameters, in place; what it has gained.

    Works on logarithms, so that it does not matter in which unit a coordinate is measured. Where there are more than
    65,536 points, the step is found on runs of neighbours that are spread evenly over them, and taken if all points
    gain by it.
    """
    free = [
        (p, c) for _, p, c in kernel.named_parameters_and_constraints() if p.requires_grad and c is not None
    ]
    if not free or len(points) < 2:
        return 0.0
    some = _runs(len(points))

    def put(x: np.ndarray) -> None:
        start = 0
        for p, constraint in free:
            value = torch.from_numpy(np.exp(x[start : start + p.numel()])).reshape(p.shape)
            p.copy_(constraint.inverse_transform(value))
            start += p.numel()

    def cost(x: np.ndarray, chosen: slice | Tensor = some) -> float:
        put(x)
        space, at, told = from_gpytorch(kernel), points[chosen], eta[chosen]
        steps = torch.cat([at.new_zeros(1), at.diff()])
        evidence = log_evidence(space.transition(steps), space.stationary, space.emission, told, lam[chosen])
        return -evidence * len(points) / len(at) - float(log_prior(kernel))

    begun = torch.cat([c.transform(p).flatten() for p, c in free]).double().log().numpy()
    before = cost(begun)
    found = minimize(
        cost,
        begun,
        method="L-BFGS-B",
        bounds=[(x - FARTHEST, x + FARTHEST) for x in begun],
        options={"maxiter": ITERATIONS, "eps": STEP},
    )
    gain = before - float(found.fun)
    if gain > 0 and not isinstance(some, slice):
        gain = cost(begun, slice(None)) - cost(found.x, slice(None))
    put(found.x if gain > 0 else begun)
    return max(gain, 0.0)


def _runs(n: int) -> slice | Tensor:
    """Numbers of some of n points; all where there are few."""
    if n <= RUNS * RUN:
        return slice(None)
    starts = torch.linspace(0, n - RUN, RUNS, dtype=torch.float64).long()
    return (starts[:, None] + torch.arange(RUN)).flatten()
