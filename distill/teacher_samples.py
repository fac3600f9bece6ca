"""What the teacher shows the student: rays near the training cameras, marched, looked up and packed.

The teacher is asked in blocks, for the density along rays and then for all of what light reaches; every step draws
from one block of a ring that is slowly renewed. Blocks depend on the seed and their number alone, so that a resumed run
sees the same ones.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.distill.active import REPLAYED, hard_cameras
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras, Rays, camera_rays, nearest_cameras, sample_cameras
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.kernels.ops import composite
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import RaySamples, sample_rays, visible_samples
from fieldmorph.fields.rng import seeded

BLOCK_RAYS = 1 << 13
BLOCK_EMPTY = 1 << 13  # points anywhere in the box, most of them in empty space
N_BLOCKS = 32
FILL_EVERY = 32  # steps between two new blocks until there are so many
RENEW_EVERY = 128  # and from then on
EARLY_STOP = 1e-4  # light left over behind which the student need not look
IMPORTANCE = 20.0  # a sample of rendering weight w is drawn in proportion to min(1, 20 w) + 0.08
BACKGROUND_SHARE = 0.08


@dataclass(frozen=True)
class TeacherSamples:
    """Points with what the teacher has there.

    Attributes:
        sigma: density per world unit; 0 in cells that the teacher's occupancy grid leaves out.
        features: the first part's features, or None where the teacher has no decoder.
        weights: rendering weights, in [0, 1].
    """

    positions: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    sigma: Float[Tensor, "n"]
    rgb: Float[Tensor, "n 3"]
    features: Float[Tensor, "n features"] | None
    weights: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.sigma)

    def __getitem__(self, index: Tensor) -> "TeacherSamples":
        features = None if self.features is None else self.features[index]
        return TeacherSamples(
            self.positions[index], self.directions[index], self.sigma[index], self.rgb[index], features,
            self.weights[index],
        )  # fmt: skip


@dataclass(frozen=True)
class Pixels:
    """Rays with the teacher's samples along them and the teacher's colour over black and opacity."""

    samples: RaySamples
    colors: Float[Tensor, "n_rays 3"]
    opacities: Float[Tensor, "n_rays"]


@dataclass(frozen=True)
class Block:
    """Samples along rays, the rays' pixels and poses (indices), and points from anywhere in the box."""

    number: int
    along: TeacherSamples
    pixels: Pixels
    poses: Int[Tensor, "n_rays"]
    cumulative: Float[Tensor, "n"]
    empty_positions: Float[Tensor, "m 3"]
    empty_sigma: Float[Tensor, "m"]

    def draw_points(self, n: int, generator: torch.Generator) -> Int[Tensor, "n"]:
        """n samples (indices) with probability growing with their rendering weight, with replacement."""
        at = torch.rand(n, generator=generator, dtype=torch.float64).to(self.cumulative) * self.cumulative[-1]
        return torch.searchsorted(self.cumulative, at).clamp(max=len(self.along) - 1)

    def draw_empty(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions (n, 3) and densities (n,) from anywhere in the box."""
        which = torch.randint(len(self.empty_sigma), (n,), generator=generator)
        return self.empty_positions[which], self.empty_sigma[which]

    def draw_rays(self, n_samples: int, generator: torch.Generator) -> Int[Tensor, "n_rays"]:
        """Random rays (indices) with about n_samples samples altogether."""
        offsets = self.pixels.samples.offsets
        n_rays = max(1, round(n_samples * (len(offsets) - 1) / max(len(self.along), 1)))
        return torch.randint(len(offsets) - 1, (n_rays,), generator=generator)

    def rays(self, which: Int[Tensor, "n_rays"]) -> tuple[TeacherSamples, Pixels]:
        """The given rays of this block, packed anew."""
        whole = self.pixels.samples
        which = which.to(whole.offsets.device)
        counts = whole.offsets.diff()[which]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        ray_indices = torch.repeat_interleave(torch.arange(len(which), device=which.device), counts)
        index = (
            torch.arange(len(ray_indices), device=which.device)
            + (whole.offsets[which] - offsets[:-1])[ray_indices]
        )
        samples = RaySamples(ray_indices, whole.t_starts[index], whole.t_ends[index], offsets)
        pixels = Pixels(samples, self.pixels.colors[which], self.pixels.opacities[which])
        return self.along[index], pixels


class SamplePool:
    """A ring of blocks that first fills, then is renewed, as the steps go by.

    It starts small, so that a conversion of seconds does not spend them on looking at the teacher.
    """

    def __init__(self, teacher: RenderableField, seed: int):
        self.teacher, self.seed = teacher, seed
        self.newest = 0  # number of the newest block so far
        self.hard: dict[int, Tensor] = {}  # by block: the poses that were worst when it was made
        self.blocks: dict[int, Block] = {0: make_block(teacher, seed, 0)}
        self.spare = self.blocks[0]  # for one in a great while whose rays all miss
        if not len(self.spare.along):
            raise InputError("the teacher is empty: no ray near its cameras meets an occupied cell")

    def block(
        self, step: int, generator: torch.Generator, worst: Int[Tensor, "n_worst"] | None = None
    ) -> Block:
        """A random block of those that belong to this step, whatever steps came before.

        Args:
            worst: indices of poses near which a tenth of a new block's rays start.
        """
        newest = _newest_block(step)
        numbers = range(max(0, newest + 1 - N_BLOCKS), newest + 1)
        if worst is not None and len(worst):
            self.hard |= dict.fromkeys(range(self.newest + 1, newest + 1), worst)
        self.newest = newest
        self.hard = {n: poses for n, poses in self.hard.items() if n in numbers}
        self.blocks = {
            n: self.blocks[n]
            if n in self.blocks
            else make_block(self.teacher, self.seed, n, self.hard.get(n))
            for n in numbers
        }
        block = self.blocks[numbers[int(torch.randint(len(numbers), (1,), generator=generator))]]
        return block if len(block.along) else self.spare

    def state(self) -> dict[str, Any]:
        """What `load_state` takes; blocks themselves are made again."""
        return {"newest": self.newest, "hard": self.hard}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.newest, self.hard = state["newest"], state["hard"]
        self.blocks = {}


def _newest_block(step: int) -> int:
    """Number of the newest block at a step: two at first, then quickly N_BLOCKS, then one in a while."""
    full = (N_BLOCKS - 2) * FILL_EVERY
    return 1 + step // FILL_EVERY if step < full else N_BLOCKS - 1 + (step - full) // RENEW_EVERY


@torch.no_grad()
def make_block(teacher: RenderableField, seed: int, number: int, worst: Tensor | None = None) -> Block:
    """The block of this number: rays of new cameras near the teacher's own, and points in its box.

    A tenth of the rays belong to cameras near the `worst` poses where there are some.
    """
    generator = seeded(seed, "block", number)
    field, device = teacher.field, teacher.field.aabb.device
    cameras = sample_cameras(teacher.cameras, BLOCK_RAYS, generator)
    if worst is not None:
        n_hard = int(REPLAYED * BLOCK_RAYS)
        hard = hard_cameras(teacher.cameras, worst, n_hard, generator)
        cameras = Cameras(
            torch.cat([hard.camera_to_world, cameras.camera_to_world[n_hard:]]),
            torch.cat([hard.intrinsics, cameras.intrinsics[n_hard:]]), cameras.width, cameras.height,
        )  # fmt: skip
    pixels = torch.rand(BLOCK_RAYS, 2, generator=generator) * torch.tensor([cameras.width, cameras.height])
    rays = camera_rays(cameras, torch.arange(BLOCK_RAYS), pixels - 0.5)
    rays = Rays(rays.rays_o.to(device), rays.rays_d.to(device))
    jitter = torch.rand(BLOCK_RAYS, generator=generator).to(device)
    samples = sample_rays(rays, field, teacher.occupancy, teacher.render_step_size, jitter)
    samples = visible_samples(field, rays, samples, EARLY_STOP)
    positions, directions = samples.positions(rays), rays.rays_d[samples.ray_indices]
    rgb, sigma, features = _look(field, positions, directions)
    weights, colors, opacities, _ = composite(sigma, rgb, samples.t_starts, samples.t_ends, samples.offsets)
    along = TeacherSamples(positions, directions, sigma, rgb, features, weights)
    share = (IMPORTANCE * weights).clamp(max=1) + BACKGROUND_SHARE
    unit = torch.rand(BLOCK_EMPTY, 3, generator=generator).to(device)
    anywhere = field.aabb[:3] + unit * (field.aabb[3:] - field.aabb[:3])
    cell = (unit * teacher.occupancy.resolution).long().clamp(max=teacher.occupancy.resolution - 1)
    occupied = teacher.occupancy.occupied.to(device)[cell[:, 0], cell[:, 1], cell[:, 2]]
    return Block(
        number,
        along,
        Pixels(samples, colors, opacities),
        nearest_cameras(cameras, teacher.cameras).to(device),
        share.double().cumsum(0),
        anywhere,
        field.query_density(anywhere) * occupied,
    )


def _look(field: VolumeField, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Colour, density and, where a decoder gives them a meaning, features."""
    if field.decoder is None:
        return *field(positions, directions), None  # geometry and radiance would ask a black box each
    log_sigma, features = field.geometry(positions)
    return field.radiance(features, positions, directions), field.density(log_sigma, positions), features
