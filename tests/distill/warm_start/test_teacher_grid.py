"""What a lattice of nodes sees of a teacher: its values, what its occupancy leaves out, what is in front."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from helpers.defaults import SAMPLING
from torch import Tensor

from fieldmorph.distill.warm_start.teacher_grid import sample_nodes, visible_nodes
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.blackbox import CallableField
from fieldmorph.fields.cameras import orbit_cameras
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.lattice import coordinates
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField

pytestmark = pytest.mark.numerical

CUBE = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
BOX = (-1.1, -0.5, -1.0, 1.2, 1.9, 0.7)  # in float32, low + (high - low) is more than high on every axis
STEP = 2 / 64


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAMPLING, "block_rays", 2048)
    monkeypatch.setattr(SAMPLING, "block_empty", 16)


def stored(field: VolumeField, occupied: Tensor | None = None, n_cameras: int = 6) -> RenderableField:
    """A field, occupied everywhere unless another grid is given, seen from a ring of cameras."""
    occupied = torch.ones(8, 8, 8, dtype=torch.bool) if occupied is None else occupied
    grid = OccupancyGrid.from_density(torch.zeros(occupied.shape), occupied)
    cameras = orbit_cameras(
        (0, 0, 0), 3.0, n_cameras, elevation=0, intrinsics=(40.0, 40.0, 12.0, 12.0), width=24, height=24
    )
    return RenderableField(field, grid, STEP, cameras)


def node_positions(resolution: int, aabb: tuple[float, ...]) -> Tensor:
    """Of all nodes, by flat index, in float64."""
    axes = [
        torch.linspace(lo, hi, resolution, dtype=torch.float64)
        for lo, hi in zip(aabb[:3], aabb[3:], strict=True)
    ]
    return torch.cartesian_prod(*axes)


def all_nodes(resolution: int) -> Tensor:
    return torch.arange(resolution**3)


@pytest.mark.parametrize("resolution", [2, 3, 9, 50])
def test_values_at_nodes_are_the_teacher_s(
    resolution: int, generator: torch.Generator, soft_sphere: VolumeField
) -> None:
    sphere = type(soft_sphere)(
        BOX, lambda p: p.sum(-1)
    )  # the corners of the box differ, and nothing is clear
    values = sample_nodes(stored(sphere), all_nodes(resolution), resolution, generator, n_samples=1)
    at = node_positions(resolution, BOX)
    torch.testing.assert_close(values.positions.double(), at, rtol=0, atol=1e-6)
    torch.testing.assert_close(values.sigma.double(), at.sum(-1).exp(), rtol=1e-4, atol=0)
    assert torch.equal(values.features, values.positions)  # this field's features are positions
    assert sphere.contains(values.positions).all()  # the outermost, too


def test_a_subset_of_the_nodes_is_that_of_all(soft_sphere: VolumeField, generator: torch.Generator) -> None:
    teacher, some = stored(soft_sphere), torch.tensor([3, 700, 77, 0])
    whole = sample_nodes(teacher, all_nodes(9), 9, generator, n_samples=1)
    part = sample_nodes(teacher, some, 9, generator, n_samples=1)
    assert torch.equal(part.sigma, whole.sigma[some])
    nothing = sample_nodes(teacher, some[:0], 9, generator)
    assert (len(nothing.sigma), nothing.positions.shape, nothing.features.shape) == (0, (0, 3), (0, 3))


def test_occupancy_leaves_cells_out(
    uniform_field: Callable[..., VolumeField], generator: torch.Generator
) -> None:
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[1, 2, 3] = True
    values = sample_nodes(
        stored(uniform_field(2.0, BOX), occupied), all_nodes(17), 17, generator, n_samples=1
    )
    # Cells are 4 nodes wide; a node on a face belongs to the upper cell, on the last face to the last.
    expected = torch.zeros(17, 17, 17)
    expected[4:8, 8:12, 12:17] = 2.0
    torch.testing.assert_close(values.sigma, expected.flatten(), rtol=1e-4, atol=0)


def test_densities_are_averaged_as_stopped_light(
    soft_sphere: VolumeField, generator: torch.Generator
) -> None:
    requested = []

    def log_density(positions: Tensor) -> Tensor:
        requested.append(positions)
        return 4 * positions[:, 0] + math.log(30)  # up to 1600 per unit, 51 per step

    values = sample_nodes(
        stored(type(soft_sphere)(CUBE, log_density)), all_nodes(6), 6, generator, n_samples=5
    )
    samples = torch.stack(requested).double()
    assert samples.shape == (5, 216, 3)
    apart = (samples - node_positions(6, CUBE)).abs()
    assert apart[0].max() < 1e-6  # the first sample is the node
    assert apart[1:].amax((0, 1)).min() > 0.19  # the others are anywhere within half a cell, 0.2
    assert apart.max() < 0.2 + 1e-6
    assert samples.abs().max() <= 1
    alpha = 1 - torch.exp(-30 * torch.exp(4 * samples[..., 0]) * STEP)
    sigma = -torch.log(1 - alpha.mean(0).clamp(max=1 - 1e-6)) / STEP
    torch.testing.assert_close(
        alpha_from_density(values.sigma, STEP).double(), alpha.mean(0), atol=2e-6, rtol=0
    )
    thin = sigma * STEP < 3
    torch.testing.assert_close(values.sigma[thin].double(), sigma[thin], rtol=1e-3, atol=0)
    densest = samples[samples[..., 0].argmax(0), torch.arange(216)]
    clear = alpha.amax(0) < 0.999  # of opaque samples float32 cannot find the densest
    torch.testing.assert_close(values.positions[clear].double(), densest[clear])
    assert torch.equal(values.features, values.positions)


def test_an_opaque_teacher_is_finite(soft_sphere: VolumeField, generator: torch.Generator) -> None:
    walls = type(soft_sphere)(CUBE, lambda p: torch.where(p[..., 0] > 0, math.inf, -math.inf))
    values = sample_nodes(stored(walls), all_nodes(6), 6, generator)
    assert values.sigma.isfinite().all()
    x = coordinates(all_nodes(6), 6)[:, 0]
    assert (alpha_from_density(values.sigma[x > 3], STEP) > 0.99999).all()
    assert not values.sigma[x < 2].any()


def test_a_teacher_without_features_has_none(generator: torch.Generator) -> None:
    ball = CallableField(lambda p, d: (p * 0, 3 * (p.norm(dim=-1) < 0.5)), CUBE)
    values = sample_nodes(stored(ball), all_nodes(9), 9, generator)
    assert values.features.shape == (729, 0)
    assert values.sigma.max() == pytest.approx(3, rel=1e-3)
    assert not values.sigma[0]


def test_a_teacher_with_parameters_gets_no_gradients(generator: torch.Generator) -> None:
    field = make_field("mlp", aabb=CUBE, width=16, depth=2, n_frequencies=2)
    values = sample_nodes(stored(field), all_nodes(4), 4, generator)
    assert not values.sigma.requires_grad
    assert not values.features.requires_grad


def test_visible_nodes_are_those_in_front_of_a_surface(
    soft_sphere: VolumeField, generator: torch.Generator
) -> None:
    n = 21
    teacher = stored(soft_sphere, n_cameras=1)
    camera = teacher.cameras.camera_to_world[0, :, 3]
    towards = camera / camera.norm()
    visible, at = visible_nodes(teacher, n, generator), node_positions(n, CUBE).float()
    radius, height = at.norm(dim=-1), at @ towards
    aside = (at - height[:, None] * towards).norm(dim=-1)
    # The camera sees 0.75 to every side at the sphere's distance.
    facing = (radius > 0.5) & (radius < 0.65) & (height > 0.4)
    assert visible[facing].all()
    # Light of 1e-4 is left after 9.2 / 40 = 0.23 in the sphere, and rays end there.
    assert not visible[(radius < 0.1)].any()
    behind = (height < -0.5) & (aside < 0.2)
    assert behind.sum() > 10
    assert not visible[behind].any()


def test_visible_nodes_are_found_by_rays_of_the_generator_s(soft_sphere: VolumeField) -> None:
    teacher = stored(soft_sphere)
    one, again, other = (visible_nodes(teacher, 40, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert torch.equal(one, again)
    assert 0 < (one != other).sum() < 0.2 * one.sum()  # where few rays come by


def test_all_corners_of_a_cell_are_visible(
    uniform_field: Callable[..., VolumeField], generator: torch.Generator
) -> None:
    occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
    occupied[0, 3, 7] = True
    visible = visible_nodes(stored(uniform_field(0.1, CUBE), occupied), 9, generator).reshape(9, 9, 9)
    expected = torch.zeros(9, 9, 9, dtype=torch.bool)
    expected[0:2, 3:5, 7:9] = True
    assert torch.equal(visible, expected)


def test_what_lies_on_a_face_is_in_the_last_cell(
    soft_sphere: VolumeField, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    corner = SimpleNamespace(along=SimpleNamespace(positions=torch.tensor([[1.0, 1.0, -1.0]])))
    monkeypatch.setattr("fieldmorph.distill.warm_start.teacher_grid.make_block", lambda *_: corner)
    visible = visible_nodes(stored(soft_sphere), 4, generator).reshape(4, 4, 4)
    assert visible.sum() == 8
    assert visible[2:, 2:, :2].all()


def test_of_an_unoccupied_teacher_no_node_is_visible(
    soft_sphere: VolumeField, generator: torch.Generator
) -> None:
    teacher = stored(soft_sphere, torch.zeros(8, 8, 8, dtype=torch.bool))
    assert not visible_nodes(teacher, 5, generator).any()
    assert visible_nodes(teacher, 2, generator).shape == (8,)
