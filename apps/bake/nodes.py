"""The nodes of a bake that have density, and the field's values at them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.apps.bake.bricks import Lattice, rounded
from fieldmorph.distill.warm_start.teacher_grid import NodeValues, sample_around
from fieldmorph.fields.progress import OnPart
from fieldmorph.fields.renderable import RenderableField

NODES_AT_ONCE = 1 << 16
NODES_PER_QUERY = 1 << 14  # so that what a perceptron holds of them stays in the cache
SAMPLES_PER_NODE = 1  # at and around each node: more would blur detail of the bake's resolution
# Logarithm of a render step's optical depth: at the upper end 1 / 1600 of the light gets through.
LOG_RANGE = (-3.0, 2.0)
DENSITY_STEP = 2  # quantization of density codes: finer steps cost bytes and are not visible


@dataclass(frozen=True)
class DenseNodes:
    """Nodes of a lattice that have density.

    Attributes:
        nodes: flat indices, ascending.
        codes: of their density, as `Bake` defines them, at least 1.
        values: of the field there; None where they would take too many bytes.
    """

    nodes: Int[Tensor, "n"]
    codes: UInt8[Tensor, "n"]
    values: NodeValues | None


def find_dense_nodes(
    lattice: Lattice,
    stored: RenderableField,
    generator: torch.Generator,
    on_progress: OnPart,
    *,
    max_value_bytes: int = 0,
    sparse_first: bool = False,
) -> DenseNodes:
    """Evaluate the field's density where its occupancy grid is occupied.

    Args:
        generator: of the positions at which the field is evaluated.
        on_progress: called with `density`, the number of parts that are done, and the number of all.
        max_value_bytes: up to which the field's values are kept.
        sparse_first: whether every other node along each axis is evaluated first, and then the others near those that
            have density. What is thinner than that and far from all else is missed.
    """
    passes, found, n_bytes = [candidate_nodes(lattice, stored)], list[DenseNodes](), 0
    if sparse_first:
        is_even = (lattice.coordinates(passes[0]) % 2 == 0).all(-1)
        passes = [passes[0][is_even], passes[0][~is_even]]
    for number, nodes in enumerate(passes):
        if number:
            nodes = nodes[_near(lattice, torch.cat([part.nodes for part in found]), nodes)]
        parts = nodes.split(NODES_AT_ONCE)
        for i, part in enumerate(parts):
            values = evaluate_nodes(lattice, stored, part, generator)
            codes = _density_codes(values.sigma.cpu() * stored.render_step_size)
            dense = codes.nonzero()[:, 0]
            n_bytes += 4 * len(dense) * (4 + values.features.shape[-1])
            kept = values.rows(dense) if n_bytes <= max_value_bytes else None
            found.append(DenseNodes(part[dense], codes[dense], kept))
            on_progress("density", number * len(parts) + i + 1, len(passes) * len(parts))
    all_nodes, order = torch.cat([part.nodes for part in found]).sort()
    known = [part.values for part in found if part.values is not None]
    joined = NodeValues.joined(known).rows(order) if len(known) == len(found) else None
    return DenseNodes(all_nodes, torch.cat([part.codes for part in found])[order], joined)


def candidate_nodes(lattice: Lattice, stored: RenderableField) -> Int[Tensor, "n"]:
    """Return the corners of the lattice's cells that touch an occupied cell, as ascending flat indices."""
    occupied = stored.occupancy.occupied.cpu().float()
    cells = F.adaptive_max_pool3d(occupied[None], lattice.cells)[0]
    return lattice.flat((lattice.corners(cells) > 0).nonzero())


def evaluate_nodes(
    lattice: Lattice, stored: RenderableField, nodes: Int[Tensor, "n"], generator: torch.Generator
) -> NodeValues:
    """Return density and features of the field at and around nodes."""
    unit = lattice.unit_positions(nodes).to(stored.field.aabb)
    spacing = 1 / unit.new_tensor(lattice.cells)
    return NodeValues.joined(
        [
            sample_around(stored, part, spacing, generator, SAMPLES_PER_NODE)
            for part in unit.split(NODES_PER_QUERY)
        ]
    )


def _density_codes(optical: Float[Tensor, "n"]) -> UInt8[Tensor, "n"]:
    """Return density codes, as `Bake` defines them, for the optical depths of a render step."""
    low, high = LOG_RANGE
    fraction = (torch.log(optical + math.exp(low)) - low) / (high - low)
    return rounded(fraction * 255, DENSITY_STEP)


def _near(lattice: Lattice, dense: Int[Tensor, "m"], nodes: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Return which nodes are at most 2 or, where the index is odd, 3 nodes from a dense one, along all axes.

    Args:
        dense: nodes whose indices are even.
        nodes: of which it is returned.
    """
    even = torch.zeros([n // 2 + 1 for n in lattice.cells])
    x, y, z = (lattice.coordinates(dense) // 2).unbind(-1)
    even[x, y, z] = 1.0
    around = F.max_pool3d(even[None], kernel_size=3, stride=1, padding=1)[0] > 0
    at = lattice.coordinates(nodes)
    lower, upper = at // 2, (at + 1) // 2
    near = torch.zeros(len(nodes), dtype=torch.bool)
    for corner in range(8):
        upwards = torch.tensor([corner >> 2, corner >> 1 & 1, corner & 1], dtype=torch.bool)
        near |= around[torch.where(upwards, upper, lower).unbind(-1)]
    return near
