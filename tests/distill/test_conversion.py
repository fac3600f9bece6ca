"""A student becomes its teacher in a few seconds, the same each time, and is judged by itself."""

import copy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.conversion import ConvertConfig, ConvertReport, convert
from fieldmorph.distill.stages import Stage
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.cameras import orbit_cameras
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.optimizer import FieldOptimizer
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import render_image
from fieldmorph.fields.rng import seeded

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 2 / 64
SAMPLING = SamplingConfig(block_rays=512, block_empty=1024)
CONFIG = ConvertConfig(samples_per_step=2048, probe_rays=256, warmup_steps=10, sampling=SAMPLING)
SMALL: dict[str, dict[str, Any]] = {
    "hashgrid": {"n_levels": 4, "log2_hashmap_size": 12, "base_resolution": 8, "finest_resolution": 32},
    "mlp": {"width": 64, "depth": 3, "n_frequencies": 4},
}
_learned: dict[str, RenderableField] = {}  # teachers that are made once


@pytest.fixture
def teachers(sphere: RenderableField) -> dict[str, RenderableField]:
    """A hash grid and an MLP that have learned the sphere."""
    for name in SMALL:
        if name not in _learned:
            _learned[name], _ = convert(sphere, small(name, seed=7), Budget(steps=120), CONFIG)
    return {name: copy.deepcopy(stored) for name, stored in _learned.items()}


def small(name: str, seed: int = 0) -> VolumeField:
    return make_field(name, aabb=BOX, seed=seed, **SMALL[name])


def with_another_decoder(name: str) -> VolumeField:
    student = small(name)
    student.decoder = RadianceDecoder(n_features=15, width=32)
    student.decoder.reset_parameters(torch.Generator().manual_seed(3))
    return student


def fidelity(student: RenderableField, teacher: RenderableField) -> float:
    """PSNR of the student's views to the teacher's, from places between the cameras."""
    cameras = orbit_cameras(
        (0, 0, 0), 3.0, 3, elevation=22, intrinsics=(40.0, 40.0, 12.0, 12.0), width=24, height=24
    )
    pairs = [
        [render_image(s.field, c, s.occupancy, STEP)["colors"] for s in (student, teacher)] for c in cameras
    ]
    return sum(float(psnr(learned, teacher_values)) for learned, teacher_values in pairs) / len(pairs)


def untrained(field: VolumeField, teacher: RenderableField) -> RenderableField:
    return replace(teacher, field=copy.deepcopy(field), occupancy=OccupancyGrid(16))


def result(stored: RenderableField, report: ConvertReport) -> list[Tensor]:
    """Everything that must be equal where two runs are."""
    numbers = torch.tensor([report.loop.psnr, *(value for _, value in report.loop.curve)])
    grid = stored.occupancy
    return [*stored.field.state_dict().values(), grid.density, grid.occupied, numbers]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("name", "decay"),
    [("mlp", 0.1), ("mlp", 1.0), ("hashgrid", 0.1)],
)
def test_learning_rates_warm_up_and_fall_to_almost_nothing(
    monkeypatch, sphere: RenderableField, name: str, decay: float
) -> None:
    factors: list[float] = []
    monkeypatch.setattr(FieldOptimizer, "step", lambda _self, _loss, factor: factors.append(factor))
    convert(sphere, small(name), Budget(steps=100), replace(CONFIG, lr_share=0.5, lr_decay=decay))
    assert factors[:5] == sorted(factors[:5])
    assert 0.25 < max(factors) < 0.5
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[50] == pytest.approx(0.5 * (decay**0.5 * 0.5 + 0.005))
    assert factors[-1] < 0.01


@pytest.mark.parametrize(
    ("source", "target", "steps"),
    [("hashgrid", "mlp", 240), ("mlp", "hashgrid", 120), ("hashgrid", "hashgrid", 120)],
)
def test_student_becomes_its_teacher(
    teachers: dict[str, RenderableField], source: str, target: str, steps: int
) -> None:
    teacher, student = teachers[source], small(target)
    teacher_values = [p.clone() for p in teacher.field.state_dict().values()]
    before = fidelity(untrained(student, teacher), teacher)
    stored, report = convert(teacher, student, Budget(steps=steps), CONFIG)
    after = fidelity(stored, teacher)
    assert before < 14
    assert after > 21
    assert report.loop.psnr == pytest.approx(after, abs=5)  # the probe is right
    assert tuple(stage.name for stage in report.stages) == ("features", "volume", "render")
    assert list(report.dropped) == ["start"]
    assert stored.field is student
    assert equal(teacher_values, list(teacher.field.state_dict().values()))


def test_a_teacher_without_a_decoder_needs_no_features(sphere: RenderableField) -> None:
    student = small("hashgrid")
    before = fidelity(untrained(student, sphere), sphere)
    stored, report = convert(sphere, student, Budget(steps=120), CONFIG)
    assert fidelity(stored, sphere) > max(21, before + 8)
    assert tuple(stage.name for stage in report.stages) == ("volume", "render")
    assert report.dropped["features"] == "teacher and student have no decoder of one kind"


def test_a_student_with_another_decoder_learns_its_own(teachers: dict[str, RenderableField]) -> None:
    teacher, student = teachers["hashgrid"], with_another_decoder("mlp")
    before = fidelity(untrained(student, teacher), teacher)
    stored, report = convert(teacher, student, Budget(steps=120), CONFIG)
    assert fidelity(stored, teacher) > max(21, before + 8)
    assert tuple(stage.name for stage in report.stages) == ("volume", "render")
    assert "features" in report.dropped


def test_the_decoder_is_the_teacher_s_from_the_start(teachers: dict[str, RenderableField]) -> None:
    teacher, student = teachers["hashgrid"], small("mlp", seed=4)
    fresh = [p.clone() for p in student.decoder.parameters()]
    convert(teacher, student, Budget(steps=1), CONFIG)  # the feature stage does not touch the decoder
    learned, teacher_values = (list(f.decoder.parameters()) for f in (student, teacher.field))
    assert equal(learned, teacher_values)
    assert not equal(learned, fresh)
    other = with_another_decoder("mlp")
    fresh = [p.clone() for p in other.decoder.parameters()]
    convert(teacher, other, Budget(steps=1), CONFIG)
    for learned_too, before in zip(other.decoder.parameters(), fresh, strict=True):
        assert (learned_too - before).abs().max() < 1e-3  # one step of the warm-up


def test_student_is_judged_with_an_occupancy_grid_of_its_own(sphere: RenderableField) -> None:
    stored, _ = convert(sphere, small("mlp"), Budget(steps=1), CONFIG)
    expected = OccupancyGrid(16)
    expected.rebuild(stored.field, STEP, seeded(CONFIG.seed, "occupancy"))
    assert torch.equal(stored.occupancy.occupied, expected.occupied)
    assert torch.equal(stored.occupancy.density, expected.density)
    # the low density of a first step lies outside the teacher's cells, and shows
    assert (stored.occupancy.occupied & ~sphere.occupancy.occupied).any()


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_empty_space_is_learned_off_the_rays(sphere: RenderableField, fraction: float) -> None:
    nothing = Stage("nothing", 1.0, {"density": 0.0})  # so that only the loss off the rays counts
    config = replace(CONFIG, stages=(nothing,), empty_share=fraction, lr_network=0.05)
    student, corners = small("hashgrid"), torch.tensor([[-0.9, 0.9, -0.9], [0.9, 0.9, 0.9]])
    before = student.query_density(corners).detach()
    convert(sphere, student, Budget(steps=40), config)
    after = student.query_density(corners).detach()
    assert torch.equal(after, before) if fraction == 0 else (after < 0.5 * before).all()


def test_equal_seeds_give_equal_results(sphere: RenderableField) -> None:
    one, again, other = (
        result(*convert(sphere, small("mlp"), Budget(steps=24), replace(CONFIG, seed=seed)))
        for seed in (5, 5, 6)
    )
    assert equal(one, again)
    assert not equal(one, other)


@pytest.mark.parametrize(("name", "at"), [("mlp", 2), ("mlp", 19), ("hashgrid", 17)])
def test_interrupted_and_resumed_equals_uninterrupted(
    teachers: dict[str, RenderableField], tmp_path: Path, name: str, at: int
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGTERM)

    teacher, budget, path = teachers["hashgrid"], Budget(steps=24), tmp_path / "run.state"
    whole = result(*convert(teacher, small(name), budget, CONFIG))
    with pytest.raises(Interrupted):
        convert(teacher, small(name), budget, CONFIG, state_path=path, on_progress=stop)
    resumed = convert(teacher, small(name, seed=9), budget, CONFIG, state_path=path, resume=True)
    assert equal(result(*resumed), whole)


def test_a_run_with_another_config_is_not_resumed(sphere: RenderableField, tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    with pytest.raises(Interrupted):
        convert(
            sphere,
            small("mlp"),
            Budget(steps=9),
            CONFIG,
            state_path=path,
            on_progress=lambda _: signal.raise_signal(signal.SIGTERM),
        )
    config = replace(CONFIG, empty_share=0.1)
    with pytest.raises(SettingError, match=r"empty_share was 0\.2, is 0\.1$"):
        convert(sphere, small("mlp"), Budget(steps=9), config, state_path=path, resume=True)
    with pytest.raises(SettingError, match="student was 'mlp', is 'hashgrid'"):
        convert(sphere, small("hashgrid"), Budget(steps=9), CONFIG, state_path=path, resume=True)


def test_an_empty_teacher_is_refused(sphere: RenderableField) -> None:
    sphere.occupancy.occupied[:] = False
    with pytest.raises(InputError, match="the teacher is empty"):
        convert(sphere, small("mlp"), Budget(steps=3), CONFIG)
