"""The passes of `kalman` over a line of points, as numba kernels.

A state's matrices are a few rows large: plain loops take a quarter of the time of calls to LAPACK. Arrays are float64:
a (points, s, s), prior (s, s), h (s), eta (points, r) or (points, r, samples), lam (points, r, r).
"""

import numba
import numpy as np

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@numba.njit(**_OPTIONS)
def pass_through(a, prior, h, eta, lam, back, keep):
    """Mean, covariance, log evidence (without `back` that alone), and with `keep` the fields of `Passes`.

    With g = P h' before a point's information is taken in, c = h g, t = (I + lam c)^-1 and e = g t, the posterior's
    h P h' is h e and its P h' is e: nothing is subtracted. Until the pass back has come to a point, its mean holds that
    of the filter and its covariance holds t lam.
    """
    points, r = eta.shape
    s = len(prior)
    n = r * s
    kept, stored = points if keep else 0, points if back else 1
    ms, ps = np.empty((kept, n)), np.empty((kept, n, n))
    pulls, precisions = np.empty((kept, n)), np.empty((kept, n, n))
    mean, covariance = np.empty((stored, r)), np.empty((stored, r, r))
    es, us = np.empty((stored, n, r)), np.empty((stored, r))
    m, moved, q, f, v = np.zeros(n), np.empty(n), np.zeros(n), np.empty(r), np.empty(r)
    p, half, other, big_n = np.zeros((n, n)), np.empty((n, n)), np.empty((n, n)), np.zeros((n, n))
    g, gd, c, system, t = (
        np.empty((n, r)),
        np.empty((n, r)),
        np.empty((r, r)),
        np.empty((r, r)),
        np.empty((r, r)),
    )
    log_evidence = 0.0
    for i in range(r):
        p[i * s : (i + 1) * s, i * s : (i + 1) * s] = prior
    for k in range(points):
        at = k if back else 0
        e, d, u = es[at], covariance[at], us[at]
        if k:
            _step(a[k], prior, p, r, half, other)
            p, other = other, p
            _move(a[k], m, r, moved)
            m, moved = moved, m
        _gain(p, h, r, g, c)
        for i in range(r):
            f[i] = 0.0
            for x in range(s):
                f[i] += h[x] * m[i * s + x]
        for i in range(r):
            v[i] = eta[k, i]
            for j in range(r):
                v[i] -= lam[k, i, j] * f[j]
        log_evidence -= _invert(lam[k], c, system, t) / 2
        _times(t, lam[k], d)
        _times(g, t, e)
        _times(g, d, gd)
        for i in range(r):
            u[i] = 0.0
            for j in range(r):
                u[i] += t[i, j] * v[j]
        for i in range(r):
            change = 0.0
            for j in range(r):
                change += c[i, j] * u[j]
            log_evidence += (f[i] * (eta[k, i] + v[i]) + v[i] * change) / 2
            mean[at, i] = f[i] + change
        for row in range(n):
            for j in range(r):
                m[row] += g[row, j] * u[j]
            for column in range(row + 1):
                value = p[row, column]
                for j in range(r):
                    value -= gd[row, j] * g[column, j]
                p[row, column] = p[column, row] = value
        if keep:
            ms[k], ps[k] = m, p
    if not back:
        return mean, covariance, log_evidence, ms, ps, pulls, precisions
    transposed, ne, w, wl, z = (
        np.empty((s, s)),
        np.empty((n, r)),
        np.empty((r, r)),
        np.empty((r, r)),
        np.empty(r),
    )
    for k in range(points - 1, -1, -1):
        e, d, u = es[k], covariance[k], us[k]
        if k + 1 < points:
            transposed[:] = a[k + 1].T
            _sandwich(transposed, big_n, r, half, other)
            big_n, other = other, big_n
            _move(transposed, q, r, moved)
            q, moved = moved, q
        _times(big_n, e, ne)
        for i in range(r):
            z[i] = 0.0
            for row in range(n):
                z[i] += e[row, i] * q[row]
            mean[k, i] += z[i]
            for j in range(i + 1):
                value = 0.0
                for row in range(n):
                    value += e[row, i] * ne[row, j]
                w[i, j] = w[j, i] = value
        # N before this point: (I - g d h)' N (I - g d h) + h' d h with g d = e lam, as rows and columns of h'.
        _times(ne, lam[k], gd)
        _times(w, lam[k], wl)
        for i in range(r):
            pull = u[i]
            for j in range(r):
                pull -= lam[k, i, j] * z[j]
            for x in range(s):
                q[i * s + x] += h[x] * pull
                for row in range(n):
                    change = gd[row, i] * h[x]
                    big_n[row, i * s + x] -= change
                    big_n[i * s + x, row] -= change
            for j in range(i + 1):
                inner = (d[i, j] + d[j, i]) / 2
                for l in range(r):
                    inner += (lam[k, i, l] * wl[l, j] + lam[k, j, l] * wl[l, i]) / 2
                for x in range(s):
                    for y in range(s):
                        change = h[x] * inner * h[y]
                        big_n[i * s + x, j * s + y] += change
                        if j < i:
                            big_n[j * s + y, i * s + x] += change
        for i in range(r):
            for j in range(i + 1):
                value = -w[i, j]
                for x in range(s):
                    value += h[x] * (e[i * s + x, j] + e[j * s + x, i]) / 2
                d[i, j] = d[j, i] = value
        if keep:
            pulls[k], precisions[k] = q, big_n
    return mean, covariance, log_evidence, ms, ps, pulls, precisions


@numba.njit(**_OPTIONS)
def pass_means(a, prior, h, eta, lam):
    """The same passes for the means alone; a state's mean is a matrix with a column for each sample."""
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
            _step(a[k], prior, p, r, half, other)
            p, other = other, p
            _move_all(a[k], m, r, moved)
            m, moved = moved, m
        _gain(p, h, r, g, c)
        f = _emit(h, m)
        _invert(lam[k], c, system, t)
        u = t @ (eta[k] - lam[k] @ f)
        es[k] = g @ t
        gds[k] = es[k] @ lam[k]
        m += g @ u
        p -= gds[k] @ g.T
        mean[k], us[k] = f + c @ u, u
    q = np.zeros((n, samples))
    for k in range(points - 1, -1, -1):
        if k + 1 < points:
            _move_all(a[k + 1].T, q, r, moved)
            q, moved = moved, q
        mean[k] += es[k].T @ q
        pull = us[k] - gds[k].T @ q
        for i in range(r):
            for x in range(s):
                q[i * s + x] += h[x] * pull[i]
    return mean


@numba.njit(**_OPTIONS)
def pass_values(a, pushes, h):
    """h' x of states x_k = a_k x_k-1 + push_k (points, s, columns) that begin with zero."""
    points, s, columns = pushes.shape
    values = np.zeros((points, columns))
    state, moved = np.zeros((s, columns)), np.empty((s, columns))
    for k in range(points):
        _move_all(a[k], state, 1, moved)
        for x in range(s):
            for column in range(columns):
                state[x, column] = moved[x, column] + pushes[k, x, column]
                values[k, column] += h[x] * state[x, column]
    return values


@numba.njit(**_OPTIONS)
def _step(a, prior, p, r, half, out):
    """out = (I x a) (p - I x prior) (I x a)' + I x prior; p is spoilt, `half` is scratch."""
    s = len(a)
    for i in range(r):
        for x in range(s):
            for y in range(s):
                p[i * s + x, i * s + y] -= prior[x, y]
    _sandwich(a, p, r, half, out)
    for i in range(r):
        for x in range(s):
            for y in range(s):
                out[i * s + x, i * s + y] += prior[x, y]


@numba.njit(**_OPTIONS)
def _sandwich(a, p, r, half, out):
    """out = (I x a) p (I x a)' for symmetric p; `half` is scratch."""
    s = len(a)
    n = r * s
    for i in range(r):
        for x in range(s):
            for column in range(n):
                value = 0.0
                for y in range(s):
                    value += a[x, y] * p[i * s + y, column]
                half[i * s + x, column] = value
    for row in range(n):
        for j in range(row // s + 1):
            for x in range(s):
                value = 0.0
                for y in range(s):
                    value += half[row, j * s + y] * a[x, y]
                out[row, j * s + x] = out[j * s + x, row] = value


@numba.njit(**_OPTIONS)
def _gain(p, h, r, g, c):
    """g = p (I x h), c = (I x h') g."""
    s = len(h)
    for row in range(len(p)):
        for j in range(r):
            value = 0.0
            for y in range(s):
                value += p[row, j * s + y] * h[y]
            g[row, j] = value
    for i in range(r):
        for j in range(r):
            value = 0.0
            for x in range(s):
                value += h[x] * g[i * s + x, j]
            c[i, j] = value


@numba.njit(**_OPTIONS)
def _invert(lam, c, system, t):
    """t = (I + lam c)^-1 by Gauss and Jordan, with pivots; log det(I + lam c). `system` is scratch."""
    r = len(c)
    _times(lam, c, system)
    for i in range(r):
        system[i, i] += 1.0
        t[i] = 0.0
        t[i, i] = 1.0
    log_det = 0.0
    for k in range(r):
        pivot = k
        for i in range(k + 1, r):
            if abs(system[i, k]) > abs(system[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(r):
                system[k, j], system[pivot, j] = system[pivot, j], system[k, j]
                t[k, j], t[pivot, j] = t[pivot, j], t[k, j]
        scale = 1 / system[k, k]
        log_det -= np.log(abs(scale))
        for j in range(r):
            system[k, j] *= scale
            t[k, j] *= scale
        for i in range(r):
            factor = system[i, k]
            if i != k:
                for j in range(r):
                    system[i, j] -= factor * system[k, j]
                    t[i, j] -= factor * t[k, j]
    return log_det


@numba.njit(**_OPTIONS)
def _times(a, b, out):
    """out = a b."""
    for i in range(len(a)):
        for j in range(b.shape[1]):
            value = 0.0
            for k in range(len(b)):
                value += a[i, k] * b[k, j]
            out[i, j] = value


@numba.njit(**_OPTIONS)
def _move(a, m, r, out):
    """out = (I x a) m."""
    s = len(a)
    for i in range(r):
        for x in range(s):
            value = 0.0
            for y in range(s):
                value += a[x, y] * m[i * s + y]
            out[i * s + x] = value


@numba.njit(**_OPTIONS)
def _move_all(a, m, r, out):
    """The same for every column of m."""
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
