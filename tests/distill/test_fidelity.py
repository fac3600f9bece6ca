"""A student is measured where it never learned, and what is measured is what is seen."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.distill import fidelity
from fieldmorph.distill.fidelity import FidelityConfig, held_out_cameras, off_trajectory_cameras, reference
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras, orbit_cameras, project
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.metrics import EQUAL_DB, capped_psnr, ssim
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 2 / 64


def ring(
    n: int = 10, size: tuple[int, int] = (24, 20), centre: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> Cameras:
    width, height = size
    intrinsics = (40.0, 40.0, width / 2, height / 2)
    return orbit_cameras(centre, 3.0, n, elevation=20, intrinsics=intrinsics, width=width, height=height)


def stored(field: VolumeField, cameras: Cameras | None = None) -> RenderableField:
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(field, STEP, torch.Generator().manual_seed(0))
    return RenderableField(field, occupancy, STEP, ring() if cameras is None else cameras)


def split_of(field: RenderableField, n: int = 3, size: tuple[int, int] = (24, 20)) -> Split:
    """The field's own renderings as test images, from other cameras."""
    cameras = replace(ring(n, size), camera_to_world=ring(2 * n).camera_to_world[1::2])
    opaque = torch.full((*size[::-1], 1), 255, dtype=torch.uint8)
    images = [
        torch.cat([(field.render(c)["colors"] * 255).round().to(torch.uint8), opaque], -1) for c in cameras
    ]
    return Split(cameras, torch.stack(images), tuple(f"test/{i}.png" for i in range(n)))


def measure(
    teacher: RenderableField, student: RenderableField, test_images: Split | None = None
) -> tuple[dict[str, Any], list[fidelity.ExampleView]]:
    return fidelity.measure(reference(teacher, test_images), student)


@pytest.fixture
def sphere(soft_sphere: VolumeField) -> RenderableField:
    return stored(soft_sphere)


@pytest.fixture
def smaller(soft_sphere: VolumeField) -> RenderableField:
    """The sphere shrunk by a tenth."""
    field = type(soft_sphere)(BOX, lambda x: soft_sphere.log_density(x / 0.9))
    return stored(field)


def test_a_field_is_its_own_equal(sphere: RenderableField) -> None:
    figures, images = measure(sphere, sphere)
    for poses in ("held_out", "off_trajectory"):
        assert figures[poses]["mean"] == {
            "psnr_to_teacher": EQUAL_DB,
            "ssim_to_teacher": 1.0,
            "opacity_error": 0.0,
        }
    assert [(p.poses, p.rank) for p in images] == [
        ("held_out", "typical"),
        ("held_out", "worst"),
        ("off_trajectory", "worst"),
    ]
    json.dumps(figures, allow_nan=False)


def test_figures_are_those_of_the_images_and_worst_is_worst(
    sphere: RenderableField, smaller: RenderableField
) -> None:
    figures, images = measure(sphere, smaller)
    for poses, cameras in (
        ("held_out", held_out_cameras(sphere.cameras)),
        ("off_trajectory", off_trajectory_cameras(sphere.cameras, BOX)[0]),
    ):
        pairs = [(smaller.render(c)["colors"], sphere.render(c)["colors"]) for c in cameras]
        values = [capped_psnr(*pair) for pair in pairs]
        reported = figures[poses]
        assert reported["per_view"]["psnr_to_teacher"] == pytest.approx(values)
        assert reported["mean"]["psnr_to_teacher"] == pytest.approx(sum(values) / len(values))
        assert reported["worst"]["psnr_to_teacher"] == pytest.approx(min(values))
        assert reported["worst_view"] == values.index(min(values))
        assert sorted(values)[len(values) // 2] == pytest.approx(values[reported["typical_view"]])
        assert reported["per_view"]["ssim_to_teacher"] == pytest.approx([ssim(*pair) for pair in pairs])
        assert reported["worst"]["opacity_error"] == max(reported["per_view"]["opacity_error"]) > 0
        worst = next(p for p in images if (p.poses, p.rank) == (poses, "worst"))
        torch.testing.assert_close(worst.student, pairs[reported["worst_view"]][0])
        torch.testing.assert_close(worst.teacher, pairs[reported["worst_view"]][1])


def test_a_floater_in_the_background_s_colour_shows_as_opacity(
    sphere: RenderableField, uniform_field: Callable[..., VolumeField]
) -> None:
    class WhiteEverywhere(type(sphere.field)):
        """The sphere with low white density all over the box."""

        def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            rgb, sigma = sphere.field(positions, directions)
            haze = 0.05 * self.contains(positions)
            mixed = (rgb * sigma[..., None] + haze[..., None]) / (sigma + haze).clamp(min=1e-9)[..., None]
            return mixed, sigma + haze

        def query_density(self, positions: Tensor) -> Tensor:
            return self(positions, positions)[1]

    with_floaters = replace(
        sphere, field=WhiteEverywhere(BOX, sphere.field.log_density), occupancy=OccupancyGrid(16)
    )
    figures, _ = measure(sphere, with_floaters)
    assert figures["off_trajectory"]["mean"]["opacity_error"] > 0.03
    assert figures["off_trajectory"]["mean"]["psnr_to_teacher"] > 30


def test_both_are_compared_with_test_images(sphere: RenderableField, smaller: RenderableField) -> None:
    split = split_of(sphere)
    figures, images = measure(sphere, smaller, split)
    reported = figures["held_out"]
    assert reported["views"] == list(split.names)
    assert reported["mean"]["teacher_psnr"] > 50  # its own images, rounded to 8 bits
    expected = [
        capped_psnr(smaller.render(split.cameras[i])["colors"], split.view_over(i, torch.ones(3)))
        for i in range(3)
    ]
    assert reported["per_view"]["student_psnr"] == pytest.approx(expected)
    drop = reported["mean"]["teacher_psnr"] - reported["mean"]["student_psnr"]
    assert reported["mean"]["psnr_drop"] == pytest.approx(drop)
    assert reported["worst"]["psnr_drop"] == max(reported["per_view"]["psnr_drop"]) >= drop > 10
    assert [p.test_image is not None for p in images] == [True, True, False]


def test_a_teacher_is_rendered_once_for_all_students(
    monkeypatch: pytest.MonkeyPatch, sphere: RenderableField, smaller: RenderableField
) -> None:
    split, calls, rendered = split_of(sphere), list[tuple[int, int]](), list[str]()
    render, names = RenderableField.render, {id(sphere.field): "teacher", id(smaller.field): "student"}

    def noted(stored: RenderableField, *more: Any) -> Any:
        rendered.append(names[id(stored.field)])
        return render(stored, *more)

    monkeypatch.setattr(RenderableField, "render", noted)
    against = reference(sphere, split, lambda *at: calls.append(at))
    assert rendered == ["teacher"] * (11 + 2)  # and a small image of each set, for kernels to compile
    assert calls == [(i + 1, 11) for i in range(11)]
    calls.clear(), rendered.clear()
    both = [
        fidelity.measure(against, student, lambda *at: calls.append(at)) for student in (smaller, smaller)
    ]
    assert rendered == ["student"] * 2 * (11 + 2)
    assert calls == [(i + 1, 11) for i in range(11)] * 2
    for figures, _ in both:
        for poses in ("held_out", "off_trajectory"):
            assert figures[poses].pop("core_seconds_per_image")["teacher"] > 0
    assert both[0][0] == both[1][0]


def test_many_test_images_are_thinned_evenly_and_it_is_said(sphere: RenderableField) -> None:
    config = FidelityConfig(max_pixels=4 * 24 * 20)
    figures, _ = fidelity.measure(reference(sphere, split_of(sphere, 8), config=config), sphere)
    assert figures["held_out"]["views"] == [f"test/{i}.png" for i in (1, 3, 5, 7)]
    assert "4 of 8 test images" in figures["held_out"]["source"]


def test_small_images_are_rendered_as_large_as_ssim_needs(soft_sphere: VolumeField) -> None:
    teacher = stored(soft_sphere, ring(size=(8, 6)))
    figures, _ = measure(teacher, teacher)
    assert figures["held_out"]["image_size"] == figures["off_trajectory"]["image_size"] == [11, 11]
    assert figures["held_out"]["mean"]["ssim_to_teacher"] == pytest.approx(1.0)


def test_test_images_too_small_for_ssim_have_no_ssim(soft_sphere: VolumeField) -> None:
    teacher = stored(soft_sphere, ring(size=(8, 6)))
    figures, _ = measure(teacher, teacher, split_of(teacher, 2, size=(8, 6)))
    assert figures["held_out"]["mean"]["ssim_to_teacher"] is None
    assert figures["held_out"]["mean"]["teacher_psnr"] > 50


def test_large_images_are_rendered_smaller() -> None:
    cameras = held_out_cameras(ring(size=(800, 600)))
    assert (cameras.width, cameras.height) == (200, 150)
    torch.testing.assert_close(cameras.intrinsics[0], torch.tensor([10.0, 10.0, 100.0, 75.0]))


def test_a_single_held_out_view_is_shown_once(sphere: RenderableField) -> None:
    _, images = measure(sphere, sphere, split_of(sphere, 1))
    assert [(p.poses, p.rank) for p in images] == [("held_out", "worst"), ("off_trajectory", "worst")]


def test_an_image_with_nan_has_no_figures_and_is_the_worst(sphere: RenderableField) -> None:
    class Broken(type(sphere.field)):
        def radiance(self, features: Tensor, positions: Tensor, directions: Tensor) -> Tensor:
            rgb = super().radiance(features, positions, directions)
            return torch.where(directions[..., :1] > 0.5, torch.nan, rgb)

    broken = replace(sphere, field=Broken(BOX, sphere.field.log_density))
    figures, _ = measure(sphere, broken)
    reported = figures["held_out"]
    assert reported["mean"]["psnr_to_teacher"] is None
    assert reported["per_view"]["psnr_to_teacher"][reported["worst_view"]] is None
    assert any(v == EQUAL_DB for v in reported["per_view"]["psnr_to_teacher"])
    json.dumps(figures, allow_nan=False)


def test_held_out_poses_are_new_and_the_same_each_time() -> None:
    prior = ring()
    cameras = held_out_cameras(prior)
    torch.testing.assert_close(cameras.camera_to_world, held_out_cameras(prior).camera_to_world)
    apart = torch.cdist(cameras.camera_to_world.flatten(1), prior.camera_to_world.flatten(1))
    assert len(cameras) == 12
    assert apart.min() > 1e-3


@pytest.mark.parametrize("n", [1, 3, 10, 100])
@pytest.mark.parametrize("centre", [(0.0, 0.0, 0.0), (0.4, -0.2, 0.3)])
def test_off_trajectory_poses_are_far_from_all_cameras_and_see_the_box(
    n: int, centre: tuple[float, ...]
) -> None:
    prior = ring(n, centre=centre)
    cameras, names = off_trajectory_cameras(prior, BOX)
    assert len(cameras) == len(set(names)) == 8
    apart = torch.cdist(cameras.camera_to_world[:, :, 3], prior.camera_to_world[:, :, 3])
    assert apart.min() > 0.2 * 3.0  # of the distance to the scene
    between = torch.cdist(cameras.camera_to_world[:, :, 3], cameras.camera_to_world[:, :, 3])
    assert between.fill_diagonal_(9).min() > 0.2
    target = torch.tensor([centre]) if n > 1 else torch.zeros(1, 3)
    for camera, name in zip(cameras, names, strict=True):
        at, depth = project(camera, target)
        if n > 1:
            torch.testing.assert_close(at, torch.tensor([[12.0, 10.0]]), atol=1e-3, rtol=0)
            assert float(depth) == pytest.approx(3.0 * (0.75 if "closer" in name else 1.25), rel=1e-4)
        rotation = camera.camera_to_world[0, :, :3]
        torch.testing.assert_close(rotation.T @ rotation, torch.eye(3), atol=1e-5, rtol=0)
        assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)


def test_off_trajectory_poses_turn_the_way_their_names_say() -> None:
    prior = orbit_cameras(
        (0, 0, 0), 3.0, 1, elevation=0, intrinsics=(40.0, 40.0, 12.0, 10.0), width=24, height=20
    )
    pose = prior.camera_to_world[0]  # one camera's axis leaves the look-at point to be the origin
    cameras, names = off_trajectory_cameras(prior, BOX)
    for camera, name in zip(cameras, names, strict=True):
        right, down = (pose[:, axis] @ camera.camera_to_world[0, :, 3] for axis in (0, 1))
        side = name.split()[-1]
        assert {"left": right < -0.5, "right": right > 0.5, "up": down < -0.5, "down": down > 0.5}[side]
        assert abs(float({"left": down, "right": down}.get(side, right))) < 1e-5
        assert camera.camera_to_world[0, :, 1] @ pose[:, 1] > 0.9  # upright still


@pytest.mark.parametrize("turned", [False, True])
def test_a_camera_in_the_very_middle_still_gives_poses(turned: bool) -> None:
    pose = torch.eye(3, 4)[None]
    if turned:  # stands in front of the scene, its feet towards it
        pose = torch.tensor(
            [[[1.0, 0, 0, 0], [0, 1, 0, -3], [0, 0, 1, 0]], [[1.0, 0, 0, 0], [0, 0, -1, 3], [0, 1, 0, 0]]]
        )
    cameras, _ = off_trajectory_cameras(
        Cameras(pose, torch.tensor([[20.0, 20, 8, 8]]).expand(len(pose), 4), 16, 16), BOX
    )
    rotation = cameras.camera_to_world[:, :, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(8, 3, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["n_held_out", "longest_side", "max_pixels", "min_images"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name} must be a whole number of at least 1; got 0"):
        FidelityConfig(**{name: 0})
