"""What every representation promises. A new class joins by being in FIELDS."""

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.fields import runtime
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Rays
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import FIELDS, field_settings, make_field, rebuild_field
from fieldmorph.fields.rendering import sample_rays, shade_visible

pytestmark = pytest.mark.numerical

BOX = (-1.0, -0.5, 0.0, 1.0, 1.5, 1.0)  # neither a cube nor centred


@pytest.fixture(autouse=True)
def _float32_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "bf16_on_cpu", lambda: False)


every_field = pytest.mark.parametrize("name", sorted(FIELDS))


def lively(name: str, aabb: tuple[float, ...] = BOX, **overrides: Any) -> VolumeField:
    """A field whose values vary: fresh ones are nearly constant, so that a mistake would not show."""
    field = make_field(name, aabb=aabb, seed=1, **overrides)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return field


def points(n: int = 200, aabb: tuple[float, ...] = BOX) -> Tensor:
    low, high = torch.tensor(aabb[:3]), torch.tensor(aabb[3:])
    return low + torch.rand(n, 3, generator=torch.Generator().manual_seed(3)) * (high - low)


def unit_directions(*batch: int) -> Tensor:
    directions = torch.randn(*batch, 3, generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.normalize(directions, dim=-1)


@every_field
def test_density_is_not_negative_and_colour_lies_in_range(name: str) -> None:
    field = lively(name)
    rgb, sigma = field(points(), unit_directions(200))
    assert sigma.min() > 0
    assert sigma.std() > 0.01 * sigma.mean()  # lively indeed
    assert 0 <= rgb.min() < rgb.max() <= 1


@every_field
def test_density_is_exactly_zero_outside_the_box(name: str) -> None:
    field = lively(name)
    outside = points(60)
    for axis in range(3):
        outside[20 * axis : 20 * axis + 10, axis] = BOX[axis] - torch.logspace(-5, 4, 10)
        outside[20 * axis + 10 : 20 * axis + 20, axis] = BOX[3 + axis] + torch.logspace(-5, 4, 10)
    assert torch.equal(field.query_density(outside), torch.zeros(60))
    assert torch.equal(field(outside, unit_directions(60))[1], torch.zeros(60))
    corners = torch.tensor([BOX[:3], BOX[3:]])
    assert (field.query_density(corners) > 0).all()  # the box is closed


@every_field
def test_density_of_forward_is_query_density(name: str) -> None:
    field, positions = lively(name), 1.5 * points()
    assert torch.equal(field(positions, unit_directions(200))[1], field.query_density(positions))


@every_field
def test_density_does_not_depend_on_the_direction(name: str) -> None:
    field, positions = lively(name), points(50)
    one, other = field(positions, unit_directions(50)), field(positions, -unit_directions(50))
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], other[0])  # colour does


@every_field
@pytest.mark.parametrize("batch", [(), (0,), (1,), (7,), (2, 5), (3, 0, 2)])
def test_batch_shapes_are_kept(name: str, batch: tuple[int, ...]) -> None:
    field = lively(name)
    positions = points(math.prod(batch)).reshape(*batch, 3)
    rgb, sigma = field(positions, unit_directions(*batch))
    assert rgb.shape == (*batch, 3)
    assert sigma.shape == batch
    assert field.query_density(positions).shape == batch
    log_sigma, features = field.geometry(positions)
    assert log_sigma.shape == batch
    assert features.shape[:-1] == batch


@every_field
def test_batches_give_the_same_as_points_one_by_one(name: str) -> None:
    field, positions = lively(name), points(6)
    alone = torch.stack([field.query_density(p) for p in positions])
    torch.testing.assert_close(field.query_density(positions.reshape(2, 3, 3)).flatten(), alone)


@every_field
def test_config_and_state_rebuild_the_same_field(name: str) -> None:
    field = lively(name)
    config = json.loads(json.dumps(field.config()))
    twin = rebuild_field(name, config)
    twin.load_state_dict(field.state_dict())
    assert twin.config() == field.config()
    for a, b in zip(twin(points(), unit_directions(200)), field(points(), unit_directions(200)), strict=True):
        assert torch.equal(a, b)


@every_field
def test_only_a_field_that_grows_takes_arrays_of_other_shapes(name: str) -> None:
    coarse, fine = lively(name), lively(name)
    coarse.refine(0.0), fine.refine(1.0)
    if not fine.grows:
        other = lively(name, **fine.sizes[0])
        before = [p.clone() for p in fine.parameters()]
        with pytest.raises(RuntimeError, match="size mismatch"):
            fine.load_state_dict(other.state_dict())
        assert [p.shape for p in fine.parameters()] == [p.shape for p in before]
        return
    states = [copy.deepcopy(field.state_dict()) for field in (coarse, fine)]
    for field, state in zip((fine, coarse), states, strict=True):
        field.load_state_dict(state)
        assert all(torch.equal(a, state[key]) for key, a in field.state_dict().items())
    assert any(a.shape != b.shape for a, b in zip(*(s.values() for s in states), strict=True))
    assert fine.refine(1.0)


@every_field
def test_geometry_and_radiance_compose_to_forward(name: str) -> None:
    field, positions, directions = lively(name), points(), unit_directions(200)
    log_sigma, features = field.geometry(positions)
    rgb, sigma = field(positions, directions)
    torch.testing.assert_close(log_sigma.exp(), sigma)
    assert torch.equal(field.radiance(features, positions, directions), rgb)


@every_field
def test_an_image_without_gradients_is_that_with_them(name: str) -> None:
    """Where no gradient is recorded features are computed once; the pixels are the same."""
    field, directions = lively(name), unit_directions(50)
    rays = Rays(points(50) - 2 * directions, directions)
    samples = sample_rays(rays, field, OccupancyGrid(8), 0.02)
    images = []
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            images.append(shade_visible(field, rays, samples, torch.ones(50, 3), 0.98, min_depth=1e-4))
    assert 100 < len(images[0].weights) < len(samples)
    for with_gradient, without in zip(*(vars(image).values() for image in images), strict=True):
        torch.testing.assert_close(without, with_gradient.detach())


@every_field
def test_gradients_reach_every_parameter(name: str) -> None:
    field = lively(name)
    rgb, sigma = field(points(2000), unit_directions(2000))
    (rgb.sum() + sigma.sum() + field.regularization(torch.Generator().manual_seed(0))).backward()
    for key, parameter in field.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@every_field
def test_param_groups_hold_every_parameter_once(name: str) -> None:
    field = lively(name)
    grouped = [id(p) for group in field.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in field.parameters())
    for group in field.param_groups():
        assert set(group) <= {"params", "lr", "optimizer"}  # all that a FieldOptimizer knows
        assert group["lr"] > 0


@every_field
def test_world_units_do_not_matter(name: str) -> None:
    small, big = lively(name), lively(name, aabb=tuple(10 * v for v in BOX))
    big.load_state_dict(small.state_dict())
    rgb, sigma = small(points(), unit_directions(200))
    big_rgb, big_sigma = big(10 * points(), unit_directions(200))
    torch.testing.assert_close(10 * big_sigma, sigma, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(big_rgb, rgb, rtol=1e-3, atol=1e-5)


@every_field
def test_a_seed_decides_the_parameters(name: str) -> None:
    same, again, other = (make_field(name, aabb=BOX, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(same.parameters(), other.parameters(), strict=True))
    assert all(p.isfinite().all() for p in same.parameters())


@every_field
def test_outputs_and_gradients_repeat_exactly(name: str) -> None:
    results = []
    for _ in range(2):
        field = lively(name)
        rgb, sigma = field(points(3000), unit_directions(3000))
        (rgb.sum() + sigma.sum()).backward()
        results.append([rgb, sigma, *(p.grad for p in field.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_field
def test_float64_agrees_with_float32(name: str) -> None:
    field = lively(name)
    rgb, sigma = field(points(), unit_directions(200))
    exact_rgb, exact_sigma = field.double()(points().double(), unit_directions(200).double())
    assert exact_rgb.dtype == torch.float64
    torch.testing.assert_close(rgb.double(), exact_rgb, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(sigma.double(), exact_sigma.double(), rtol=1e-3, atol=1e-5)


@every_field
def test_bf16_networks_stay_near_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = lively(name)
    expected, sigma = field(points(), unit_directions(200))
    monkeypatch.setattr(runtime, "bf16_on_cpu", lambda: True)
    rgb, bf16_sigma = field(points(), unit_directions(200))
    assert rgb.dtype == bf16_sigma.dtype == torch.float32
    difference = (rgb - expected).abs().max()
    assert difference < 0.02
    assert (difference > 0) == any(isinstance(m, torch.nn.Linear) for m in field.modules())
    assert (bf16_sigma.log() - sigma.log()).abs().max() < 0.1


@every_field
def test_every_tensor_is_made_on_the_field_s_device(name: str) -> None:
    # The meta device stands in for CUDA: it too refuses to mix with the CPU.
    field = lively(name).to("meta")
    rgb, sigma = field(points().to("meta"), unit_directions(200).to("meta"))
    penalty = field.regularization(torch.Generator().manual_seed(0))
    assert rgb.device.type == sigma.device.type == penalty.device.type == "meta"
    (rgb.sum() + sigma.sum() + penalty).backward()
    assert {p.grad.device.type for p in field.parameters()} == {"meta"}


@every_field
def test_huge_log_density_stays_finite_and_has_a_gradient(name: str) -> None:
    field, positions = lively(name), points()
    log_sigma = torch.full((200,), 500.0, requires_grad=True)
    sigma = field.density(log_sigma, positions)
    sigma.sum().backward()
    assert sigma.isfinite().all()
    assert (log_sigma.grad > 0).all()


@every_field
def test_a_decoder_can_be_transplanted_where_specs_are_equal(name: str) -> None:
    student, teacher = lively(name), lively("hashgrid")
    if student.decoder is None or teacher.decoder is None or student.decoder.spec != teacher.decoder.spec:
        pytest.skip("no decoder in common")
    student.decoder.load_state_dict(teacher.decoder.state_dict())
    features = torch.randn(20, student.decoder.spec["n_features"], generator=torch.Generator().manual_seed(7))
    positions, directions = points(20), unit_directions(20)
    assert features.shape == student.geometry(positions)[1].shape
    expected = teacher.radiance(features, positions, directions)
    assert torch.equal(student.radiance(features, positions, directions), expected)


@every_field
@pytest.mark.parametrize(
    ("aabb", "message"),
    [
        ((0, 0, 0, 1, 1), "6 finite numbers"),
        ((0, 0, 0, 1, 1, math.nan), "6 finite numbers"),
        ((0, 0, 0, 1, 1, math.inf), "6 finite numbers"),
        ((0, 0, 0, 1, 0, 1), "min < max"),
        ((0, 0, 1, 1, 1, 0), "min < max"),
    ],
)
def test_a_bad_box_is_refused(name: str, aabb: tuple[float, ...], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_field(name, aabb=aabb)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features_per_level": 0}, r"n_features_per_level to be a whole number 1\.\.8; got 0"),
        ({"n_features_per_level": 9}, "n_features_per_level"),
        ({"n_levels": True}, "n_levels"),
        ({"log2_hashmap_size": 25}, "log2_hashmap_size"),
        ({"base_resolution": 0}, "base_resolution"),
        ({"base_resolution": 10**30, "finest_resolution": 10**31}, "base_resolution"),
        ({"finest_resolution": 65537}, "finest_resolution"),
        ({"base_resolution": 32, "finest_resolution": 31}, "31 is below base_resolution 32"),
    ],
)
def test_a_bad_hash_grid_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_field("hashgrid", aabb=BOX, **settings)


@every_field
def test_unknown_names_list_the_known_ones(name: str) -> None:
    with pytest.raises(SettingError, match=r"unknown field 'nerf'; known: .*hashgrid.*mlp"):
        make_field("nerf", aabb=BOX)
    with pytest.raises(SettingError, match=rf"unknown preset of {name} 'huge'; known: paper, small"):
        make_field(name, "huge", aabb=BOX)
    with pytest.raises(SettingError, match=rf"unknown setting of {name} 'colour'; known: .+"):
        make_field(name, aabb=BOX, colour=3)
    with pytest.raises(SettingError, match="unknown field"):
        rebuild_field("nerf", {})
    with pytest.raises(SettingError, match="do not fit"):
        rebuild_field(name, {"aabb": list(BOX), "colour": 3})


@every_field
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_presets_build(name: str, preset: str) -> None:
    field = make_field(name, preset, aabb=BOX)
    assert field.query_density(points(5)).isfinite().all()
    assert {**field.config(), **field_settings(name, preset)} == field.config()
    assert field.n_parameters() == sum(p.numel() for p in field.parameters()) > 0


@every_field
def test_presets_differ_and_overrides_win(name: str) -> None:
    small, paper = field_settings(name), field_settings(name, "paper")
    assert small != paper
    key = next(iter(small))
    assert field_settings(name, "small", **{key: paper[key]})[key] == paper[key]
