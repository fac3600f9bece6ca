"""nerfacc's compositing and marching with our arguments. `accelerators.py` decides whether any of it is used."""

import importlib

import torch
from torch import Tensor

from fieldmorph.fields.kernels.composite import Composited
from fieldmorph.fields.kernels.march import Packed, cross_box, march_torch

LONGEST = 2048  # steps across a box: n steps, added up in float32, are off by at most n^2 / 2^24 of a step
PARALLEL = 1e-4  # of a cell: a ray that moves no more than this along an axis counts as parallel


def composite_nerfacc(
    sigma: Tensor, rgb: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor
) -> Composited:
    """Return `composite` by nerfacc's render_weight_from_density and accumulate_along_rays."""
    nerfacc = importlib.import_module("nerfacc")
    counts = offsets.diff()
    packed_info = torch.stack([offsets[:-1], counts], dim=-1)
    weights, _, _ = nerfacc.render_weight_from_density(t_starts, t_ends, sigma, packed_info=packed_info)
    values = torch.cat([rgb.float(), torch.ones_like(rgb[:, :1]), ((t_starts + t_ends) / 2)[:, None]], dim=-1)
    ray_indices = torch.repeat_interleave(torch.arange(len(counts), device=sigma.device), counts)
    rays = nerfacc.accumulate_along_rays(weights, values, ray_indices, len(counts))
    return weights, rays[:, :3], rays[:, 3], rays[:, 4]


def march_nerfacc(
    rays_o: Tensor,
    rays_d: Tensor,
    aabb: Tensor,
    occupied: Tensor,
    render_step_size: float,
    jitter: Tensor,
    near_plane: float,
    far_plane: float,
) -> Packed:
    """Return `march` by nerfacc's traverse_grids, on our lattice.

    With a constant step that function counts steps from the near plane of each ray, also over empty cells, and keeps
    those whose centre lies in an occupied cell (0.5.3, grid.cu, lines 153-261). So its samples are ours where a
    plane lies half a step before our first centre, but for rounding: it adds up steps in float32. Hence distances
    here count from where a ray enters the box, and `t` is computed again from the number of the step, so that
    images do not depend on the implementation. What remains is a centre that rounding moves across a cell's wall.
    """
    o, d, box = rays_o.float().double(), rays_d.float().double(), aabb.double()
    t_near, t_far, hit = cross_box(o, d, box, near_plane, far_plane)
    t_near, span = t_near.where(hit, 0), (t_far - t_near).where(hit, 0)
    if float(span.max()) > LONGEST * render_step_size:
        return march_torch(rays_o, rays_d, aabb, occupied, render_step_size, jitter, near_plane, far_plane)
    shift = jitter.float().double()
    first = (shift - 0.5) * render_step_size
    # A ray that starts in a wall and hardly moves across it would lose all its samples (nerfacc's issue 265).
    cell = (box[3:] - box[:3]) / torch.tensor(occupied.shape, device=o.device)
    moves = d.abs() * span[:, None] > PARALLEL * cell
    planes = torch.stack([first, span], dim=-1).float()
    _, samples, _ = importlib.import_module("nerfacc").traverse_grids(
        (o + t_near[:, None] * d).where(hit[:, None], 0).float(),
        d.where(moves, 0).float(),
        occupied[None],
        box[None].float(),
        near_planes=planes[:, 0],
        far_planes=planes[:, 1],
        step_size=render_step_size,
        # One box, entered at the near plane and left at the far one.
        t_sorted=planes,
        t_indices=torch.arange(2, device=o.device).expand(len(o), 2),
        hits=hit[:, None],
    )
    rays = samples.ray_indices
    k = (samples.vals.double() / render_step_size - shift[rays]).round()
    t_mid, half = t_near[rays] + (k + shift[rays]) * render_step_size, render_step_size / 2
    counts = samples.packed_info[:, 1]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return rays, (t_mid - half).float(), (t_mid + half).float(), offsets
