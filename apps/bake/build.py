"""Baking: a field of any kind becomes bricks of density and spherical harmonics that a browser can march.

Nodes are evaluated where the field's occupancy grid is occupied, and kept where a camera, one of the scene's own or one
around its box, receives light from them. Colours are fitted by least squares over directions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.apps.bake.baked_field import BakedField
from fieldmorph.apps.bake.bricks import BRICK, ZERO, Bake, Lattice, into_bricks, rounded
from fieldmorph.apps.bake.nodes import LOG_RANGE, NODES_AT_ONCE, evaluate_nodes, find_dense_nodes
from fieldmorph.distill.warm_start.teacher_grid import NodeValues
from fieldmorph.fields.blackbox import box_cameras
from fieldmorph.fields.cameras import (
    Cameras,
    Rays,
    camera_rays,
    look_at_point,
    nearest_cameras,
    orbit_like,
    project,
    resize,
    up_direction,
)
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.kernels.ops import composite
from fieldmorph.fields.progress import OnPart
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import sample_rays, visible_samples

RESOLUTIONS = (16, 512)  # minimum and maximum number of cells along the longest side
DEGREES = (0, 1, 2)
BASE_STEP = 2  # quantization of constant colours
HARMONIC_STEP = 0.04  # quantization of the other coefficients, in sRGB
MAX_HARMONIC = 31  # steps, to which the other coefficients are clamped: beyond is noise
MAX_LOST_LIGHT = 0.03  # fraction of all light in the images of these cameras that dropped cells may give
MIN_OF_NEARBY = 0.1  # of the largest weight nearby: cells that give a pixel more than this fraction are kept
MIN_TRANSMITTANCE = 0.002  # behind which nothing is visible
MIN_LIT_TRANSMITTANCE = 0.05  # behind which a camera says nothing of a node's colour
N_AROUND = 4  # directions from around the box that every node is fitted to as well
AROUND_WEIGHT = 0.05  # of these directions together, in units of one camera
PREVIEW_VALUE_BYTES = 96 << 20
MIN_MEAN_DIRECTION = 1e-3  # sum of unit vectors below which it says nothing
RIDGE = 1e-3  # penalty on all but the constant coefficient, where cameras leave them undetermined


@dataclass(frozen=True)
class BakeConfig:
    """Settings of a bake.

    Attributes:
        resolution: cells along the box's longest side, a multiple of 8 (one brick).
        degree: of the spherical harmonics: 0, 1 or 2.
        seed: of the positions and directions at which the field is evaluated.
        max_cameras: of the scene's own cameras, evenly spread, that determine what is visible and its colours.
        cells_per_ray: along each side of the images that these cameras get.
        keeps_unseen: whether nodes are kept from which no camera receives light.
        fits_colors: whether colors are fitted to all directions; if not, a node has the color of their mean.
        max_value_bytes: up to which the field's values are kept from the pass over densities to that over colors.
        sparse_first: as for `find_dense_nodes`.
    """

    resolution: int = 256
    degree: int = 1
    seed: int = 0
    max_cameras: int = 64
    cells_per_ray: int = 2
    keeps_unseen: bool = False
    fits_colors: bool = True
    max_value_bytes: int = 0
    sparse_first: bool = False

    @classmethod
    def preview(cls, resolution: int) -> "BakeConfig":
        """Return settings that take a fraction of the time, for a volume that is replaced soon."""
        return cls(
            resolution,
            degree=0,
            max_cameras=12,
            cells_per_ray=4,
            keeps_unseen=True,
            fits_colors=False,
            max_value_bytes=PREVIEW_VALUE_BYTES,
            sparse_first=True,
        )

    def __post_init__(self) -> None:
        low, high = RESOLUTIONS
        if not low <= self.resolution <= high or self.resolution % BRICK:
            raise SettingError(
                f"a bake's resolution is a multiple of {BRICK} from {low} to {high}; got {self.resolution}"
            )
        if self.degree not in DEGREES:
            raise SettingError(f"a bake's degree is 0, 1 or 2; got {self.degree}")
        if self.degree and not self.fits_colors:
            raise SettingError("colors of a bake that are not fitted have degree 0")


@torch.no_grad()
def bake(
    stored: RenderableField,
    config: BakeConfig | None = None,
    *,
    name: str = "scene",
    facts: tuple[tuple[str, str], ...] = (),
    on_progress: OnPart = lambda _what, _done, _total: None,
) -> Bake:
    """Return the field as bricks; equal seeds give equal bakes on a CPU.

    Args:
        name, facts: for people; see `Bake`.
        on_progress: called with the activity, the number of its parts that are done, and the number of all.

    Raises:
        InputError: no camera receives light from the field.
    """
    config = config or BakeConfig()
    generator = torch.Generator().manual_seed(config.seed)
    lattice = Lattice.spanning(stored.field.box(), config.resolution)
    dense = find_dense_nodes(
        lattice,
        stored,
        generator,
        on_progress,
        max_value_bytes=config.max_value_bytes,
        sparse_first=config.sparse_first,
    )
    nodes, codes = dense.nodes, dense.codes
    seen, visibility = compute_visibility(lattice, stored, nodes, codes, config, generator, on_progress)
    nodes, codes = nodes[seen], codes[seen]
    if not len(nodes):
        raise InputError("this field is invisible: no camera receives light from it")
    rows, fitted = seen.nonzero()[:, 0].split(NODES_AT_ONCE), []
    for i, part in enumerate(nodes.split(NODES_AT_ONCE)):
        values = (
            dense.values.rows(rows[i]) if dense.values else evaluate_nodes(lattice, stored, part, generator)
        )
        if config.fits_colors:
            fitted.append(_harmonics(stored, values, visibility, config.degree, generator).cpu())
        else:
            fitted.append(_mean_colors(stored, values, visibility).cpu())
        on_progress("colour", i + 1, len(rows))
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


@dataclass(frozen=True)
class Visibility:
    """Range of sight of the scene's own cameras.

    Attributes:
        cameras: the scene's own, with small images.
        reach: for each pixel the distance along its ray up to which a node is lit, in world units.
    """

    cameras: Cameras
    reach: Float[Tensor, "cameras height width"]

    def lit(self, at: Float[Tensor, "n 3"], tolerance: float) -> Iterator[tuple[Int[Tensor, "k"], Tensor]]:
        """Yield for each camera the indices of the positions that it receives light from, and its own position.

        Args:
            tolerance: added to the reach, in world units.
        """
        for camera, reach in zip(self.cameras.to(at.device), self.reach.to(at.device), strict=True):
            origin = camera.camera_to_world[0, :, 3]
            pixels = project(camera, at)[0].floor().long()
            inside = ((pixels >= 0) & (pixels < pixels.new_tensor([camera.width, camera.height]))).all(-1)
            x, y = pixels.where(inside[:, None], 0).unbind(-1)
            lit = (at - origin).norm(dim=-1) < reach[y, x] + tolerance
            yield (inside & lit).nonzero()[:, 0], origin


def compute_visibility(
    lattice: Lattice,
    stored: RenderableField,
    nodes: Int[Tensor, "n"],
    codes: UInt8[Tensor, "n"],
    config: BakeConfig,
    generator: torch.Generator,
    on_progress: OnPart,
) -> tuple[Bool[Tensor, "n"], Visibility]:
    """Return which nodes are kept, corners of a visible cell, and how far the scene's own cameras see.

    Cells are dropped in the order of the largest weight that they have in any pixel, until a fraction MAX_LOST_LIGHT of
    all light is lost; a cell is kept whose weight is not small compared with those nearby. In a solid scene this drops
    what lies behind and in front of surfaces, in a scene without surfaces hardly anything.
    """
    step = stored.render_step_size
    field = BakedField(lattice, nodes, codes.float() / 255, None, LOG_RANGE, step)
    cells = torch.tensor(lattice.cells)
    largest = torch.zeros(lattice.cells).flatten()  # weight of each cell in any pixel
    total = torch.zeros_like(largest)
    own, around = visibility_cameras(lattice, stored, config)
    reach = torch.zeros(len(own), own.width * own.height)
    for i, camera in enumerate((*own, *around)):
        rays = _scattered_rays(camera, generator)
        jitter = torch.rand(len(rays), generator=generator)
        samples = sample_rays(rays, field, stored.occupancy, step, jitter)
        samples = visible_samples(field, rays, samples, MIN_TRANSMITTANCE)
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
            lit = visible_samples(field, rays, samples, MIN_LIT_TRANSMITTANCE)
            reach[i].scatter_reduce_(0, lit.ray_indices, lit.t_ends, "amax")
        on_progress("visibility", i + 1, len(own) + len(around))
    visibility = Visibility(own, reach.reshape(-1, own.height, own.width))
    if config.keeps_unseen:
        return torch.ones(len(nodes), dtype=torch.bool), visibility
    order = largest.argsort()
    lost = total[order].cumsum(0)
    seen = ((largest > MIN_OF_NEARBY * _max_nearby(largest, lattice)) & (largest > 0)).float()
    seen[order[lost > MAX_LOST_LIGHT * lost[-1]]] = 1.0
    x, y, z = lattice.coordinates(nodes).unbind(-1)
    return lattice.corners(seen.reshape(lattice.cells))[x, y, z] > 0, visibility


def _max_nearby(largest: Float[Tensor, "cells"], lattice: Lattice) -> Float[Tensor, "cells"]:
    """Return for each cell the largest value in its brick and the neighbouring bricks."""
    bricks = F.max_pool3d(largest.reshape(1, *lattice.cells), BRICK)
    nearby = F.max_pool3d(bricks, 3, stride=1, padding=1)[0]
    for axis in range(3):
        nearby = nearby.repeat_interleave(BRICK, axis)
    return nearby.flatten()


def visibility_cameras(
    lattice: Lattice, stored: RenderableField, config: BakeConfig
) -> tuple[Cameras, Cameras]:
    """Return some of the scene's own cameras, evenly spread, and cameras around its box, which find what is unseen."""
    own, side = stored.cameras.to("cpu"), max(lattice.cells) // config.cells_per_ray
    own = own[torch.linspace(0, len(own) - 1, min(len(own), config.max_cameras)).round().long()]
    around = resize(box_cameras(stored.field.box()), side, side)
    return resize(own, side, side), around[:0] if config.keeps_unseen else around


def _scattered_rays(camera: Cameras, generator: torch.Generator) -> Rays:
    """Return a ray through a random point of each pixel, row by row.

    Rays through the centres would leave a gap around a point that all cameras look at.
    """
    pixels = torch.cartesian_prod(torch.arange(camera.height), torch.arange(camera.width)).flip(-1)
    place = torch.rand(pixels.shape, generator=generator) - 0.5
    return camera_rays(camera, torch.zeros(len(pixels), dtype=torch.long), pixels + place)


def _harmonics(
    stored: RenderableField,
    values: NodeValues,
    visibility: Visibility,
    degree: int,
    generator: torch.Generator,
) -> Float[Tensor, "n harmonics 3"]:
    """Fit coefficients by ridge regression; the first is the constant itself.

    They are fitted to the colours that the scene's own cameras see at each node. A few directions from around the box,
    with a small weight, regularize them, and determine those of nodes that no camera sees.
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

    for which, origin in visibility.lit(at, stored.render_step_size):
        add(which, origin, 1.0)
    around = box_cameras(stored.field.box()).camera_to_world[:, :, 3].to(at)
    everything = torch.arange(len(at), device=at.device)
    for _ in range(N_AROUND):
        chosen = torch.randint(len(around), (len(at),), generator=generator).to(at.device)
        add(everything, around[chosen], AROUND_WEIGHT / N_AROUND)
    penalty = torch.ones(n).to(at) * RIDGE
    penalty[0] = 0
    return torch.linalg.solve(gram + gram[:, :1, :1] * torch.diag(penalty), moments)


def _mean_colors(
    stored: RenderableField, values: NodeValues, visibility: Visibility
) -> Float[Tensor, "n 1 3"]:
    """Return the color of each node in the mean direction of the cameras that see it.

    A node that none sees, or that cameras see from opposite sides, has its color from outside the box.
    """
    at = values.positions
    total = torch.zeros_like(at)
    for which, origin in visibility.lit(at, stored.render_step_size):
        total.index_add_(0, which, F.normalize(at[which] - origin, dim=-1))
    center = (stored.field.aabb[:3] + stored.field.aabb[3:]) / 2
    inwards = center - at + MIN_MEAN_DIRECTION  # not zero at the center
    is_seen = total.norm(dim=-1, keepdim=True) > MIN_MEAN_DIRECTION
    directions = F.normalize(torch.where(is_seen, total, inwards), dim=-1)
    return stored.field.radiance(values.features, at, directions)[:, None]


def _colour_codes(harmonics: Float[Tensor, "n harmonics 3"]) -> UInt8[Tensor, "rows n"]:
    """Return rows of bytes: red, green and blue of the constant part, then of each other harmonic."""
    base = rounded(harmonics[:, :1] * 255, BASE_STEP)
    others = (harmonics[:, 1:] / HARMONIC_STEP).round().clamp(-MAX_HARMONIC, MAX_HARMONIC) + ZERO
    return torch.cat([base, others.to(torch.uint8)], dim=1).flatten(1).T.contiguous()


def first_view(stored: RenderableField) -> dict[str, object]:
    """Return the training camera nearest to where an orbit around the scene would begin, as JSON values.

    `eye`, `target` and `up` are in world units, `focal` is the focal length over the image's shorter side.
    """
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
