"""Encodings without parameters: NeRF's sines and cosines, spherical harmonics of a direction."""

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample
from fieldmorph.fields.kernels.launch import launch
from fieldmorph.fields.kernels.positional import positional_encoding_numba, positional_encoding_torch

BENCH_SIZES = ({"n_samples": 1 << 16},)


def positional_encoding(
    x: Float[Tensor, "*batch dims"], n_frequencies: int
) -> Float[Tensor, "*batch encoded"]:
    """Return x, then sin(2^k pi x) and cos(2^k pi x) for k < n_frequencies (Mildenhall et al. 2020, eq. 4).

    Returns dims * (1 + 2 n_frequencies) numbers; x is meant to lie in [-1, 1].
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad:
        flat = positional_encoding_numba(x.reshape(-1, x.shape[-1]), n_frequencies)
        return flat.reshape(*x.shape[:-1], flat.shape[-1])
    return positional_encoding_torch(x, n_frequencies)


def spherical_harmonics(directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 16"]:
    """Return the 16 real spherical harmonics of degree below 4 at unit directions, in the usual NeRF order.

    No gradient flows to the directions on a CPU in float32, where a kernel does the work.
    """
    if directions.device.type == "cpu" and directions.dtype == torch.float32 and not directions.requires_grad:
        flat = directions.reshape(-1, 3).contiguous()
        out = torch.empty(len(flat), 16)
        launch(_spherical_harmonics, flat.numpy(), out.numpy())
        return out.reshape(*directions.shape[:-1], 16)
    return spherical_harmonics_torch(directions)


def spherical_harmonics_torch(directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 16"]:
    """Return the same on any device, in any dtype, differentiable (Sloan 2013, "Efficient SH Evaluation")."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    basis = [
        torch.full_like(x, 0.28209479177387814),
        -0.48860251190291987 * y,
        0.48860251190291987 * z,
        -0.48860251190291987 * x,
        1.0925484305920792 * xy,
        -1.0925484305920792 * yz,
        0.94617469575756 * zz - 0.31539156525252,
        -1.0925484305920792 * xz,
        0.5462742152960396 * (xx - yy),
        0.5900435899266435 * y * (yy - 3 * xx),
        2.8906114426405538 * xy * z,
        0.4570457994644657 * y * (1 - 5 * zz),
        0.3731763325901154 * z * (5 * zz - 3),
        0.4570457994644657 * x * (1 - 5 * zz),
        1.445305721320277 * z * (xx - yy),
        0.5900435899266435 * x * (3 * yy - xx),
    ]
    return torch.stack(basis, dim=-1)


def example(generator: torch.Generator, n_samples: int = 64) -> KernelExample:
    """Return random unit directions for `spherical_harmonics`."""
    directions = torch.nn.functional.normalize(torch.randn(n_samples, 3, generator=generator), dim=-1)
    return KernelExample(
        "spherical harmonics of degree below 4",
        spherical_harmonics,
        spherical_harmonics_torch,
        lambda harmonics, _: harmonics(directions),
        n_samples,
    )


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _spherical_harmonics(directions, out):
    f = np.float32
    for i in numba.prange(directions.shape[0]):
        x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
        xx, yy, zz = x * x, y * y, z * z
        out[i, 0] = f(0.28209479177387814)
        out[i, 1] = f(-0.48860251190291987) * y
        out[i, 2] = f(0.48860251190291987) * z
        out[i, 3] = f(-0.48860251190291987) * x
        out[i, 4] = f(1.0925484305920792) * (x * y)
        out[i, 5] = f(-1.0925484305920792) * (y * z)
        out[i, 6] = f(0.94617469575756) * zz - f(0.31539156525252)
        out[i, 7] = f(-1.0925484305920792) * (x * z)
        out[i, 8] = f(0.5462742152960396) * (xx - yy)
        out[i, 9] = f(0.5900435899266435) * y * (yy - f(3) * xx)
        out[i, 10] = f(2.8906114426405538) * (x * y) * z
        out[i, 11] = f(0.4570457994644657) * y * (f(1) - f(5) * zz)
        out[i, 12] = f(0.3731763325901154) * z * (f(5) * zz - f(3))
        out[i, 13] = f(0.4570457994644657) * x * (f(1) - f(5) * zz)
        out[i, 14] = f(1.445305721320277) * z * (xx - yy)
        out[i, 15] = f(0.5900435899266435) * x * (f(3) * yy - xx)
