"""The teacher as a lattice of nodes sees it: what closed-form starts are solved from."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.distill.teacher_samples import make_block
from fieldmorph.fields.renderable import RenderableField

LOOKS = 4  # at each node: the teacher is finer than the student's grid
VIEW_BLOCKS = 6  # of teacher's rays, which show what can be seen


@dataclass(frozen=True)
class NodeValues:
    """What the teacher has at nodes: mean density there, and position and features of the densest look."""

    sigma: Float[Tensor, "n"]
    positions: Float[Tensor, "n 3"]
    features: Float[Tensor, "n features"]


@torch.no_grad()
def look_at_nodes(
    teacher: RenderableField,
    nodes: Int[Tensor, "n"],
    resolution: int,
    generator: torch.Generator,
    looks: int = LOOKS,
) -> NodeValues:
    """The teacher at nodes (flat indices) of a lattice that spans its box, as `look_around` sees it."""
    unit = (coordinates(nodes, resolution) / (resolution - 1)).to(teacher.field.aabb)
    return look_around(teacher, unit, unit.new_full((3,), 1 / (resolution - 1)), generator, looks)


@torch.no_grad()
def look_around(
    teacher: RenderableField,
    unit: Float[Tensor, "n 3"],
    spacing: Float[Tensor, "3"],
    generator: torch.Generator,
    looks: int = LOOKS,
) -> NodeValues:
    """The teacher at places and at random points around each, within half a spacing.

    Densities are averaged as the light that a render step stops, and are 0 in cells that the teacher leaves out.
    Where nothing gets through them they are those of a step that lets a millionth through.

    Args:
        unit: places in the box, [0, 1]^3.
        spacing: between them along each axis, in the same units.
    """
    field, grid = teacher.field, teacher.occupancy
    low, size = field.aabb[:3], field.aabb[3:] - field.aabb[:3]
    best_alpha = unit.new_full((len(unit),), -1.0)
    total, best_at, best_features = torch.zeros_like(best_alpha), unit, unit[:, :0]
    for look in range(looks):
        shift = (torch.rand(len(unit), 3, generator=generator) - 0.5).to(unit) * float(look > 0)
        at = (unit + shift * spacing).clamp(0, 1)
        positions = torch.minimum(low + at * size, field.aabb[3:])  # rounded up, a face is outside
        log_sigma, features = field.geometry(positions)
        cell = (at * grid.resolution).long().clamp(max=grid.resolution - 1)
        occupied = grid.occupied.to(low.device)[cell[:, 0], cell[:, 1], cell[:, 2]]
        alpha = stopped(field.density(log_sigma, positions) * occupied, teacher)
        better = (alpha > best_alpha)[:, None]
        best_at = torch.where(better, positions, best_at)
        best_features = torch.where(better, features, best_features) if look else features
        total, best_alpha = total + alpha, torch.maximum(alpha, best_alpha)
    sigma = -torch.log1p(-(total / looks).clamp(max=1 - 1e-6)) / teacher.render_step_size
    return NodeValues(sigma, best_at, best_features)


def visible_nodes(teacher: RenderableField, resolution: int, generator: torch.Generator) -> Bool[Tensor, "n"]:
    """Which nodes (flat) are corners of a cell that a ray from near the teacher's cameras sees into."""
    seed = int(torch.randint(1 << 20, (1,), generator=generator))
    visible = torch.zeros((resolution,) * 3, dtype=torch.bool)
    for number in range(VIEW_BLOCKS):
        along = make_block(teacher, seed, number).along
        low = (teacher.field.unit_positions(along.positions).clamp(0, 1) * (resolution - 1)).long()
        low = low.clamp(max=resolution - 2).cpu()
        for corner in range(8):
            x, y, z = (low + torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])).unbind(-1)
            visible[x, y, z] = True
    return visible.flatten()


def stopped(sigma: Tensor, teacher: RenderableField) -> Tensor:
    """Share of light that a render step of the teacher's stops at these densities."""
    return -torch.expm1(-sigma * teacher.render_step_size)


def coordinates(nodes: Int[Tensor, "n"], resolution: int) -> Int[Tensor, "n 3"]:
    """Places along x, y and z of flat indices `(x resolution + y) resolution + z`."""
    return torch.stack([nodes // resolution**2, nodes // resolution % resolution, nodes % resolution], dim=-1)
