"""Rays to pixels: march, query the field, composite."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras, Rays, image_rays
from fieldmorph.fields.kernels.ops import composite, march
from fieldmorph.fields.occupancy import OccupancyGrid

EARLY_STOP = 1e-3  # transmittance below which a sample changes no 8-bit pixel by more than a quarter
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
        field: whose density is queried, without gradients.
        rays, samples: as `sample_rays` takes and returns them.
        early_stop: transmittance at and below which a sample is left out.
        min_depth: optical depth below which a sample is left out, which makes fog thinner.
    """
    if not len(samples):
        return samples
    sigma = field.query_density(samples.positions(rays))
    optical = sigma.double() * (samples.t_ends - samples.t_starts)
    total = torch.cat([optical.new_zeros(1), optical.cumsum(0)])
    trans = torch.exp(total[samples.offsets[:-1]][samples.ray_indices] - total[:-1])
    return samples.keep((trans > early_stop) & (optical >= min_depth))


def shade_samples(
    field: VolumeField, rays: Rays, samples: RaySamples, background: Float[Tensor, "n_rays 3"]
) -> RenderOutput:
    """Return the pixels of rays, composited from the field's values at given samples over a background."""
    rgb, sigma = field(samples.positions(rays), rays.rays_d[samples.ray_indices])
    weights, colors, opacities, depths = composite(
        sigma, rgb, samples.t_starts, samples.t_ends, samples.offsets
    )
    colors = colors + (1 - opacities)[:, None] * background
    return RenderOutput(colors, opacities, depths, weights, sigma, rgb)


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
    return shade_samples(field, rays, visible_samples(field, rays, samples), background)


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
