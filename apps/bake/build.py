"""Baking: a field of any kind becomes bricks of density and spherical harmonics that a browser can march.

Nodes are looked at where the field's occupancy grid has something, and kept where some camera, near the scene's own or
anywhere round its box, gets light from them. Colours are fitted by least squares over directions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.apps.bake.baked_field import BakedField
from fieldmorph.apps.bake.bricks import BRICK, ZERO, Bake, Lattice, into_bricks
from fieldmorph.distill.warm_start.teacher_grid import NodeValues, look_around
from fieldmorph.fields.blackbox import box_cameras
from fieldmorph.fields.cameras import (
    Cameras,
    Rays,
    camera_rays,
    look_at_point,
    nearest_cameras,
    orbit_like,
    project,
    up_direction,
)
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.kernels.ops import composite
from fieldmorph.fields.renderable import RenderableField, resize
from fieldmorph.fields.rendering import sample_rays, visible_samples

RESOLUTIONS = (16, 512)  # fewest and most cells along the longest side
DEGREES = (0, 1, 2)
NODES_AT_ONCE = 1 << 16
LOOKS = 1  # at and around each node: more would blur what a bake of this resolution can show
# Logarithm of a render step's optical depth: at the upper end 1 / 1600 of the light gets through.
LOG_RANGE = (-3.0, 2.0)
DENSITY_STEP = 2  # of density codes, and
BASE_STEP = 2  # of constant colours: finer ones cost bytes and show nothing
HARMONIC_STEP = 0.04  # of the other coefficients, in sRGB,
HARMONIC_MOST = 31  # and how many of them there are at most: beyond is noise
UNSEEN = 0.03  # share of all light in the pictures of these cameras that may be lost with nodes hardly seen
FAINT_BESIDE = 0.1  # of the most that a pixel gets nearby: cells that give more than this share are kept
FAINTEST = 0.002  # light left over behind which nothing is seen
HIDDEN = 0.05  # light left over behind which a camera says nothing of a node's colour
MOST_CAMERAS = 64  # of the scene's own that look for what is seen
CELLS_PER_RAY = 2  # along each side of what they see
ANYWHERE = 4  # directions from all round the box that count as well,
ANYWHERE_SHARE = 0.05  # together as much as this share of one camera
RIDGE = 1e-3  # pull of all but the constant towards 0, where cameras leave them open

OnProgress = Callable[[str, int, int], None]  # what is being done, how much of it is, and of how much


@dataclass(frozen=True)
class BakeConfig:
    """How fine a bake is.

    Attributes:
        resolution: cells along the box's longest side, a multiple of 8 (one brick).
        degree: of the spherical harmonics: 0, 1 or 2.
        seed: of the places and directions that are looked at.
    """

    resolution: int = 256
    degree: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        fewest, most = RESOLUTIONS
        if not fewest <= self.resolution <= most or self.resolution % BRICK:
            raise SettingError(
                f"a bake's resolution is a multiple of {BRICK} from {fewest} to {most}; got {self.resolution}"
            )
        if self.degree not in DEGREES:
            raise SettingError(f"a bake's degree is 0, 1 or 2; got {self.degree}")


@torch.no_grad()
def bake(
    stored: RenderableField,
    config: BakeConfig | None = None,
    *,
    name: str = "scene",
    facts: tuple[tuple[str, str], ...] = (),
    on_progress: OnProgress = lambda _what, _done, _total: None,
) -> Bake:
    """The field as bricks; equal seeds give equal bakes on a CPU.

    Args:
        name, facts: for people; see `Bake`.

    Raises:
        InputError: nothing of the field is to be seen.
        SettingError: `config` asks for what there is not.
    """
    config = config or BakeConfig()
    generator = torch.Generator().manual_seed(config.seed)
    lattice = Lattice.spanning(stored.field.box(), config.resolution)
    nodes = _candidates(lattice, stored)
    parts, looked = nodes.split(NODES_AT_ONCE), [torch.zeros(0)]
    for i, part in enumerate(parts):
        looked.append(_look(lattice, stored, part, generator).sigma.cpu())
        on_progress("density", i + 1, len(parts))
    codes = _density_codes(torch.cat(looked) * stored.render_step_size)
    nodes, codes = nodes[codes > 0], codes[codes > 0]
    seen, sights = _survey(lattice, stored, nodes, codes, generator, on_progress)
    nodes, codes = nodes[seen], codes[seen]
    if not len(nodes):
        raise InputError("nothing of this field is to be seen: no camera gets light from it")
    parts, fitted = nodes.split(NODES_AT_ONCE), []
    for i, part in enumerate(parts):
        values = _look(lattice, stored, part, generator)
        fitted.append(_harmonics(stored, values, sights, config.degree, generator).cpu())
        on_progress("colour", i + 1, len(parts))
    occupied, density, order = into_bricks(lattice, nodes, codes)
    return Bake(
        name=name,
        lattice=lattice,
        occupied=occupied,
        density=density,
        colour=_colour_codes(torch.cat(fitted)[order]),
        log_range=LOG_RANGE,
        harmonic_step=HARMONIC_STEP,
        render_step_size=stored.render_step_size,
        camera=first_view(stored),
        facts=facts,
    )


def _candidates(lattice: Lattice, stored: RenderableField) -> Int[Tensor, "n"]:
    """Corners of the lattice's cells that touch an occupied one of the field's, as ascending flat indices."""
    occupied = stored.occupancy.occupied.cpu().float()
    cells = F.adaptive_max_pool3d(occupied[None], lattice.cells)[0]
    return lattice.flat((lattice.corners(cells) > 0).nonzero())


def _look(lattice: Lattice, stored: RenderableField, nodes: Tensor, generator: torch.Generator) -> NodeValues:
    unit = lattice.unit_positions(nodes).to(stored.field.aabb)
    return look_around(stored, unit, 1 / unit.new_tensor(lattice.cells), generator, LOOKS)


def _density_codes(optical: Float[Tensor, "n"]) -> UInt8[Tensor, "n"]:
    """Bytes for optical depths of a render step, as `Bake` has them."""
    low, high = LOG_RANGE
    share = (torch.log(optical + math.exp(low)) - low) / (high - low)
    return _rounded(share * 255, DENSITY_STEP)


@dataclass(frozen=True)
class Sights:
    """What a bake's cameras see of it.

    Attributes:
        cameras: the scene's own, of small pictures.
        reach: for each pixel how far along its ray there is light, in world units.
    """

    cameras: Cameras
    reach: Float[Tensor, "cameras height width"]


def _survey(
    lattice: Lattice,
    stored: RenderableField,
    nodes: Int[Tensor, "n"],
    codes: UInt8[Tensor, "n"],
    generator: torch.Generator,
    on_progress: OnProgress,
) -> tuple[Bool[Tensor, "n"], Sights]:
    """Which nodes are corners of a cell that some camera gets light from, and how far its own cameras see.

    Cells that no pixel gets much from are left out, from the least on, until a share of `UNSEEN` of all light is lost,
    unless those around give no more: in a solid scene that is what lies behind and before surfaces, in fog hardly
    anything.
    """
    step = stored.render_step_size
    field = BakedField(lattice, nodes, codes.float() / 255, None, LOG_RANGE, step)
    cells = torch.tensor(lattice.cells)
    largest = torch.zeros(lattice.cells).flatten()  # share that each cell has of a pixel, at most
    total = torch.zeros_like(largest)
    own, around = _lookouts(lattice, stored)
    reach = torch.zeros(len(own), own.width * own.height)
    for i, camera in enumerate((*own, *around)):
        rays = _scattered_rays(camera, generator)
        jitter = torch.rand(len(rays), generator=generator)
        samples = sample_rays(rays, field, stored.occupancy, step, jitter)
        samples = visible_samples(field, rays, samples, FAINTEST)
        at = samples.positions(rays)
        sigma = field.query_density(at)
        weights, *_ = composite(
            sigma, at.new_zeros(at.shape), samples.t_starts, samples.t_ends, samples.offsets
        )
        cell = (field.unit_positions(at) * cells).long().clamp(torch.zeros(3, dtype=torch.long), cells - 1)
        flat = (cell[:, 0] * cells[1] + cell[:, 1]) * cells[2] + cell[:, 2]
        largest.scatter_reduce_(0, flat, weights, "amax")
        total.index_add_(0, flat, weights)
        if i < len(own):
            lit = visible_samples(field, rays, samples, HIDDEN)
            reach[i].scatter_reduce_(0, lit.ray_indices, lit.t_ends, "amax")
        on_progress("visibility", i + 1, len(own) + len(around))
    order = largest.argsort()
    lost = total[order].cumsum(0)
    seen = ((largest > FAINT_BESIDE * _most_nearby(largest, lattice)) & (largest > 0)).float()
    seen[order[lost > UNSEEN * lost[-1]]] = 1.0
    x, y, z = lattice.coordinates(nodes).unbind(-1)
    sights = Sights(own, reach.reshape(-1, own.height, own.width))
    return lattice.corners(seen.reshape(lattice.cells))[x, y, z] > 0, sights


def _most_nearby(largest: Float[Tensor, "cells"], lattice: Lattice) -> Float[Tensor, "cells"]:
    """For each cell the largest value in its brick and those around."""
    bricks = F.max_pool3d(largest.reshape(1, *lattice.cells), BRICK)
    most = F.max_pool3d(bricks, 3, stride=1, padding=1)[0]
    for axis in range(3):
        most = most.repeat_interleave(BRICK, axis)
    return most.flatten()


def _lookouts(lattice: Lattice, stored: RenderableField) -> tuple[Cameras, Cameras]:
    """The scene's own cameras, spread over all, and some all round its box."""
    own, side = stored.cameras.to("cpu"), max(lattice.cells) // CELLS_PER_RAY
    own = own[torch.linspace(0, len(own) - 1, min(len(own), MOST_CAMERAS)).round().long()]
    return resize(own, side, side), resize(box_cameras(stored.field.box()), side, side)


def _scattered_rays(camera: Cameras, generator: torch.Generator) -> Rays:
    """One through a random place of each pixel, row after row: none of the centres' rays of cameras that look at one
    point comes near it."""
    pixels = torch.cartesian_prod(torch.arange(camera.height), torch.arange(camera.width)).flip(-1)
    place = torch.rand(pixels.shape, generator=generator) - 0.5
    return camera_rays(camera, torch.zeros(len(pixels), dtype=torch.long), pixels + place)


def _harmonics(
    stored: RenderableField, values: NodeValues, sights: Sights, degree: int, generator: torch.Generator
) -> Float[Tensor, "n harmonics 3"]:
    """Coefficients by ridge regression; the first is the constant itself.

    What counts are the colours that the scene's own cameras see at each node; a few directions from all round the box
    keep the rest in bounds, and serve nodes that none of them sees.
    """
    at, features, n = values.positions, values.features, (degree + 1) ** 2
    gram, moments = at.new_zeros(len(at), n, n), at.new_zeros(len(at), n, 3)

    def add(which: Tensor, origins: Tensor, weight: float) -> None:
        directions = F.normalize(at[which] - origins, dim=-1)
        rgb = stored.field.radiance(features[which], at[which], directions)
        basis = spherical_harmonics(directions)[:, :n].clone()
        basis[:, 0] = 1
        gram.index_add_(0, which, weight * basis[:, :, None] * basis[:, None, :])
        moments.index_add_(0, which, weight * basis[:, :, None] * rgb[:, None, :])

    for camera, reach in zip(sights.cameras.to(at.device), sights.reach.to(at.device), strict=True):
        origin = camera.camera_to_world[0, :, 3]
        pixels = project(camera, at)[0].floor().long()
        inside = ((pixels >= 0) & (pixels < pixels.new_tensor([camera.width, camera.height]))).all(-1)
        x, y = pixels.where(inside[:, None], 0).unbind(-1)
        lit = (at - origin).norm(dim=-1) < reach[y, x] + stored.render_step_size
        add((inside & lit).nonzero()[:, 0], origin, 1.0)
    anywhere = box_cameras(stored.field.box()).camera_to_world[:, :, 3].to(at)
    everything = torch.arange(len(at), device=at.device)
    for _ in range(ANYWHERE):
        chosen = torch.randint(len(anywhere), (len(at),), generator=generator).to(at.device)
        add(everything, anywhere[chosen], ANYWHERE_SHARE / ANYWHERE)
    pull = torch.ones(n).to(at) * RIDGE
    pull[0] = 0
    return torch.linalg.solve(gram + gram[:, :1, :1] * torch.diag(pull), moments)


def _colour_codes(harmonics: Float[Tensor, "n harmonics 3"]) -> UInt8[Tensor, "rows n"]:
    """Rows of bytes: the constant part of red, green and blue, then the other harmonics likewise."""
    base = _rounded(harmonics[:, :1] * 255, BASE_STEP)
    others = (harmonics[:, 1:] / HARMONIC_STEP).round().clamp(-HARMONIC_MOST, HARMONIC_MOST) + ZERO
    return torch.cat([base, others.to(torch.uint8)], dim=1).flatten(1).T.contiguous()


def _rounded(values: Tensor, step: int) -> Tensor:
    """Bytes that are multiples of `step`."""
    return ((values / step).round() * step).clamp(0, 255).to(torch.uint8)


def first_view(stored: RenderableField) -> dict[str, object]:
    """The photograph nearest to where a turn round the scene would begin."""
    cameras, box = stored.cameras.to("cpu"), torch.tensor(stored.field.box())
    centre = look_at_point(cameras).clamp(box[:3], box[3:])
    pose = cameras[int(nearest_cameras(orbit_like(cameras, box.tolist(), 1), cameras)[0])]
    eye, ahead = pose.camera_to_world[0, :, 3], pose.camera_to_world[0, :, 2]
    target = eye + ahead * ((centre - eye) @ ahead).clamp(min=1e-3 * float((box[3:] - box[:3]).max()))
    return {
        "eye": eye.tolist(),
        "target": target.tolist(),
        "up": up_direction(cameras.camera_to_world).tolist(),
        "focal": float(pose.intrinsics[0, 0]) / min(cameras.width, cameras.height),
    }
