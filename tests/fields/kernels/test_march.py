"""Marching: a case by hand, the kernel against the twin to the last bit, and rays that graze, miss or start inside."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fieldmorph.fields.kernels.march import march_torch
from fieldmorph.fields.kernels.ops import march

pytestmark = pytest.mark.numerical

CUBE = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
both = pytest.mark.parametrize("marcher", [march, march_torch])


def one_ray(
    marcher, o, d, occupied=None, step: float = 0.25, aabb: Tensor = CUBE, jitter: float = 0.5, **planes
):
    occupied = torch.ones(4, 4, 4, dtype=torch.bool) if occupied is None else occupied
    rays = torch.tensor([o], dtype=torch.float32), torch.tensor([d], dtype=torch.float32)
    return marcher(*rays, aabb, occupied, step, torch.tensor([jitter]), **planes)


def assert_same(*arguments, **planes) -> Tensor:
    got, expected = march(*arguments, **planes), march_torch(*arguments, **planes)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    return got[3]


@both
def test_a_ray_worked_by_hand(marcher) -> None:
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[1, 2, 2] = occupied[3, 2, 2] = True  # x in [-0.5, 0] and [0.5, 1], y and z in [0, 0.5]
    ray_indices, t_starts, t_ends, offsets = one_ray(marcher, (-3, 0.1, 0.1), (1, 0, 0), occupied)
    # The box begins at t = 2; centres at 2.125, 2.375, ... lie at x = -0.875, -0.625, -0.375, ...
    torch.testing.assert_close(t_starts, torch.tensor([2.5, 2.75, 3.5, 3.75]))
    torch.testing.assert_close(t_ends, torch.tensor([2.75, 3.0, 3.75, 4.0]))
    assert ray_indices.tolist() == [0, 0, 0, 0]
    assert offsets.tolist() == [0, 4]


@both
def test_jitter_moves_the_centres_by_its_part_of_a_step(marcher) -> None:
    _, t_starts, t_ends, _ = one_ray(marcher, (-3, 0, 0), (1, 0, 0), jitter=0.25)
    torch.testing.assert_close((t_starts + t_ends) / 2, 2 + 0.25 * (torch.arange(8) + 0.25))


@both
@pytest.mark.parametrize(
    ("o", "d"),
    [
        ((-3, 2, 0), (1, 0, 0)),  # passes by
        ((3, 0, 0), (1, 0, 0)),  # looks away
        ((-3, 1.0001, 0), (1, 0, 0)),  # parallel, just outside
        ((0, 0, 0), (0, 0, 0)),  # no direction
        ((math.nan, 0, 0), (1, 0, 0)),
        ((-3, 0, 0), (math.nan, 0, 0)),
        ((-3, 0, 0), (1, math.nan, 0)),
    ],
)
def test_rays_that_miss_have_no_samples(marcher, o, d) -> None:
    ray_indices, _, _, offsets = one_ray(marcher, o, d)
    assert len(ray_indices) == 0
    assert offsets.tolist() == [0, 0]


@both
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axis_parallel_rays_cross_the_whole_box(marcher, axis: int, sign: float) -> None:
    o, d = [0.3, 0.3, 0.3], [0.0, 0.0, 0.0]
    o[axis], d[axis] = -5 * sign, sign
    assert one_ray(marcher, o, d)[3].tolist() == [0, 8]
    assert one_ray(marcher, o, [-0.0 if v == 0 else v for v in d])[3].tolist() == [0, 8]


@both
def test_a_ray_in_a_face_of_the_closed_box_is_inside(marcher) -> None:
    for height in (-1, 1):
        assert one_ray(marcher, (-3, height, height), (1, 0, 0))[3].tolist() == [0, 8]


@both
def test_a_ray_from_inside_starts_at_its_origin(marcher) -> None:
    _, t_starts, t_ends, _ = one_ray(marcher, (0, 0, 0), (0, 0, 1))
    torch.testing.assert_close(t_starts, torch.tensor([0.0, 0.25, 0.5, 0.75]))
    assert t_ends[-1] == 1


@both
def test_planes_cut_the_ray(marcher) -> None:
    _, t_starts, t_ends, _ = one_ray(marcher, (-3, 0, 0), (1, 0, 0), near_plane=2.5, far_plane=3.25)
    assert t_starts.tolist() == [2.5, 2.75, 3.0]
    assert t_ends.tolist() == [2.75, 3.0, 3.25]
    assert one_ray(marcher, (-3, 0, 0), (1, 0, 0), near_plane=5.0)[3].tolist() == [0, 0]
    assert one_ray(marcher, (-3, 0, 0), (1, 0, 0), far_plane=1.0)[3].tolist() == [0, 0]


@both
def test_nothing_occupied_and_no_rays(marcher) -> None:
    empty = torch.zeros(4, 4, 4, dtype=torch.bool)
    assert one_ray(marcher, (-3, 0, 0), (1, 0, 0), empty)[3].tolist() == [0, 0]
    none = marcher(torch.zeros(0, 3), torch.zeros(0, 3), CUBE, empty, 0.1, torch.zeros(0))
    assert [len(x) for x in none] == [0, 0, 0, 1]


def test_a_step_that_never_ends_is_refused() -> None:
    for step in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="render_step_size must be positive"):
            one_ray(march, (-3, 0, 0), (1, 0, 0), step=step)


class Largest(TorchDispatchMode):
    """Watches for the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, out.numel() if isinstance(out, Tensor) else 0)
        return out


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
def test_the_twin_holds_few_steps_at_once(generator, chunk: int) -> None:
    occupied = torch.rand(8, 8, 8, generator=generator) < 0.1
    rays_d = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1)
    rays = (-3 * rays_d + 0.3, rays_d, CUBE, occupied, 0.05, torch.rand(300, generator=generator))
    n_samples = int(assert_same(*rays)[-1])
    with Largest() as largest:
        parts = march_torch(*rays, max_steps=chunk)
    assert all(torch.equal(part, whole) for part, whole in zip(parts, march(*rays), strict=True))
    longest = math.ceil(12**0.5 / 0.05) + 1  # the diagonal: one ray at least is held
    everything = 300 * 3 * longest
    assert largest.numel <= max(3 * max(chunk, longest), 300 * 3, n_samples)
    assert largest.numel < 0.1 * everything or chunk > everything


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    fill=st.sampled_from([0.0, 0.002, 0.05, 0.5, 1.0]),
    step=st.sampled_from([0.011, 0.05, 0.3, 5.0]),
    near=st.sampled_from([0.0, 1.5]),
    far=st.sampled_from([2.0, math.inf]),
)
def test_kernel_equals_the_twin_on_random_rays(seed, shape, fill, step, near, far) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(3, generator=generator)
    aabb = torch.cat([low, low + 0.2 + 2 * torch.rand(3, generator=generator)])
    occupied = torch.rand(shape, generator=generator) < fill
    rays_o = 2 * torch.randn(40, 3, generator=generator)
    rays_d = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=-1)
    rays_d[:6] = torch.cat([torch.eye(3), -torch.eye(3)])
    jitter = torch.rand(40, generator=generator)
    assert_same(rays_o, rays_d, aabb, occupied, step, jitter, near, far)


@settings(max_examples=60, deadline=None)
@given(
    o=st.tuples(*[st.sampled_from([-3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0])] * 3),
    d=st.tuples(*[st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0])] * 3),
    jitter=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 50),
)
def test_kernel_equals_the_twin_on_rays_along_walls_and_edges(o, d, jitter, seed) -> None:
    # every number is a power of two, so samples fall exactly on walls
    occupied = torch.rand(16, 8, 32, generator=torch.Generator().manual_seed(seed)) < 0.1
    rays = torch.tensor([o]), torch.tensor([d])
    assert_same(*rays, CUBE, occupied, 0.125, torch.tensor([jitter]))


def test_every_sample_in_an_occupied_cell_is_found(generator: torch.Generator) -> None:
    occupied = torch.rand(24, 24, 24, generator=generator) < 0.03
    rays_o = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1) * 3
    aim = torch.rand(300, 3, generator=generator) * 2 - 1
    rays_d = torch.nn.functional.normalize(aim - rays_o, dim=-1)
    offsets = assert_same(rays_o, rays_d, CUBE, occupied, 0.013, torch.rand(300, generator=generator))
    assert offsets[-1] > 1000
