"""What the teacher shows: blocks that repeat, fair draws, rays that composite to their pixels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.defaults import SAMPLING
from torch import Tensor

from fieldmorph.distill import teacher_samples
from fieldmorph.distill.teacher_samples import Block, SamplePool, TeacherSamples, make_block
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.blackbox import CallableField
from fieldmorph.fields.cameras import orbit_cameras
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.kernels.composite import composite_torch
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 2 / 64


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAMPLING, "block_rays", 256)
    monkeypatch.setattr(SAMPLING, "block_empty", 2048)


def stored(field: VolumeField, occupancy: OccupancyGrid | None = None) -> RenderableField:
    """A field seen from a ring of six cameras."""
    cameras = orbit_cameras(
        (0, 0, 0), 3.0, 6, elevation=20, intrinsics=(40.0, 40.0, 12.0, 12.0), width=24, height=24
    )
    if occupancy is None:
        occupancy = OccupancyGrid(16)
        occupancy.rebuild(field, STEP, torch.Generator().manual_seed(0))
    return RenderableField(field, occupancy, STEP, cameras)


@pytest.fixture
def teacher(soft_sphere: VolumeField) -> RenderableField:
    return stored(soft_sphere)


def tensors(block: Block) -> list[Tensor]:
    along, pixels = block.along, block.pixels
    teacher_values = [along.positions, along.directions, along.sigma, along.rgb, along.weights]
    rays = [pixels.samples.offsets, pixels.samples.t_starts, pixels.colors, pixels.opacities]
    return [*teacher_values, *rays, block.cumulative, block.empty_positions, block.empty_sigma]


def same(one: Block, other: Block) -> bool:
    return all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(*map(tensors, (one, other)), strict=True)
    )


def test_block_depends_on_seed_and_number_alone(teacher: RenderableField) -> None:
    block = make_block(teacher, 3, 5)
    torch.rand(7)
    make_block(teacher, 3, 6)
    assert same(block, make_block(teacher, 3, 5))
    for seed, number in ((3, 6), (4, 5), (5, 3)):
        assert not same(block, make_block(teacher, seed, number))


def test_block_holds_the_teacher_s_values(teacher: RenderableField) -> None:
    along = make_block(teacher, 0, 0).along
    assert len(along) > 1000
    assert torch.equal(along.sigma, teacher.field.query_density(along.positions))
    assert torch.equal(along.rgb, (along.directions + 1) / 2)  # the sphere's colour
    torch.testing.assert_close(along.directions.norm(dim=-1), torch.ones(len(along)))
    assert along.features is None  # it has no decoder
    assert teacher.field.contains(along.positions).all()


def test_features_are_those_of_a_teacher_with_a_decoder() -> None:
    field = make_field("hashgrid", aabb=BOX, n_levels=2, log2_hashmap_size=6, finest_resolution=32)
    along = make_block(stored(field, OccupancyGrid(8)), 0, 0).along
    assert along.features is not None
    torch.testing.assert_close(along.features, field.geometry(along.positions)[1])


def test_a_black_box_is_queried_for_density_and_once_more_for_what_light_reaches() -> None:
    requested: list[Tensor] = []

    def ball(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        requested.append(positions)
        return positions.abs(), 300.0 * (positions.norm(dim=-1) < 0.5)

    teacher = stored(CallableField(ball, BOX))
    requested.clear()
    block = make_block(teacher, 0, 0)
    *slabs, reached, anywhere = requested
    assert torch.equal(reached, block.along.positions)
    assert torch.equal(anywhere, block.empty_positions)
    along = torch.cat(slabs)
    assert len(reached) < len(along) == len(along.unique(dim=0))  # no place is queried twice for density
    depth = 0.5 - along.norm(dim=-1)  # in the ball
    assert 0.05 < depth.max() < 0.4  # a slab continues below the surface; the middle is never queried


def test_rays_come_from_where_the_cameras_are(teacher: RenderableField) -> None:
    block = make_block(teacher, 0, 0)
    s, along = block.pixels.samples, block.along
    origins = along.positions - ((s.t_starts + s.t_ends) / 2)[:, None] * along.directions
    cameras = teacher.cameras.camera_to_world[:, :, 3]
    # between neighbours on a hexagon of circumradius 3 (the four nearest of six reach over one)
    assert (torch.cdist(origins, cameras).amin(-1) < 3).all()
    assert origins.norm(dim=-1).max() <= 3 + 1e-4
    torch.testing.assert_close(origins[:, 2], cameras[0, 2].expand(len(origins)), rtol=0, atol=1e-4)
    assert len(origins.round(decimals=3).unique(dim=0)) > 50  # each ray has a camera of its own


def test_a_tenth_of_the_rays_starts_near_the_worst_poses(teacher: RenderableField) -> None:
    worst = torch.tensor([1, 4])
    block = make_block(teacher, 0, 0, worst)
    hard = block.pixels.samples.ray_indices < 25  # of 256 rays
    s, along = block.pixels.samples, block.along
    origins = along.positions - ((s.t_starts + s.t_ends) / 2)[:, None] * along.directions
    apart = torch.cdist(origins, teacher.cameras.camera_to_world[worst, :, 3]).amin(-1)
    assert 0 < apart[hard].max() < 3 * 9.1 / 180 * torch.pi  # rotated around the scene by 9 degrees at most
    assert set(block.poses[:25].tolist()) == {1, 4}
    assert set(block.poses[25:].tolist()) == set(range(6))


@pytest.mark.parametrize("order", ["all", "some", "repeated"])
def test_repacked_rays_composite_to_their_pixels(teacher: RenderableField, order: str) -> None:
    block = make_block(teacher, 0, 0)
    n = len(block.pixels.colors)
    generator = torch.Generator().manual_seed(1)
    draws = {
        "all": torch.arange(n),
        "some": torch.randperm(n, generator=generator)[:40],
        "repeated": torch.tensor([5, 5, 0, n - 1, 5]),
    }
    which = draws[order]
    teacher_values, pixels = block.rays(which)
    s = pixels.samples
    assert len(teacher_values) == len(s) == int(s.offsets[-1])
    assert torch.equal(s.ray_indices, torch.repeat_interleave(torch.arange(len(which)), s.offsets.diff()))
    assert torch.equal(pixels.colors, block.pixels.colors[which])
    weights, colors, opacities, _ = composite_torch(
        teacher_values.sigma, teacher_values.rgb, s.t_starts, s.t_ends, s.offsets
    )
    torch.testing.assert_close(weights, teacher_values.weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(colors, pixels.colors, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(opacities, pixels.opacities, rtol=1e-4, atol=1e-5)
    assert opacities.max() > 0.9 or order == "repeated"
    assert pixels.opacities.std() > 0.1 or order == "repeated"


def test_drawn_rays_have_about_the_samples_requested(
    teacher: RenderableField, generator: torch.Generator
) -> None:
    block = make_block(teacher, 0, 0)
    counts = [len(block.rays(block.draw_rays(1500, generator))[0]) for _ in range(40)]
    assert sum(counts) / 40 == pytest.approx(1500, rel=0.1)
    assert len(block.draw_rays(1, generator)) == 1  # never none


def test_points_are_drawn_in_proportion_to_what_is_stated(
    teacher: RenderableField, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SAMPLING, "block_rays", 48)
    block = make_block(teacher, 0, 0)
    n, draws = len(block.along), 200_000
    drawn = block.draw_points(draws, generator)
    counts = torch.bincount(drawn, minlength=n)
    fraction = torch.minimum(torch.ones(n), 20 * block.along.weights) + 0.08
    expected = draws * (fraction / fraction.sum()).double()
    assert n > 200
    assert expected.max() > 5 * expected.min() > 100
    chi_square = ((counts - expected).square() / expected).sum() / n  # mean 1, deviation sqrt(2 / n) < 0.1
    assert 0.7 < chi_square < 1.3


def test_drawn_points_are_samples_of_the_block(teacher: RenderableField, generator: torch.Generator) -> None:
    block = make_block(teacher, 0, 0)
    drawn = block.along[block.draw_points(300, generator)]
    assert isinstance(drawn, TeacherSamples)
    assert len(drawn) == 300
    assert torch.equal(drawn.sigma, teacher.field.query_density(drawn.positions))
    assert torch.equal(drawn.rgb, (drawn.directions + 1) / 2)


def test_points_of_the_box_are_empty_outside_occupied_cells(
    uniform_field: Callable[..., VolumeField],
) -> None:
    grid = OccupancyGrid(8)
    grid.occupied[:] = False
    grid.occupied[:4, :, 6:] = True
    box = (0.0, -1.0, -2.0, 1.0, 1.0, 2.0)
    block = make_block(stored(uniform_field(7.0, box), grid), 0, 0)
    x, y, z = block.empty_positions.unbind(-1)
    clear = ((x - 0.5).abs() > 1e-4) & ((z - 1).abs() > 1e-4)  # of the walls, where rounding decides
    expected = 7.0 * ((x < 0.5) & (z > 1)).float()
    torch.testing.assert_close(block.empty_sigma[clear], expected[clear])
    assert 0.08 < (block.empty_sigma > 0).float().mean() < 0.17  # an eighth
    for values, low, high in ((x, 0, 1), (y, -1, 1), (z, -2, 2)):  # uniform over the whole box
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert values.std().item() == pytest.approx((high - low) / 12**0.5, rel=0.05)


def test_empty_points_are_drawn_with_their_density(
    teacher: RenderableField, generator: torch.Generator
) -> None:
    block = make_block(teacher, 0, 0)
    positions, sigma = block.draw_empty(500, generator)
    assert (sigma > 0).any()
    assert (sigma == 0).any()
    there = sigma > 0
    assert torch.equal(sigma[there], teacher.field.query_density(positions[there]))
    assert len(positions.unique(dim=0)) > 300


@pytest.fixture
def made(teacher: RenderableField, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the blocks that are made; each block carries its number as its only empty density."""
    block, numbers = make_block(teacher, 0, 0), list[int]()

    def numbered(_teacher: RenderableField, _seed: int, number: int, *_rest: Any, **_config: Any) -> Block:
        numbers.append(number)
        return replace(block, empty_positions=torch.zeros(1, 3), empty_sigma=torch.tensor([float(number)]))

    monkeypatch.setattr(teacher_samples, "make_block", numbered)
    for name, value in (("n_blocks", 4), ("fill_every", 8), ("renew_every", 32)):
        monkeypatch.setattr(SAMPLING, name, value)
    return numbers


def number_at(pool: SamplePool, step: int) -> int:
    return int(pool.block(step, torch.Generator().manual_seed(step)).empty_sigma[0])


def test_blocks_of_a_step_do_not_depend_on_the_way_there(teacher: RenderableField, made: list[int]) -> None:
    walker = SamplePool(teacher, 0)
    walked = {step: (number_at(walker, step), set(walker.blocks)) for step in range(200)}
    assert made == list(range(max(made) + 1))  # walking makes each block once
    for step in (0, 1, 7, 8, 9, 15, 16, 17, 47, 48, 49, 100, 144, 199):
        jumper = SamplePool(teacher, 0)
        assert (number_at(jumper, step), set(jumper.blocks)) == walked[step]
    back = SamplePool(teacher, 0)
    assert [number_at(back, step) for step in (190, 3)] == [walked[190][0], walked[3][0]]


def test_ring_fills_quickly_and_is_then_renewed(teacher: RenderableField, made: list[int]) -> None:
    pool = SamplePool(teacher, 0)
    assert made == [0]
    # 2 blocks at first, one more every 8 steps up to 4 (from step 16), then one is replaced every 32
    expected = {0: (0, 1), 7: (0, 1), 8: (0, 2), 15: (0, 2), 16: (0, 3), 47: (0, 3), 48: (1, 4), 80: (2, 5)}
    for step, (oldest, newest) in expected.items():
        number = number_at(pool, step)
        assert sorted(pool.blocks) == list(range(oldest, newest + 1))
        assert oldest <= number <= newest


def test_every_block_of_the_ring_is_drawn(
    teacher: RenderableField, made: list[int], generator: torch.Generator
) -> None:
    pool = SamplePool(teacher, 0)
    assert {int(pool.block(80, generator).empty_sigma[0]) for _ in range(60)} == {2, 3, 4, 5}


def test_an_empty_teacher_is_refused(soft_sphere: VolumeField) -> None:
    grid = OccupancyGrid(8)
    grid.occupied[:] = False
    with pytest.raises(InputError, match="the teacher is empty: no ray near its cameras"):
        SamplePool(stored(soft_sphere, grid), 0)
