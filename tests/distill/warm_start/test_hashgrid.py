"""The start of hash grids: a linear network, levels that are regressions, and what stays as it was."""

import math
from typing import Any

import pytest
import torch
from helpers.defaults import HASHGRID_START, SAMPLING
from torch import Tensor

from fieldmorph.distill import teacher_samples
from fieldmorph.distill.stages import transplant_decoder
from fieldmorph.distill.warm_start import hashgrid as module
from fieldmorph.distill.warm_start.hashgrid import HashGridStart, start_hashgrid
from fieldmorph.distill.warm_start.teacher_grid import MAX_OPTICAL_DEPTH
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import hash_levels
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField

pytestmark = pytest.mark.numerical

BOX = (-1.0, -0.5, 0.1, 1.0, 1.7, 0.9)
STEP = 2 / 64
SHAPE: dict[str, Any] = {
    "n_levels": 4,
    "log2_hashmap_size": 10,  # the levels of 4 and 8 nodes are dense, those of 16 and 32 hashed
    "base_resolution": 4,
    "finest_resolution": 32,
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAMPLING, "block_rays", 512)
    monkeypatch.setattr(SAMPLING, "block_empty", 1024)
    monkeypatch.setattr(HASHGRID_START, "n_blocks", 4)


@pytest.fixture
def teacher() -> RenderableField:
    """A smooth low-rank field with a decoder."""
    field = make_field("vm", aabb=BOX, resolution=5, density_components=3, app_components=4, seed=3)
    with torch.no_grad():
        for grid in (field.density_planes, field.density_lines, field.app_planes, field.app_lines):
            grid *= 9
    return stored(field)


def stored(field: VolumeField) -> RenderableField:
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(field, STEP, torch.Generator().manual_seed(0))
    return RenderableField(field, occupancy, STEP, orbit_box(field.box(), 12, width=40, height=40))


def student_of(teacher: RenderableField, **settings: Any) -> HashGrid:
    student = make_field("hashgrid", aabb=teacher.field.box(), seed=3, **{**SHAPE, **settings})
    assert isinstance(student, HashGrid)
    transplant_decoder(teacher.field, student)
    return student


def start(teacher: RenderableField, student: HashGrid) -> dict[str, Tensor]:
    """What the student was before it was started."""
    before = {key: value.clone() for key, value in student.state_dict().items()}
    start_hashgrid(teacher, student, torch.Generator().manual_seed(0))
    return before


def unchanged(before: dict[str, Tensor], student: HashGrid) -> bool:
    return all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def encoded(student: HashGrid, n: int = 300) -> Tensor:
    unit = torch.rand(n, 3, generator=torch.Generator().manual_seed(4)).double()
    return hash_encode_torch(unit, student.table.detach().double(), student.levels)


def test_the_network_becomes_linear(teacher: RenderableField) -> None:
    student = student_of(teacher)
    start(teacher, student)
    network, x = student.density_network.double(), encoded(student)
    y = x.flip(0)
    out = network(x)
    assert out.abs().mean() > 0.1
    torch.testing.assert_close(network(-x), -out)
    torch.testing.assert_close(network(x + 2 * y), out + 2 * network(y))


def test_units_that_are_not_needed_stay_random_and_learn(teacher: RenderableField) -> None:
    student = student_of(teacher)
    before = start(teacher, student)
    into, out = (layer.weight for layer in student.density_network.layers)
    assert torch.equal(into[32:], before["density_network.layers.0.weight"][32:])
    assert not out[:, 32:].any()
    student.density_network(encoded(student).float()).square().sum().backward()
    assert out.grad is not None
    assert (out.grad[:, 32:].abs().sum(0) > 0).sum() > 20


def test_density_and_features_are_the_teacher_s(teacher: RenderableField) -> None:
    student = student_of(teacher, log2_hashmap_size=14)
    along = teacher_samples.make_block(teacher, 9, 9).along
    seen = along.weights > 0.02

    def errors() -> tuple[float, float]:
        with torch.no_grad():
            log_sigma, features = student.geometry(along.positions[seen])
        assert along.features is not None
        teacher_values = along.features[seen]
        alpha, wanted = (1 - torch.exp(-s * STEP) for s in (log_sigma.exp(), along.sigma[seen]))
        spread = (teacher_values - teacher_values.mean(0)).square().mean()
        return float((alpha - wanted).abs().mean()), float(
            (features - teacher_values).square().mean() / spread
        )

    fresh = errors()
    start(teacher, student)
    density, features = errors()
    assert fresh[0] > 0.2
    assert fresh[1] > 0.9
    assert density < 0.06
    assert features < 0.5  # one direction a level


def test_levels_have_the_size_that_learning_rates_suit(teacher: RenderableField) -> None:
    student = student_of(teacher)
    start(teacher, student)
    along = teacher_samples.make_block(teacher, 9, 9).along
    unit = student.unit_positions(along.positions[along.weights > 0.02]).clamp(0, 1)
    sizes = hash_encode_torch(unit, student.table.detach(), student.levels).square().mean(0).sqrt()
    torch.testing.assert_close(sizes, torch.full_like(sizes, HashGridStart().feature_rms), rtol=0.4, atol=0)


def test_fine_levels_stay_as_they_were(teacher: RenderableField, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HASHGRID_START, "max_resolution", 8)
    student = student_of(teacher)
    assert student.levels.resolutions.tolist() == [4, 8, 16, 32]
    before, first = start(teacher, student), int(student.levels.offsets[2])
    assert torch.equal(student.table[first:], before["table"][first:])
    assert not (student.table[:first] == before["table"][:first]).any(1).all()
    # They go into every number that comes out, or they would never learn.
    assert student.density_network.layers[0].weight[:16, 4:].all()


@pytest.mark.parametrize("decoder", [None, {"width": 32}])
def test_without_the_teacher_s_decoder_only_density_is_solved_for(
    soft_sphere: VolumeField, decoder: dict[str, int] | None
) -> None:
    teacher = stored(soft_sphere)
    if decoder:
        teacher.field.decoder = RadianceDecoder(**decoder)
    student = student_of(teacher)
    before = start(teacher, student)
    assert torch.equal(student.table[:, 1], before["table"][:, 1])
    assert not torch.equal(student.table[:, 0], before["table"][:, 0])
    into, fresh = student.density_network.layers[0].weight, before["density_network.layers.0.weight"]
    assert torch.equal(into[1:16, 1::2], fresh[1:16, 1::2])
    assert not into[1:16, ::2].any()
    inside, outside = torch.tensor([[0.0, 0, 0.45]]), torch.tensor([[0.9, 0.9, 0.9]])
    assert 10 < student.query_density(inside) < 150  # 40
    assert student.query_density(outside) < 0.2


@pytest.mark.parametrize(
    "settings", [{"n_features_per_level": 1}, {"base_resolution": 200, "finest_resolution": 200}]
)
def test_where_there_is_nothing_to_solve_for_the_student_stays_as_it_is(
    teacher: RenderableField, settings: dict[str, int]
) -> None:
    student = student_of(teacher, **settings)
    assert unchanged(start(teacher, student), student)


def test_density_beyond_what_shows_is_not_learned(soft_sphere: VolumeField) -> None:
    wall = type(soft_sphere)(BOX, lambda p: torch.full(p.shape[:-1], math.inf))
    student = student_of(stored(wall))
    start(stored(wall), student)
    shows = MAX_OPTICAL_DEPTH / STEP  # the first samples of a ray stop it: where they are there is no more
    assert (
        shows / 2 < student.query_density(torch.tensor([[-1.0, 0.6, 0.5], [0.0, 0.6, 0.9]])).max() < 2 * shows
    )


def test_a_teacher_that_no_ray_meets_leaves_the_student_as_it_is(teacher: RenderableField) -> None:
    teacher.occupancy.occupied.fill_(False)
    student = student_of(teacher)
    assert unchanged(start(teacher, student), student)


@pytest.mark.parametrize("n_features", [3, 4, 8])
def test_entries_may_have_more_than_two_numbers(teacher: RenderableField, n_features: int) -> None:
    student = student_of(teacher, n_features_per_level=n_features)
    start(teacher, student)
    assert all(p.isfinite().all() for p in student.parameters())
    out = student.density_network(encoded(student).float()).double()
    loadings = student.density_network.layers[0].weight[:16].detach().double()
    torch.testing.assert_close(out, encoded(student) @ loadings.T, rtol=0.1, atol=0.1)  # bf16
    assert not loadings[1:, ::n_features].any()
    assert (loadings[0, ::n_features] > 0).all()


def test_a_level_is_a_weighted_ridge_regression() -> None:
    settings = HashGridStart(iterations=30, ridge=0.003)  # steepest descent would need many more
    level, generator = (
        hash_levels(1, 6, 5, 1.0),
        torch.Generator().manual_seed(0),
    )  # 64 entries for 125 nodes
    assert level.hashed[0]
    unit, targets = torch.rand(400, 3, generator=generator), torch.randn(400, 2, generator=generator)
    weights = torch.rand(400, 1, generator=generator)
    entries, values = module._solve(level, unit, targets, weights, settings)
    # Columns of the design are what single entries of 1 give.
    design = hash_encode_torch(unit.double(), torch.eye(64, dtype=torch.float64), level)
    pull = settings.ridge * float((weights * design).sum(0).mean())
    root = weights.double().sqrt()
    rows = torch.cat([root * design, math.sqrt(pull) * torch.eye(64, dtype=torch.float64)])
    wanted = torch.cat([root * targets, torch.zeros(64, 2, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(entries.double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(values.double(), design @ expected, rtol=0, atol=1e-3)


def test_entries_that_no_sample_meets_are_zero() -> None:
    level = hash_levels(1, 12, 5, 1.0)
    unit = torch.full((50, 3), 0.1)
    entries, _ = module._solve(level, unit, torch.ones(50, 1), torch.ones(50, 1), HashGridStart())
    assert int((entries != 0).sum()) == 8
    nothing, _ = module._solve(level, unit, torch.ones(50, 1), torch.zeros(50, 1), HashGridStart())
    assert not nothing.any()
