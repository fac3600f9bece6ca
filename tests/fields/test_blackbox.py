"""Any callable can teach; what it gets wrong is named with the point where it did."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fieldmorph.distill.conversion import ConvertConfig, convert
from fieldmorph.fields.blackbox import CallableField, callable_teacher
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.store import save_field

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)


def ball(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """A ball of radius 0.6, its colour its position."""
    sigma = 30 * torch.sigmoid((0.6 - positions.norm(dim=-1)) / 0.05)
    return (positions + 1) / 2, sigma


def test_values_are_the_callable_s_and_the_outside_is_empty(generator: torch.Generator) -> None:
    seen = []

    def spy(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(positions)
        return ball(positions, directions)

    field = CallableField(spy, BOX)
    positions = 3 * torch.rand(4, 50, 3, generator=generator) - 1.5
    directions = torch.nn.functional.normalize(torch.randn(4, 50, 3, generator=generator), dim=-1)
    rgb, sigma = field(positions, directions)
    inside = field.contains(positions)
    assert 20 < inside.sum() < 180
    expected = ball(positions[inside], directions[inside])
    assert torch.equal(rgb[inside], expected[0])
    assert torch.equal(sigma[inside], expected[1])
    assert (sigma[~inside] == 0).all()
    assert field.contains(torch.cat(seen)).all()  # it is never requested outside
    torch.testing.assert_close(field.query_density(positions), sigma)
    log_sigma, features = field.geometry(positions)
    torch.testing.assert_close(log_sigma.exp(), sigma)
    assert torch.equal(field.radiance(features, positions, directions), rgb)


def test_numpy_and_float64_results_are_taken() -> None:
    def double(positions: Tensor, directions: Tensor):
        rgb, sigma = ball(positions, directions)
        return rgb.double().numpy(), sigma.double().numpy()

    positions = torch.tensor([[0.0, 0.1, 0.2]])
    assert CallableField(double, BOX).query_density(positions).dtype == torch.float32


def test_a_module_of_the_user_s_is_not_taken_for_parameters(tmp_path: Path) -> None:
    class Net(torch.nn.Linear):
        def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return (directions + 1) / 2, super().forward(positions)[:, 0].exp()

    teacher = callable_teacher(Net(3, 1), BOX, resolution=8)
    assert teacher.field.n_parameters() == 0
    assert teacher.field.state_dict() == {}
    with pytest.raises(SettingError, match="unknown field to save 'callable'"):
        save_field(tmp_path / "c.fm", teacher)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c, s: c, r"must return \(rgb, sigma\); got Tensor"),
        (lambda c, s: (c, s[:, None]), r"sigma \(3,\) for 3 points; got \(3, 3\) and \(3, 1\)"),
        (lambda c, s: (c[:, :2], s), r"rgb \(3, 3\).* got \(3, 2\) and \(3,\)"),
        (lambda c, s: (c, s - 100), r"density that is not a finite number of at least 0 at \(0, 0\.25, 0\)"),
        (
            lambda c, s: (c, torch.where(torch.arange(3) == 1, torch.nan, s)),
            r"at \(0\.5, 0, 0\).*sigma nan",
        ),
        (lambda c, s: (c + 0.5, s), r"color outside \[0, 1\] at \(0, 0\.25, 0\)"),
        (lambda c, s: (c * torch.nan, s), r"color outside \[0, 1\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_result_is_named_with_its_first_point(spoil, message: str) -> None:
    field = CallableField(lambda p, d: spoil(*ball(p, d)), BOX)
    positions = torch.tensor([[0.0, 0.25, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.1]])
    with pytest.raises(InputError, match=message):
        field(positions, positions)


def test_an_empty_or_senseless_teacher_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="the callable is empty: no density anywhere in the box"):
        callable_teacher(lambda p, d: (torch.zeros(len(p), 3), torch.zeros(len(p))), BOX, resolution=8)
    with pytest.raises(SettingError, match="min < max"):
        callable_teacher(ball, (0, 0, 0, 1, 0, 1))
    with pytest.raises(SettingError, match="must be positive; got 0"):
        callable_teacher(ball, BOX, resolution=0)


@pytest.mark.slow
def test_a_student_learns_a_callable(generator: torch.Generator) -> None:
    teacher = callable_teacher(ball, BOX, resolution=24)
    assert teacher.cameras.camera_to_world[:, :, 3].norm(dim=-1).min() > 3**0.5  # all outside the box
    shape = {"n_levels": 6, "log2_hashmap_size": 11, "finest_resolution": 64}
    psnrs = []
    for seed in range(3):
        student = make_field("hashgrid", aabb=BOX, **shape, seed=seed)
        stored, report = convert(teacher, student, Budget(steps=120), ConvertConfig(seed=seed))
        psnrs.append(report.loop.psnr)
    assert sum(psnrs) / len(psnrs) > 22
    assert [stage.name for stage in report.stages] == ["volume", "render"]
    assert "features" in report.dropped
    edge = torch.tensor([[0.55, 0.0, 0.0], [-0.55, 0.0, 0.0]])
    assert stored.field.query_density(edge).min() > 0.5
