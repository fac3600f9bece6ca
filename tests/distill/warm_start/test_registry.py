"""A student that is solved for is near its teacher before the first step, whatever the teacher."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.defaults import CONVERT, LOWRANK_START, SAMPLING, VOXEL_START
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill import teacher_samples
from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.distill.stages import transplant_decoder
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.blackbox import callable_teacher
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import render_image
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.tensorf import LowRank
from fieldmorph.fields.voxels import Voxels, nodes_in_cells

pytestmark = pytest.mark.numerical

CUBE = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
BOX = (-1.0, -0.5, 0.1, 1.0, 1.7, 0.9)  # neither a cube nor centred
STEP = 2 / 64
SMALL: dict[str, dict[str, Any]] = {
    "vm": {"resolution": 24, "density_components": 4, "app_components": 6},
    "cp": {"resolution": 24, "density_components": 16, "app_components": 16},
    "voxels": {"resolution": 32},
    "hashgrid": {"n_levels": 5, "log2_hashmap_size": 13, "base_resolution": 4, "finest_resolution": 32},
}
every_start = pytest.mark.parametrize("name", SMALL)
every_grid = pytest.mark.parametrize("name", ["vm", "cp", "voxels"])
lowrank = pytest.mark.parametrize("name", ["vm", "cp"])


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAMPLING, "block_rays", 512)
    monkeypatch.setattr(SAMPLING, "block_empty", 1024)
    for defaults in (LOWRANK_START, VOXEL_START):
        monkeypatch.setattr(defaults, "nodes_per_query", 5000)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)


def test_every_start_is_tested() -> None:
    assert set(SMALL) == set(STARTS)


def stored(field: VolumeField, occupied: Tensor | None = None) -> RenderableField:
    """A field with its own occupancy, or the given one, seen from a ring of cameras round its box."""
    occupancy = OccupancyGrid(16)
    if occupied is None:
        occupancy.rebuild(field, STEP, torch.Generator().manual_seed(0))
    else:
        occupancy = OccupancyGrid.from_density(torch.zeros(occupied.shape), occupied)
    return RenderableField(field, occupancy, STEP, orbit_box(field.box(), 12, width=40, height=40))


def ellipsoid(kind: type[VolumeField], aabb: tuple[float, ...]) -> RenderableField:
    """Half of density 40 where the box, taken to [-1, 1]^3, has radius 0.6; colours are directions."""
    low, high = torch.tensor(aabb[:3]), torch.tensor(aabb[3:])

    def log_density(positions: Tensor) -> Tensor:
        unit = (2 * positions - low - high) / (high - low)
        return math.log(40) + F.logsigmoid((0.6 - unit.norm(dim=-1)) / 0.04)

    return stored(kind(aabb, log_density))


def smooth(name: str = "hashgrid", aabb: tuple[float, ...] = BOX) -> RenderableField:
    """A field with a decoder: a hash grid so coarse that it is smooth, or a low-rank one, with blobs of density."""
    shape = {"n_levels": 2, "log2_hashmap_size": 12, "base_resolution": 3, "finest_resolution": 6}
    field = make_field(name, aabb=aabb, seed=1, **(shape if name == "hashgrid" else SMALL[name]))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        field.table.normal_(std=0.6, generator=generator)
        field.density_network.layers[1].weight[0] *= 8
    return stored(field)


def fresh(name: str, teacher: RenderableField, seed: int = 0, **settings: Any) -> VolumeField:
    student = make_field(name, aabb=teacher.field.box(), seed=seed, **{**SMALL[name], **settings})
    transplant_decoder(teacher.field, student)
    return student


def started(name: str, teacher: RenderableField, seed: int = 0, **settings: Any) -> VolumeField:
    student = fresh(name, teacher, **settings)
    STARTS[name].solve(teacher, student, torch.Generator().manual_seed(seed))
    return student


def fidelity(student: VolumeField, teacher: RenderableField) -> float:
    """PSNR to the teacher, over white, of two views."""
    own = stored(student)
    values = []
    for i in (1, 6):
        images = [
            render_image(s.field, teacher.cameras[i], s.occupancy, STEP)["colors"] for s in (own, teacher)
        ]
        values.append(psnr(*images))
    return min(values)


def anywhere(n: int, field: VolumeField) -> Tensor:
    unit = torch.rand(n, 3, generator=torch.Generator().manual_seed(3))
    return field.aabb[:3] + unit * (field.aabb[3:] - field.aabb[:3])


@torch.no_grad()
def alphas(field: VolumeField, at: Tensor) -> Tensor:
    return 1 - torch.exp(-field.query_density(at) * STEP)


@every_start
@pytest.mark.parametrize("aabb", [CUBE, BOX])
def test_density_is_the_teacher_s(name: str, aabb: tuple[float, ...], soft_sphere: VolumeField) -> None:
    teacher = ellipsoid(type(soft_sphere), aabb)
    student = started(name, teacher)
    at = anywhere(4000, student)
    unit = 2 * student.unit_positions(at) - 1
    radius, teacher_values, learned = unit.norm(dim=-1), alphas(teacher.field, at), alphas(student, at)
    surface, empty = (radius - 0.6).abs() < 0.05, radius > 0.8
    assert 0.3 < teacher_values[surface].mean() < 0.6
    assert (learned - teacher_values)[surface].abs().mean() < 0.15
    assert (learned - teacher_values)[surface].mean().abs() < 0.08
    assert learned[radius < 0.4].mean() > 0.4  # though no ray comes to the middle
    assert learned[empty].mean() < 0.002
    assert (learned - teacher_values).abs().mean() < 0.02
    assert alphas(fresh(name, teacher), at)[empty].mean() > 0.003  # the start did that


@every_start
def test_images_are_the_teacher_s(name: str) -> None:
    teacher = smooth()
    assert fidelity(fresh(name, teacher), teacher) < 21
    assert fidelity(started(name, teacher), teacher) > 34


@lowrank
def test_features_are_the_teacher_s(name: str) -> None:
    teacher = smooth()
    student, along = started(name, teacher), teacher_samples.make_block(teacher, 1, 1).along
    seen = along.weights > 0.01
    with torch.no_grad():
        _, features = student.geometry(along.positions[seen])
    assert along.features is not None
    teacher_values = along.features[seen]
    error = (features - teacher_values).square().mean()
    assert error < {"vm": 0.2, "cp": 0.35}[name] * teacher_values.var(0).mean()


def painted(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """A ball whose logits of red, green, blue are of degree 0, 1 and 2 in the direction."""
    x, y, _ = directions.unbind(-1)
    side = positions[:, 0]
    logits = torch.stack([side, 1.5 * y - side, 3 * x * y + side], dim=-1)
    return torch.sigmoid(logits), 60 * torch.sigmoid((0.6 - positions.norm(dim=-1)) / 0.04)


def test_voxels_take_colours_by_direction() -> None:
    teacher = callable_teacher(
        painted, CUBE, cameras=orbit_box(CUBE, 12, elevation=20), render_step_size=STEP
    )
    student = started("voxels", teacher)
    along = teacher_samples.make_block(teacher, 1, 1).along
    with torch.no_grad():
        rgb, _ = student(along.positions, along.directions)
    error = (along.weights[:, None] * (rgb - along.rgb).abs()).sum(0) / along.weights.sum()
    assert (error < torch.tensor([0.01, 0.04, 0.08])).all()  # the higher the degree, the more it is pulled
    mean = (along.weights[:, None] * along.rgb).sum(0) / along.weights.sum()
    plain = (along.weights[:, None] * (mean - along.rgb).abs()).sum(0) / along.weights.sum()
    assert (plain > torch.tensor([0.05, 0.12, 0.16])).all()


def test_harmonics_of_every_degree_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """From many cameras all round, and not pulled towards grey, coefficients are the teacher's."""
    monkeypatch.setattr(VOXEL_START, "directions", 400)
    monkeypatch.setattr(VOXEL_START, "ridge", (1e-4, 1e-4, 1e-4))
    rings = [orbit_box(CUBE, 12, elevation=e) for e in (-75, -45, -15, 15, 45, 75)]
    cameras = type(rings[0])(
        torch.cat([r.camera_to_world for r in rings]), torch.cat([r.intrinsics for r in rings]), 40, 40
    )
    expected = torch.zeros(3, 9)
    expected[0, [0, 3, 4]] = torch.tensor([1.0, -0.8, 0.6])
    expected[1, [1, 6]] = torch.tensor([0.7, -0.7])
    expected[2, [2, 5, 7, 8]] = torch.tensor([0.9, 0.5, -0.4, 0.3])

    def function(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        rgb = torch.sigmoid(spherical_harmonics(directions)[:, :9] @ expected.T)
        return rgb, 60 * torch.sigmoid((0.6 - positions.norm(dim=-1)) / 0.04)

    teacher = callable_teacher(function, CUBE, cameras=cameras, render_step_size=STEP)
    student = started("voxels", teacher, resolution=6)
    assert isinstance(student, Voxels)
    found = student.sh_values.detach().median(0).values.reshape(3, 9)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


@every_start
def test_a_callable_teaches(name: str) -> None:
    teacher = callable_teacher(painted, BOX, cameras=orbit_box(BOX, 12), render_step_size=STEP, resolution=16)
    student = started(name, teacher)
    at = anywhere(2000, student)
    radius = at.norm(dim=-1)
    assert alphas(student, at)[(radius - 0.6).abs() < 0.05].mean() > 0.3
    assert alphas(student, at)[radius > 0.85].mean() < 0.01


def other_decoder(teacher: RenderableField) -> RenderableField:
    teacher.field.decoder = RadianceDecoder(n_features=15, width=32, depth=1)
    teacher.field.decoder.reset_parameters(torch.Generator().manual_seed(0))
    return teacher


@lowrank
@pytest.mark.parametrize("decoder", ["none", "another"])
def test_without_a_decoder_in_common_density_is_all(
    name: str, decoder: str, soft_sphere: VolumeField
) -> None:
    teacher = other_decoder(smooth()) if decoder == "another" else ellipsoid(type(soft_sphere), BOX)
    before, after = fresh(name, teacher).state_dict(), started(name, teacher).state_dict()
    for key in before:
        assert torch.equal(before[key], after[key]) is not key.startswith("density")


@every_start
def test_equal_generators_give_equal_bytes(name: str) -> None:
    teacher = smooth()
    size = {"base_resolution": 3} if name == "hashgrid" else {"resolution": 14}
    one, same, other = (started(name, teacher, seed=seed, **size).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one if one[key].shape == other[key].shape)


@every_start
def test_a_start_is_the_first_step_of_a_conversion(name: str, caplog: pytest.LogCaptureFixture) -> None:
    teacher = smooth()
    config, student = ConvertConfig(start=True, seed=6), fresh(name, teacher)
    _, report = convert(teacher, student, Budget(steps=1), config)
    assert "the closed-form start took more than half of the budget" in caplog.text
    assert (report.stages[0].name, report.stages[0].steps) == ("start", 1)
    alone = fresh(name, teacher)
    STARTS[name].solve(teacher, alone, seeded(6, "distillation"))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), student.parameters(), strict=True))


def none(cells: Tensor) -> None:
    cells.fill_(False)


def one(cells: Tensor) -> None:
    cells.fill_(False)
    cells[4, 9, 15] = True


def every(cells: Tensor) -> None:
    cells.fill_(True)


@every_start
@pytest.mark.parametrize("which", [none, one, every])
@pytest.mark.parametrize("density", [1e-6, math.inf])
def test_a_strange_teacher_leaves_a_student_that_can_learn(
    name: str, which: Callable[[Tensor], None], density: float
) -> None:
    """Without a node that can be seen, with few, with none that is empty; clear as air or opaque."""
    teacher = smooth()
    which(teacher.occupancy.occupied)
    teacher.field.geometry = constant_density(teacher.field, density)
    student = started(name, teacher)
    assert all(p.isfinite().all() for p in student.parameters())
    at = teacher.field.aabb[:3] + (torch.tensor([4, 9, 15]) + torch.rand(500, 3)) / 16 * (
        teacher.field.aabb[3:] - teacher.field.aabb[:3]
    )
    rgb, sigma = student(at, F.normalize(at, dim=-1))
    (rgb.sum() + sigma.log().sum()).backward()
    grids = [p for key, p in student.named_parameters() if "decoder" not in key]
    assert all(p.grad is not None and p.grad.any() for p in grids)


def constant_density(field: VolumeField, density: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    geometry = field.geometry

    def constant(positions: Tensor) -> tuple[Tensor, Tensor]:
        log_sigma, features = geometry(positions)
        return torch.full_like(log_sigma, math.log(density)), features

    return constant


@every_grid
@pytest.mark.parametrize("resolution", [2, 3])
def test_the_smallest_grids_are_solved_for(name: str, resolution: int) -> None:
    student = started(name, smooth(), resolution=resolution)
    assert all(p.isfinite().all() for p in student.parameters())


@lowrank
def test_grids_finer_than_the_lattice_are_solved_for_on_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = smooth()
    monkeypatch.setattr(LOWRANK_START, "max_resolution", 12)
    student = started(name, teacher, resolution=34)
    assert isinstance(student, LowRank)
    assert student.density_lines.shape[1] == 34
    # A line between two nodes of the lattice, three of the grid apart, is straight.
    lines = student.density_lines.detach()
    assert (lines[:, ::3].diff(dim=1).abs() > 1e-4).any()
    torch.testing.assert_close(lines[:, 1:-1:3], (2 * lines[:, :-1:3] + lines[:, 3::3]) / 3)
    assert fidelity(student, teacher) > 28


def test_voxels_are_active_where_there_is_something_and_one_further(soft_sphere: VolumeField) -> None:
    teacher = ellipsoid(type(soft_sphere), CUBE)
    student = started("voxels", teacher)
    assert isinstance(student, Voxels)
    nodes = torch.cartesian_prod(*[torch.linspace(-1, 1, 32)] * 3)
    something = (alphas(teacher.field, nodes) > 1e-3).reshape(32, 32, 32)
    further = F.max_pool3d(something[None].float(), kernel_size=3, stride=1, padding=1)[0] > 0
    assert further.sum() > 1.1 * something.sum()
    assert nodes_in_cells(teacher.occupancy.occupied, 32)[further].all()
    assert torch.equal(student.node_indices(), further.flatten().nonzero()[:, 0])
