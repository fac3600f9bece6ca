"""The kernels that fields and renderers call, each dispatched to the implementation that serves its tensors.

numba serves float32 on a CPU. On CUDA tiny-cuda-nn and nerfacc serve where they are installed and passed their
self-test (`accelerators.py`); the torch twins serve everything else.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.composite import Composited, composite_numba, composite_torch
from fieldmorph.fields.kernels.hash import hash_encode_numba, hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import HashLevels
from fieldmorph.fields.kernels.march import Packed, march_numba, march_torch


def hash_encode(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "entries features"], levels: HashLevels
) -> Float[Tensor, "n encoded"]:
    """Return the trilinearly interpolated features of all levels, level-major (Müller et al. 2022, section 3).

    Positions lie in [0, 1]^3. Neither numba nor tiny-cuda-nn has gradients for the positions; where these are
    required, the torch twin serves.

    Args:
        table: entries of all levels, one after the other, in a row of features each.
        levels: shapes of the levels, from `hash_levels`.
    """
    if table.is_cuda and table.dtype == torch.float32:
        from fieldmorph.fields.kernels.accelerators import hash_encode_cuda  # only for a CUDA tensor

        return hash_encode_cuda(positions, table, levels)
    if positions.device.type == "cpu" and table.dtype == torch.float32 and not positions.requires_grad:
        return hash_encode_numba(positions, table, levels)
    return hash_encode_torch(positions, table, levels)


def composite(
    sigma: Float[Tensor, "n_samples"],
    rgb: Float[Tensor, "n_samples 3"],
    t_starts: Float[Tensor, "n_samples"],
    t_ends: Float[Tensor, "n_samples"],
    offsets: Int[Tensor, "n_offsets"],
) -> Composited:
    """Return weights of the samples, and color over black, opacity and depth of the rays (Max 1995; NeRF, eq. 3).

    alpha_i = 1 - exp(-sigma_i (t_end - t_start)), weight_i = alpha_i prod_{j < i} (1 - alpha_j). Depth is the
    weighted sum of sample centers, in world units. Differentiable in sigma and rgb.

    Args:
        sigma: density per world unit of each sample, at least 0.
        rgb: sRGB of each sample.
        t_starts, t_ends: distances along the ray between which each sample lies, in world units.
        offsets: ray r owns the samples offsets[r] .. offsets[r + 1], from near to far.
    """
    if sigma.is_cuda and sigma.dtype == torch.float32:
        from fieldmorph.fields.kernels.accelerators import composite_cuda  # only for a CUDA tensor

        return composite_cuda(sigma, rgb, t_starts, t_ends, offsets)
    if sigma.device.type == "cpu" and sigma.dtype == torch.float32:
        return composite_numba(sigma, rgb, t_starts, t_ends, offsets)
    return composite_torch(sigma, rgb, t_starts, t_ends, offsets)


def march(
    rays_o: Float[Tensor, "n_rays 3"],
    rays_d: Float[Tensor, "n_rays 3"],
    aabb: Float[Tensor, "6"],
    occupied: Bool[Tensor, "x y z"],
    render_step_size: float,
    jitter: Float[Tensor, "n_rays"],
    near_plane: float = 0.0,
    far_plane: float = math.inf,
) -> Packed:
    """Return the samples of all rays, ordered by ray and depth.

    The k-th sample of a ray is centred at `t_near + (k + jitter) render_step_size`, where t_near is where the ray
    enters the box (or near_plane), and is kept when its centre lies in an occupied cell.

    Args:
        rays_o, rays_d: origins in world units, and directions.
        aabb: the box in world units, min then max.
        occupied: cells of that box.
        render_step_size: distance between samples, in world units for directions of unit length.
        jitter: in [0, 1), one per ray; 0.5 for images.

    Returns:
        ray_indices, t_starts, t_ends, and offsets: ray r owns samples offsets[r] .. offsets[r + 1]. A ray without
        a direction or with a nan has none.

    Raises:
        ValueError: render_step_size is not positive.
    """
    if not render_step_size > 0:
        raise ValueError(f"render_step_size must be positive; got {render_step_size}")
    arguments = (rays_o, rays_d, aabb, occupied, render_step_size, jitter, near_plane, far_plane)
    if rays_o.is_cuda:
        from fieldmorph.fields.kernels.accelerators import march_cuda  # only for a CUDA tensor

        return march_cuda(*arguments)
    return march_numba(*arguments) if rays_o.device.type == "cpu" else march_torch(*arguments)
