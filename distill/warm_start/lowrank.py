"""Closed-form warm starts for low-rank fields: planes and lines, or lines, by alternating least squares.

Density is solved for on nodes of a lattice that can be seen and as many empty ones, features where something is seen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fieldmorph.distill.warm_start.als import Factor, alternate
from fieldmorph.distill.warm_start.teacher_grid import (
    MAX_OPTICAL_DEPTH,
    MIN_ALPHA,
    MIN_LOG_DENSITY,
    NODES_PER_QUERY,
    sample_nodes,
    visible_nodes,
)
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.kernels.vm import LINE_AXES, PLANE_AXES
from fieldmorph.fields.lattice import coordinates
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.tensorf import CP, SHIFT, VM, resample
from fieldmorph.fields.voxels import nodes_in_cells


@dataclass(frozen=True, kw_only=True)
class LowRankStart:
    """Settings of `start_vm` and `start_cp`.

    Attributes:
        density_sweeps, app_sweeps: sweeps of alternating least squares over density and over appearance.
        max_nodes: on which they are solved.
        max_resolution: nodes along each axis of the lattice.
        hidden_fraction: of the nodes in occupied cells that no ray sees, which count as well.
        ridge: strength of regularisation towards zero; with less, values between the samples are arbitrary.
        nodes_per_query: nodes at which the teacher is evaluated together.
        view_blocks: blocks of the teacher's rays, which show what can be seen.
    """

    density_sweeps: int = 5
    app_sweeps: int = 3
    max_nodes: int = 1 << 19
    max_resolution: int = 160
    hidden_fraction: float = 0.05
    ridge: float = 0.03
    nodes_per_query: int = NODES_PER_QUERY
    view_blocks: int = 6


@torch.no_grad()
def start_vm(
    teacher: RenderableField,
    student: VolumeField,
    generator: torch.Generator,
    settings: LowRankStart | None = None,
) -> None:
    """Fill planes and lines in place by alternating least squares.

    Features are solved for where both fields have the same kind of decoder. A student of a teacher with nothing to
    see stays as it is.

    Args:
        teacher: sampled on a lattice over its box.
        student: a fresh VM field of the same box, changed in place.
        generator: of the samples.
        settings: the defaults if left out.
    """
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
    _solve_lowrank(teacher, student, [*density], [*app], tables, settings or LowRankStart(), generator)


@torch.no_grad()
def start_cp(
    teacher: RenderableField,
    student: VolumeField,
    generator: torch.Generator,
    settings: LowRankStart | None = None,
) -> None:
    """Fill the three lines of each component in place by alternating least squares, as `start_vm` does.

    A line has fewer unknowns than a plane: by default there are more sweeps over fewer nodes.
    """
    assert isinstance(student, CP)

    def tables(lines: Tensor, nodes: Tensor, n: int) -> list[list[Factor]]:
        return [[Factor(lines[axis], nodes[:, axis]) for axis in range(3)]]

    density, app = [student.density_lines], [student.app_lines]
    _solve_lowrank(teacher, student, density, app, tables, settings or cp_settings(), generator)


def cp_settings() -> LowRankStart:
    """Return the default settings of `start_cp`."""
    return LowRankStart(density_sweeps=12, app_sweeps=6, max_nodes=1 << 17)


def _solve_lowrank(
    teacher: RenderableField,
    student: VM | CP,
    density: Sequence[Tensor],
    app: Sequence[Tensor],
    tables: Callable[..., list[list[Factor]]],
    settings: LowRankStart,
    generator: torch.Generator,
) -> None:
    """Solve for density on nodes that can be seen and as many empty ones, for features where something is seen.

    Without anything to solve for, grids stay as they are: solved for, they would be zero, and zero they would remain.
    """
    n = min(student.config()["resolution"], settings.max_resolution)
    occupied = nodes_in_cells(teacher.occupancy.occupied.cpu(), n).flatten()
    visible = visible_nodes(teacher, n, generator, settings.view_blocks)
    hidden = occupied & ~visible & (torch.rand(n**3, generator=generator) < settings.hidden_fraction)
    nodes = (visible | hidden).nonzero()[:, 0]
    nodes = _choose(nodes, settings.max_nodes, generator)
    if not len(nodes):
        return
    values = [sample_nodes(teacher, part, n, generator) for part in nodes.split(settings.nodes_per_query)]
    sigma = torch.cat([v.sigma for v in values])
    features = torch.cat([v.features for v in values])

    empty = _choose((~occupied).nonzero()[:, 0], len(nodes), generator)
    at = coordinates(torch.cat([nodes, empty]), n).to(sigma.device)
    highest = math.log(MAX_OPTICAL_DEPTH * student.extent / teacher.render_step_size)
    raw = torch.log(sigma * student.extent).clamp(MIN_LOG_DENSITY, highest) - SHIFT
    targets = torch.cat([raw, raw.new_full((len(empty),), MIN_LOG_DENSITY - SHIFT)])[:, None]
    small = [resample(grid, n) for grid in density]
    blocks = tables(*small, at, n)
    ones = raw.new_ones(1, sum(block[0].table.shape[1] for block in blocks))
    alternate(
        blocks,
        ones,
        targets,
        sweeps=settings.density_sweeps,
        ridge=settings.ridge,
        solve_basis=False,
        floor=MIN_LOG_DENSITY - SHIFT,
    )
    _put(density, small)
    if teacher.field.decoder is None or student.decoder.spec != teacher.field.decoder.spec:
        return
    shown = (alpha_from_density(sigma, teacher.render_step_size) > MIN_ALPHA) & visible[nodes].to(
        sigma.device
    )
    if not shown.any():
        return
    small = [resample(grid, n) for grid in app]
    (basis,) = student.basis.parameters()
    blocks = tables(*small, at[: len(nodes)][shown], n)
    alternate(
        blocks, basis, features[shown], sweeps=settings.app_sweeps, ridge=settings.ridge, solve_basis=True
    )
    _put(app, small)


def _put(grids: Sequence[Tensor], solved: list[Tensor]) -> None:
    for grid, values in zip(grids, solved, strict=True):
        grid.copy_(resample(values, grid.shape[1]))


def _choose(nodes: Int[Tensor, "n"], n_max: int, generator: torch.Generator) -> Int[Tensor, "n_chosen"]:
    """Return at most n_max random ones of them, in their order."""
    return nodes[torch.randperm(len(nodes), generator=generator)[:n_max]].sort().values
