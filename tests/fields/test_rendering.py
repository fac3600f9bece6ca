"""Rendering fields whose images are known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Rays, orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.rendering import (
    EARLY_STOP,
    RaySamples,
    render_image,
    render_rays,
    sample_rays,
    shade_samples,
    visible_samples,
)

pytestmark = pytest.mark.numerical

SLAB = (0.0, -2.0, -2.0, 1.5, 2.0, 2.0)  # 1.5 thick along x


def full(resolution: int = 8) -> OccupancyGrid:
    return OccupancyGrid(resolution)


def through(n: int = 1, slope: float = 0.0) -> Rays:
    """Rays along x, or tilted in y, that start 2 before the slab."""
    direction = torch.nn.functional.normalize(torch.tensor([1.0, slope, 0.0]), dim=0)
    return Rays(torch.tensor([[-2.0, 0.0, 0.1]]).repeat(n, 1), direction.repeat(n, 1))


def _empty(uniform_field) -> VolumeField:
    field = uniform_field(1.0, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0))
    field.query_density = lambda positions: torch.zeros(positions.shape[:-1])
    return field


def _places(samples: RaySamples, kept: RaySamples) -> list[int]:
    """Indices in `samples` of what was kept; no two samples of a ray begin at one distance."""
    keys = {
        (int(r), float(t)): i
        for i, (r, t) in enumerate(zip(samples.ray_indices, samples.t_starts, strict=True))
    }
    return [keys[int(r), float(t)] for r, t in zip(kept.ray_indices, kept.t_starts, strict=True)]


def at_sphere(n: int, generator: torch.Generator) -> Rays:
    rays_o = 3 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    aim = 1.2 * torch.rand(n, 3, generator=generator) - 0.6
    return Rays(rays_o, torch.nn.functional.normalize(aim - rays_o, dim=-1))


@pytest.mark.parametrize("slope", [0.0, 0.5])
@pytest.mark.parametrize("density", [0.1, 1.0, 3.0])
def test_a_slab_stops_light_exponentially(uniform_field, density: float, slope: float) -> None:
    rays = through(slope=slope)
    out = render_rays(uniform_field(density, SLAB), rays, full(), 1.5 / 300, torch.zeros(1, 3))
    opacity = 1 - math.exp(-density * 1.5 * math.hypot(1, slope))
    assert out.opacities.item() == pytest.approx(opacity, abs=2e-3)
    color = (rays.rays_d[0] + 1) / 2 * opacity
    torch.testing.assert_close(out.colors[0], color, rtol=0, atol=3e-3)


def test_depth_is_the_mean_distance_at_which_light_stops(uniform_field) -> None:
    out = render_rays(uniform_field(2.0, SLAB), through(), full(), 1.5 / 500, torch.zeros(1, 3))
    # over [2, 3.5]: integral of t 2 exp(-2 (t - 2)) = 2 (1 - e^-3) + (1 - 4 e^-3) / 2
    expected = 2 * (1 - math.exp(-3)) + (1 - 4 * math.exp(-3)) / 2
    assert out.depths.item() == pytest.approx(expected, abs=0.01)
    wall = render_rays(uniform_field(1e5, SLAB), through(), full(), 1.5 / 500, torch.zeros(1, 3))
    assert wall.depths.item() == pytest.approx(2, abs=0.005)


def test_jitter_moves_the_slab_by_less_than_a_step(uniform_field, generator: torch.Generator) -> None:
    jitter = torch.rand(50, generator=generator)
    out = render_rays(uniform_field(1.0, SLAB), through(50), full(), 0.02, torch.zeros(50, 3), jitter)
    assert out.opacities.std() > 0
    assert (out.opacities - (1 - math.exp(-1.5))).abs().max() < 0.02 * math.exp(-1.5) * 1.01


def test_the_background_shows_where_light_passes(uniform_field) -> None:
    background = torch.tensor([[0.2, 0.4, 0.8]])
    black, over = (
        render_rays(uniform_field(1.0, SLAB), through(), full(), 0.01, b)
        for b in (0 * background, background)
    )
    torch.testing.assert_close(over.colors - black.colors, (1 - over.opacities)[:, None] * background)


def test_nothing_occupied_is_the_background(soft_sphere: VolumeField, generator: torch.Generator) -> None:
    grid = full()
    grid.occupied[:] = False
    background = torch.rand(20, 3, generator=generator)
    out = render_rays(soft_sphere, at_sphere(20, generator), grid, 0.01, background)
    assert torch.equal(out.colors, background)
    assert torch.equal(out.depths, torch.zeros(20))
    assert len(out.weights) == 0


def test_early_stop_changes_no_8_bit_value(soft_sphere: VolumeField, generator: torch.Generator) -> None:
    rays = at_sphere(400, generator)
    samples = sample_rays(rays, soft_sphere, full(), 2 / 256)
    seen = visible_samples(soft_sphere, rays, samples)
    assert len(seen) < 0.8 * len(samples)
    background = torch.ones(400, 3)
    whole, stopped = (shade_samples(soft_sphere, rays, s, background) for s in (samples, seen))
    assert (whole.colors - stopped.colors).abs().max() < 1 / 255
    assert (whole.opacities - stopped.opacities).abs().max() <= EARLY_STOP * 1.01


@pytest.mark.parametrize("density", [0.0, 0.3, 4.0, 1e4])
def test_visible_samples_are_those_before_which_light_is_left(
    uniform_field, density: float, generator: torch.Generator
) -> None:
    """Rays of very different lengths, none included, against the definition, sample by sample."""
    field = uniform_field(density, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)) if density else _empty(uniform_field)
    rays = at_sphere(60, generator)
    rays.rays_d[:5] = -rays.rays_d[:5]  # away from the box
    samples = sample_rays(rays, field, full(), 2 / 300)
    before, light = [], 1.0
    for i, ray in enumerate(samples.ray_indices.tolist()):
        light = 1.0 if i == int(samples.offsets[ray]) else light
        before.append(light)
        light *= math.exp(-density * float(samples.t_ends[i] - samples.t_starts[i]))
    expected = torch.tensor(before)
    unclear = (expected / EARLY_STOP - 1).abs() < 1e-4  # of float32 lengths, added up in another order
    seen = visible_samples(field, rays, samples)
    mask = torch.zeros(len(samples), dtype=torch.bool)
    mask[_places(samples, seen)] = True
    assert torch.equal(mask[~unclear], (expected > EARLY_STOP)[~unclear])


def test_a_surface_ends_the_queries(soft_sphere: VolumeField, generator: torch.Generator) -> None:
    solid = type(soft_sphere)(soft_sphere.box(), lambda p: soft_sphere.log_density(p) + math.log(50))
    rays, queried = at_sphere(200, generator), []
    query = solid.query_density
    solid.query_density = lambda positions: (queried.append(len(positions)), query(positions))[1]
    samples = sample_rays(rays, solid, full(), 2 / 512)
    seen = visible_samples(solid, rays, samples)
    assert len(seen) <= sum(queried) < 0.7 * len(samples)


def test_what_is_not_a_number_stays_on_its_ray(uniform_field, generator: torch.Generator) -> None:
    field, rays = uniform_field(1.0, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)), at_sphere(40, generator)
    samples = sample_rays(rays, field, full(), 0.05)
    query, bad = field.query_density, samples.positions(rays)[int(samples.offsets[20])]
    field.query_density = lambda p: query(p).where((p != bad).any(-1), math.nan)
    seen = visible_samples(field, rays, samples).offsets.diff()
    assert torch.equal(seen[:20], samples.offsets.diff()[:20])
    assert torch.equal(seen[21:], samples.offsets.diff()[21:])


def test_the_sphere_s_own_grid_changes_no_8_bit_value(
    soft_sphere: VolumeField, generator: torch.Generator
) -> None:
    grid, step = OccupancyGrid(32), soft_sphere.extent / 256
    grid.rebuild(soft_sphere, step, generator)
    rays, background = at_sphere(300, generator), torch.zeros(300, 3)
    everywhere = render_rays(soft_sphere, rays, full(), step, background)
    there = render_rays(soft_sphere, rays, grid, step, background)
    assert len(there.weights) < 0.7 * len(everywhere.weights)
    # what is left out has an alpha below OCCUPIED_ALPHA, and little of that
    assert (there.colors - everywhere.colors).abs().max() < 2 / 255


def test_kept_samples_keep_their_rays(uniform_field, generator: torch.Generator) -> None:
    rays = at_sphere(30, generator)
    samples = sample_rays(rays, uniform_field(1.0, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)), full(), 0.05)
    mask = torch.rand(len(samples), generator=generator) < 0.4
    kept = samples.keep(mask)
    assert torch.equal(kept.offsets.diff(), torch.bincount(samples.ray_indices[mask], minlength=30))
    assert torch.equal(kept.ray_indices, torch.repeat_interleave(torch.arange(30), kept.offsets.diff()))
    assert torch.equal(kept.t_starts, samples.t_starts[mask])
    distance = (kept.positions(rays) - rays.rays_o[kept.ray_indices]).norm(dim=-1)
    torch.testing.assert_close(distance, (kept.t_starts + kept.t_ends) / 2)


def test_gradients_reach_the_field_through_an_image(uniform_field) -> None:
    log_density = torch.zeros((), requires_grad=True)
    field = uniform_field(1.0, SLAB)
    field.log_density = lambda p: log_density.expand(p.shape[:-1])
    render_rays(field, through(), full(), 0.01, torch.zeros(1, 3)).opacities.sum().backward()
    # d / d log sigma of 1 - exp(-1.5 sigma) at sigma = 1
    assert log_density.grad.item() == pytest.approx(1.5 * math.exp(-1.5), rel=0.02)


@pytest.mark.parametrize("rays_per_chunk", [7, 10_000])
def test_an_image_is_its_rays(soft_sphere: VolumeField, rays_per_chunk: int) -> None:
    camera = orbit_box(soft_sphere.box(), 1, width=12, height=9)
    image = render_image(soft_sphere, camera, full(), 0.02, background=0.5, rays_per_chunk=rays_per_chunk)
    assert {k: tuple(v.shape) for k, v in image.items()} == {
        "colors": (9, 12, 3),
        "opacities": (9, 12),
        "depths": (9, 12),
    }
    centre: Tensor = image["opacities"][4, 6]
    assert centre > 0.99
    assert image["opacities"][0, 0] < 0.01
    torch.testing.assert_close(image["colors"][0, 0], torch.full((3,), 0.5), rtol=0, atol=0.01)
    radius = float((camera.camera_to_world[0, :, 3]).norm())
    assert image["depths"][4, 6].item() == pytest.approx(radius - 0.5, abs=0.1)
