"""Exact smoothing of Gaussian processes on a line in linear time, from information at points.

R functions that share a kernel but are independent a priori have, at sorted points k, the likelihood
exp(eta_k' f_k - f_k' Lambda_k f_k / 2), f_k being their values there; Lambda may be singular, or zero where nothing is
known. Forward it is the Kalman filter in information form; backward the Bryson-Frazier smoother (Bierman 1973): its
adjoint (r, N) needs no inverse of a state's covariance, and turns any prediction (m, P) from the left into the
posterior m + P r, P - P N P.

The joint state has the R states side by side. `smooth` runs numba kernels; `smooth_torch` is the plain twin, its
oracle, and differentiable.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@dataclass(frozen=True)
class Marginals:
    """Posterior of the functions at the points, and the logarithm of the likelihood's integral over the prior."""

    mean: Float[Tensor, "points r"]
    covariance: Float[Tensor, "points r r"]
    log_evidence: Float[Tensor, ""]


@dataclass(frozen=True)
class Passes:
    """What both passes leave at every point, from which any other point follows.

    Attributes:
        mean, covariance: of the state given the points up to this one.
        pull, precision: the adjoint r and N of this point and all to its right.
    """

    mean: Float[Tensor, "points n"]
    covariance: Float[Tensor, "points n n"]
    pull: Float[Tensor, "points n"]
    precision: Float[Tensor, "points n n"]


def smooth(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
    keep: bool = False,
) -> tuple[Marginals, Passes | None]:
    """Posterior at all points; no gradients.

    Args:
        transitions: A from each point's left neighbour to it; the first is not used.
        keep: whether to return what predictions elsewhere need, which takes much more memory.
    """
    arrays = [x.detach().double().contiguous().numpy() for x in (transitions, stationary, emission, eta, lam)]
    mean, covariance, log_evidence, *passes = _smooth(*arrays, True, keep)
    marginals = Marginals(
        torch.from_numpy(mean), torch.from_numpy(covariance), torch.tensor(log_evidence, dtype=torch.float64)
    )
    return marginals, Passes(*map(torch.from_numpy, passes)) if keep else None


def log_evidence(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> float:
    """That of `smooth`, by the filter alone."""
    arrays = [x.detach().double().contiguous().numpy() for x in (transitions, stationary, emission, eta, lam)]
    return _smooth(*arrays, False, False)[2]


def smooth_means(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r samples"],
    lam: Float[Tensor, "points r r"],
) -> Float[Tensor, "points r samples"]:
    """The means of `smooth` for each of many eta with the same lam: all that depends on lam alone is found once."""
    arrays = [x.detach().double().contiguous().numpy() for x in (transitions, stationary, emission, eta, lam)]
    return torch.from_numpy(_smooth_means(*arrays))


def smooth_torch(
    transitions: Float[Tensor, "points states states"],
    stationary: Float[Tensor, "states states"],
    emission: Float[Tensor, "states"],
    eta: Float[Tensor, "points r"],
    lam: Float[Tensor, "points r r"],
) -> tuple[Marginals, Passes]:
    """The plain twin of `smooth`."""
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
    return marginals, Passes(*[torch.stack(values) for values in pairs])


@numba.njit(inline="always")
def _sandwich(a: np.ndarray, p: np.ndarray, r: int, half: np.ndarray, out: np.ndarray) -> None:
    """out = (I x a) p (I x a)' for symmetric p; `half` is scratch."""
    s = len(a)
    n = r * s
    for i in range(r):
        for x in range(s):
            for column in range(n):
                half[i * s + x, column] = 0.0
            for y in range(s):
                for column in range(n):
                    half[i * s + x, column] += a[x, y] * p[i * s + y, column]
    for row in range(n):
        for j in range(row // s + 1):
            for x in range(s):
                total = 0.0
                for y in range(s):
                    total += half[row, j * s + y] * a[x, y]
                out[row, j * s + x] = total
                out[j * s + x, row] = total


@numba.njit(inline="always")
def _step(a: np.ndarray, prior: np.ndarray, p: np.ndarray, r: int, half: np.ndarray, out: np.ndarray) -> None:
    """out = (I x a) (p - I x prior) (I x a)' + I x prior; p is spoilt, `half` is scratch."""
    s = len(a)
    for i in range(r):
        p[i * s : (i + 1) * s, i * s : (i + 1) * s] -= prior
    _sandwich(a, p, r, half, out)
    for i in range(r):
        out[i * s : (i + 1) * s, i * s : (i + 1) * s] += prior


@numba.njit(inline="always")
def _gain(p: np.ndarray, h: np.ndarray, r: int, out: np.ndarray) -> None:
    """out = p (I x h)."""
    s = len(h)
    out[:] = 0.0
    for row in range(len(p)):
        for j in range(r):
            for y in range(s):
                out[row, j] += p[row, j * s + y] * h[y]


@numba.njit(**_OPTIONS)
def _smooth(a, prior, h, eta, lam, back, keep):
    """Mean, covariance, log evidence (without `back` that alone), and with `keep` the fields of `Passes`.

    With g = P h' before a point's information is taken in, c = h g and t = (I + lam c)^-1, the posterior's
    h P h' is c t and its P h' is g t: nothing is subtracted.
    """
    points, r = eta.shape
    s = len(prior)
    n = r * s
    kept = points if keep else 0
    ms, ps = np.empty((kept, n)), np.empty((kept, n, n))
    pulls, precisions = np.empty((kept, n)), np.empty((kept, n, n))
    fs, us = np.empty((points, r)), np.empty((points, r))
    gs, ts = np.empty((points, n, r)), np.empty((points, r, r))
    mean, covariance = np.empty((points, r)), np.empty((points, r, r))
    m, moved = np.zeros(n), np.empty(n)
    p, half, other = np.zeros((n, n)), np.empty((n, n)), np.empty((n, n))
    log_evidence = 0.0
    for i in range(r):
        p[i * s : (i + 1) * s, i * s : (i + 1) * s] = prior
    for k in range(points):
        if k:
            _step(a[k], prior, p, r, half, other)
            p, other = other, p
            for i in range(r):
                for x in range(s):
                    moved[i * s + x] = 0.0
                    for y in range(s):
                        moved[i * s + x] += a[k, x, y] * m[i * s + y]
            m, moved = moved, m
        g = gs[k]
        _gain(p, h, r, g)
        c, f = _emit(h, g), _emit(h, m.reshape((n, 1))).ravel()
        system = np.eye(r) + lam[k] @ c
        t = np.linalg.solve(system, np.eye(r))
        v = eta[k] - lam[k] @ f
        u = t @ v
        log_evidence += (f @ (eta[k] + v) + v @ (c @ u)) / 2 - np.linalg.slogdet(system)[1] / 2
        m += g @ u
        p -= g @ (t @ lam[k]) @ g.T
        fs[k], us[k], ts[k] = f + c @ u, u, t
        if keep:
            ms[k], ps[k] = m, p
    if not back:
        return mean, covariance, log_evidence, ms, ps, pulls, precisions
    q, big_n = np.zeros(n), np.zeros((n, n))
    for k in range(points - 1, -1, -1):
        if k + 1 < points:
            back = np.ascontiguousarray(a[k + 1].T)
            _sandwich(back, big_n, r, half, other)
            big_n, other = other, big_n
            for i in range(r):
                for x in range(s):
                    moved[i * s + x] = 0.0
                    for y in range(s):
                        moved[i * s + x] += back[x, y] * q[i * s + y]
            q, moved = moved, q
        g, t = gs[k], ts[k]
        c, e = _emit(h, g), g @ t
        ne = big_n @ e
        mean[k] = fs[k] + e.T @ q
        cov = c @ t - e.T @ ne
        covariance[k] = (cov + cov.T) / 2
        # N before this point: (I - g d h)' N (I - g d h) + h' d h with d = t lam, as rows and columns of h'.
        d = t @ lam[k]
        gd = g @ d
        ngd = big_n @ gd
        inner = d + gd.T @ ngd
        pull = us[k] - gd.T @ q
        for i in range(r):
            for x in range(s):
                q[i * s + x] += h[x] * pull[i]
                for row in range(n):
                    big_n[row, i * s + x] -= ngd[row, i] * h[x]
                    big_n[i * s + x, row] -= ngd[row, i] * h[x]
        for i in range(r):
            for j in range(r):
                for x in range(s):
                    for y in range(s):
                        big_n[i * s + x, j * s + y] += h[x] * (inner[i, j] + inner[j, i]) / 2 * h[y]
        if keep:
            pulls[k], precisions[k] = q, big_n
    return mean, covariance, log_evidence, ms, ps, pulls, precisions


@numba.njit(**_OPTIONS)
def _smooth_means(a, prior, h, eta, lam):
    """The same passes for the means alone; a state's mean is a matrix with a column for each sample."""
    points, r, samples = eta.shape
    s = len(prior)
    n = r * s
    mean, us = np.empty((points, r, samples)), np.empty((points, r, samples))
    es, gds = np.empty((points, n, r)), np.empty((points, n, r))
    g = np.empty((n, r))
    m, moved = np.zeros((n, samples)), np.empty((n, samples))
    p, half, other = np.zeros((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(r):
        p[i * s : (i + 1) * s, i * s : (i + 1) * s] = prior
    for k in range(points):
        if k:
            _step(a[k], prior, p, r, half, other)
            p, other = other, p
            _move(a[k], m, r, moved)
            m, moved = moved, m
        _gain(p, h, r, g)
        c, f = _emit(h, g), _emit(h, m)
        t = np.linalg.solve(np.eye(r) + lam[k] @ c, np.eye(r))
        u = t @ (eta[k] - lam[k] @ f)
        es[k] = g @ t
        gds[k] = es[k] @ lam[k]
        m += g @ u
        p -= gds[k] @ g.T
        mean[k], us[k] = f + c @ u, u
    q = np.zeros((n, samples))
    for k in range(points - 1, -1, -1):
        if k + 1 < points:
            _move(a[k + 1].T, q, r, moved)
            q, moved = moved, q
        mean[k] += es[k].T @ q
        pull = us[k] - gds[k].T @ q
        for i in range(r):
            for x in range(s):
                q[i * s + x] += h[x] * pull[i]
    return mean


@numba.njit(inline="always")
def _move(a: np.ndarray, m: np.ndarray, r: int, out: np.ndarray) -> None:
    """out = (I x a) m."""
    s = len(a)
    out[:] = 0.0
    for i in range(r):
        for x in range(s):
            for y in range(s):
                for column in range(m.shape[1]):
                    out[i * s + x, column] += a[x, y] * m[i * s + y, column]


@numba.njit(**_OPTIONS)
def _emit(h, g):
    """(I x h') g."""
    s = len(h)
    r = len(g) // s
    out = np.zeros((r, g.shape[1]))
    for i in range(r):
        for x in range(s):
            for j in range(g.shape[1]):
                out[i, j] += h[x] * g[i * s + x, j]
    return out
