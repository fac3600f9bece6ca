"""A closed-form warm start for voxel grids: density by sampling, color by ridge regression at every node."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.warm_start.teacher_grid import (
    MIN_ALPHA,
    NODES_PER_QUERY,
    NodeValues,
    sample_nodes,
)
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.lattice import dilate
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.voxels import EMPTY, N_HARMONICS, Voxels, nodes_in_cells


@dataclass(frozen=True, kw_only=True)
class VoxelStart:
    """Settings of `start_voxels`.

    Attributes:
        directions: from which a node's color is sampled.
        ridge: regularisation of the harmonics of degree 0, 1 and 2 towards 0: most nodes are seen from one side.
        nodes_per_query: nodes at which the teacher is evaluated together.
    """

    directions: int = 24
    ridge: tuple[float, float, float] = (1e-3, 0.02, 0.05)
    nodes_per_query: int = NODES_PER_QUERY


@torch.no_grad()
def start_voxels(
    teacher: RenderableField,
    student: VolumeField,
    generator: torch.Generator,
    settings: VoxelStart | None = None,
) -> None:
    """Fill a voxel grid in place: density by sampling, color by a ridge regression on spherical harmonics.

    A student of a teacher with no occupied cell stays as it is.

    Args:
        teacher: sampled at the nodes in its occupied cells.
        student: a fresh voxel grid of the same box, changed in place.
        generator: of the samples.
        settings: the defaults if left out.
    """
    assert isinstance(student, Voxels)
    settings = settings or VoxelStart()
    r = student.resolution
    mask = nodes_in_cells(teacher.occupancy.occupied.cpu(), r)
    nodes = mask.flatten().nonzero()[:, 0]
    if not len(nodes):
        return
    seen = torch.zeros(r**3, dtype=torch.bool)
    for part in nodes.split(settings.nodes_per_query):
        sigma = sample_nodes(teacher, part, r, generator, n_samples=1).sigma
        seen[part[(alpha_from_density(sigma, teacher.render_step_size) > MIN_ALPHA).cpu()]] = True
    if seen.any():  # else all density is low, and all of it counts
        nodes = (dilate(seen.reshape(r, r, r)) & mask).flatten().nonzero()[:, 0]
    rows = []
    for part in nodes.split(settings.nodes_per_query):
        values = sample_nodes(teacher, part, r, generator)
        log_density = torch.log(values.sigma * student.extent).clamp(min=EMPTY)
        rows.append(
            torch.cat([log_density[:, None], _fit_harmonics(teacher, values, generator, settings)], dim=1)
        )
    student.activate(nodes, torch.cat(rows))


def _fit_harmonics(
    teacher: RenderableField, values: NodeValues, generator: torch.Generator, settings: VoxelStart
) -> Float[Tensor, "n 27"]:
    """Return the coefficients whose logistic function is nearest to the colors from random cameras' directions."""
    field, origins = teacher.field, teacher.cameras.camera_to_world[:, :, 3]
    at, features = values.positions, values.features
    gram = at.new_zeros(len(at), N_HARMONICS, N_HARMONICS)
    moments = at.new_zeros(len(at), N_HARMONICS, 3)
    n = settings.directions
    for _ in range(n):
        camera = torch.randint(len(origins), (len(at),), generator=generator)
        directions = F.normalize(at - origins[camera].to(at), dim=-1)
        rgb = field.radiance(features, at, directions)
        basis = spherical_harmonics(directions)[:, :N_HARMONICS]
        gram += basis[:, :, None] * basis[:, None, :] / n
        moments += basis[:, :, None] * torch.logit(rgb.clamp(0.01, 0.99))[:, None, :] / n
    degrees = torch.tensor([1, 3, 5])
    ridge = torch.tensor(settings.ridge).repeat_interleave(degrees).to(at)
    result: Tensor = torch.linalg.solve(gram + torch.diag(ridge), moments).mT.flatten(1)
    return result
