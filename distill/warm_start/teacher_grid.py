"""The teacher on a lattice of nodes, from which closed-form warm starts are solved."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.distill.teacher_samples import make_block
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.lattice import coordinates
from fieldmorph.fields.renderable import RenderableField

NODES_PER_QUERY = 1 << 16
MIN_ALPHA = 1e-3  # of a render step, below which nothing is seen
MIN_LOG_DENSITY = -3.0  # per box length, of empty nodes: a ray across the box loses a twentieth
MAX_OPTICAL_DEPTH = 6.0  # of a render step, beyond which more density shows nothing
SAMPLES_PER_NODE = 4  # the teacher is finer than the student's grid


@dataclass(frozen=True)
class NodeValues:
    """The teacher at nodes: mean density around each, and position and features of its densest sample."""

    sigma: Float[Tensor, "n"]
    positions: Float[Tensor, "n 3"]
    features: Float[Tensor, "n features"]

    def rows(self, indices: Int[Tensor, "k"]) -> "NodeValues":
        """Return the values of some nodes."""
        indices = indices.to(self.sigma.device)
        return NodeValues(self.sigma[indices], self.positions[indices], self.features[indices])

    @classmethod
    def joined(cls, parts: "Sequence[NodeValues]") -> "NodeValues":
        """Return the values of all parts, at least one, in their order."""
        return cls(
            torch.cat([part.sigma for part in parts]),
            torch.cat([part.positions for part in parts]),
            torch.cat([part.features for part in parts]),
        )


@torch.no_grad()
def sample_nodes(
    teacher: RenderableField,
    nodes: Int[Tensor, "n"],
    resolution: int,
    generator: torch.Generator,
    n_samples: int = SAMPLES_PER_NODE,
) -> NodeValues:
    """Return the teacher at nodes (flat indices) of a lattice that spans its box, as `sample_around` does.

    Args:
        teacher: queried on its own device.
        nodes: flat indices of the lattice.
        resolution: nodes along each axis.
        generator: draws the points around each node.
        n_samples: points per node, the node itself being the first.
    """
    unit = (coordinates(nodes, resolution) / (resolution - 1)).to(teacher.field.aabb)
    return sample_around(teacher, unit, unit.new_full((3,), 1 / (resolution - 1)), generator, n_samples)


@torch.no_grad()
def sample_around(
    teacher: RenderableField,
    unit: Float[Tensor, "n 3"],
    spacing: Float[Tensor, "3"],
    generator: torch.Generator,
    n_samples: int = SAMPLES_PER_NODE,
) -> NodeValues:
    """Return the teacher at places and at random points around each, within half a spacing.

    Densities are averaged as the alphas of a render step, and are 0 in cells that the teacher leaves out.
    Where nothing gets through them they are those of a step that lets a millionth through.

    Args:
        teacher: queried on its own device.
        unit: places in the box, [0, 1]^3.
        spacing: between them along each axis, in the same units.
        generator: draws the points.
        n_samples: points per place, the place itself being the first.
    """
    field = teacher.field
    low, size = field.aabb[:3], field.aabb[3:] - field.aabb[:3]
    best_alpha = unit.new_full((len(unit),), -1.0)
    total, best_at, best_features = torch.zeros_like(best_alpha), unit, unit[:, :0]
    for sample in range(n_samples):
        shift = (torch.rand(len(unit), 3, generator=generator) - 0.5).to(unit) * float(sample > 0)
        at = (unit + shift * spacing).clamp(0, 1)
        positions = torch.minimum(low + at * size, field.aabb[3:])  # rounded up, a face is outside
        log_sigma, features = field.geometry(positions)
        sigma = field.density(log_sigma, positions) * teacher.occupancy.at(at)
        alpha = alpha_from_density(sigma, teacher.render_step_size)
        better = (alpha > best_alpha)[:, None]
        best_at = torch.where(better, positions, best_at)
        best_features = torch.where(better, features, best_features) if sample else features
        total, best_alpha = total + alpha, torch.maximum(alpha, best_alpha)
    mean = -torch.log1p(-(total / n_samples).clamp(max=1 - 1e-6)) / teacher.render_step_size
    return NodeValues(mean, best_at, best_features)


def visible_nodes(
    teacher: RenderableField, resolution: int, generator: torch.Generator, n_blocks: int = 6
) -> Bool[Tensor, "n"]:
    """Return which nodes (flat) are corners of a cell that a ray from near the teacher's cameras sees into.

    Args:
        teacher: its cameras and its occupancy grid decide.
        resolution: nodes along each axis.
        generator: draws the seed of the rays.
        n_blocks: of the teacher's rays.
    """
    seed = int(torch.randint(1 << 20, (1,), generator=generator))
    visible = torch.zeros((resolution,) * 3, dtype=torch.bool)
    for number in range(n_blocks):
        along = make_block(teacher, seed, number).along
        low = (teacher.field.unit_positions(along.positions).clamp(0, 1) * (resolution - 1)).long()
        low = low.clamp(max=resolution - 2).cpu()
        for corner in range(8):
            x, y, z = (low + torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])).unbind(-1)
            visible[x, y, z] = True
    return visible.flatten()
