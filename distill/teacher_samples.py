"""The teacher's samples: rays near the training cameras, marched, evaluated and packed.

The teacher is evaluated in blocks, for the density along rays and then for all of what light reaches; every step draws
from one block of a ring that is slowly renewed. Blocks depend on the seed and their number alone, so that a resumed run
sees the same ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.distill.active import REPLAYED_FRACTION, hard_cameras
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras, Rays, camera_rays, nearest_cameras, sample_cameras
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.kernels.ops import composite
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import RaySamples, sample_rays, visible_samples
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.types import StateDict


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of how the teacher is sampled.

    Attributes:
        block_rays: rays of a block.
        block_empty: points from anywhere in the box of a block, most of them in empty space.
        n_blocks: of the ring.
        fill_every: steps between two new blocks until there are so many.
        renew_every: steps between two new blocks from then on.
        early_stop: transmittance below which the student is not compared.
        importance: a sample of rendering weight w is drawn in proportion to
            min(1, importance w) + background_fraction.
        background_fraction: see `importance`.
    """

    block_rays: int = 1 << 13
    block_empty: int = 1 << 13
    n_blocks: int = 32
    fill_every: int = 32
    renew_every: int = 128
    early_stop: float = 1e-4
    importance: float = 20.0
    background_fraction: float = 0.08


@dataclass(frozen=True)
class TeacherSamples:
    """Points with the teacher's values.

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
            self.positions[index],
            self.directions[index],
            self.sigma[index],
            self.rgb[index],
            features,
            self.weights[index],
        )


@dataclass(frozen=True)
class Pixels:
    """Rays with the teacher's samples along them and the teacher's color over black and opacity."""

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
        """Return n samples (indices) with probability growing with their rendering weight, with replacement."""
        at = torch.rand(n, generator=generator, dtype=torch.float64).to(self.cumulative) * self.cumulative[-1]
        return torch.searchsorted(self.cumulative, at).clamp(max=len(self.along) - 1)

    def draw_empty(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return positions (n, 3) and densities (n,) from anywhere in the box."""
        which = torch.randint(len(self.empty_sigma), (n,), generator=generator)
        return self.empty_positions[which], self.empty_sigma[which]

    def draw_rays(self, n_samples: int, generator: torch.Generator) -> Int[Tensor, "n_rays"]:
        """Return random rays (indices) with about n_samples samples altogether."""
        offsets = self.pixels.samples.offsets
        n_rays = max(1, round(n_samples * (len(offsets) - 1) / max(len(self.along), 1)))
        return torch.randint(len(offsets) - 1, (n_rays,), generator=generator)

    def rays(self, which: Int[Tensor, "n_rays"]) -> tuple[TeacherSamples, Pixels]:
        """Return the given rays of this block, packed without the others."""
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

    It starts small, so that a conversion of seconds does not spend them on evaluating the teacher.
    """

    def __init__(self, teacher: RenderableField, seed: int, config: SamplingConfig | None = None):
        self.teacher, self.seed, self.config = teacher, seed, config or SamplingConfig()
        self.newest = 0  # number of the newest block so far
        self.hard: dict[int, Tensor] = {}  # by block: the poses that were worst when it was made
        self.blocks: dict[int, Block] = {0: make_block(teacher, seed, 0, config=self.config)}
        self.fallback = self.blocks[0]  # for the rare block whose rays all miss
        if not len(self.fallback.along):
            raise InputError("the teacher is empty: no ray near its cameras meets an occupied cell")

    def block(
        self, step: int, generator: torch.Generator, worst: Int[Tensor, "n_worst"] | None = None
    ) -> Block:
        """Return a random block of those that belong to this step, whatever steps came before.

        Args:
            step: of the optimizer.
            generator: chooses the block.
            worst: indices of poses near which a tenth of a new block's rays start.
        """
        newest = _newest_block(step, self.config)
        numbers = range(max(0, newest + 1 - self.config.n_blocks), newest + 1)
        if worst is not None and len(worst):
            self.hard |= dict.fromkeys(range(self.newest + 1, newest + 1), worst)
        self.newest = newest
        self.hard = {n: poses for n, poses in self.hard.items() if n in numbers}
        self.blocks = {
            n: self.blocks[n]
            if n in self.blocks
            else make_block(self.teacher, self.seed, n, self.hard.get(n), self.config)
            for n in numbers
        }
        block = self.blocks[numbers[int(torch.randint(len(numbers), (1,), generator=generator))]]
        return block if len(block.along) else self.fallback

    def state(self) -> StateDict:
        """Return what `load_state` takes; blocks themselves are made again."""
        return {"newest": self.newest, "hard": self.hard}

    def load_state(self, state: StateDict) -> None:
        """Continue from a saved state."""
        self.newest, self.hard = state["newest"], state["hard"]
        self.blocks = {}


def _newest_block(step: int, config: SamplingConfig) -> int:
    """Return the number of the newest block at a step: two at first, soon `n_blocks`, then a new one rarely."""
    full = (config.n_blocks - 2) * config.fill_every
    if step < full:
        return 1 + step // config.fill_every
    return config.n_blocks - 1 + (step - full) // config.renew_every


@torch.no_grad()
def make_block(
    teacher: RenderableField,
    seed: int,
    number: int,
    worst: Int[Tensor, "n_worst"] | None = None,
    config: SamplingConfig | None = None,
) -> Block:
    """Return the block of this number: rays of new cameras near the teacher's own, and points in its box.

    Args:
        teacher: queried on its own device.
        seed, number: what the block depends on, with `worst`.
        worst: indices of poses; a tenth of the rays belong to cameras near these.
        config: how many rays and points.
    """
    config, generator = config or SamplingConfig(), seeded(seed, "block", number)
    n_rays = config.block_rays
    field, device = teacher.field, teacher.field.aabb.device
    cameras = sample_cameras(teacher.cameras, n_rays, generator)
    if worst is not None:
        n_hard = int(REPLAYED_FRACTION * n_rays)
        hard = hard_cameras(teacher.cameras, worst, n_hard, generator)
        cameras = Cameras(
            torch.cat([hard.camera_to_world, cameras.camera_to_world[n_hard:]]),
            torch.cat([hard.intrinsics, cameras.intrinsics[n_hard:]]),
            cameras.width,
            cameras.height,
        )
    pixels = torch.rand(n_rays, 2, generator=generator) * torch.tensor([cameras.width, cameras.height])
    rays = camera_rays(cameras, torch.arange(n_rays), pixels - 0.5)
    rays = Rays(rays.rays_o.to(device), rays.rays_d.to(device))
    jitter = torch.rand(n_rays, generator=generator).to(device)
    samples = sample_rays(rays, field, teacher.occupancy, teacher.render_step_size, jitter)
    samples = visible_samples(field, rays, samples, config.early_stop)
    positions, directions = samples.positions(rays), rays.rays_d[samples.ray_indices]
    rgb, sigma, features = _evaluate(field, positions, directions)
    weights, colors, opacities, _ = composite(sigma, rgb, samples.t_starts, samples.t_ends, samples.offsets)
    along = TeacherSamples(positions, directions, sigma, rgb, features, weights)
    importance = (config.importance * weights).clamp(max=1) + config.background_fraction
    unit = torch.rand(config.block_empty, 3, generator=generator).to(device)
    anywhere = field.aabb[:3] + unit * (field.aabb[3:] - field.aabb[:3])
    return Block(
        number,
        along,
        Pixels(samples, colors, opacities),
        nearest_cameras(cameras, teacher.cameras).to(device),
        importance.double().cumsum(0),
        anywhere,
        field.query_density(anywhere) * teacher.occupancy.at(unit),
    )


def _evaluate(
    field: VolumeField, positions: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return color, density and, where a decoder gives them a meaning, features."""
    if field.decoder is None:
        return *field(positions, directions), None  # geometry and radiance would call a black box twice
    log_sigma, features = field.geometry(positions)
    return field.radiance(features, positions, directions), field.density(log_sigma, positions), features
