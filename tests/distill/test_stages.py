"""Losses are nothing where the student has learned everything, and stages follow the budget."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.losses import LOSSES, Comparison, StudentValues, empty_space_loss
from fieldmorph.distill.stages import (
    PVD_STAGES,
    Stage,
    plan_stages,
    same_decoder,
    stage_at,
    transplant_decoder,
)
from fieldmorph.distill.teacher_samples import Pixels, TeacherSamples
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.rendering import RaySamples

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 0.1
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))


def comparison(error: float = 0.0, n: int = 12) -> Comparison:
    """Teacher's values at n samples on 3 rays, and a student whose every value is off by `error`."""
    generator = torch.Generator().manual_seed(0)
    rgb, features = torch.rand(n, 3, generator=generator), torch.randn(n, 4, generator=generator)
    sigma, weights = 5 * torch.rand(n, generator=generator), 0.01 + torch.rand(n, generator=generator)
    taught = TeacherSamples(torch.zeros(n, 3), torch.zeros(n, 3), sigma, rgb, features, weights)
    colors, opacities = torch.rand(3, 3, generator=generator), torch.rand(3, generator=generator)
    index = torch.arange(n) * 3 // n
    samples = RaySamples(index, torch.zeros(n), torch.ones(n), torch.tensor([0, *index.bincount().cumsum(0)]))
    learned = StudentValues(
        sigma + error, features + error, rgb + error, colors + error, opacities + error / 2
    )
    background = torch.rand(3, 3, generator=generator)
    return Comparison(taught, learned, STEP, Pixels(samples, colors, opacities), background)


def points(
    sigma: Any,
    taught_sigma: Any,
    rgb: Any = 0.0,
    taught_rgb: Any = 0.0,
    weights: Any = 1.0,
    **features: Tensor,
) -> Comparison:
    """A comparison at n points given by plain numbers."""
    n = len(taught_sigma)

    def of(value: Any, *shape: int) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32).broadcast_to(n, *shape).clone()

    zero, none = torch.zeros(n, 3), torch.zeros(n, 1)
    taught = TeacherSamples(
        zero, zero, of(taught_sigma), of(taught_rgb, 3), features.get("taught", none), of(weights)
    )
    return Comparison(taught, StudentValues(of(sigma), features.get("learned", none), of(rgb, 3)), STEP)


def twice(c: Comparison) -> Comparison:
    """The same samples and rays two times over."""
    index = torch.arange(2 * len(c.teacher)) % len(c.teacher)
    s, p, rays = c.student, c.pixels, torch.arange(6) % 3
    assert p is not None
    assert s.rgb is not None
    assert s.colors is not None
    assert s.opacities is not None
    assert c.background is not None
    learned = StudentValues(
        s.sigma[index], s.features[index], s.rgb[index], s.colors[rays], s.opacities[rays]
    )
    pixels = Pixels(p.samples, p.colors[rays], p.opacities[rays])
    return Comparison(c.teacher[index], learned, STEP, pixels, c.background[rays])


@every_loss
def test_loss_is_zero_for_the_teacher_s_own_values_only(name: str) -> None:
    assert LOSSES[name](comparison()).item() == 0
    near, far = (LOSSES[name](comparison(error)).item() for error in (0.01, 0.1))
    assert 0 < near < far


@every_loss
def test_loss_means_the_same_at_any_batch_size(name: str) -> None:
    c = comparison(0.05)
    torch.testing.assert_close(LOSSES[name](twice(c)), LOSSES[name](c))


@every_loss
def test_one_sample_is_a_batch(name: str) -> None:
    assert LOSSES[name](replace(comparison(0.05, n=1))).isfinite()


def test_density_is_compared_as_the_light_that_a_step_stops() -> None:
    ln2 = math.log(2) / STEP  # stops half of it
    # |1/2 - 0| is past beta = 0.05: 0.5 - 0.025; half of beta apart: 0.025^2 / (2 * 0.05) = 0.00625
    nearby = -math.log(0.5 - 0.025) / STEP
    assert LOSSES["density"](points([0.0], [ln2])).item() == pytest.approx(0.475, abs=1e-6)
    assert LOSSES["density"](points([nearby], [ln2])).item() == pytest.approx(0.00625, abs=1e-6)
    assert LOSSES["density"](points([0.0, nearby], [ln2, ln2])).item() == pytest.approx(
        (0.475 + 0.00625) / 2, abs=1e-6
    )
    assert LOSSES["density"](points([1e5], [1e3])).item() == 0  # both opaque: no picture tells them apart


def test_colour_counts_where_the_picture_shows_it() -> None:
    # seen: errors of mean 0.2 and 0.4; unseen: 0.6 (weight 0.001 is not over 0.001)
    rgb = [[0.1, 0.2, 0.3], [0.4, 0.4, 0.4], [0.6, 0.6, 0.6]]
    assert LOSSES["color"](
        points([1.0] * 3, [1.0] * 3, rgb, 0.0, [0.5, 0.002, 0.0005])
    ).item() == pytest.approx((0.2 + 0.4) / 2)
    assert LOSSES["color"](points([1.0], [1.0], 0.5, 0.0, 0.0)).item() == 0  # nothing seen at all


def test_features_are_compared_in_units_of_the_teacher_s_spread() -> None:
    taught = torch.tensor([[0.0, 10.0], [2.0, 30.0], [0.0, 10.0], [2.0, 30.0]])  # deviations 1 and 10
    learned = taught + torch.tensor([[0.5, 0.0], [0.0, 20.0], [0.0, 0.0], [9.0, 9.0]])
    weights = [1.0, 1.0, 1.0, 0.0]
    c = points([1.0] * 4, [1.0] * 4, 0.0, 0.0, weights, taught=taught, learned=learned)
    # means over the two features 0.25, 1.0 and 0; the fourth sample is not seen
    assert LOSSES["features"](c).item() == pytest.approx((0.25 + 1.0 + 0.0) / 3)


def test_pixels_are_compared_over_the_same_background() -> None:
    c = comparison()
    assert c.pixels is not None
    black = replace(c.pixels, colors=torch.zeros(3, 3), opacities=torch.zeros(3))
    learned = replace(c.student, colors=torch.full((3, 3), 0.2), opacities=torch.full((3,), 0.5))
    # teacher: the background 0.4; student: 0.2 + 0.5 * 0.4, the same; without a background 0.2 apart
    over = Comparison(c.teacher, learned, STEP, black, torch.full((3, 3), 0.4))
    assert LOSSES["pixel"](over).item() == pytest.approx(0, abs=1e-12)
    assert LOSSES["pixel"](replace(over, background=torch.zeros(3, 3))).item() == pytest.approx(0.2 - 0.025)


@pytest.mark.parametrize("optical", [0.01, 1.0, 5.0, 8.0])
def test_a_student_that_is_too_dense_feels_it(optical: float) -> None:
    """The pull on the logarithm of density where the teacher is empty: sigma step exp(-sigma step)."""
    log_sigma = torch.full((4,), math.log(optical / STEP), requires_grad=True)
    LOSSES["density"](points_of(log_sigma.exp())).backward()
    learned = 1 - math.exp(-optical)
    slope = min(learned / 0.05, 1)  # smooth L1's
    assert log_sigma.grad is not None
    assert log_sigma.grad.sum().item() == pytest.approx(slope * optical * math.exp(-optical), rel=1e-3)


def points_of(sigma: Tensor) -> Comparison:
    c = points([0.0] * len(sigma), [0.0] * len(sigma))
    return replace(c, student=replace(c.student, sigma=sigma))


def pair(width: int = 64, n_features: int = 15) -> tuple[VolumeField, VolumeField]:
    """A hash grid and an MLP, whose decoder is replaced."""
    teacher = make_field("hashgrid", aabb=BOX, n_levels=2, log2_hashmap_size=6, finest_resolution=32)
    student = make_field("mlp", aabb=BOX, width=16, depth=1, seed=1)
    student.decoder = RadianceDecoder(n_features=n_features, width=width)
    student.decoder.reset_parameters(torch.Generator().manual_seed(5))
    return teacher, student


def test_a_pair_with_one_kind_of_decoder_goes_through_every_stage() -> None:
    start, *rest = PVD_STAGES
    assert plan_stages(PVD_STAGES, *pair()) == ((*rest,), {"start": "this student has no closed form"})
    student = make_field("vm", aabb=BOX, resolution=8)
    assert start.source == "solve"
    assert plan_stages(PVD_STAGES, pair()[0], student, start=True) == (PVD_STAGES, {})
    assert sum(stage.share for stage in PVD_STAGES) == pytest.approx(1)


@pytest.mark.parametrize(("field", "helps"), [("voxels", True), ("vm", False)])
def test_a_start_is_made_where_it_helps_or_is_wanted(field: str, helps: bool) -> None:
    teacher, student = pair()[0], make_field(field, aabb=BOX, resolution=8)
    made = {start: plan_stages(PVD_STAGES, teacher, student, start) for start in (None, True, False)}
    assert {start: kept[0].name == "start" for start, (kept, _) in made.items()} == {
        None: helps, True: True, False: False,
    }  # fmt: skip
    assert made[False][1]["start"] == "not wanted"
    assert helps or made[None][1]["start"] == "this student learns better without"


def test_features_are_left_out_with_a_reason_where_decoders_differ(soft_sphere: VolumeField) -> None:
    teacher, student = pair(width=32)
    for one, other in ((teacher, student), (soft_sphere, teacher), (teacher, soft_sphere)):
        stages, dropped = plan_stages(PVD_STAGES[1:], one, other)
        assert [stage.name for stage in stages] == ["volume", "render"]
        assert dropped["features"] == "teacher and student have no decoder of one kind"
        # nor may another stage compare features that no common decoder reads
        assert [set(stage.losses) for stage in stages] == [
            {"density", "color"},
            {"pixel", "density", "color"},
        ]
        assert all(weight == PVD_STAGES[2].losses[k] for k, weight in stages[0].losses.items())


def test_a_plan_without_stages_is_refused() -> None:
    teacher, student = pair(width=32)
    for stage in (PVD_STAGES[1], Stage("only", 1.0, {"features": 1.0})):
        with pytest.raises(SettingError, match=r"no stage suits this pair: .*no decoder of one kind"):
            plan_stages((stage,), teacher, student)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage("a", 1.0, {"colour": 1.0}), "unknown loss 'colour'; known: color, density, features, pixel"),
        (
            Stage("a", 1.0, {"color": 1.0}, source="views"),
            "unknown source 'views'; known: points, rays, solve",
        ),
    ],
)
def test_unknown_names_list_the_known_ones(stage: Stage, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}$"):
        plan_stages((stage,), *pair())


def test_stage_boundaries_lie_at_their_shares() -> None:
    a, b, c = (Stage(name, share, {"density": 1.0}) for name, share in (("a", 0.25), ("b", 0.5), ("c", 0.25)))
    expected = [(0.0, a), (0.125, a), (0.25, b), (0.5, b), (0.75, c), (0.875, c), (1.0, c), (1.5, c)]
    for progress, stage in expected:
        assert stage_at((a, b, c), progress) is stage


def test_shares_of_what_is_left_fill_the_budget() -> None:
    stages, _ = plan_stages(PVD_STAGES, *pair(width=32))  # 0.5 and 0.4 are left of 1: 5/9 and 4/9
    assert stage_at(stages, 5 / 9 - 1e-6).name == "volume"
    assert stage_at(stages, 5 / 9 + 1e-6).name == "render"


def test_decoders_are_transplanted_where_they_are_of_one_kind(soft_sphere: VolumeField) -> None:
    teacher, student = pair()
    assert teacher.decoder is not None
    assert student.decoder is not None
    assert same_decoder(teacher, student)
    transplant_decoder(teacher, student)
    copied = zip(teacher.decoder.parameters(), student.decoder.parameters(), strict=True)
    assert all(torch.equal(a, b) and a is not b for a, b in copied)
    for other in (pair(width=32)[1], pair(n_features=14)[1], soft_sphere):
        before = [p.clone() for p in other.parameters()]
        assert not same_decoder(teacher, other)
        transplant_decoder(teacher, other)
        assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_thin_fog_counts_in_full_in_empty_space_and_by_its_square_elsewhere() -> None:
    taught = torch.tensor([0.0, 0.001, 0.5, 0.9])
    learned = (taught + 0.004).requires_grad_()
    loss = empty_space_loss(learned, taught)
    (pull,) = torch.autograd.grad(4 * loss, learned)
    torch.testing.assert_close(pull, torch.tensor([1.0, 1.0, 0.008, 0.008]))
    assert 4 * loss.item() == pytest.approx(2 * (0.004 - 0.001) + 2 * 0.004**2, rel=1e-4)
