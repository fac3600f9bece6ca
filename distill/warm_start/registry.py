"""Closed-form starts: an explicit student is solved from its teacher before it is distilled.

The teacher is looked at on the student's own nodes. A voxel grid takes what it sees there, low-rank fields are solved
for by alternating least squares. `hashgrid_start` has the start of hash grids.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.warm_start.als import Factor, alternate
from fieldmorph.distill.warm_start.hashgrid import start_hashgrid
from fieldmorph.distill.warm_start.teacher_grid import (
    NodeValues,
    coordinates,
    look_at_nodes,
    stopped,
    visible_nodes,
)
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.kernels.vm import LINE_AXES, PLANE_AXES
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.tensorf import CP, SHIFT, VM, resample
from fieldmorph.fields.voxels import EMPTY, N_HARMONICS, Voxels, nodes_in_cells

NODES_AT_ONCE = 1 << 16
FAINT = 1e-3  # share of light that a render step stops, below which nothing is seen
DIRECTIONS = 24  # from which a node's colour is looked at
SH_RIDGE = (1e-3, 0.02, 0.05)  # pull of each degree towards 0: most nodes are seen from one side
FINEST_LATTICE = 160  # nodes per axis on which low-rank fields are solved for
OPAQUE = 6.0  # optical depth of a render step beyond which more density shows nothing
CLEAR = -3.0  # logarithm of density per box length of empty nodes: a ray across the box loses a twentieth
HIDDEN = 0.05  # share of the nodes that no ray sees, which count as well
RIDGE = 0.03  # less, and what lies between the samples is anything


@dataclass(frozen=True)
class Effort:
    """Sweeps over density and appearance, and the most nodes that they are solved on."""

    density_sweeps: int
    app_sweeps: int
    most_nodes: int


VM_EFFORT = Effort(5, 3, 1 << 19)  # a plane has more unknowns than a line, and needs more nodes
CP_EFFORT = Effort(12, 6, 1 << 17)


@torch.no_grad()
def start_voxels(teacher: RenderableField, student: VolumeField, generator: torch.Generator) -> None:
    """Density by sampling, colour by a ridge regression on spherical harmonics over the cameras' directions."""
    assert isinstance(student, Voxels)
    r = student.resolution
    mask = nodes_in_cells(teacher.occupancy.occupied.cpu(), r)
    nodes = mask.flatten().nonzero()[:, 0]
    if not len(nodes):
        return
    seen = torch.zeros(r**3, dtype=torch.bool)
    for part in nodes.split(NODES_AT_ONCE):
        alpha = stopped(look_at_nodes(teacher, part, r, generator, looks=1).sigma, teacher)
        seen[part[(alpha > FAINT).cpu()]] = True
    if seen.any():  # else there is fog at most, and all of it counts
        nodes = (_with_neighbours(seen.reshape(r, r, r)) & mask).flatten().nonzero()[:, 0]
    rows = []
    for part in nodes.split(NODES_AT_ONCE):
        values = look_at_nodes(teacher, part, r, generator)
        log_density = torch.log(values.sigma * student.extent).clamp(min=EMPTY)
        rows.append(torch.cat([log_density[:, None], _harmonics(teacher, values, generator)], dim=1))
    student.activate(nodes, torch.cat(rows))


@torch.no_grad()
def start_vm(teacher: RenderableField, student: VolumeField, generator: torch.Generator) -> None:
    """Planes and lines by alternating least squares."""
    assert isinstance(student, VM)

    def tables(planes: Tensor, lines: Tensor, nodes: Tensor, n: int) -> list[list[Factor]]:
        return [
            [
                Factor(planes[m].flatten(0, 1), nodes[:, row] * n + nodes[:, column]),
                Factor(lines[m], nodes[:, along]),
            ]
            for m, ((column, row), along) in enumerate(zip(PLANE_AXES, LINE_AXES, strict=True))
        ]

    density, app = (student.density_planes, student.density_lines), (student.app_planes, student.app_lines)
    _solve_lowrank(teacher, student, [*density], [*app], tables, VM_EFFORT, generator)


@torch.no_grad()
def start_cp(teacher: RenderableField, student: VolumeField, generator: torch.Generator) -> None:
    """Three lines for each component by alternating least squares."""
    assert isinstance(student, CP)

    def tables(lines: Tensor, nodes: Tensor, n: int) -> list[list[Factor]]:
        return [[Factor(lines[axis], nodes[:, axis]) for axis in range(3)]]

    density, app = [student.density_lines], [student.app_lines]
    _solve_lowrank(teacher, student, density, app, tables, CP_EFFORT, generator)


def _solve_lowrank(
    teacher: RenderableField,
    student: VM | CP,
    density: Sequence[Tensor],
    app: Sequence[Tensor],
    tables: Callable[..., list[list[Factor]]],
    effort: Effort,
    generator: torch.Generator,
) -> None:
    """Density on nodes that can be seen and as many empty ones; features where there is something to see.

    Without anything to solve for, grids stay as they are: solved for, they would be zero, and zero they would remain.
    """
    n = min(student.config()["resolution"], FINEST_LATTICE)
    occupied = nodes_in_cells(teacher.occupancy.occupied.cpu(), n).flatten()
    visible = visible_nodes(teacher, n, generator)
    hidden = occupied & ~visible & (torch.rand(n**3, generator=generator) < HIDDEN)
    nodes = (visible | hidden).nonzero()[:, 0]
    nodes = _some(nodes, effort.most_nodes, generator)
    if not len(nodes):
        return
    values = [look_at_nodes(teacher, part, n, generator) for part in nodes.split(NODES_AT_ONCE)]
    sigma = torch.cat([v.sigma for v in values])
    features = torch.cat([v.features for v in values])

    empty = _some((~occupied).nonzero()[:, 0], len(nodes), generator)
    at = coordinates(torch.cat([nodes, empty]), n).to(sigma.device)
    most = math.log(OPAQUE * student.extent / teacher.render_step_size)
    raw = torch.log(sigma * student.extent).clamp(CLEAR, most) - SHIFT
    targets = torch.cat([raw, raw.new_full((len(empty),), CLEAR - SHIFT)])[:, None]
    small = [resample(grid, n) for grid in density]
    blocks = tables(*small, at, n)
    ones = raw.new_ones(1, sum(block[0].table.shape[1] for block in blocks))
    alternate(
        blocks,
        ones,
        targets,
        sweeps=effort.density_sweeps,
        ridge=RIDGE,
        solve_basis=False,
        floor=CLEAR - SHIFT,
    )
    _put(density, small)
    if teacher.field.decoder is None or student.decoder.spec != teacher.field.decoder.spec:
        return
    shown = (stopped(sigma, teacher) > FAINT) & visible[nodes].to(sigma.device)
    if not shown.any():
        return
    small = [resample(grid, n) for grid in app]
    (basis,) = student.basis.parameters()
    blocks = tables(*small, at[: len(nodes)][shown], n)
    alternate(blocks, basis, features[shown], sweeps=effort.app_sweeps, ridge=RIDGE, solve_basis=True)
    _put(app, small)


def _harmonics(teacher: RenderableField, values: NodeValues, generator: torch.Generator) -> Float[Tensor, "n 27"]:
    """Coefficients whose logistic function is nearest to the colours from random cameras' directions."""
    field, origins = teacher.field, teacher.cameras.camera_to_world[:, :, 3]
    at, features = values.positions, values.features
    gram = at.new_zeros(len(at), N_HARMONICS, N_HARMONICS)
    moments = at.new_zeros(len(at), N_HARMONICS, 3)
    for _ in range(DIRECTIONS):
        camera = torch.randint(len(origins), (len(at),), generator=generator)
        directions = F.normalize(at - origins[camera].to(at), dim=-1)
        rgb = field.radiance(features, at, directions)
        basis = spherical_harmonics(directions)[:, :N_HARMONICS]
        gram += basis[:, :, None] * basis[:, None, :] / DIRECTIONS
        moments += basis[:, :, None] * torch.logit(rgb.clamp(0.01, 0.99))[:, None, :] / DIRECTIONS
    degrees = torch.tensor([1, 3, 5])
    pull = torch.tensor(SH_RIDGE).repeat_interleave(degrees).to(at)
    return torch.linalg.solve(gram + torch.diag(pull), moments).mT.flatten(1)


def _put(grids: Sequence[Tensor], solved: list[Tensor]) -> None:
    for grid, values in zip(grids, solved, strict=True):
        grid.copy_(resample(values, grid.shape[1]))


def _some(nodes: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most so many of them, in their order."""
    return nodes[torch.randperm(len(nodes), generator=generator)[:most]].sort().values


def _with_neighbours(nodes: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """The nodes and all that share a cell with one."""
    for axis, n in enumerate(nodes.shape):
        near = nodes.clone()
        near.narrow(axis, 1, n - 1).logical_or_(nodes.narrow(axis, 0, n - 1))
        near.narrow(axis, 0, n - 1).logical_or_(nodes.narrow(axis, 1, n - 1))
        nodes = near
    return nodes


@dataclass(frozen=True)
class Start:
    """How a student starts.

    Attributes:
        solve: fills the student in place.
        helps: whether a conversion is better off with it by default, as `fieldmorph bench starts` has it.
        lr_share: of the learning rates that are left to it afterwards.
    """

    solve: Callable[[RenderableField, VolumeField, torch.Generator], None]
    helps: bool
    lr_share: float = 1.0


STARTS = {
    # At the full rates of a fresh one it first loses 3 dB.
    Voxels.name: Start(start_voxels, helps=True, lr_share=0.1),
    CP.name: Start(start_cp, helps=True),
    # From coarse to fine these are soon further than their start: it pays for half a minute, then costs half a dB.
    VM.name: Start(start_vm, helps=False),
    HashGrid.name: Start(start_hashgrid, helps=False),
}
