"""Exact smoothing of Gaussian processes on a line in linear time, from information at points.

R functions that share a kernel but are independent a priori have, at sorted points k, the likelihood
exp(eta_k' f_k - f_k' Lambda_k f_k / 2), f_k being their values there; Lambda may be singular, or zero where nothing is
known. Forward it is the Kalman filter in information form; backward the Bryson-Frazier smoother (Bierman 1973): its
adjoint (r, N) needs no inverse of a state's covariance, and turns any prediction (m, P) from the left into the
posterior m + P r, P - P N P.

The joint state has the R states side by side. `smooth`, `smooth_states` and `log_evidence` run the numba kernels of
`kernels.smoother`; `smooth_torch` is their plain twin, their oracle, and differentiable.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.kernels.block_algebra import Array
from fieldmorph.bayes.kernels.sampling import mean_passes
from fieldmorph.bayes.kernels.smoother import (
    Chain,
    filter_evidence,
    filter_pass,
    smoother_pass,
    state_passes,
)


@dataclass(frozen=True)
class Marginals:
    """Posterior of the functions at the points, and the logarithm of the likelihood's integral over the prior."""

    mean: Float[Tensor, "points r"]
    covariance: Float[Tensor, "points r r"]
    log_evidence: Float[Tensor, ""]


@dataclass(frozen=True)
class SmoothedStates:
    """Results of both passes at every point, from which the posterior at any other point follows.

    Attributes:
        mean, covariance: of the joint state (n = r states) given the points up to this one.
        adjoint, precision: r and N of this point and all to its right.
    """

    mean: Float[Tensor, "points n"]
    covariance: Float[Tensor, "points n n"]
    adjoint: Float[Tensor, "points n"]
    precision: Float[Tensor, "points n n"]


def smooth(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> Marginals:
    """Return the posterior of the functions at all points; no gradients.

    Args:
        transitions: A from each point's left neighbor to it; the first is not used.
        stationary, emission: P and h of one function's state.
        eta, lam: the likelihood's information at the points.
    """
    chain, information = _chain(transitions, stationary, emission), _arrays(eta, lam)
    filtered, log_evidence = filter_pass(chain, *information)
    found = smoother_pass(chain, information[1], filtered)
    return Marginals(
        torch.from_numpy(found.mean),
        torch.from_numpy(found.covariance),
        torch.tensor(log_evidence, dtype=torch.float64),
    )


def smooth_states(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> SmoothedStates:
    """Return what predictions elsewhere need, which takes much more memory than `smooth`; its arguments."""
    found = state_passes(_chain(transitions, stationary, emission), *_arrays(eta, lam))
    return SmoothedStates(*map(torch.from_numpy, found))


def log_evidence(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> float:
    """Return that of `smooth`, in nats, by the filter alone; its arguments."""
    return float(filter_evidence(_chain(transitions, stationary, emission), *_arrays(eta, lam)))


def smooth_means(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r samples"],
    lam: Float[Tensor, "points r r"],
) -> Float[Tensor, "points r samples"]:
    """Return the means of `smooth` for each of many eta with the same lam, whose part of the work is done once."""
    found = mean_passes(_chain(transitions, stationary, emission), *_arrays(eta, lam))
    return torch.from_numpy(found)


def _chain(transitions: Tensor, stationary: Tensor, emission: Tensor) -> Chain:
    return Chain(*_arrays(transitions, stationary, emission))


def _arrays(*tensors: Tensor) -> list[Array]:
    return [x.detach().double().contiguous().numpy() for x in tensors]


def smooth_torch(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> tuple[Marginals, SmoothedStates]:
    """Return what `smooth` and `smooth_states` do: their plain twin, with gradients."""
    r = eta.shape[1]
    one = torch.eye(r, dtype=eta.dtype)
    prior, h = torch.kron(one, stationary), torch.kron(one, emission[None])
    m, p, log_evidence = prior.new_zeros(len(prior)), prior, prior.new_zeros(())
    filtered, gains = [], []
    for k in range(len(eta)):
        if k:
            a = torch.kron(one, transitions[k])
            m, p = a @ m, a @ (p - prior) @ a.T + prior
        g, f = p @ h.T, h @ m
        c = h @ g
        s = one + lam[k] @ c
        v = eta[k] - lam[k] @ f
        u, d = torch.linalg.solve(s, v), torch.linalg.solve(s, lam[k])
        log_evidence = log_evidence - torch.linalg.slogdet(s)[1] / 2 + f @ (eta[k] + v) / 2 + v @ c @ u / 2
        m, p = m + g @ u, p - g @ d @ g.T
        filtered.append((m, p))
        gains.append((f, g, c, u, d))
    pull, precision, means, covariances, adjoints = torch.zeros_like(m), torch.zeros_like(p), [], [], []
    for k in reversed(range(len(eta))):
        f, g, c, u, d = gains[k]
        m, p = filtered[k]
        if k + 1 < len(eta):
            a = torch.kron(one, transitions[k + 1])
            pull, precision = a.T @ pull, a.T @ precision @ a
        means.append(h @ (m + p @ pull))
        covariances.append(h @ (p - p @ precision @ p) @ h.T)
        j = torch.eye(len(m), dtype=m.dtype) - g @ d @ h
        pull, precision = h.T @ u + j.T @ pull, h.T @ d @ h + j.T @ precision @ j
        adjoints.append((pull, precision))
    marginals = Marginals(torch.stack(means[::-1]), torch.stack(covariances[::-1]), log_evidence)
    pairs = [*zip(*filtered, strict=True), *zip(*adjoints[::-1], strict=True)]
    return marginals, SmoothedStates(*[torch.stack(values) for values in pairs])
