"""Marching rays through an occupancy grid: packed samples at equal steps, only in occupied cells.

numba on a CPU, nerfacc on CUDA where it passed its self-test, the torch twin elsewhere; `ops.py` chooses.
"""

import math

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.fields.kernels.example import KernelExample, rays_through_box
from fieldmorph.fields.kernels.launch import launch

BLOCK = 8  # a power of two: cells along an edge of the blocks that a ray crosses at once where they are empty
BENCH_SIZES = ({"n_rays": 2048, "resolution": 64}, {"n_rays": 2048, "resolution": 128})

# What comes back from a march: ray_indices, t_starts, t_ends of the samples, and where each ray's begin.
Packed = tuple[
    Int[Tensor, "n_samples"], Float[Tensor, "n_samples"], Float[Tensor, "n_samples"], Int[Tensor, "n_offsets"]
]


def march_numba(
    rays_o: Float[Tensor, "n_rays 3"],
    rays_d: Float[Tensor, "n_rays 3"],
    aabb: Float[Tensor, "6"],
    occupied: Bool[Tensor, "x y z"],
    render_step_size: float,
    jitter: Float[Tensor, "n_rays"],
    near_plane: float = 0.0,
    far_plane: float = math.inf,
) -> Packed:
    """Return the samples that `march_torch` finds, for tensors on a CPU."""
    arguments = (
        rays_o.detach().float().contiguous().numpy(),
        rays_d.detach().float().contiguous().numpy(),
        aabb.double().numpy(),
        occupied.contiguous().numpy(),
        float(render_step_size),
        jitter.float().contiguous().numpy(),
        float(near_plane),
        float(far_plane),
    )
    blocks = np.zeros([(n + BLOCK - 1) // BLOCK for n in occupied.shape], np.bool_)
    launch(_fill_blocks, arguments[3], blocks)
    offsets, firsts = np.zeros(len(rays_o) + 1, np.int64), np.zeros(len(rays_o), np.int64)
    launch(_count, *arguments, blocks, offsets, firsts)
    np.cumsum(offsets, out=offsets)
    ray_indices = torch.empty(int(offsets[-1]), dtype=torch.int64)
    t_starts, t_ends = torch.empty(len(ray_indices)), torch.empty(len(ray_indices))
    launch(_write, *arguments, blocks, offsets, firsts, ray_indices.numpy(), t_starts.numpy(), t_ends.numpy())
    return ray_indices, t_starts, t_ends, torch.from_numpy(offsets)


def march_torch(
    rays_o: Float[Tensor, "n_rays 3"],
    rays_d: Float[Tensor, "n_rays 3"],
    aabb: Float[Tensor, "6"],
    occupied: Bool[Tensor, "x y z"],
    render_step_size: float,
    jitter: Float[Tensor, "n_rays"],
    near_plane: float = 0.0,
    far_plane: float = math.inf,
    max_steps: int = 1 << 22,
) -> Packed:
    """Return `march` in plain torch: every step of every ray is tested, on any device.

    Args:
        max_steps: that are held at once, some hundred bytes each: half a GiB.
    """
    o, d, box = rays_o.float().double(), rays_d.float().double(), aabb.double()
    low, high = box[:3], box[3:]
    t_near, t_far, hit = cross_box(o, d, box, near_plane, far_plane)
    longest = float((t_far - t_near)[hit].max()) if hit.any() else 0.0
    steps = torch.arange(math.ceil(longest / render_step_size) + 1, device=o.device, dtype=torch.float64)
    resolution = torch.tensor(occupied.shape, device=o.device)
    origin, scale = (o - low) / (high - low) * resolution, d / (high - low) * resolution
    t_far = t_far.where(hit, -math.inf)
    shift = jitter.float().double()
    indices, centres, counts = [], [], []
    rays_per_chunk = max(1, max_steps // len(steps))
    for first in range(0, max(1, len(o)), rays_per_chunk):
        rays = slice(first, first + rays_per_chunk)
        t_mid = t_near[rays, None] + (steps + shift[rays, None]) * render_step_size
        inside = t_mid < t_far[rays, None]
        place = origin[rays, None] + t_mid[..., None] * scale[rays, None]
        cell = place.where(inside[..., None], 0).long().clamp(torch.zeros_like(resolution), resolution - 1)
        keep = inside & occupied[cell[..., 0], cell[..., 1], cell[..., 2]]
        indices.append(keep.nonzero()[:, 0] + first)
        centres.append(t_mid[keep])
        counts.append(keep.sum(1))
    t_mid, half = torch.cat(centres), render_step_size / 2
    offsets = torch.cat([counts[0].new_zeros(1), torch.cat(counts).cumsum(0)])
    return torch.cat(indices), (t_mid - half).float(), (t_mid + half).float(), offsets


def example(generator: torch.Generator, n_rays: int = 64, resolution: int = 16) -> KernelExample:
    """Return rays through a shell of occupied cells, about as full as the surface of an object."""
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x * x + y * y + z * z).sqrt()
    occupied = (radius > 0.55) & (radius < 0.65)
    rays_o, rays_d = rays_through_box(n_rays, generator)
    jitter, aabb = torch.rand(n_rays, generator=generator), torch.tensor([-1.0, -1, -1, 1, 1, 1])
    return KernelExample(
        f"marching an occupancy grid of {resolution}^3",
        march_numba,
        march_torch,
        lambda march, _: march(rays_o, rays_d, aabb, occupied, 2 / 256, jitter),
        n_rays,
        items="rays",
    )


def cross_box(
    rays_o: Float[Tensor, "n_rays 3"],
    rays_d: Float[Tensor, "n_rays 3"],
    aabb: Float[Tensor, "6"],
    near_plane: float,
    far_plane: float,
) -> tuple[Float[Tensor, "n_rays"], Float[Tensor, "n_rays"], Bool[Tensor, "n_rays"]]:
    """Return where rays enter the box and leave it between the planes, and whether they do; a nan never does.

    Args:
        rays_o, rays_d: origins in world units, and directions of any length.
        aabb: box in world units, min then max.
        near_plane, far_plane: bounds of the distance, in lengths of the direction.
    """
    low, high = aabb[:3], aabb[3:]
    a, b = (low - rays_o) / rays_d, (high - rays_o) / rays_d
    # A ray parallel to a slab is inside it for ever, or never.
    parallel, within = rays_d == 0, (rays_o >= low) & (rays_o <= high)
    enter = torch.where(parallel, torch.where(within, -math.inf, math.inf), torch.minimum(a, b))
    leave = torch.where(parallel, math.inf, torch.maximum(a, b))
    t_near, t_far = enter.amax(-1).clamp(min=near_plane), leave.amin(-1).clamp(max=far_plane)
    return t_near, t_far, (t_near < t_far) & t_far.isfinite()


_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@numba.njit(parallel=True, **_OPTIONS)
def _fill_blocks(occupied, blocks):
    """Mark the blocks of BLOCK^3 cells that hold an occupied one."""
    for i in numba.prange(occupied.shape[0]):
        for j in range(occupied.shape[1]):
            for l in range(occupied.shape[2]):
                if occupied[i, j, l]:
                    blocks[i // BLOCK, j // BLOCK, l // BLOCK] = True  # threads that race write the same


@numba.njit(inline="always", **_OPTIONS)
def _walk(
    o,
    d,
    aabb,
    occupied,
    step,
    jitter,
    near,
    far,
    blocks,
    k,
    limit,
    ray,
    cursor,
    ray_indices,
    t_starts,
    t_ends,
):
    """Visit the samples of one ray from the k-th on; write the next `limit` found, or, with 0, count them all.

    Returns how many there are and the k of the first.
    """
    t_near, t_far = near, far
    scale, origin, inverse = np.empty(3), np.empty(3), np.empty(3)
    for axis in range(3):
        extent = aabb[3 + axis] - aabb[axis]
        if d[axis] == 0.0:  # parallel: inside the slab for ever, or never
            if o[axis] < aabb[axis] or o[axis] > aabb[3 + axis]:
                return 0, 0
        else:
            a, b = (aabb[axis] - o[axis]) / d[axis], (aabb[3 + axis] - o[axis]) / d[axis]
            t_near, t_far = max(t_near, min(a, b)), min(t_far, max(a, b))
        scale[axis] = d[axis] / extent * occupied.shape[axis]
        origin[axis] = (o[axis] - aabb[axis]) / extent * occupied.shape[axis]
        inverse[axis] = 1.0 / scale[axis]
    if not t_far < np.inf or np.isnan(origin.sum() + scale.sum()):  # no direction at all, or a nan
        return 0, 0
    found = first = 0
    per_step = 1.0 / step
    while True:
        t = t_near + (k + jitter) * step
        if not t < t_far:
            return found, first
        x, y, z = origin[0] + t * scale[0], origin[1] + t * scale[1], origin[2] + t * scale[2]
        i = min(max(int(x), 0), occupied.shape[0] - 1)
        j = min(max(int(y), 0), occupied.shape[1] - 1)
        l = min(max(int(z), 0), occupied.shape[2] - 1)
        if occupied[i, j, l]:
            if limit > 0:
                ray_indices[cursor + found] = ray
                t_starts[cursor + found] = t - 0.5 * step
                t_ends[cursor + found] = t + 0.5 * step
            elif found == 0:
                first = k
            found += 1
            k += 1
            if found == limit:
                return found, first
        else:
            width = 1 if blocks[i // BLOCK, j // BLOCK, l // BLOCK] else BLOCK
            leave = t_far
            for axis, cell, place in ((0, i, x), (1, j, y), (2, l, z)):
                if scale[axis] != 0.0:
                    wall = (cell & -width) + (width if scale[axis] > 0.0 else 0)  # width is a power of two
                    leave = min(leave, t + (wall - place) * inverse[axis])
            # The first sample at or past the wall, less a hair, so that rounding never jumps over one.
            k = max(k + 1, int((leave - t_near) * per_step - jitter - 1e-6) + 1)


@numba.njit(parallel=True, **_OPTIONS)
def _count(rays_o, rays_d, aabb, occupied, step, jitter, near, far, blocks, offsets, firsts):
    i64, f32 = np.empty(0, np.int64), np.empty(0, np.float32)
    for r in numba.prange(rays_o.shape[0]):
        o, d = rays_o[r].astype(np.float64), rays_d[r].astype(np.float64)
        offsets[r + 1], firsts[r] = _walk(
            o, d, aabb, occupied, step, np.float64(jitter[r]), near, far, blocks, 0, 0, r, 0, i64, f32, f32
        )


@numba.njit(parallel=True, **_OPTIONS)
def _write(
    rays_o,
    rays_d,
    aabb,
    occupied,
    step,
    jitter,
    near,
    far,
    blocks,
    offsets,
    firsts,
    ray_indices,
    t_starts,
    t_ends,
):
    for r in numba.prange(rays_o.shape[0]):
        n = offsets[r + 1] - offsets[r]
        if n > 0:
            o, d = rays_o[r].astype(np.float64), rays_d[r].astype(np.float64)
            _walk(
                o,
                d,
                aabb,
                occupied,
                step,
                np.float64(jitter[r]),
                near,
                far,
                blocks,
                firsts[r],
                n,
                r,
                offsets[r],
                ray_indices,
                t_starts,
                t_ends,
            )
