"""Kalman filter in information form and Bryson-Frazier smoother over a line of points, as numba kernels.

`kalman` has the mathematics and a twin in torch. Shapes: r functions of s states each, n = r s; the chain's transition
is (points, s, s), eta (points, r), lam (points, r, r). With g = P (I x h) before a point's information is taken in,
c = (I x h') g, t = (I + lam c)^-1 and e = g t, the posterior's h P h' is h e and its P h' is e: nothing is subtracted.
"""

from typing import NamedTuple

import numba
import numpy as np

from fieldmorph.bayes.kernels.block_algebra import (
    OPTIONS,
    Array,
    congruence,
    invert_system,
    multiply,
    predict_covariance,
    project,
    transform,
)


class Chain(NamedTuple):
    """The Markov chain that each function's states are at the points: A from the left neighbor, P and h."""

    transition: Array
    stationary: Array
    emission: Array


class Filtered(NamedTuple):
    """Results of the filter at each point that the smoother needs.

    Attributes:
        mean: of the functions given the points up to this one, (points, r).
        information: t lam, (points, r, r).
        gain: e, (points, n, r).
        residual: t (eta - lam h m) with the mean m before the point, (points, r).
    """

    mean: Array
    information: Array
    gain: Array
    residual: Array


class Smoothed(NamedTuple):
    """Posterior of the functions at each point: mean (points, r) and covariance (points, r, r)."""

    mean: Array
    covariance: Array


class States(NamedTuple):
    """Results of both passes for the joint state at each point.

    Attributes:
        mean, covariance: given the points up to this one, (points, n) and (points, n, n).
        adjoint, precision: r and N of this point and all to its right, (points, n) and (points, n, n).
    """

    mean: Array
    covariance: Array
    adjoint: Array
    precision: Array


class _Scratch(NamedTuple):
    """Two states in turn, (2, n) and (2, n, n), and arrays that one step of a pass writes to."""

    m: Array
    p: Array
    half: Array
    gains: Array
    products: Array
    small: Array
    vectors: Array


@numba.njit(**OPTIONS)
def filter_evidence(chain: Chain, eta: Array, lam: Array) -> float:
    """Return the log evidence alone, in nats; memory does not grow with the points.

    Args:
        chain: transitions, stationary covariance and emission.
        eta, lam: information at the points, (points, r) and (points, r, r).
    """
    filtered, scratch = _filtered(1, lam.shape[1], len(chain.emission)), _prior_scratch(chain, lam.shape[1])
    log_evidence = 0.0
    for k in range(len(eta)):
        log_evidence = _filter_step(k, chain, eta, lam, scratch, filtered, 0, log_evidence)
    return log_evidence


@numba.njit(**OPTIONS)
def filter_pass(chain: Chain, eta: Array, lam: Array) -> tuple[Filtered, float]:
    """Return what the smoother needs of every point, and the log evidence in nats.

    Args:
        chain: transitions, stationary covariance and emission.
        eta, lam: information at the points, (points, r) and (points, r, r).
    """
    points, r = eta.shape
    filtered, scratch = _filtered(points, r, len(chain.emission)), _prior_scratch(chain, r)
    log_evidence = 0.0
    for k in range(points):
        log_evidence = _filter_step(k, chain, eta, lam, scratch, filtered, k, log_evidence)
    return filtered, log_evidence


@numba.njit(**OPTIONS)
def smoother_pass(chain: Chain, lam: Array, filtered: Filtered) -> Smoothed:
    """Return the posterior at every point, in the memory of the filter's mean and information.

    Args:
        chain, lam: as `filter_pass` takes them.
        filtered: its results; mean and information are overwritten.
    """
    points, r = filtered.mean.shape
    scratch = _blank_scratch(r, len(chain.emission))
    for k in range(points - 1, -1, -1):
        _smoother_step(k, chain, lam, filtered, scratch)
    return Smoothed(filtered.mean, filtered.information)


@numba.njit(**OPTIONS)
def state_passes(chain: Chain, eta: Array, lam: Array) -> States:
    """Return the joint states that both passes leave at every point.

    Args:
        chain, eta, lam: as `filter_pass` takes them.
    """
    points, r = eta.shape
    n = r * len(chain.emission)
    filtered, scratch = _filtered(points, r, len(chain.emission)), _prior_scratch(chain, r)
    mean, covariance = np.empty((points, n)), np.empty((points, n, n))
    adjoint, precision = np.empty((points, n)), np.empty((points, n, n))
    for k in range(points):
        _filter_step(k, chain, eta, lam, scratch, filtered, k, 0.0)
        mean[k], covariance[k] = scratch.m[k % 2], scratch.p[k % 2]
    scratch = _blank_scratch(r, len(chain.emission))
    for k in range(points - 1, -1, -1):
        _smoother_step(k, chain, lam, filtered, scratch)
        adjoint[k], precision[k] = scratch.m[k % 2], scratch.p[k % 2]
    return States(mean, covariance, adjoint, precision)


@numba.njit(**OPTIONS)
def _filtered(points: int, r: int, s: int) -> Filtered:
    """Return arrays for the results of the filter, not yet filled."""
    return Filtered(
        np.empty((points, r)), np.empty((points, r, r)), np.empty((points, r * s, r)), np.empty((points, r))
    )


@numba.njit(**OPTIONS)
def _blank_scratch(r: int, s: int) -> _Scratch:
    """Return scratch whose states are zero."""
    n = r * s
    return _Scratch(
        np.zeros((2, n)),
        np.zeros((2, n, n)),
        np.empty((n, n)),
        np.empty((2, n, r)),
        np.empty((3, r, r)),
        np.empty((s, s)),
        np.empty((2, r)),
    )


@numba.njit(**OPTIONS)
def _prior_scratch(chain: Chain, r: int) -> _Scratch:
    """Return scratch whose first state has the prior's covariance."""
    s = len(chain.emission)
    scratch = _blank_scratch(r, s)
    for i in range(r):
        scratch.p[0, i * s : (i + 1) * s, i * s : (i + 1) * s] = chain.stationary
    return scratch


@numba.njit(**OPTIONS)
def _filter_step(
    k: int,
    chain: Chain,
    eta: Array,
    lam: Array,
    scratch: _Scratch,
    filtered: Filtered,
    at: int,
    log_evidence: float,
) -> float:
    """Predict point k's state from its left neighbor's, take in its information, and add to the log evidence.

    The state goes to `scratch.m[k % 2]` and `scratch.p[k % 2]`, all else to row `at` of `filtered`.
    """
    h, r = chain.emission, eta.shape[1]
    s = len(h)
    m, p = scratch.m[k % 2], scratch.p[k % 2]
    if k:
        predict_covariance(chain.transition[k], chain.stationary, scratch.p[1 - k % 2], r, scratch.half, p)
        transform(chain.transition[k], scratch.m[1 - k % 2], r, m)
    g, gd = scratch.gains[0], scratch.gains[1]
    c, system, t = scratch.products[0], scratch.products[1], scratch.products[2]
    f, v = scratch.vectors[0], scratch.vectors[1]
    e, d, u = filtered.gain[at], filtered.information[at], filtered.residual[at]
    project(p, h, r, g, c)
    for i in range(r):
        f[i] = 0.0
        for x in range(s):
            f[i] += h[x] * m[i * s + x]
    for i in range(r):
        v[i] = eta[k, i]
        for j in range(r):
            v[i] -= lam[k, i, j] * f[j]
    log_evidence -= invert_system(lam[k], c, system, t) / 2
    multiply(t, lam[k], d)
    multiply(g, t, e)
    multiply(g, d, gd)
    for i in range(r):
        u[i] = 0.0
        for j in range(r):
            u[i] += t[i, j] * v[j]
    for i in range(r):
        change = 0.0
        for j in range(r):
            change += c[i, j] * u[j]
        log_evidence += (f[i] * (eta[k, i] + v[i]) + v[i] * change) / 2
        filtered.mean[at, i] = f[i] + change
    for row in range(len(m)):
        for j in range(r):
            m[row] += g[row, j] * u[j]
        for column in range(row + 1):
            value = p[row, column]
            for j in range(r):
                value -= gd[row, j] * g[column, j]
            p[row, column] = p[column, row] = value
    return log_evidence


@numba.njit(**OPTIONS)
def _smoother_step(k: int, chain: Chain, lam: Array, filtered: Filtered, scratch: _Scratch) -> None:
    """Take the adjoint from point k + 1 to point k, whose row of `filtered` becomes its posterior.

    The adjoint before the point goes to `scratch.m[k % 2]` and `scratch.p[k % 2]`.
    """
    h, r = chain.emission, lam.shape[1]
    s = len(h)
    q, big_n = scratch.m[k % 2], scratch.p[k % 2]
    if k + 1 < len(lam):
        transposed = scratch.small
        transposed[:] = chain.transition[k + 1].T
        congruence(transposed, scratch.p[1 - k % 2], r, scratch.half, big_n)
        transform(transposed, scratch.m[1 - k % 2], r, q)
    ne, gd = scratch.gains[0], scratch.gains[1]
    w, wl, z = scratch.products[0], scratch.products[1], scratch.vectors[0]
    e, d, u = filtered.gain[k], filtered.information[k], filtered.residual[k]
    multiply(big_n, e, ne)
    for i in range(r):
        z[i] = 0.0
        for row in range(r * s):
            z[i] += e[row, i] * q[row]
        filtered.mean[k, i] += z[i]
        for j in range(i + 1):
            value = 0.0
            for row in range(r * s):
                value += e[row, i] * ne[row, j]
            w[i, j] = w[j, i] = value
    multiply(ne, lam[k], gd)
    multiply(w, lam[k], wl)
    _absorb_adjoint(h, lam[k], d, u, z, gd, wl, q, big_n)
    for i in range(r):
        for j in range(i + 1):
            value = -w[i, j]
            for x in range(s):
                value += h[x] * (e[i * s + x, j] + e[j * s + x, i]) / 2
            d[i, j] = d[j, i] = value


@numba.njit(**OPTIONS)
def _absorb_adjoint(
    h: Array, lam: Array, d: Array, u: Array, z: Array, gd: Array, wl: Array, q: Array, big_n: Array
) -> None:
    """Take a point's information into the adjoint: with d = t lam, q becomes q + h (u - lam z).

    N becomes (I - g d h)' N (I - g d h) + h' d h; g d = e lam changes rows and columns that are multiples of h'.
    """
    s, r = len(h), len(lam)
    for i in range(r):
        pull = u[i]
        for j in range(r):
            pull -= lam[i, j] * z[j]
        for x in range(s):
            q[i * s + x] += h[x] * pull
            for row in range(len(q)):
                change = gd[row, i] * h[x]
                big_n[row, i * s + x] -= change
                big_n[i * s + x, row] -= change
        for j in range(i + 1):
            inner = (d[i, j] + d[j, i]) / 2
            for l in range(r):
                inner += (lam[i, l] * wl[l, j] + lam[j, l] * wl[l, i]) / 2
            for x in range(s):
                for y in range(s):
                    change = h[x] * inner * h[y]
                    big_n[i * s + x, j * s + y] += change
                    if j < i:
                        big_n[j * s + y, i * s + x] += change
