"""Every step of a conversion: its stage, its losses with their weights, its samples and the poses that it notes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.learner import ConvertLearner
from fieldmorph.distill.losses import LOSSES, Loss
from fieldmorph.distill.samplers import SOURCES
from fieldmorph.distill.stages import PVD_STAGES, Stage, plan_stages
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.renderable import RenderableField

SAMPLING = SamplingConfig(block_rays=64, block_empty=64, n_blocks=3, fill_every=2)
WEIGHTS = {  # of the losses of each stage
    "features": {"features": 0.1, "density": 1.0},
    "volume": {"features": 0.05, "density": 1.0, "color": 0.3},
    "render": {"pixel": 1.0, "density": 0.1, "color": 0.03},
}
SHAPES: dict[str, dict[str, Any]] = {
    "hashgrid": {"n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 8, "finest_resolution": 32},
    "mlp": {"width": 16, "depth": 2, "n_frequencies": 2},
    "vm": {"resolution": 8, "density_components": 2, "app_components": 2},
}


def field(name: str, seed: int = 0) -> VolumeField:
    return make_field(name, aabb=(-1.0, -1.0, -1.0, 1.0, 1.0, 1.0), seed=seed, **SHAPES[name])


@pytest.fixture
def teacher(sphere: RenderableField) -> RenderableField:
    """A hash grid with random values where the sphere is."""
    return RenderableField(field("hashgrid", 3), sphere.occupancy, sphere.render_step_size, sphere.cameras)


def learner_of(
    teacher: RenderableField, student: VolumeField, stages: tuple[Stage, ...] = PVD_STAGES, **settings: Any
) -> ConvertLearner:
    config = ConvertConfig(
        **{"samples_per_step": 200, "probe_rays": 8, "sampling": SAMPLING, "empty_share": 0, **settings}
    )
    return ConvertLearner(teacher, student, plan_stages(stages, teacher.field, student)[0], config)


def test_every_step_descends_on_the_losses_of_its_stage(
    teacher: RenderableField, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Losses of 1, 10, 100, ... are recognised in their weighted sum.
    values = {name: 10.0**i for i, name in enumerate(LOSSES)}
    seen: list[tuple[str, int]] = []

    def constant(name: str) -> Any:
        def loss(comparison: Any) -> Tensor:
            seen.append((name, len(comparison.teacher)))
            return comparison.student.sigma.sum() * 0 + values[name]

        return loss

    for name, loss in list(LOSSES.items()):
        monkeypatch.setitem(LOSSES, name, Loss(constant(name), loss.needs))
    learner = learner_of(teacher, field("mlp"), active=())
    totals: list[float] = []
    monkeypatch.setattr(learner.optimizer, "step", lambda loss, factor: totals.append(loss.item()))
    expected = ["features"] * 2 + ["volume"] * 10 + ["render"] * 8  # a tenth, half, the rest
    for step, name in enumerate(expected):
        seen.clear()
        learner.step(step / len(expected))
        losses = WEIGHTS[name]
        assert learner.activity == name
        assert [loss for loss, _ in seen] == list(losses)
        assert totals[-1] == pytest.approx(sum(weight * values[k] for k, weight in losses.items()))
        if name != "render":
            assert {n for _, n in seen} == {200}
        else:  # whole rays with about as many samples
            assert 100 < seen[0][1] < 400
    assert {report.name: report.steps for report in learner.reports.values()} == {
        "features": 2,
        "volume": 10,
        "render": 8,
    }


@pytest.mark.parametrize("source", ["points", "rays"])
def test_errors_are_noted_at_the_poses_of_their_rays(
    teacher: RenderableField, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    stage = Stage("one", 1.0, {"density": 1.0}, source=source)
    learner = learner_of(teacher, field("mlp"), (stage,), active=("pose",), note_every=2)
    drawn: list[Tensor] = []
    noted: list[tuple[Tensor, Tensor, str]] = []
    block_of, draw = learner.pool.block, SOURCES[source].draw
    blocks = []

    def recording(*arguments: Any) -> Any:
        blocks.append(block_of(*arguments))
        return blocks[-1]

    monkeypatch.setattr(learner.pool, "block", recording)
    monkeypatch.setattr(SOURCES[source], "draw", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    monkeypatch.setattr(learner.hard_poses, "note", lambda *a: noted.append(a))
    for step in range(5):
        learner.step(step / 5)
    assert len(noted) == 3  # at steps 0, 2 and 4
    for (poses, errors, level), which, block in zip(noted, drawn[::2], blocks[::2], strict=True):
        rays = block.pixels.samples.ray_indices[which] if source == "points" else which
        assert torch.equal(poses, block.poses[rays])
        assert len(errors) == len(poses)
        assert level == {"points": "point", "rays": "ray"}[source]


def test_a_student_takes_its_own_number_of_samples(teacher: RenderableField) -> None:
    for name in ("mlp", "vm"):
        kind = FIELDS[name]
        own = learner_of(teacher, field(name), samples_per_step=None, start=False).n_samples
        assert own == (kind.conversion_samples or kind.samples_per_step)
        assert learner_of(teacher, field(name), start=False).n_samples == 200
    assert FIELDS["mlp"].conversion_samples < FIELDS["mlp"].samples_per_step
