"""Volume rendering of packed samples, forward and backward (Max 1995; Mildenhall et al. 2020, eq. 3)."""

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.example import SAMPLES_PER_RAY, KernelExample
from fieldmorph.fields.kernels.launch import launch

# weights per sample; colour, opacity and expected depth (not divided by opacity) per ray
Composited = tuple[
    Float[Tensor, "n_samples"], Float[Tensor, "n_rays 3"], Float[Tensor, "n_rays"], Float[Tensor, "n_rays"]
]

BENCH_SIZES = ({"n_samples": 1 << 16},)


def alpha_from_density(sigma: Float[Tensor, "*batch"], step_size: float) -> Float[Tensor, "*batch"]:
    """Return the fraction of light, in [0, 1], that a step of this length stops: 1 - exp(-sigma step) (Max 1995).

    Args:
        sigma: density per world unit.
        step_size: in world units.
    """
    return -torch.expm1(-sigma * step_size)


def composite_numba(
    sigma: Float[Tensor, "n_samples"],
    rgb: Float[Tensor, "n_samples 3"],
    t_starts: Float[Tensor, "n_samples"],
    t_ends: Float[Tensor, "n_samples"],
    offsets: Int[Tensor, "n_offsets"],
) -> Composited:
    """Return what `composite_torch` does, for float32 densities on a CPU."""
    result: Composited = _Composite.apply(sigma, rgb.float(), t_starts.float(), t_ends.float(), offsets)
    return result


def composite_torch(
    sigma: Float[Tensor, "n_samples"],
    rgb: Float[Tensor, "n_samples 3"],
    t_starts: Float[Tensor, "n_samples"],
    t_ends: Float[Tensor, "n_samples"],
    offsets: Int[Tensor, "n_offsets"],
) -> Composited:
    """Return `composite` in plain torch, on any device."""
    n_rays = len(offsets) - 1
    counts = offsets.diff()
    ray_indices = torch.repeat_interleave(torch.arange(n_rays, device=sigma.device), counts)
    optical = sigma * (t_ends - t_starts).to(sigma.dtype)
    # One running sum over all rays, in double so that a ray late in the batch loses nothing; exp(-800) is 0
    # there, so the bound changes no weight and keeps one opaque ray from swallowing the digits of the next.
    total = torch.cat([optical.new_zeros(1, dtype=torch.float64), optical.double().clamp(max=800).cumsum(0)])
    before = (total[:-1] - total[offsets[:-1]][ray_indices]).to(sigma.dtype)
    weights = torch.exp(-before) * -torch.expm1(-optical)
    centres = ((t_starts + t_ends) / 2).to(sigma.dtype)
    per_sample = torch.cat([rgb, torch.ones_like(rgb[:, :1]), centres[:, None]], dim=-1) * weights[:, None]
    rays = per_sample.new_zeros(n_rays, 5).index_add(0, ray_indices, per_sample)
    return weights, rays[:, :3], rays[:, 3], rays[:, 4]


def example(generator: torch.Generator, n_samples: int = 64) -> KernelExample:
    """Return rays with 32 samples of length 0.01 each."""
    offsets = torch.arange(0, n_samples + 1, SAMPLES_PER_RAY)
    sigma = torch.rand(n_samples, generator=generator) * 20
    rgb = torch.rand(n_samples, 3, generator=generator)
    t_starts = 2 + 0.01 * (torch.arange(n_samples) % SAMPLES_PER_RAY)
    n_rays = len(offsets) - 1
    shapes = ((n_samples,), (n_rays, 3), (n_rays,), (n_rays,))
    return KernelExample(
        f"compositing, {SAMPLES_PER_RAY} samples a ray",
        composite_numba,
        composite_torch,
        lambda composite, leaves: composite(*leaves, t_starts, t_starts + 0.01, offsets),
        n_samples,
        (sigma, rgb),
        tuple(torch.randn(shape, generator=generator) for shape in shapes),
    )


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigma: Tensor, rgb: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor
    ) -> Composited:
        rgb, trans = rgb.detach().contiguous(), torch.empty_like(t_starts)
        # Alphas, which the kernel turns into weights: torch's expm1 is vectorised, numba's is not.
        weights = torch.expm1(sigma.detach() * (t_starts - t_ends)).neg_()
        rays = torch.zeros(len(offsets) - 1, 5)
        launch(_forward, *(x.numpy() for x in (rgb, t_starts, t_ends, offsets, weights, trans, rays)))
        ctx.save_for_backward(rgb, t_starts, t_ends, offsets, weights, trans)
        return weights, rays[:, :3], rays[:, 3], rays[:, 4]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rgb, t_starts, t_ends, offsets, weights, trans = ctx.saved_tensors
        sigma_grad, rgb_grad = torch.empty_like(weights), torch.empty_like(rgb)
        inputs = (rgb, t_starts, t_ends, offsets, weights, trans, *(g.contiguous() for g in grads))
        launch(_backward, *(x.numpy() for x in (*inputs, sigma_grad, rgb_grad)))
        return sigma_grad, rgb_grad, None, None, None


_OPTIONS = {"parallel": True, "cache": True, "nogil": True, "error_model": "numpy"}


@numba.njit(**_OPTIONS)
def _forward(rgb, t_starts, t_ends, offsets, weights, trans, rays):
    for r in numba.prange(offsets.shape[0] - 1):
        light = 1.0  # double: a long product
        red = green = blue = opacity = depth = np.float32(0)
        for i in range(offsets[r], offsets[r + 1]):
            w = np.float32(light * weights[i])
            light -= light * weights[i]
            weights[i], trans[i] = w, light
            red += w * rgb[i, 0]
            green += w * rgb[i, 1]
            blue += w * rgb[i, 2]
            opacity += w
            depth += w * (t_starts[i] + t_ends[i]) * np.float32(0.5)
        rays[r, 0], rays[r, 1], rays[r, 2], rays[r, 3], rays[r, 4] = red, green, blue, opacity, depth


@numba.njit(**_OPTIONS)
def _backward(
    rgb, t_starts, t_ends, offsets, weights, trans, g_weights, g_rgb, g_opacity, g_depth, sigma_grad, rgb_grad
):
    # d w_j / d sigma_i = dt_i (T_{i+1} [j = i] - w_j [j > i]), so one sweep from the far end serves.
    for r in numba.prange(offsets.shape[0] - 1):
        behind = 0.0
        for k in range(offsets[r + 1] - offsets[r]):
            i = offsets[r + 1] - 1 - k
            g = g_weights[i] + g_opacity[r] + g_depth[r] * (t_starts[i] + t_ends[i]) * np.float32(0.5)
            for c in range(3):
                g += g_rgb[r, c] * rgb[i, c]
                rgb_grad[i, c] = weights[i] * g_rgb[r, c]
            sigma_grad[i] = (t_ends[i] - t_starts[i]) * (trans[i] * g - np.float32(behind))
            behind += weights[i] * g
