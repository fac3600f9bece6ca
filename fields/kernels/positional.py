"""NeRF's positional encoding of float32 positions on a CPU (Mildenhall et al. 2020, eq. 4)."""

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample
from fieldmorph.fields.kernels.launch import launch

BENCH_SIZES = ({"n_samples": 1 << 16},)

# sin(pi s) / s as a polynomial in s^2, interpolated at Chebyshev nodes of [0, 1/4]; its error is 7e-9.
_SINE = tuple(
    np.float32(c) for c in (3.14159264466, -5.16771008362, 2.55007739143, -0.598290412337, 0.0776559128)
)


def positional_encoding_numba(x: Float[Tensor, "n dims"], n_frequencies: int) -> Float[Tensor, "n encoded"]:
    """Return what `positional_encoding_torch` does, for positions that need no gradient.

    Angles are reduced to half a turn before they are multiplied by pi, which is exact: at the tenth frequency the
    result is a thousand times closer to the true value than that of float32 angles.
    """
    x = x.contiguous()
    out = torch.empty(len(x), x.shape[1] * (1 + 2 * n_frequencies))
    launch(_encode, x.numpy(), n_frequencies, out.numpy())
    return out


def positional_encoding_torch(
    x: Float[Tensor, "*batch dims"], n_frequencies: int
) -> Float[Tensor, "*batch encoded"]:
    """Return x, then sin(2^k pi x) and cos(2^k pi x) for k < n_frequencies, in any dtype on any device."""
    frequencies = math.pi * 2.0 ** torch.arange(n_frequencies, device=x.device, dtype=x.dtype)
    angles = (x[..., None, :] * frequencies[:, None]).flatten(-2)
    return torch.cat([x, torch.sin(angles), torch.cos(angles)], dim=-1)


def example(generator: torch.Generator, n_samples: int = 64, n_frequencies: int = 10) -> KernelExample:
    """Return random positions in [-1, 1]^3."""
    positions = 2 * torch.rand(n_samples, 3, generator=generator) - 1
    return KernelExample(
        f"positional encoding, {n_frequencies} frequencies",
        positional_encoding_numba,
        # in double precision: float32 angles are less exact than the kernel
        lambda x, n: positional_encoding_torch(x.double(), n).float(),
        lambda encode, _: encode(positions, n_frequencies),
        n_samples,
        baseline=positional_encoding_torch,
    )


@numba.njit(inline="always")
def _sine(s):
    """Return sin(pi s) for s in [-1/2, 1/2]."""
    u = s * s
    return s * (_SINE[0] + u * (_SINE[1] + u * (_SINE[2] + u * (_SINE[3] + u * _SINE[4]))))


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _encode(x, n_frequencies, out):
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    dims = x.shape[1]
    n = n_frequencies * dims
    for i in numba.prange(x.shape[0]):
        sines, cosines = out[i, dims : dims + n], out[i, dims + n :]
        for j in range(dims):
            out[i, j] = x[i, j]
            if n:
                sines[j] = x[i, j]
        for m in range(dims, n):
            sines[m] = two * sines[m - dims]
        for m in range(n):  # vectorised by the compiler
            at = sines[m]
            turn = at - two * np.floor(at * half + half)  # in [-1, 1); exact
            size = abs(turn)
            fold = min(size, one - size)
            sines[m] = _sine(fold if turn >= 0 else -fold)
            cosines[m] = _sine(half - size)
