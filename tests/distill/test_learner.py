"""Every step of a conversion: its stage, its losses with their weights, its samples and the poses that it notes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.learner import ConvertLearner
from fieldmorph.distill.losses import LOSSES, Loss
from fieldmorph.distill.samplers import SOURCES
from fieldmorph.distill.stages import PVD_STAGES, Stage, change_stages, plan_stages
from fieldmorph.distill.teacher_samples import Block, SamplingConfig
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


CHANGED = {  # stages with other settings, and the weights that these have then
    "features.share": 0,
    "volume.share": 0.2,
    "volume.losses.features": 0,
    "volume.losses.color": 2,
    "render.share": 0.6,
    "render.source": "points",
    "render.losses.pixel": 0,
    "render.losses.features": 0.5,
}
CHANGED_WEIGHTS = {
    "volume": {"density": 1.0, "color": 2},
    "render": {"density": 0.1, "color": 0.03, "features": 0.5},
}


@pytest.mark.parametrize(
    ("changes", "weights", "n_steps", "on_rays"),
    [
        ({}, WEIGHTS, {"features": 2, "volume": 10, "render": 8}, ["render"]),  # a tenth, half, the rest
        (CHANGED, CHANGED_WEIGHTS, {"volume": 5, "render": 15}, []),
    ],
)
def test_every_step_descends_on_the_losses_of_its_stage(
    teacher: RenderableField,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    weights: dict[str, dict[str, float]],
    n_steps: dict[str, int],
    on_rays: list[str],
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
    learner = learner_of(teacher, field("mlp"), change_stages(changes), active=())
    totals: list[float] = []
    monkeypatch.setattr(learner.optimizer, "step", lambda loss, factor: totals.append(loss.item()))
    expected = [name for name, n in n_steps.items() for _ in range(n)]
    for step, name in enumerate(expected):
        seen.clear()
        learner.step(step / len(expected))
        losses = weights[name]
        assert learner.activity == name
        assert [loss for loss, _ in seen] == list(losses)
        assert totals[-1] == pytest.approx(sum(weight * values[k] for k, weight in losses.items()))
        if name not in on_rays:
            assert {n for _, n in seen} == {200}
        else:  # whole rays with about as many samples
            assert 100 < seen[0][1] < 400
    assert {report.name: report.steps for report in learner.reports.values()} == n_steps


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


def test_rates_fall_as_suits_the_student(teacher: RenderableField, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, half_way in (("mlp", 0.5 * 0.1**0.5), ("hashgrid", 0.5), ("vm", 0.5)):
        learner = learner_of(teacher, field(name), start=False, warmup_steps=1)
        factors: list[float] = []
        monkeypatch.setattr(learner.optimizer, "step", lambda loss, factor, to=factors: to.append(factor))
        learner.step(0.5)
        assert factors == pytest.approx([half_way + 0.005]), name
        assert ConvertConfig().for_student(FIELDS[name]).lr_decay == (0.1 if name == "mlp" else 1.0)
    assert ConvertConfig(lr_decay=0.3).for_student(FIELDS["mlp"]).lr_decay == 0.3


def test_rates_and_samples_of_the_settings_reach_every_step(
    teacher: RenderableField, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"lr_share": 0.5, "lr_grid": 0.3, "lr_network": 0.2, "lr_decay": 0.25, "lr_final": 0.125}
    learner = learner_of(
        teacher, field("hashgrid"), samples_per_step=150, empty_share=0.1, warmup_steps=2, active=(), **rates
    )
    assert [group["lr"] for part in learner.optimizer.parts for group in part.param_groups] == [0.3, 0.2]
    drawn: list[tuple[str, int]] = []
    points, empty = Block.draw_points, Block.draw_empty
    monkeypatch.setattr(Block, "draw_points", lambda *a: drawn.append(("points", a[1])) or points(*a))
    monkeypatch.setattr(Block, "draw_empty", lambda *a: drawn.append(("empty", a[1])) or empty(*a))
    factors: list[float] = []
    monkeypatch.setattr(learner.optimizer, "step", lambda loss, factor: factors.append(factor))
    for progress in (0.0, 0.25, 0.5):
        learner.step(progress)
    # half of them, after half a warm-up; then 1/4 ** progress * (1 - progress) + 1/8
    expected = [0.5 * 0.5 * 1.125, 0.5 * (0.25**0.25 * 0.75 + 0.125), 0.5 * (0.5 * 0.5 + 0.125)]
    assert factors == pytest.approx(expected)
    assert drawn == [("points", 150), ("empty", 15)] * 3


def test_decoder_is_transplanted_to_an_untrained_student_unless_disabled(teacher: RenderableField) -> None:
    for settings, same in (({}, True), ({"transplant": False}, False), ({"fresh": False}, False)):
        student = field("vm")
        assert teacher.field.decoder is not None
        assert student.decoder is not None
        own = [p.clone() for p in student.decoder.parameters()]
        learner_of(teacher, student, **settings)
        wanted = teacher.field.decoder.parameters() if same else own
        assert all(torch.equal(a, b) for a, b in zip(student.decoder.parameters(), wanted, strict=True))
