"""Rays to pixels: march, query the field, composite."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras, Rays, image_rays
from fieldmorph.fields.kernels.ops import composite, march
from fieldmorph.fields.occupancy import OccupancyGrid

EARLY_STOP = 1e-3  # transmittance below which a sample changes no 8-bit pixel by more than a quarter
FIRST_SLAB = 16  # samples of a ray that are queried at once; every slab has four times as many as the last
STEPS_PER_BOX = (
    64,
    512,
)  # least and greatest number of render steps across the longest side of a field's box


@dataclass(frozen=True)
class RaySamples:
    """Packed samples of a batch of rays; ray r owns offsets[r] .. offsets[r + 1]."""

    ray_indices: Int[Tensor, "n_samples"]
    t_starts: Float[Tensor, "n_samples"]
    t_ends: Float[Tensor, "n_samples"]
    offsets: Int[Tensor, "n_offsets"]

    def __len__(self) -> int:
        return len(self.ray_indices)

    def positions(self, rays: Rays) -> Float[Tensor, "n_samples 3"]:
        """Return the centers of the samples in world units."""
        t_mid = (self.t_starts + self.t_ends) / 2
        return torch.addcmul(rays.rays_o[self.ray_indices], rays.rays_d[self.ray_indices], t_mid[:, None])

    def keep(self, mask: Tensor) -> "RaySamples":
        """Return the samples where mask (n_samples,) is true."""
        before = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.cumsum(0)])
        return RaySamples(
            self.ray_indices[mask], self.t_starts[mask], self.t_ends[mask], before[self.offsets]
        )


@dataclass(frozen=True)
class RenderOutput:
    """Pixels of a batch of rays.

    `colors` are sRGB over the background; `depths` the weighted sum of distances along the ray in world units (divide
    by `opacities` for the expected distance); `weights`, `sigma` and `rgb` belong to the samples.
    """

    colors: Float[Tensor, "n_rays 3"]
    opacities: Float[Tensor, "n_rays"]
    depths: Float[Tensor, "n_rays"]
    weights: Float[Tensor, "n_samples"]
    sigma: Float[Tensor, "n_samples"]
    rgb: Float[Tensor, "n_samples 3"]


def step_size_for(cameras: Cameras, field: VolumeField) -> float:
    """Return the render step in world units: one pixel's footprint at the centre of the box.

    Finer steps cost time and show nothing that is in the training images.
    """
    centre = (field.aabb[:3] + field.aabb[3:]).cpu() / 2
    distances = (cameras.camera_to_world[:, :, 3].cpu() - centre).norm(dim=-1)
    footprint = float((distances / cameras.intrinsics[:, 0].cpu()).median())
    n_min, n_max = STEPS_PER_BOX
    return min(max(footprint, field.extent / n_max), field.extent / n_min)


def sample_rays(
    rays: Rays,
    field: VolumeField,
    occupancy: OccupancyGrid,
    render_step_size: float,
    jitter: Float[Tensor, "n_rays"] | None = None,
) -> RaySamples:
    """Return samples in occupied cells, at the middle of each step or jittered.

    Args:
        rays: origins in world units, and directions.
        field: only its box is used.
        occupancy: the cells of that box.
        render_step_size: distance between samples, in world units.
        jitter: where in its step each ray's samples lie, in [0, 1); the middle by default.
    """
    if jitter is None:
        jitter = torch.full((len(rays),), 0.5, device=rays.rays_o.device)
    occupied = occupancy.occupied.to(rays.rays_o.device)
    return RaySamples(*march(rays.rays_o, rays.rays_d, field.aabb, occupied, render_step_size, jitter))


class _Slabs:
    """Samples from front to back, some of every ray at a time, for as long as light reaches them.

    Most rays end at a surface: what lies behind it, two thirds of the samples of a solid object, is never queried.

    Args:
        samples: of a batch of rays.
        early_stop: transmittance at and below which a ray ends.
    """

    def __init__(self, samples: RaySamples, early_stop: float):
        self.samples, self.early_stop = samples, early_stop
        self.counts, self.lengths = samples.offsets.diff(), samples.t_ends - samples.t_starts
        self.rays = self.counts.nonzero()[:, 0]  # that have not ended
        self.depth = torch.zeros(len(self.rays), dtype=torch.float64, device=self.rays.device)  # optical
        self.begin, self.size = 0, FIRST_SLAB

    def next(self) -> Int[Tensor, "n_slab"]:
        """Return the indices of the next slab's samples; none where all rays have ended."""
        counts = self.counts[self.rays]
        longest = int(counts.max()) if len(counts) else 0  # bounds the memory of the last slab
        end = min(self.begin + self.size, max(longest, self.begin))
        ranks = torch.arange(self.begin, end, device=self.rays.device)
        self.mask = ranks < counts[:, None]
        self.indices: Tensor = (self.samples.offsets[self.rays, None] + ranks)[self.mask]
        return self.indices

    def lit(self, sigma: Float[Tensor, "n_slab"]) -> Bool[Tensor, "n_slab"]:
        """Return which samples of this slab light reaches, from their densities, and move on."""
        optical = self.depth.new_zeros(self.mask.shape)
        optical[self.mask] = sigma.double() * self.lengths[self.indices]
        before = self.depth[:, None] + optical.cumsum(1) - optical
        lit: Tensor = (torch.exp(-before) > self.early_stop)[self.mask]
        self.begin, self.size = self.begin + self.size, 4 * self.size
        self.depth = self.depth + optical.sum(1)
        continues = (torch.exp(-self.depth) > self.early_stop) & (self.counts[self.rays] > self.begin)
        self.rays, self.depth = self.rays[continues], self.depth[continues]
        return lit


@torch.no_grad()
def visible_samples(
    field: VolumeField,
    rays: Rays,
    samples: RaySamples,
    early_stop: float = EARLY_STOP,
    min_depth: float = 0.0,
) -> RaySamples:
    """Return the samples that light reaches; a density-only pass saves evaluating color for the rest.

    Args:
        field: whose density is queried, without gradients, from front to back until each ray has ended.
        rays, samples: as `sample_rays` takes and returns them.
        early_stop: transmittance at and below which a sample is left out.
        min_depth: optical depth below which a sample is left out, which dims low density.
    """
    visible = torch.zeros(len(samples), dtype=torch.bool, device=samples.offsets.device)
    slabs, positions = _Slabs(samples, early_stop), samples.positions(rays)
    while len(indices := slabs.next()):
        sigma = field.query_density(positions[indices])
        visible[indices] = slabs.lit(sigma) & (sigma * slabs.lengths[indices] >= min_depth)
    return samples.keep(visible)


def shade_samples(
    field: VolumeField, rays: Rays, samples: RaySamples, background: Float[Tensor, "n_rays 3"]
) -> RenderOutput:
    """Return the pixels of rays, composited from the field's values at given samples over a background."""
    rgb, sigma = field(samples.positions(rays), rays.rays_d[samples.ray_indices])
    return _composited(samples, rgb, sigma, background)


def _composited(
    samples: RaySamples,
    rgb: Float[Tensor, "n_samples 3"],
    sigma: Float[Tensor, "n_samples"],
    background: Float[Tensor, "n_rays 3"],
) -> RenderOutput:
    weights, colors, opacities, depths = composite(
        sigma, rgb, samples.t_starts, samples.t_ends, samples.offsets
    )
    colors = colors + (1 - opacities)[:, None] * background
    return RenderOutput(colors, opacities, depths, weights, sigma, rgb)


def shade_visible(
    field: VolumeField,
    rays: Rays,
    samples: RaySamples,
    background: Float[Tensor, "n_rays 3"],
    early_stop: float = EARLY_STOP,
    min_depth: float = 0.0,
) -> RenderOutput:
    """Return what `shade_samples` does of the visible samples.

    Where no gradient is recorded, a field that computes features with every density query computes them once.
    """
    density_is_cheap = type(field).query_density is not VolumeField.query_density
    if density_is_cheap or torch.is_grad_enabled():
        visible = visible_samples(field, rays, samples, early_stop, min_depth)
        return shade_samples(field, rays, visible, background)
    slabs, positions = _Slabs(samples, early_stop), samples.positions(rays)
    kept = torch.zeros(len(samples), dtype=torch.bool, device=positions.device)
    sigma, rgb = positions.new_zeros(len(samples)), torch.zeros_like(positions)
    while len(indices := slabs.next()):
        at = positions[indices]
        log_sigma, features = field.geometry(at)
        sigma[indices] = density = field.density(log_sigma, at)
        kept[indices] = lit = slabs.lit(density) & (density * slabs.lengths[indices] >= min_depth)
        seen = indices[lit]
        rgb[seen] = field.radiance(features[lit], at[lit], rays.rays_d[samples.ray_indices[seen]])
    return _composited(samples.keep(kept), rgb[kept], sigma[kept], background)


def render_rays(
    field: VolumeField,
    rays: Rays,
    occupancy: OccupancyGrid,
    render_step_size: float,
    background: Float[Tensor, "n_rays 3"],
    jitter: Float[Tensor, "n_rays"] | None = None,
) -> RenderOutput:
    """Return the pixels of rays; only samples that light reaches are shaded.

    Args:
        field: queried on its own device, where the rays lie as well.
        rays: origins in world units, and directions.
        occupancy: its grid; samples lie in occupied cells only.
        render_step_size: distance between samples, in world units.
        background: sRGB in [0, 1] behind each ray.
        jitter: as `sample_rays` takes it.
    """
    samples = sample_rays(rays, field, occupancy, render_step_size, jitter)
    return shade_visible(field, rays, samples, background)


@torch.no_grad()
def render_image(
    field: VolumeField,
    camera: Cameras,
    occupancy: OccupancyGrid,
    render_step_size: float,
    background: float = 1.0,
    rays_per_chunk: int = 4096,
) -> dict[str, Tensor]:
    """Return one view: `colors` (h, w, 3) in sRGB, `opacities` (h, w), `depths` (h, w) in world units.

    Args:
        field: queried on its own device.
        camera: exactly one.
        occupancy: its grid; samples lie in occupied cells only.
        render_step_size: distance between samples, in world units.
        background: gray level in [0, 1].
        rays_per_chunk: rays rendered at once; bounds memory, changes nothing in the image.

    Raises:
        SettingError: `camera` is not exactly one camera.
    """
    rays = image_rays(camera.to(field.aabb.device))
    chunks = []
    for start in range(0, len(rays), rays_per_chunk):
        part = rays[start : start + rays_per_chunk]
        over = part.rays_o.new_full((len(part), 3), background)
        chunks.append(render_rays(field, part, occupancy, render_step_size, over))
    shape = (camera.height, camera.width)
    return {
        "colors": torch.cat([c.colors for c in chunks]).clamp(0, 1).reshape(*shape, 3),
        "opacities": torch.cat([c.opacities for c in chunks]).clamp(0, 1).reshape(shape),
        "depths": torch.cat([c.depths for c in chunks]).reshape(shape),
    }
