"""The sparse trilinear kernel: against a straight-line reference, grid_sample and its torch twin."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels.launch import set_threads
from fieldmorph.fields.kernels.voxels import (
    NodeGrid,
    find_rows,
    pack_mask,
    rank_words,
    sparse_trilinear,
    sparse_trilinear_torch,
    unpack_mask,
)

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]

both = pytest.mark.parametrize("interpolate", [sparse_trilinear, sparse_trilinear_torch])
WILD = torch.tensor(
    [[math.nan] * 3, [math.inf] * 3, [-math.inf] * 3, [1e30] * 3, [-5.0] * 3, [7.0, 0.5, -2.0]]
)


def grid_of(active: Tensor, scale: float | None = None) -> NodeGrid:
    words, n_active = rank_words(pack_mask(active.flatten()))
    return NodeGrid(words, n_active, active.shape[0], active.shape[0] - 1 if scale is None else scale)


def random_mask(nodes: int, fraction: float, seed: int = 0) -> Tensor:
    return torch.rand(nodes, nodes, nodes, generator=torch.Generator().manual_seed(seed)) < fraction


def inputs(n: int, rows: int, n_features: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(n, 3, generator=generator)
    return positions, *(torch.randn(k, n_features, generator=generator) for k in (rows, n))


def interpolate_ref(
    position: list[float], active: np.ndarray, values: np.ndarray, scale: float, empty: float
):
    """One position, corner by corner, from a dense table in which inactive nodes hold `empty`."""
    dense = np.full((*active.shape, values.shape[1]), empty)
    dense[active] = values  # numpy, too, takes x, y, z in row-major order
    at = [min(max(p, 0.0), 1.0) * scale for p in position]
    low = [min(int(a), n - 2) for a, n in zip(at, active.shape, strict=True)]
    total = np.zeros(values.shape[1])
    for corner in itertools.product((0, 1), repeat=3):
        weight = math.prod(a - b if c else 1 - (a - b) for a, b, c in zip(at, low, corner, strict=True))
        total += weight * dense[tuple(b + c for b, c in zip(low, corner, strict=True))]
    return total


@both
@pytest.mark.parametrize("n_features", [1, 3, 27])
@pytest.mark.parametrize(
    ("nodes", "fraction", "scale"), [(2, 0.5, 1.0), (5, 0.4, 4.0), (7, 0.9, 5.25), (4, 1.0, 3.0)]
)
def test_interpolation_matches_the_reference(interpolate, n_features, nodes, fraction, scale) -> None:
    active = random_mask(nodes, fraction)
    grid = grid_of(active, scale)
    positions, values, _ = inputs(40, grid.n_active, n_features)
    positions[:8] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    expected = [
        interpolate_ref(p, active.numpy(), values.double().numpy(), scale, -3.0) for p in positions.tolist()
    ]
    got = interpolate(positions, values, grid, -3.0)
    # weights are off by one float32 rounding of a place in up to 6 cells
    torch.testing.assert_close(got.double(), torch.tensor(np.array(expected)), rtol=0, atol=1e-5)


@both
def test_a_full_grid_is_torch_s_grid_sample(interpolate) -> None:
    grid = grid_of(torch.ones(9, 9, 9, dtype=torch.bool))
    positions, values, _ = inputs(500, 729, 27)
    volume = values.reshape(9, 9, 9, 27).permute(3, 2, 1, 0)[
        None
    ]  # grid_sample counts depth, height, width: z, y, x
    at = (2 * positions - 1)[None, None, None]
    expected = torch.nn.functional.grid_sample(volume, at, align_corners=True)[0, :, 0, 0].t()
    torch.testing.assert_close(interpolate(positions, values, grid, -3.0), expected, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([0, 1, 1023, 1024, 1025, 5000]),
    nodes=st.integers(2, 40),
    fraction=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    n_features=st.sampled_from([1, 2, 27]),
    part=st.floats(0.1, 1.0),
    seed=st.integers(0, 99),
)
def test_kernel_matches_the_twin(n, nodes, fraction, n_features, part, seed) -> None:
    grid = grid_of(random_mask(nodes, fraction, seed), scale=max(part * (nodes - 1), 0.5))
    positions, values, grad = inputs(n, grid.n_active, n_features, seed)
    leaf, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    got = sparse_trilinear(positions, leaf, grid, -2.0)
    expected = sparse_trilinear_torch(positions.double(), exact, grid, -2.0)
    # a float32 place is off by 39 * 6e-8 cells, a value between corners some 4 apart by ten times that
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)
    if grid.n_active:
        got.backward(grad)
        expected.backward(grad.double())
        # the same places make the weights, so that a tiny one is off by as much as a large one
        largest = grad.abs().max() if n else 0.0
        assert (leaf.grad - exact.grad).abs().max() <= 2e-5 * largest + 1e-4 * exact.grad.abs().max()


@pytest.mark.parametrize("n_features", [1, 27])
def test_any_number_of_threads_gives_the_same_bytes(n_features: int) -> None:
    grid = grid_of(random_mask(33, 0.3))
    positions, values, grad = inputs(20_000, grid.n_active, n_features)
    results = []
    try:
        for threads in (1, 2, 5, 1):
            set_threads(threads)
            leaf = values.clone().requires_grad_()
            out = sparse_trilinear(positions, leaf, grid, -2.0)
            results.append((out.detach(), *torch.autograd.grad(out, leaf, grad)))
    finally:
        set_threads(torch.get_num_threads())
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradient_is_the_transpose_of_the_interpolation() -> None:
    grid = grid_of(random_mask(17, 0.2))
    positions, values, grad = inputs(3000, grid.n_active, 27)
    leaf = values.requires_grad_()
    out = sparse_trilinear(positions, leaf, grid, 0.0)
    (back,) = torch.autograd.grad(out, leaf, grad)
    # linear in the rows where nothing is added for empty nodes: <grad, E v> = <E^T grad, v>
    expected = float((grad.double() * out.detach().double()).sum())
    assert float((back.double() * values.detach().double()).sum()) == pytest.approx(expected, rel=1e-4)


def test_positions_have_gradients_through_the_twin() -> None:
    grid = grid_of(random_mask(4, 0.6))
    positions, values, _ = inputs(5, grid.n_active, 2)
    leaves = positions.double().requires_grad_(), values.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: sparse_trilinear(x, v, grid, -1.0), leaves)
    leaf = positions.clone().requires_grad_()
    sparse_trilinear(leaf, values, grid, -1.0).sum().backward()
    assert leaf.grad.abs().max() > 0


@both
def test_positions_outside_are_taken_to_the_faces(interpolate) -> None:
    grid = grid_of(random_mask(6, 0.7))
    _, values, grad = inputs(6, grid.n_active, 27)
    leaf = values.requires_grad_()
    out = interpolate(WILD, leaf, grid, 0.5)
    on_faces = torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0, 0.5, 0.0]])
    torch.testing.assert_close(out, interpolate(on_faces, values, grid, 0.5))
    (back,) = torch.autograd.grad(out, leaf, grad)
    assert back.isfinite().all()


@both
@pytest.mark.parametrize("fraction", [0.0, 1e-3])
def test_empty_cells_read_exactly_empty(interpolate, fraction: float) -> None:
    active = random_mask(20, fraction)
    positions, values, _ = inputs(400, int(active.sum()), 1)
    near = interpolate(positions, torch.ones_like(values), grid_of(active), 0.0)[:, 0] > 0
    got = interpolate(positions, values, grid_of(active), -10.0)[:, 0]
    assert (~near).sum() > 300
    torch.testing.assert_close(got[~near], torch.full_like(got[~near], -10.0), rtol=1e-6, atol=0)


def test_rows_that_do_not_belong_to_the_mask_are_refused() -> None:
    grid = grid_of(random_mask(6, 0.7))
    positions, values, _ = inputs(3, grid.n_active, 1)
    for wrong in (values[:-1], values[:0], torch.cat([values, values])):
        with pytest.raises(ValueError, match="active nodes need as many rows"):
            sparse_trilinear(positions, wrong, grid, 0.0)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 300), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_words_count_the_active_nodes_before_each(n: int, fraction: float, seed: int) -> None:
    active = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < fraction
    bits = pack_mask(active)
    assert len(bits) == -(-n // 8)
    assert torch.equal(unpack_mask(bits, n), active)
    words, n_active = rank_words(bits)
    assert n_active == int(active.sum())
    rows, found = find_rows(torch.arange(n), NodeGrid(words, n_active, n, 1.0))
    assert torch.equal(found, active)
    assert torch.equal(rows[active], torch.arange(n_active))
