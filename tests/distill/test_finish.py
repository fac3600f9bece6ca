"""Where images are at hand the last part of a conversion trains the student on them, without its teacher."""

import copy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.distill.fidelity import EvaluationViews
from fieldmorph.distill.finish import FinishingLearner
from fieldmorph.distill.learner import ConvertLearner
from fieldmorph.distill.pixel_sample import compare_pixels
from fieldmorph.distill.stages import plan_stages
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.optimizer import FieldOptimizer
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split
from fieldmorph.fields.voxels import Voxels

pytestmark = pytest.mark.numerical

STEP = 2 / 64
CONFIG = ConvertConfig(
    samples_per_step=2048,
    probe_rays=256,
    warmup_steps=10,
    sampling=SamplingConfig(block_rays=512, block_empty=1024),
    finish=0.25,
)


@pytest.fixture
def negatives(sphere: RenderableField) -> Split:
    """Images of the sphere, each color inverted, so that they and the teacher contradict each other."""
    shots = []
    for camera in sphere.cameras:
        seen = sphere.render(camera)
        over_black = seen["colors"] - (1 - seen["opacities"])[..., None]
        inverted = seen["opacities"][..., None] - over_black
        shots.append(
            torch.cat([inverted, seen["opacities"][..., None]], -1).clamp(0, 1).mul(255).round().byte()
        )
    return Split(sphere.cameras, torch.stack(shots), tuple(map(str, range(len(shots)))))


def small(name: str = "mlp", seed: int = 0) -> VolumeField:
    settings: dict[str, Any] = {
        "mlp": {"width": 32, "depth": 2, "n_frequencies": 4},
        "vm": {"resolution": 16, "density_components": 4, "app_components": 6},
    }[name]
    return make_field(name, aabb=(-1, -1, -1, 1, 1, 1), seed=seed, **settings)


def to_images(student: RenderableField, views: Split) -> float:
    """PSNR of the student to all images together, over white."""
    seen = torch.cat([student.render(camera)["colors"] for camera in views.cameras])
    return psnr(seen, torch.cat([views.view_over(i, torch.ones(3)) for i in range(len(views))]))


@pytest.mark.parametrize("name", ["mlp", "vm"])
def test_the_last_part_learns_from_images_alone(sphere: RenderableField, negatives: Split, name: str) -> None:
    activities: list[str | None] = []
    steps = 200
    stored, report = convert(
        sphere,
        small(name),
        Budget(steps=steps),
        replace(CONFIG, finish=0.5),
        negatives,
        on_progress=lambda progress: activities.append(progress.activity),
    )
    images = steps // 2
    assert activities[-images:] == ["images"] * images
    assert "images" not in activities[:-images]
    assert (report.stages[-1].name, report.stages[-1].steps) == ("images", images)
    assert sum(stage.steps for stage in report.stages) == steps
    assert stored.provenance is not None
    assert stored.provenance["stages"][-1] == "images"
    assert report.distilled is not None
    assert to_images(stored, negatives) > to_images(report.distilled, negatives) + 1.5
    assert report.loop.psnr == pytest.approx(
        to_images(stored, negatives), abs=1
    )  # what the probe compares with
    assert not torch.equal(stored.occupancy.density, sphere.occupancy.density)


def test_distilled_student_is_that_of_a_conversion_without_images(
    sphere: RenderableField, negatives: Split
) -> None:
    _, report = convert(sphere, small(), Budget(steps=40), CONFIG, negatives)
    alone, _ = convert(sphere, small(), Budget(steps=30), CONFIG)
    assert report.distilled is not None
    found = [
        compare_pixels(views_of(sphere), student)["psnr_to_teacher"] for student in (report.distilled, alone)
    ]
    assert found[0] == pytest.approx(found[1], abs=1.5)  # the loop keeps the best of the latter


def test_without_images_or_share_nothing_changes(sphere: RenderableField, negatives: Split) -> None:
    runs = [
        convert(sphere, small(), Budget(steps=12), replace(CONFIG, finish=fraction), views)
        for fraction, views in ((0.25, None), (0.0, negatives), (0.0, None))
    ]
    first = runs[0][0].field.state_dict()
    for stored, report in runs:
        assert all(torch.equal(value, first[key]) for key, value in stored.field.state_dict().items())
        assert report.distilled is None
        assert "images" not in report.dropped


@pytest.mark.parametrize(("least", "n_images"), [(16, 20), (21, 0)])
def test_images_are_left_out_where_too_little_is_distilled(
    monkeypatch: pytest.MonkeyPatch, sphere: RenderableField, negatives: Split, least: int, n_images: int
) -> None:
    """Half of 40 steps are an MLP's own fraction."""
    monkeypatch.setattr(MLP, "finish_after", least)
    _, report = convert(sphere, small(), Budget(steps=40), replace(CONFIG, finish=None), negatives)
    steps = {stage.name: stage.steps for stage in report.stages}
    assert steps.get("images", 0) == n_images
    assert sum(steps.values()) == 40
    assert ("images" in report.dropped) == (n_images == 0)


@pytest.mark.parametrize("name", list(FIELDS))
def test_every_field_is_finished_on_images_by_default(
    monkeypatch: pytest.MonkeyPatch, sphere: RenderableField, negatives: Split, name: str
) -> None:
    """The fractions are those of the page on conversions: half of the steps for an MLP, 0.6 for the others."""
    monkeypatch.setattr(FIELDS[name], "finish_after", 1)
    student = make_field(name, aabb=(-1, -1, -1, 1, 1, 1), **FIELDS[name].sizes[0])
    _, report = convert(
        sphere, student, Budget(steps=40), replace(CONFIG, finish=None, start=False), negatives
    )
    steps = {stage.name: stage.steps for stage in report.stages}
    assert steps["images"] == {"mlp": 20}.get(name, 24)


@pytest.mark.parametrize(("least", "n_images"), [(10, 60), (999, 0)])
def test_the_choice_moves_no_student_back(
    monkeypatch: pytest.MonkeyPatch, sphere: RenderableField, negatives: Split, least: int, n_images: int
) -> None:
    """A closed form of a tenth of the budget, then steps that become faster."""
    monkeypatch.setattr(Voxels, "finish_after", least)
    student = make_field("voxels", aabb=(-1, -1, -1, 1, 1, 1), resolution=16)
    stages, _ = plan_stages(CONFIG.stages, sphere.field, student)
    learner = FinishingLearner(
        ConvertLearner(sphere, student, stages, replace(CONFIG, finish=None)), negatives
    )
    seen: list[float] = []
    step = learner.distilling.step

    def noted(progress: float) -> None:
        seen.append((progress - learner.distilling.begun) / (1 - learner.distilling.begun))
        step(progress)

    monkeypatch.setattr(learner.distilling, "step", noted)
    monkeypatch.setattr(learner.images, "step", lambda progress: seen.append(progress))
    for progress in (
        0.0,
        0.1,
        *(0.1001 + i * 0.001 for i in range(15)),
        *(0.15 + i / 100 for i in range(85)),
    ):
        learner.step(progress)
    n_distilled = 102 - (60 if n_images else 0)
    distilled = seen[2:n_distilled]  # after the closed form and the step that finds its length
    assert distilled == sorted(distilled)
    assert 0 <= distilled[0] < 0.01
    assert distilled[-1] > 0.95
    assert (learner.report.steps > 0) == (n_images > 0)


@pytest.mark.parametrize("at", [5, 17, 30, 38])
def test_interrupted_and_resumed_equals_uninterrupted(
    monkeypatch: pytest.MonkeyPatch, sphere: RenderableField, negatives: Split, tmp_path: Path, at: int
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(MLP, "finish_after", 10)
    budget, path, config = Budget(steps=40), tmp_path / "run.state", replace(CONFIG, finish=None)
    whole, report = convert(sphere, small(), budget, config, negatives)
    with pytest.raises(Interrupted):
        convert(sphere, small(), budget, config, negatives, state_path=path, on_progress=stop)
    resumed, again = convert(sphere, small(seed=9), budget, config, negatives, state_path=path, resume=True)
    assert report.distilled is not None
    assert again.distilled is not None
    for one, other in ((whole, resumed), (report.distilled, again.distilled)):
        states = one.field.state_dict(), other.field.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert torch.equal(one.occupancy.density, other.occupancy.density)
    assert [stage.steps for stage in report.stages] == [stage.steps for stage in again.stages]


def test_learning_rates_begin_lower(
    monkeypatch: pytest.MonkeyPatch, sphere: RenderableField, negatives: Split
) -> None:
    factors: list[float] = []
    monkeypatch.setattr(FieldOptimizer, "step", lambda _self, _loss, factor: factors.append(factor))
    config = replace(CONFIG, finish=0.5, finish_lr_share=0.3)
    convert(sphere, small(), Budget(steps=600), config, negatives)
    assert max(factors[:300]) > 0.8
    assert 0.15 < max(factors[300:]) < 0.3
    assert factors[300] < 0.01  # a new optimizer warms up


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(SettingError, match="at least 0 and below 1"):
        ConvertConfig(finish=fraction)


def views_of(stored: RenderableField, test_images: list[torch.Tensor] | None = None) -> EvaluationViews:
    names = [f"pose {i}" for i in range(len(stored.cameras))]
    shots = [stored.render(camera) for camera in stored.cameras]
    return EvaluationViews(
        "held_out", "", stored.cameras, names, test_images, shots, [0.0] * len(names), Spent()
    )


def test_pixels_are_compared_as_whole_images_are(sphere: RenderableField) -> None:
    gray = [torch.full((24, 24, 3), 0.5) for _ in sphere.cameras]
    everything = compare_pixels(views_of(sphere, gray), sphere)
    assert everything["pixels"] == 8 * 24 * 24
    assert everything["psnr_to_teacher"] == 100.0
    expected = torch.stack([sphere.render(camera)["colors"] - 0.5 for camera in sphere.cameras])
    assert everything["psnr"] == pytest.approx(float(-10 * expected.square().mean().log10()), abs=1e-3)
    some = compare_pixels(views_of(sphere, gray), sphere, n_pixels=700)
    assert some["pixels"] == 700
    assert some["psnr"] != everything["psnr"]
    assert some == compare_pixels(views_of(sphere, gray), copy.deepcopy(sphere), n_pixels=700)


def test_pixels_of_a_field_with_nan_are_unknown(sphere: RenderableField) -> None:
    views = views_of(sphere)
    views.teacher_views[0]["colors"][3, 4] = float("nan")
    assert compare_pixels(views, sphere) == {"pixels": 8 * 24 * 24, "psnr_to_teacher": None}
