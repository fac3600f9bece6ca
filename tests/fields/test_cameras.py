import math

import pytest
import torch

from fieldmorph.fields.cameras import (
    Cameras,
    _nearest_rotations,
    camera_rays,
    image_rays,
    look_at_point,
    orbit_box,
    orbit_cameras,
    orbit_like,
    project,
    resize,
    sample_cameras,
)
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical


def one_camera() -> Cameras:
    """At (0, 0, 4), looking at the origin along -z, up is +y: x right, y down (-y), z forward (-z)."""
    pose = torch.tensor([[[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4]]])
    return Cameras(pose, torch.tensor([[100.0, 50.0, 10.0, 8.0]]), 20, 16)


def ring(
    n: int = 12, elevation: float = 30.0, centre=(1.0, 2.0, 3.0), radius: float = 4.0, **kwargs
) -> Cameras:
    return orbit_cameras(
        centre, radius, n, elevation=elevation, intrinsics=(100, 90, 32, 24), width=64, height=48, **kwargs
    )


def assert_rotations(cameras: Cameras) -> None:
    rotation = cameras.camera_to_world[:, :, :3]
    torch.testing.assert_close(
        rotation.mT @ rotation, torch.eye(3).expand(len(cameras), 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(cameras)))


def test_project_puts_a_known_point_on_the_known_pixel():
    points, depths = project(one_camera(), torch.tensor([[0.0, 0, 0], [0.2, 0.4, 0], [0, 0, 2]]))
    # 4 in front: x = 100 * 0.2 / 4 + 10 = 15; y is down, so 0.4 up is y = 8 - 50 * 0.4 / 4 = 3
    torch.testing.assert_close(points, torch.tensor([[10.0, 8.0], [15.0, 3.0], [10.0, 8.0]]))
    torch.testing.assert_close(depths, torch.tensor([4.0, 4.0, 2.0]))


def test_camera_rays_go_through_pixel_centres():
    cameras = one_camera()
    indices, pixels = torch.zeros(2, dtype=torch.long), torch.tensor([[9, 7], [19, 15]])
    rays = camera_rays(cameras, indices, pixels)
    torch.testing.assert_close(rays.rays_o, torch.tensor([[0.0, 0, 4]]).expand(2, 3))
    # pixel 19 has its centre at 19.5: slope (19.5 - 10) / 100; row 15: (15.5 - 8) / 50, downward
    expected = torch.tensor([0.095, -0.15, -1.0])
    torch.testing.assert_close(rays.rays_d[1], expected / expected.norm())
    torch.testing.assert_close(rays.rays_d.norm(dim=-1), torch.ones(2))
    fractional = camera_rays(cameras, indices[:1], torch.tensor([[9.5, 7.5]]))
    torch.testing.assert_close(fractional.rays_d[0], torch.tensor([0.0, 0.0, -1.0]))


def test_rays_and_projection_agree():
    cameras = ring(5)
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(5, (200,), generator=generator)
    pixels = torch.stack(
        [torch.randint(64, (200,), generator=generator), torch.randint(48, (200,), generator=generator)], -1
    )
    rays = camera_rays(cameras, indices, pixels)
    for i in range(5):
        mine = indices == i
        points, _ = project(cameras[i], (rays.rays_o + 3.7 * rays.rays_d)[mine])
        torch.testing.assert_close(points, pixels[mine] + 0.5, atol=1e-3, rtol=0)


def test_image_rays_are_row_major_and_need_one_camera():
    rays = image_rays(one_camera())
    assert len(rays) == 20 * 16
    same = camera_rays(one_camera(), torch.zeros(1, dtype=torch.long), torch.tensor([[3, 2]]))
    torch.testing.assert_close(rays[2 * 20 + 3 : 2 * 20 + 4].rays_d, same.rays_d)
    with pytest.raises(SettingError, match="one camera expected; got 3"):
        image_rays(ring(3))


def test_cameras_index_slice_and_iterate():
    cameras = ring(6)
    assert [len(c) for c in cameras] == [1] * 6
    assert len(cameras[1:5:2]) == 2
    picked = cameras[torch.tensor([4, 4, 0])]
    torch.testing.assert_close(picked.camera_to_world[2], cameras.camera_to_world[0])
    torch.testing.assert_close(cameras[-1].camera_to_world, cameras.camera_to_world[5:])
    assert (picked.width, picked.height) == (64, 48)
    with pytest.raises(IndexError):
        cameras[6]


@pytest.mark.parametrize("elevation", [-90.0, -20.0, 0.0, 35.0, 90.0])
@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 2.0, 0.0), (1.0, 0.0, 0.0), (0.3, -0.5, 0.8)])
def test_orbit_looks_at_its_centre_with_up_up(elevation, up):
    cameras = ring(7, elevation, up=up)
    assert_rotations(cameras)
    axis = torch.tensor(up) / torch.tensor(up).norm()
    outward = cameras.camera_to_world[:, :, 3] - torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(outward, -4 * cameras.camera_to_world[:, :, 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        outward @ axis, torch.full((7,), 4 * math.sin(math.radians(elevation))), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(cameras.camera_to_world[:, :, 0] @ axis, torch.zeros(7), atol=1e-5, rtol=0)
    assert (-cameras.camera_to_world[:, :, 1] @ axis > -1e-5).all()


def test_orbit_goes_once_round():
    position = ring(4, 0.0, centre=(0.0, 0.0, 0.0), radius=2.0).camera_to_world[:, :, 3]
    expected = torch.tensor([[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0]])
    torch.testing.assert_close(position, expected, atol=1e-5, rtol=0)
    with pytest.raises(SettingError, match="n=0"):
        ring(0)
    with pytest.raises(SettingError, match="radius=0"):
        ring(3, radius=0.0)


@pytest.mark.parametrize("size", [(400, 400), (320, 200), (90, 200)])
def test_orbit_box_keeps_every_corner_in_the_image_and_fills_it(size):
    aabb = (-1.0, 0.0, -3.0, 2.0, 1.0, -1.0)
    corners = torch.cartesian_prod(*(torch.tensor([aabb[i], aabb[i + 3]]) for i in range(3)))
    width, height = size
    points = []
    for camera in orbit_box(aabb, 8, width=width, height=height):
        xy, depths = project(camera, corners)
        assert (depths > 0).all()
        points.append(xy)
    xy = torch.cat(points)
    assert (xy >= 0).all()
    assert (xy <= torch.tensor(size)).all()
    assert (xy - torch.tensor(size) / 2).abs().max() > 0.3 * min(size)


def test_look_at_point_is_where_the_axes_meet():
    torch.testing.assert_close(look_at_point(ring()), torch.tensor([1.0, 2.0, 3.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(look_at_point(one_camera()), torch.zeros(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("up", [(0.6, 0.0, 0.8), (-0.6, 0.0, -0.8)])
def test_orbit_like_repeats_the_orbit_it_is_given(up):
    cameras = ring(10, 25.0, up=up)
    again = orbit_like(cameras, (0.0, 0.0, 0.0, 3.0, 3.0, 5.0), 10)
    assert_rotations(again)
    outward = again.camera_to_world[:, :, 3] - torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(outward.norm(dim=-1), torch.full((10,), 4.0), atol=1e-2, rtol=0)
    sine = torch.full((10,), math.sin(math.radians(25)))
    torch.testing.assert_close(outward @ torch.tensor(up) / 4, sine, atol=1e-2, rtol=0)
    assert (-again.camera_to_world[:, :, 1] @ torch.tensor(up) > 0.8).all()
    torch.testing.assert_close(again.intrinsics, cameras.intrinsics)
    assert (again.width, again.height) == (64, 48)


def test_orbit_like_works_for_one_camera_and_moves_the_centre_into_the_box():
    again = orbit_like(one_camera(), (-1.0, -1.0, -3.0, 1.0, 1.0, -1.0), 3)
    torch.testing.assert_close(look_at_point(again), torch.tensor([0.0, 0.0, -1.0]), atol=1e-3, rtol=0)
    distance = (again.camera_to_world[:, :, 3] - torch.tensor([0.0, 0.0, -1.0])).norm(dim=-1)
    torch.testing.assert_close(distance, torch.full((3,), 5.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(again.camera_to_world[:, 1, 1], torch.full((3,), -1.0), atol=1e-3, rtol=0)


def test_sampled_cameras_lie_near_the_given_ones():
    prior = ring(40, 20.0)
    new = sample_cameras(prior, 2000, torch.Generator().manual_seed(1))
    assert len(new) == 2000
    assert_rotations(new)
    step = 4 * math.cos(math.radians(20)) * 2 * math.pi / 40
    apart = torch.cdist(new.camera_to_world[:, :, 3], prior.camera_to_world[:, :, 3]).amin(1)
    assert apart.max() < step  # the four nearest are at most two steps away, so half of that
    assert apart.mean() > 0.1 * step  # and they are new
    outward = new.camera_to_world[:, :, 3] - torch.tensor([1.0, 2.0, 3.0])
    off_axis = (-outward / outward.norm(dim=-1, keepdim=True) * new.camera_to_world[:, :, 2]).sum(-1)
    degrees = torch.rad2deg(off_axis.clamp(-1, 1).acos())
    assert 2 < degrees.mean() < 6  # a Rayleigh mean of 1.25 standard deviations of 3 degrees
    assert degrees.max() < 20


def test_sampled_cameras_take_the_intrinsics_of_a_camera_and_repeat_with_the_seed():
    prior = ring(3)
    prior.intrinsics[:, 0] = torch.tensor([10.0, 20.0, 30.0])
    new = sample_cameras(prior, 50, torch.Generator().manual_seed(1))
    assert set(new.intrinsics[:, 0].tolist()) == {10.0, 20.0, 30.0}
    same = sample_cameras(prior, 50, torch.Generator().manual_seed(1))
    other = sample_cameras(prior, 50, torch.Generator().manual_seed(2))
    assert torch.equal(new.camera_to_world, same.camera_to_world)
    assert not torch.equal(new.camera_to_world, other.camera_to_world)


def test_one_camera_can_be_sampled_from():
    new = sample_cameras(one_camera(), 10, torch.Generator().manual_seed(0))
    assert_rotations(new)
    torch.testing.assert_close(new.camera_to_world[:, :, 3], torch.tensor([[0.0, 0, 4]]).expand(10, 3))
    assert (new.camera_to_world[:, 2, 2] < -0.9).all()
    assert new.camera_to_world[:, 2, 2].std() > 0


def test_opposite_cameras_still_blend_to_rotations_in_between():
    new = sample_cameras(ring(2, 0.0, centre=(0.0, 0.0, 0.0)), 200, torch.Generator().manual_seed(0))
    assert_rotations(new)
    assert 1 < new.camera_to_world[:, 0, 3].std() < 3  # uniform on [-4, 4] has 2.3; the two ends alone 4


def test_nearest_rotation_of_a_reflection_is_a_rotation():
    matrices = torch.stack([torch.diag(torch.tensor([1.0, 1, -1])), torch.zeros(3, 3), 2 * torch.eye(3)])
    rotations = _nearest_rotations(matrices)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(3))
    torch.testing.assert_close(rotations[2], torch.eye(3))


def test_resized_cameras_see_the_same_image() -> None:
    camera = orbit_box((-1, -1, -1, 1, 1, 1), 1, width=40, height=30)
    wide = resize(camera, 120, 60)
    old = image_rays(camera).rays_d.reshape(30, 40, 3)
    new = image_rays(wide).rays_d.reshape(60, 120, 3)[:, 20:100]  # 80 x 60 shows what 40 x 30 did
    corners = torch.stack([new[0::2, 0::2], new[1::2, 0::2], new[0::2, 1::2], new[1::2, 1::2]]).mean(0)
    torch.testing.assert_close(torch.nn.functional.normalize(corners, dim=-1), old, atol=2e-4, rtol=0)
