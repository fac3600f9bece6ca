"""Total variation on a sparse grid: against a straight-line reference and its torch twin."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels.launch import set_threads
from fieldmorph.fields.kernels.total_variation import find_nodes, total_variation, total_variation_torch
from fieldmorph.fields.kernels.voxels import NodeGrid, pack_mask, rank_words

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]

both = pytest.mark.parametrize("variation", [total_variation, total_variation_torch])


def grid_of(active: Tensor) -> NodeGrid:
    return NodeGrid(*rank_words(pack_mask(active.flatten())), active.shape[0], active.shape[0] - 1)


def random_mask(nodes: int, fraction: float, seed: int = 0) -> Tensor:
    return torch.rand(nodes, nodes, nodes, generator=torch.Generator().manual_seed(seed)) < fraction


def table(rows: int, n_features: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, n_features, generator=torch.Generator().manual_seed(seed))


def variation_ref(values: Tensor, active: Tensor, first: int, last: int) -> float:
    """One node and one axis at a time."""
    nodes = [tuple(node) for node in active.nonzero().tolist()]  # in the order of flat indices, as rows are
    row = {node: k for k, node in enumerate(nodes)}
    total = 0.0
    for x, y, z in nodes[first:last]:
        for after in ((x + 1, y, z), (x, y + 1, z), (x, y, z + 1)):
            if after in row:
                total += float((values[row[after]] - values[row[x, y, z]]).double().square().sum())
    return total


@both
def test_steps_between_active_nodes_count(variation) -> None:
    active = torch.zeros(3, 3, 3, dtype=torch.bool)
    active[0, 0, 0] = active[0, 0, 1] = active[1, 0, 1] = active[1, 2, 2] = active[2, 0, 0] = True
    values = torch.tensor([[1.0, 0.0], [3.0, 0.5], [7.0, 0.5], [100.0, 9.0], [-50.0, 9.0]])
    # 000 to 001 along z, 001 to 101 along x; nothing is next to 122 or 200, though 122 and 200 follow in the table
    assert variation(values, grid_of(active), 0, 5).item() == 2**2 + 0.5**2 + 4**2
    assert variation(values, grid_of(active), 0, 1).item() == 2**2 + 0.5**2
    assert variation(values, grid_of(active), 1, 2).item() == 4**2
    assert variation(values, grid_of(active), 2, 2).item() == 0


@both
@pytest.mark.parametrize(("nodes", "fraction"), [(2, 1.0), (3, 0.7), (5, 0.4), (9, 0.05)])
@pytest.mark.parametrize("n_features", [1, 27])
def test_variation_matches_the_reference(variation, nodes: int, fraction: float, n_features: int) -> None:
    active = random_mask(nodes, fraction)
    grid = grid_of(active)
    values, n = table(grid.n_active, n_features), grid.n_active
    for first, last in ((0, n), (0, n // 2), (n // 3, n - 1), (n - 1, n)):
        expected = variation_ref(values, active, first, last)
        assert variation(values, grid, first, last).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    nodes=st.integers(2, 40),
    fraction=st.sampled_from([0.002, 0.05, 0.5, 1.0]),
    n_features=st.sampled_from([1, 2, 27]),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
def test_kernel_matches_the_twin(nodes, fraction, n_features, part, seed) -> None:
    grid = grid_of(random_mask(nodes, fraction, seed))
    values = table(grid.n_active, n_features, seed)
    first, last = sorted(round(p * grid.n_active) for p in part)
    leaf, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    got, expected = (
        f(v, grid, first, last) for f, v in ((total_variation, leaf), (total_variation_torch, exact))
    )
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    (3 * got + leaf.sum()).backward()  # with a dense gradient, as in training
    (3 * expected + exact.sum()).backward()
    torch.testing.assert_close(leaf.grad.to_dense().double(), exact.grad, rtol=1e-5, atol=1e-4)


def test_parts_add_up_to_the_whole() -> None:
    grid = grid_of(random_mask(20, 0.4))
    leaf = table(grid.n_active, 3).requires_grad_()
    (whole,) = torch.autograd.grad(total_variation(leaf, grid, 0, grid.n_active), leaf)
    bounds = [0, 1, 100, 101, 1000, grid.n_active]
    parts = [
        torch.autograd.grad(total_variation(leaf, grid, *pair), leaf)[0].to_dense()
        for pair in itertools.pairwise(bounds)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_few_rows_is_small() -> None:
    grid = grid_of(random_mask(64, 0.5))
    leaf = table(grid.n_active, 1).requires_grad_()
    (grad,) = torch.autograd.grad(total_variation(leaf, grid, 5000, 6000), leaf)
    assert grad.is_sparse
    assert (
        1000 < grad._nnz() < 1000 + 64**2 + 64
    )  # these, a plane of neighbours and what rounding to words adds
    (whole,) = torch.autograd.grad(total_variation(leaf, grid, 0, grid.n_active), leaf)
    assert not whole.is_sparse


@pytest.mark.parametrize("n_features", [1, 27])
def test_any_number_of_threads_gives_the_same_bytes(n_features: int) -> None:
    grid = grid_of(random_mask(33, 0.3))
    results = []
    try:
        for threads in (1, 2, 5, 1):
            set_threads(threads)
            leaf = table(grid.n_active, n_features).requires_grad_()
            out = total_variation(leaf, grid, 777, 9000)
            results.append((out.detach(), torch.autograd.grad(out, leaf)[0].to_dense()))
    finally:
        set_threads(torch.get_num_threads())
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_twin_s_gradient_is_that_of_its_value() -> None:
    grid = grid_of(random_mask(4, 0.6))
    leaf = table(grid.n_active, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: total_variation_torch(v, grid, 3, grid.n_active - 2), leaf)


def test_the_twin_stays_on_its_device() -> None:
    grid = grid_of(random_mask(4, 0.6))
    there = NodeGrid(grid.words.to("meta"), grid.n_active, grid.nodes, grid.scale)
    values = torch.zeros(grid.n_active, 2, device="meta", requires_grad=True)
    total_variation(values, there, 0, 5).backward()
    assert values.grad.device.type == "meta"


def test_rows_that_do_not_belong_to_the_mask_are_refused() -> None:
    grid = grid_of(random_mask(6, 0.7))
    for rows in (0, grid.n_active - 1, grid.n_active + 1):
        with pytest.raises(ValueError, match="active nodes need as many rows"):
            total_variation(table(rows, 1), grid, 0, 1)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 300), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_nodes_of_rows_are_the_active_ones(n: int, fraction: float, seed: int) -> None:
    active = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < fraction
    words, n_active = rank_words(pack_mask(active))
    found = find_nodes(torch.arange(n_active), NodeGrid(words, n_active, n, 1.0))
    assert torch.equal(found, active.nonzero()[:, 0])
