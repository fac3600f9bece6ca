"""Losses are nothing where the student has learned everything, and compare what they say."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.comparison import PointComparison, RayComparison, StudentPixels, StudentValues
from fieldmorph.distill.losses import LOSSES, Loss, empty_space_loss
from fieldmorph.distill.teacher_samples import Pixels, TeacherSamples
from fieldmorph.fields.rendering import RaySamples

pytestmark = pytest.mark.numerical

STEP = 0.1
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))


def comparison(error: float = 0.0, n: int = 12) -> RayComparison:
    """Teacher's values at n samples on 3 rays, and a student whose every value is off by `error`."""
    generator = torch.Generator().manual_seed(0)
    rgb, features = torch.rand(n, 3, generator=generator), torch.randn(n, 4, generator=generator)
    sigma, weights = 5 * torch.rand(n, generator=generator), 0.01 + torch.rand(n, generator=generator)
    teacher = TeacherSamples(torch.zeros(n, 3), torch.zeros(n, 3), sigma, rgb, features, weights)
    colors, opacities = torch.rand(3, 3, generator=generator), torch.rand(3, generator=generator)
    index = torch.arange(n) * 3 // n
    samples = RaySamples(index, torch.zeros(n), torch.ones(n), torch.tensor([0, *index.bincount().cumsum(0)]))
    student = StudentValues(sigma + error, features + error, rgb + error)
    student_pixels = StudentPixels(colors + error, opacities + error / 2, weights + error)
    background = torch.rand(3, 3, generator=generator)
    pixels = Pixels(samples, colors, opacities)
    return RayComparison(teacher, student, STEP, pixels, student_pixels, background)


def points(
    sigma: Any,
    teacher_sigma: Any,
    rgb: Any = 0.0,
    teacher_rgb: Any = 0.0,
    weights: Any = 1.0,
    **features: Tensor,
) -> PointComparison:
    """A comparison at n points given by plain numbers."""
    n = len(teacher_sigma)

    def of(value: Any, *shape: int) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32).broadcast_to(n, *shape).clone()

    zero, none = torch.zeros(n, 3), torch.zeros(n, 1)
    teacher = TeacherSamples(
        zero, zero, of(teacher_sigma), of(teacher_rgb, 3), features.get("teacher", none), of(weights)
    )
    student = StudentValues(of(sigma), features.get("student", none), of(rgb, 3))
    return PointComparison(teacher, student, STEP)


def twice(c: RayComparison) -> RayComparison:
    """The same samples and rays two times over."""
    index = torch.arange(2 * len(c.teacher)) % len(c.teacher)
    own, p, rays = c.student_pixels, c.teacher_pixels, torch.arange(6) % 3
    pixels = Pixels(p.samples, p.colors[rays], p.opacities[rays])
    student_pixels = StudentPixels(own.colors[rays], own.opacities[rays], own.weights[index])
    return RayComparison(c.teacher[index], c.student[index], STEP, pixels, student_pixels, c.background[rays])


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
    assert LOSSES["density"](points([1e5], [1e3])).item() == 0  # both opaque: no image shows a difference


def test_colour_counts_where_the_image_shows_it() -> None:
    # seen: errors of mean 0.2 and 0.4; unseen: 0.6 (weight 0.001 is not over 0.001)
    rgb = [[0.1, 0.2, 0.3], [0.4, 0.4, 0.4], [0.6, 0.6, 0.6]]
    assert LOSSES["color"](
        points([1.0] * 3, [1.0] * 3, rgb, 0.0, [0.5, 0.002, 0.0005])
    ).item() == pytest.approx((0.2 + 0.4) / 2)
    assert LOSSES["color"](points([1.0], [1.0], 0.5, 0.0, 0.0)).item() == 0  # nothing seen at all


def test_features_are_compared_in_units_of_the_teacher_s_spread() -> None:
    teacher = torch.tensor([[0.0, 10.0], [2.0, 30.0], [0.0, 10.0], [2.0, 30.0]])  # deviations 1 and 10
    student = teacher + torch.tensor([[0.5, 0.0], [0.0, 20.0], [0.0, 0.0], [9.0, 9.0]])
    weights = [1.0, 1.0, 1.0, 0.0]
    c = points([1.0] * 4, [1.0] * 4, 0.0, 0.0, weights, teacher=teacher, student=student)
    # means over the two features 0.25, 1.0 and 0; the fourth sample is not seen
    assert LOSSES["features"](c).item() == pytest.approx((0.25 + 1.0 + 0.0) / 3)


def test_pixels_are_compared_over_the_same_background() -> None:
    c = comparison()
    black = replace(c.teacher_pixels, colors=torch.zeros(3, 3), opacities=torch.zeros(3))
    student = replace(c.student_pixels, colors=torch.full((3, 3), 0.2), opacities=torch.full((3,), 0.5))
    # teacher: the background 0.4; student: 0.2 + 0.5 * 0.4, the same; without a background 0.2 apart
    over = replace(c, teacher_pixels=black, student_pixels=student, background=torch.full((3, 3), 0.4))
    assert LOSSES["pixel"](over).item() == pytest.approx(0, abs=1e-12)
    assert LOSSES["pixel"](replace(over, background=torch.zeros(3, 3))).item() == pytest.approx(0.2 - 0.025)


@pytest.mark.parametrize("optical", [0.01, 1.0, 5.0, 8.0])
def test_a_student_that_is_too_dense_feels_it(optical: float) -> None:
    """The pull on the logarithm of density where the teacher is empty: sigma step exp(-sigma step)."""
    log_sigma = torch.full((4,), math.log(optical / STEP), requires_grad=True)
    LOSSES["density"](points_of(log_sigma.exp())).backward()
    alpha = 1 - math.exp(-optical)
    slope = min(alpha / 0.05, 1)  # smooth L1's
    assert log_sigma.grad is not None
    assert log_sigma.grad.sum().item() == pytest.approx(slope * optical * math.exp(-optical), rel=1e-3)


def points_of(sigma: Tensor) -> PointComparison:
    c = points([0.0] * len(sigma), [0.0] * len(sigma))
    return replace(c, student=replace(c.student, sigma=sigma))


def test_low_density_counts_in_full_in_empty_space_and_by_its_square_elsewhere() -> None:
    teacher = torch.tensor([0.0, 0.001, 0.5, 0.9])
    student = (teacher + 0.004).requires_grad_()
    loss = empty_space_loss(student, teacher)
    (pull,) = torch.autograd.grad(4 * loss, student)
    torch.testing.assert_close(pull, torch.tensor([1.0, 1.0, 0.008, 0.008]))
    assert 4 * loss.item() == pytest.approx(2 * (0.004 - 0.001) + 2 * 0.004**2, rel=1e-4)


def test_a_loss_that_uses_more_than_it_declares_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "color", Loss(LOSSES["color"].function))
    c = points([1.0], [1.0])
    with pytest.raises(ValueError, match="does not declare: 'rgb' is missing from its needs"):
        LOSSES["color"](replace(c, student=replace(c.student, rgb=None)))
    with pytest.raises(ValueError, match="'decoder' is missing"):
        LOSSES["features"](replace(c, teacher=replace(c.teacher, features=None)))
