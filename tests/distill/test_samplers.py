"""Sources draw from a block and compare what their losses need."""

import pytest
import torch
from helpers.defaults import SAMPLING

from fieldmorph.distill.comparison import RayComparison
from fieldmorph.distill.losses import LOSSES
from fieldmorph.distill.samplers import SOURCES
from fieldmorph.distill.teacher_samples import Block, make_block
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField

STEP = 1 / 16


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch, soft_sphere: VolumeField) -> Block:
    monkeypatch.setattr(SAMPLING, "block_rays", 64)
    occupancy = OccupancyGrid(8)
    occupancy.rebuild(soft_sphere, STEP, torch.Generator().manual_seed(0))
    cameras = orbit_box(soft_sphere.box(), 6, width=20, height=20)
    return make_block(RenderableField(soft_sphere, occupancy, STEP, cameras), 0, 0)


@pytest.fixture
def student() -> VolumeField:
    return make_field("mlp", aabb=(-1, -1, -1, 1, 1, 1), width=16, depth=1)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_compares_where_it_draws(name: str, block: Block, student: VolumeField) -> None:
    source, generator = SOURCES[name], torch.Generator().manual_seed(0)
    which = source.draw(block, 200, generator)
    comparison = source.compare(block, which, student, STEP, True, generator)
    assert len(comparison.errors()) == len(which) == len(source.rays(block, which))
    assert comparison.student.rgb is not None
    assert comparison.student.rgb.shape == comparison.teacher.rgb.shape
    assert torch.equal(comparison.student.sigma, student.query_density(comparison.teacher.positions))
    assert isinstance(comparison, RayComparison) == ("rays" in source.gives)
    for loss in LOSSES.values():
        if loss.needs <= source.gives - {"decoder"}:
            assert loss(comparison) > 0


def test_colors_that_no_loss_needs_are_not_computed(block: Block, student: VolumeField) -> None:
    source, generator = SOURCES["points"], torch.Generator().manual_seed(0)
    which = source.draw(block, 50, generator)
    student.radiance = lambda *_: pytest.fail("evaluated")  # type: ignore[method-assign]
    comparison = source.compare(block, which, student, STEP, False, generator)
    assert comparison.student.rgb is None
    assert comparison.errors().shape == (50,)


def test_salient_samples_are_a_part_of_the_rays(block: Block, student: VolumeField) -> None:
    source, generator = SOURCES["rays"], torch.Generator().manual_seed(0)
    comparison = source.compare(block, source.draw(block, 400, generator), student, STEP, True, generator)
    assert isinstance(comparison, RayComparison)
    salient = comparison.salient()
    assert 0 < len(salient.teacher) < len(comparison.teacher)
    assert len(salient.student.sigma) == len(salient.student_pixels.weights) == len(salient.teacher)
    assert torch.equal(salient.student_pixels.colors, comparison.student_pixels.colors)
    assert salient.teacher.weights.mean() > comparison.teacher.weights.mean()
