"""Numba kernels of joint samples on a line of points: prior draws, and posterior means of many eta."""

import numba
import numpy as np

from fieldmorph.bayes.kernels.block_algebra import (
    OPTIONS,
    Array,
    emit_columns,
    invert_system,
    predict_covariance,
    project,
    transform_columns,
)
from fieldmorph.bayes.kernels.smoother import Chain


@numba.njit(**OPTIONS)
def mean_passes(chain: Chain, eta: Array, lam: Array) -> Array:
    """Return the posterior means for many eta (points, r, samples) at once: a state's mean has a column for each.

    Args:
        chain: transitions, stationary covariance and emission.
        eta: (points, r, samples), in float64.
        lam: (points, r, r), the same for all samples.
    """
    a, prior, h = chain
    points, r, samples = eta.shape
    s = len(prior)
    n = r * s
    mean, us = np.empty((points, r, samples)), np.empty((points, r, samples))
    es, gds = np.empty((points, n, r)), np.empty((points, n, r))
    g, c, system, t = np.empty((n, r)), np.empty((r, r)), np.empty((r, r)), np.empty((r, r))
    m, moved = np.zeros((n, samples)), np.empty((n, samples))
    p, half, other = np.zeros((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(r):
        p[i * s : (i + 1) * s, i * s : (i + 1) * s] = prior
    for k in range(points):
        if k:
            predict_covariance(a[k], prior, p, r, half, other)
            p, other = other, p
            transform_columns(a[k], m, r, moved)
            m, moved = moved, m
        project(p, h, r, g, c)
        f = emit_columns(h, m)
        invert_system(lam[k], c, system, t)
        u = t @ (eta[k] - lam[k] @ f)
        es[k] = g @ t
        gds[k] = es[k] @ lam[k]
        m += g @ u
        p -= gds[k] @ g.T
        mean[k], us[k] = f + c @ u, u
    q = np.zeros((n, samples))
    for k in range(points - 1, -1, -1):
        if k + 1 < points:
            transform_columns(a[k + 1].T, q, r, moved)
            q, moved = moved, q
        mean[k] += es[k].T @ q
        pull = us[k] - gds[k].T @ q
        for i in range(r):
            for x in range(s):
                q[i * s + x] += h[x] * pull[i]
    return mean


@numba.njit(**OPTIONS)
def propagate(transition: Array, impulses: Array, emission: Array) -> Array:
    """Return h' x of states x_k = A_k x_(k-1) + impulse_k, (points, s, columns), that begin with zero.

    Args:
        transition: A (points, s, s) from the left neighbor; the first has no effect.
        impulses: (points, s, columns), added to the state at each point.
        emission: h (s,).
    """
    points, s, columns = impulses.shape
    values = np.zeros((points, columns))
    state, moved = np.zeros((s, columns)), np.empty((s, columns))
    for k in range(points):
        transform_columns(transition[k], state, 1, moved)
        for x in range(s):
            for column in range(columns):
                state[x, column] = moved[x, column] + impulses[k, x, column]
                values[k, column] += emission[x] * state[x, column]
    return values
