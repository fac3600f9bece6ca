"""What the student gets wrong is remembered, shown again and forgotten when it is learned."""

import math

import pytest
import torch

from fieldmorph.distill.active import (
    POOL_SIZE,
    HardPoses,
    ReplayPool,
    hard_cameras,
    salient_samples,
)
from fieldmorph.fields.cameras import look_at_point, orbit_cameras

pytestmark = pytest.mark.numerical


def test_the_worst_poses_are_those_with_the_largest_mean_error() -> None:
    poses = HardPoses(20)
    assert len(poses.worst()) == 0  # no error has been noted
    index = torch.arange(20).repeat_interleave(3)
    poses.note(index, torch.where(index == 7, 0.9, torch.where(index == 3, 0.5, 0.1)), "point")
    assert poses.worst().tolist() == [7, 3]
    poses.note(torch.tensor([7, 7]), torch.tensor([0.0, 0.2]), "point")
    (difficulty,) = poses.difficulty.values()
    assert difficulty[7].item() == pytest.approx(0.9 * 0.9 + 0.1 * 0.1)
    assert difficulty[0].item() == pytest.approx(0.1)  # not seen, not changed


def test_poses_learned_well_leave_the_worst() -> None:
    poses = HardPoses(10)
    poses.note(torch.arange(10), torch.linspace(0.1, 1.0, 10), "point")
    for _ in range(60):
        poses.note(torch.tensor([9]), torch.tensor([0.01]), "point")
    assert poses.worst().tolist() == [8]


def test_errors_of_another_kind_begin_a_new_memory() -> None:
    poses = HardPoses(30)
    poses.note(torch.arange(30), torch.linspace(1, 2, 30), "point")
    assert poses.worst().tolist() == [29, 28, 27]
    poses.note(torch.tensor([4, 5]), torch.tensor([0.02, 0.01]), "ray")  # a hundredth, and yet the worst
    assert poses.worst().tolist() == [4, 5]
    poses.note(torch.tensor([5]), torch.tensor([0.11]), "ray")
    (difficulty,) = poses.difficulty.values()
    assert difficulty[[4, 5, 29]].tolist() == pytest.approx([0.02, 0.9 * 0.01 + 0.1 * 0.11, 0])
    again = HardPoses(30)
    again.difficulty = poses.difficulty  # as a resumed run has it
    for run in (poses, again):
        run.note(torch.tensor([6]), torch.tensor([0.03]), "ray")
    assert again.worst().tolist() == poses.worst().tolist() == [6, 4, 5]


def test_hard_cameras_stand_near_their_pose_and_still_look_at_the_scene(generator: torch.Generator) -> None:
    size = {"intrinsics": (50.0, 50.0, 16.0, 16.0), "width": 32, "height": 32}
    prior = orbit_cameras((1.0, 2.0, 3.0), 4.0, 12, elevation=20, **size)
    new = hard_cameras(prior, torch.tensor([2, 5]), 200, generator)
    centre = look_at_point(prior)
    outward = new.camera_to_world[:, :, 3] - centre
    torch.testing.assert_close(outward.norm(dim=-1), torch.full((200,), 4.0), rtol=1e-3, atol=1e-3)
    old = prior.camera_to_world[[2, 5], :, 3] - centre
    turned = (outward @ old.T / 16).clamp(-1, 1).amax(-1).acos() * 180 / math.pi
    assert 1 < turned.mean() < 9.01
    assert turned.max() <= 9.01
    forward = new.camera_to_world[:, :, 2]
    torch.testing.assert_close(forward, -outward / 4, rtol=1e-3, atol=1e-3)
    both = (outward @ old.T).argmax(1).float().mean()
    assert 0.3 < both < 0.7
    rotations = new.camera_to_world[:, :, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(200, 3, 3), rtol=0, atol=1e-5)


def test_a_tenth_of_a_batch_is_what_was_hard(generator: torch.Generator) -> None:
    pool, fresh = ReplayPool(), torch.arange(1000)
    drawn, slots = pool.draw(4, fresh, generator)
    assert torch.equal(drawn, fresh)  # nothing is remembered yet
    assert len(slots) == 0
    pool.note(4, drawn, slots, torch.arange(1000) / 1000)
    again, slots = pool.draw(4, torch.arange(1000, 2000), generator)
    assert sorted(again[:100].tolist()) == list(range(900, 1000))  # the worst tenth
    assert torch.equal(again[100:], torch.arange(1100, 2000))
    assert torch.equal(pool.pools[4][0][slots], again[:100])
    other, _ = pool.draw(5, fresh, generator)  # another block has a memory of its own
    assert torch.equal(other, fresh)


def test_what_is_shown_again_gets_its_new_error(generator: torch.Generator) -> None:
    pool = ReplayPool()
    pool.note(0, torch.arange(100), torch.zeros(0, dtype=torch.long), torch.arange(100) / 100)
    drawn, slots = pool.draw(0, torch.arange(100, 200), generator)
    errors = torch.full((100,), 1e-3)
    pool.note(0, drawn, slots, errors)
    indices, remembered = pool.pools[0]
    assert set(range(90, 100)) <= set(indices.tolist())
    assert remembered.max() == pytest.approx(1e-3)


def test_a_thing_is_remembered_once_with_its_newest_error() -> None:
    pool, none = ReplayPool(), torch.zeros(0, dtype=torch.long)
    for error in (0.9, 0.4):
        pool.note(0, torch.tensor([5] * 10), none, torch.full((10,), error))
    indices, errors = pool.pools[0]
    assert indices.tolist() == [5]
    assert errors.tolist() == pytest.approx([0.4])


def test_the_memory_is_bounded_and_keeps_the_worst(generator: torch.Generator) -> None:
    pool, none = ReplayPool(), torch.zeros(0, dtype=torch.long)
    errors = torch.rand(4 * POOL_SIZE * 10, generator=generator)
    for part in torch.arange(len(errors)).chunk(4):
        pool.note(0, part, none, errors[part])
    indices, remembered = pool.pools[0]
    assert len(indices) == POOL_SIZE
    assert torch.equal(errors[indices], remembered)
    assert remembered.min() > 0.94  # the worst 2.5 % of uniform numbers lie above 0.975
    pool.keep({1})
    assert pool.pools == {}


def test_salient_samples_are_heavy_samples_on_rays_that_meet_a_surface() -> None:
    weights = torch.tensor([0.7, 0.1, 0.05, 0.3, 0.02, 0.6, 0.2, 0.01, 0.0, 0.15])
    ray_indices = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    got = salient_samples(weights, torch.tensor([0.85, 0.32, 0.96]), ray_indices)
    # the top 3 of 10 are 0.7, 0.6 and 0.3, and 0.3 lies on a ray of opacity 0.32
    assert got.nonzero()[:, 0].tolist() == [0, 5]
    assert salient_samples(torch.tensor([0.9, 0.1]), torch.tensor([1.0]), torch.tensor([0, 0])).tolist() == [
        True,
        True,
    ]
    faint = salient_samples(weights, torch.tensor([0.2, 0.3, 0.1]), ray_indices)
    assert faint.all()  # nothing but low density
    assert salient_samples(torch.zeros(0), torch.tensor([0.0]), torch.zeros(0, dtype=torch.long)).shape == (
        0,
    )
