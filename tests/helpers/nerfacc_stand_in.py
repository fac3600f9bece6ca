"""nerfacc in torch and numpy, for machines without CUDA: what its functions document, ray by ray."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor

F32 = np.float32


def fake_nerfacc(spoil: Callable[[Tensor], Tensor] = lambda x: x) -> ModuleType:
    """A package with the functions that we call; `spoil` changes the weights, and the centres of samples."""

    def render_weight_from_density(t_starts, t_ends, sigmas, packed_info):
        alphas, optical = 1 - torch.exp(-sigmas * (t_ends - t_starts)), sigmas * (t_ends - t_starts)
        parts = [optical[s : s + n] for s, n in packed_info.tolist()]
        trans = torch.cat([torch.exp(-(p.cumsum(0) - p)) for p in parts])
        return spoil(trans * alphas), trans, alphas

    def accumulate_along_rays(weights, values, ray_indices, n_rays):
        return torch.zeros(n_rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)

    def traverse_grids(
        rays_o, rays_d, binaries, aabbs, near_planes, far_planes, step_size, t_sorted, t_indices, hits
    ):
        assert binaries.dtype == hits.dtype == torch.bool
        assert t_indices.tolist() == [[0, 1]] * len(rays_o)
        floats = [rays_o, rays_d, near_planes, far_planes, t_sorted]
        assert {x.dtype for x in (aabbs, *floats)} == {torch.float32}
        box, occupied = aabbs[0].numpy(), binaries[0].numpy()
        found = [
            _traverse(*ray, box, occupied, F32(step_size)) if hit else []
            for hit, *ray in zip(hits[:, 0], *(x.numpy() for x in floats), strict=True)
        ]
        counts = torch.tensor([len(centres) for centres in found])
        centres = torch.tensor([t for part in found for t in part], dtype=torch.float32)
        samples = SimpleNamespace(
            vals=spoil(centres),
            ray_indices=torch.arange(len(rays_o)).repeat_interleave(counts),
            packed_info=torch.stack([counts.cumsum(0) - counts, counts], -1),
        )
        return None, samples, None

    fake = ModuleType("nerfacc")
    fake.render_weight_from_density = render_weight_from_density
    fake.accumulate_along_rays = accumulate_along_rays
    fake.traverse_grids = traverse_grids
    return fake


def _traverse(o, d, near, far, crossings, box, occupied, step) -> list[float]:
    """Centres of one ray's samples: cell by cell (Amanatides & Woo 1987), steps added up from the near plane on.

    A ray ends where it leaves the cell of its last point along any axis, so one whose first and last cell are the
    same ends at once if rounding has put its first wall behind it (nerfacc's issue 265).
    """
    t, t_min, t_max = near, max(crossings[0], near), min(crossings[1], far)
    if t_min >= t_max:
        return []
    n, low = np.array(occupied.shape), box[:3]
    size, start = (box[3:] - low) / n.astype(F32), o + d * (t_min + F32(1e-6))
    cell, last = (
        np.clip(((x - low) / (box[3:] - low) * n.astype(F32)).astype(int), 0, n - 1)
        for x in (start, o + d * (t_max - F32(1e-6)))
    )
    sign = np.sign(d).astype(int)
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.where(d == 0, t_max, (low + (cell + (d > 0)).astype(F32) * size - start) / d + t_min)
        apart = np.where(d == 0, t_max, size / np.abs(d))
    walls, apart, centres = walls.astype(F32), apart.astype(F32), []
    while True:
        leave = min(walls.min(), t_max)
        while t + step * F32(0.5) < leave:
            if occupied[tuple(cell)]:
                centres.append(float(t + step * F32(0.5)))
            t = t + step
        axis = 2 - walls[::-1].argmin()
        cell[axis] += sign[axis]
        walls[axis] += apart[axis]
        if cell[axis] == last[axis] + sign[axis]:
            return centres
