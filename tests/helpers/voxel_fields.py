"""Fields of voxels for tests: fresh, random, a ball, and a sparse one."""

import math

import torch
from torch import Tensor

from fieldmorph.fields.registry import make_field
from fieldmorph.fields.voxels import Voxels

BOX = (-1.0, -0.5, 0.0, 1.0, 1.5, 1.0)

EXTENT = 2.0

CUBE = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)


def fresh(resolution: int = 100, aabb: tuple[float, ...] = BOX) -> Voxels:
    field = make_field("voxels", aabb=aabb, resolution=resolution, tv_weight=0.0)
    assert isinstance(field, Voxels)
    return field


def lively(resolution: int = 100, density: float = 3.0) -> Voxels:
    """Coarse, random everywhere, no node so faint that it may be dropped."""
    field, generator = fresh(resolution), torch.Generator().manual_seed(2)
    with torch.no_grad():
        field.density_values.uniform_(density - 1, density + 1, generator=generator)
        field.sh_values.normal_(generator=generator)
    return field


def ball(resolution: int = 100, aabb: tuple[float, ...] = CUBE) -> Voxels:
    """Coarse: log-density 5 falling to -6 across the surface of a ball of radius 0.6, red to the left."""
    field = fresh(resolution, aabb)
    with torch.no_grad():
        at = field.node_positions()
        field.density_values[:, 0] = (5 - 40 * (at.norm(dim=-1) - 0.6)).clamp(-6, 5)
        field.sh_values[:, 0], field.sh_values[:, 9] = 10 * at[:, 0], -10 * at[:, 1]
    return field


def sparse(resolution: int = 40, fraction: float = 0.05) -> Voxels:
    """At its final resolution, few nodes active."""
    field, generator = fresh(resolution), torch.Generator().manual_seed(3)
    mask = torch.rand((resolution,) * 3, generator=generator) < fraction
    field.activate(mask, torch.randn(int(mask.sum()), 28, generator=generator) * 3 + 2)
    return field


def points(n: int = 2000, aabb: tuple[float, ...] = BOX) -> Tensor:
    low, high = torch.tensor(aabb[:3]), torch.tensor(aabb[3:])
    return low + torch.rand(n, 3, generator=torch.Generator().manual_seed(4)) * (high - low)


def directions(n: int) -> Tensor:
    return torch.nn.functional.normalize(
        torch.randn(n, 3, generator=torch.Generator().manual_seed(5)), dim=-1
    )


def raw(field: Voxels, positions: Tensor) -> Tensor:
    """Log-density per box length, then the harmonics."""
    log_sigma, features = field.geometry(positions)
    return torch.cat([log_sigma[:, None] + math.log(field.extent), features], dim=-1).detach()
