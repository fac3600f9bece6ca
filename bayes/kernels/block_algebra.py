"""Linear algebra of R independent processes side by side, in plain loops for numba.

A joint state of R functions has n = R s rows: the s states of the first function, then those of the second, and so on.
Its transition is I x A (a Kronecker product), its emission I x h'. Matrices are a few rows large, so that loops take a
quarter of the time of calls to LAPACK. All arrays are float64; results go into the arrays that are handed over.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@numba.njit(**OPTIONS)
def predict_covariance(a: Array, prior: Array, p: Array, r: int, half: Array, out: Array) -> None:
    """Compute out = (I x a) (p - I x prior) (I x a)' + I x prior; p is overwritten, `half` is scratch."""
    s = len(a)
    for i in range(r):
        for x in range(s):
            for y in range(s):
                p[i * s + x, i * s + y] -= prior[x, y]
    congruence(a, p, r, half, out)
    for i in range(r):
        for x in range(s):
            for y in range(s):
                out[i * s + x, i * s + y] += prior[x, y]


@numba.njit(**OPTIONS)
def congruence(a: Array, p: Array, r: int, half: Array, out: Array) -> None:
    """Compute out = (I x a) p (I x a)' for symmetric p; `half` is scratch."""
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


@numba.njit(**OPTIONS)
def project(p: Array, h: Array, r: int, g: Array, c: Array) -> None:
    """Compute g = p (I x h) and c = (I x h') g."""
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


@numba.njit(**OPTIONS)
def invert_system(lam: Array, c: Array, system: Array, t: Array) -> float:
    """Compute t = (I + lam c)^-1 by Gauss-Jordan elimination with pivots, and return log det(I + lam c).

    `system` is scratch.
    """
    r = len(c)
    multiply(lam, c, system)
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


@numba.njit(**OPTIONS)
def multiply(a: Array, b: Array, out: Array) -> None:
    """Compute out = a b."""
    for i in range(len(a)):
        for j in range(b.shape[1]):
            value = 0.0
            for k in range(len(b)):
                value += a[i, k] * b[k, j]
            out[i, j] = value


@numba.njit(**OPTIONS)
def transform(a: Array, m: Array, r: int, out: Array) -> None:
    """Compute out = (I x a) m for a vector m."""
    s = len(a)
    for i in range(r):
        for x in range(s):
            value = 0.0
            for y in range(s):
                value += a[x, y] * m[i * s + y]
            out[i * s + x] = value


@numba.njit(**OPTIONS)
def transform_columns(a: Array, m: Array, r: int, out: Array) -> None:
    """Compute out = (I x a) m for a matrix m."""
    s = len(a)
    out[:] = 0.0
    for i in range(r):
        for x in range(s):
            for y in range(s):
                for column in range(m.shape[1]):
                    out[i * s + x, column] += a[x, y] * m[i * s + y, column]


@numba.njit(**OPTIONS)
def emit_columns(h: Array, m: Array) -> Array:
    """Return (I x h') m for a matrix m."""
    s = len(h)
    r = len(m) // s
    out = np.zeros((r, m.shape[1]))
    for i in range(r):
        for x in range(s):
            for j in range(m.shape[1]):
                out[i, j] += h[x] * m[i * s + x, j]
    return out
