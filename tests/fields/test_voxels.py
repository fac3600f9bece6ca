"""The voxel field: sparse nodes, coarse to fine, and colours."""

import copy
import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from helpers.voxel_fields import BOX, CUBE, EXTENT, ball, directions, fresh, lively, points, raw, sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.rendering import render_image
from fieldmorph.fields.voxels import EMPTY, FAINT, SCHEDULE, nodes_in_cells

pytestmark = pytest.mark.numerical


def test_a_fresh_field_is_small_whatever_its_final_resolution() -> None:
    for resolution in (2, 40, 41, 128, 512, 1024):
        field = fresh(resolution)
        assert field.n_active == field.nodes**3 <= 40**3
        assert (field.nodes - 1) * field.divisor >= resolution - 1  # reaches across the box


def test_memory_goes_with_the_active_nodes() -> None:
    field, n = fresh(256), 256**3 // 20
    field.activate(torch.arange(n) * 20)
    arrays = [*field.parameters(), *field.buffers()]
    parameters = sum(p.nbytes for p in field.parameters())
    assert parameters == n * 28 * 4  # 94 MB
    assert sum(a.nbytes for a in arrays) < parameters + 256**3 * 3 / 8 + 100
    # with gradient and the two moments of Adam
    assert sum(a.nbytes for a in arrays) + 3 * parameters < 390e6


def test_nodes_hold_their_values_and_empty_space_is_nearly_nothing() -> None:
    field, mask = fresh(40), torch.zeros(40, 40, 40, dtype=torch.bool)
    mask[3, 4, 5] = mask[39, 0, 20] = True
    values = torch.arange(56.0).reshape(2, 28)
    field.activate(mask, values)
    assert field.node_indices().tolist() == [(3 * 40 + 4) * 40 + 5, 39 * 1600 + 20]
    step = torch.tensor([2.0, 2.0, 1.0]) / 39
    expected = torch.tensor(BOX[:3]) + torch.tensor([[3.0, 4, 5], [39, 0, 20]]) * step
    torch.testing.assert_close(field.node_positions(), expected)
    torch.testing.assert_close(raw(field, expected), values, rtol=0, atol=1e-3)
    between = expected[:1] + step * torch.tensor([0.5, 0, 0])
    torch.testing.assert_close(raw(field, between)[0, :2], torch.tensor([EMPTY / 2, 0.5]), rtol=0, atol=1e-3)
    far = points()[(points()[:, None] - expected).abs().gt(step).any(-1).all(-1)]
    assert torch.allclose(field.query_density(far), torch.tensor(math.exp(EMPTY) / EXTENT))
    rgb, _ = field(far, directions(len(far)))
    assert torch.equal(rgb, torch.full_like(rgb, 0.5))


def test_indices_in_any_order_keep_their_values() -> None:
    one, other = fresh(30), fresh(30)
    indices = torch.randperm(27_000, generator=torch.Generator().manual_seed(1))[:500]
    values = torch.randn(500, 28, generator=torch.Generator().manual_seed(2))
    one.activate(indices, values)
    order = indices.argsort()
    other.activate(
        torch.zeros(27_000, dtype=torch.bool).scatter(0, indices, True).reshape(30, 30, 30), values[order]
    )
    assert torch.equal(raw(one, points()), raw(other, points()))


def test_activated_without_values_a_field_keeps_what_it_has_there() -> None:
    field = lively()
    before = field.divisor, raw(field, points())
    field.activate(torch.ones(100, 100, 100, dtype=torch.bool))
    assert (before[0], field.divisor) == (4, 1)
    torch.testing.assert_close(raw(field, points()), before[1], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("nodes", "n_values"),
    [
        (torch.zeros(30, 30, 30, dtype=torch.bool), None),
        (torch.ones(30, 30, 29, dtype=torch.bool), None),
        (torch.tensor([5, 7, 5]), None),
        (torch.tensor([5, 27_000]), None),
        (torch.tensor([-1, 5]), None),
        (torch.tensor([4, 5]), 3),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_nodes_are_refused_and_change_nothing(nodes: Tensor, n_values: int | None) -> None:
    field = fresh(30)
    before = copy.deepcopy(field.state_dict())
    with pytest.raises(SettingError, match="node"):
        field.activate(nodes, None if n_values is None else torch.zeros(n_values, 28))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), field.state_dict().values(), strict=True))


def test_schedule_ends_at_the_final_resolution() -> None:
    assert SCHEDULE[0][0] == 0
    assert SCHEDULE[-1][1] == 1
    assert list(SCHEDULE) == sorted(SCHEDULE)
    field = fresh(100)
    seen = []
    for progress in torch.linspace(0, 1, 101).tolist():
        changed = field.refine(progress)
        assert changed == (not seen or seen[-1] != field.nodes) or not seen
        assert not field.refine(progress)  # decided by the field's own state
        seen.append(field.nodes)
    assert sorted(set(seen)) == [26, 51, 100]
    assert seen == sorted(seen)


@pytest.mark.parametrize("resolution", [41, 60, 100, 128])
def test_refining_keeps_the_function(resolution: int) -> None:
    field = lively(resolution)
    positions = points()
    positions[:8] = torch.tensor(list(itertools.product(*zip(BOX[:3], BOX[3:], strict=True))))
    before, coarse = raw(field, positions), field.divisor
    assert field.refine(1.0)
    assert (field.divisor, field.n_active) == (1, resolution**3)
    assert coarse > 1
    # in float32 a place on the finest grid is off by 1e-5 cells, values next to each other by some 5
    torch.testing.assert_close(raw(field, positions), before, rtol=0, atol=3e-4)


def test_refining_drops_only_what_cannot_be_seen() -> None:
    field, positions = ball(), points(20_000, CUBE)
    before = field.query_density(positions).detach()
    assert field.refine(1.0)
    after = field.query_density(positions).detach()
    assert field.n_active < 0.35 * 100**3  # the ball fills 11 %, and it has a ring of coarse cells
    seen = before > math.exp(FAINT) / EXTENT
    torch.testing.assert_close(after[seen], before[seen], rtol=1e-3, atol=0)
    assert 0.1 < seen.float().mean() < 0.2
    assert (after[~seen] <= before[~seen] * 1.001).all()
    assert (after[~seen] < before[~seen] / 2).float().mean() > 0.5  # dropped indeed


def test_refining_does_not_change_the_image() -> None:
    field = ball()
    cameras, all_cells = orbit_box(CUBE, 2, width=24, height=16), OccupancyGrid(8)
    before = [render_image(field, camera, all_cells, 0.02)["colors"] for camera in cameras]
    field.refine(1.0)
    after = [render_image(field, camera, all_cells, 0.02)["colors"] for camera in cameras]
    assert before[0].std() > 0.1
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().max() < 3 / 255  # the density of exp(-6) that is dropped makes 1.3 / 255


def test_refining_repeats_exactly() -> None:
    one, other = ball(), ball()
    one.refine(1.0), other.refine(SCHEDULE[-2][0]), other.refine(1.0)
    assert one.config() == other.config()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_field_without_content_stays_whole() -> None:
    field = fresh(60)
    field.refine(1.0)
    assert field.n_active == 60**3


def test_a_start_at_the_final_resolution_is_never_shrunk() -> None:
    field = sparse()
    before = copy.deepcopy(field.state_dict())
    for progress in (0.0, 0.3, 1.0):
        assert not field.refine(progress)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), field.state_dict().values(), strict=True))


def test_nan_and_far_positions_are_harmless() -> None:
    field = sparse()
    wild = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0.5], [1e30, -1e30, 0], [0, 0, -9.0]])
    rgb, sigma = field(wild, directions(4))
    assert torch.equal(sigma, torch.zeros(4))
    assert rgb.isfinite().all()


def test_harmonics_of_degree_two_fit_a_directional_colour() -> None:
    x, y, z = (d := directions(400)).unbind(-1)
    logits = torch.stack([0.5 + x - 2 * y * z, 3 * x * y - 1, z * z - x * x + y], dim=-1)  # all of degree 2
    target, beyond = torch.sigmoid(logits), torch.sigmoid(logits + 3 * x[:, None] ** 3)
    field = fresh(4)
    losses = []
    for colors in (target, beyond):
        features = torch.zeros(27, requires_grad=True)
        optimizer = torch.optim.LBFGS([features], max_iter=100, line_search_fn="strong_wolfe")

        def closure(
            features: Tensor = features, colors: Tensor = colors, optimizer: Any = optimizer
        ) -> Tensor:
            optimizer.zero_grad()
            rgb = field.radiance(features.expand(400, 27), torch.zeros(400, 3), d)
            loss = (rgb - colors).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        losses.append(closure().item())
    assert losses[0] < 1e-7
    assert losses[1] > 1e-4  # no more than degree 2


def test_colour_stays_in_range_and_keeps_a_gradient() -> None:
    features = torch.tensor([[-20.0, 20.0, 0.0]]).repeat_interleave(9, dim=1).requires_grad_()
    rgb = fresh(4).radiance(features, torch.zeros(1, 3), directions(1))
    assert 0 <= rgb.min() <= rgb.max() <= 1
    rgb.sum().backward()
    assert (features.grad.reshape(3, 9).abs().amax(-1) > 0).all()


@settings(max_examples=40, deadline=None)
@given(
    n_cells=st.integers(1, 9),
    resolution=st.integers(2, 20),
    fraction=st.floats(0, 0.4),
    seed=st.integers(0, 99),
)
def test_nodes_in_cells_are_those_inside_and_one_more(n_cells, resolution, fraction, seed) -> None:
    occupied = torch.rand((n_cells,) * 3, generator=torch.Generator().manual_seed(seed)) < fraction
    before = occupied.clone()
    size = Fraction(resolution - 1, n_cells)
    expected = torch.zeros((resolution,) * 3, dtype=torch.bool)
    for cell in occupied.nonzero().tolist():
        spans = [(math.ceil(k * size) - 1, math.floor((k + 1) * size) + 1) for k in cell]
        expected[tuple(slice(max(low, 0), high + 1) for low, high in spans)] = True
    assert torch.equal(nodes_in_cells(occupied, resolution), expected)
    assert torch.equal(occupied, before)
