"""Products of three lines: a straight-line reference, the kernel against the torch twin, and strange positions."""

import itertools
import math

import numba
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels.cp import cp_products, cp_products_torch, cp_sum
from fieldmorph.fields.kernels.launch import set_threads

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]

# Float32 against float64: positions at a resolution of 512 keep 14 of their 23 bits for the fraction of a cell.
ATOL, RTOL_GRADIENT = 1e-4, 1e-3


def inputs(n: int, resolution: int, n_components: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(n, 3, generator=generator)
    return positions, 2 * torch.rand(3, resolution, n_components, generator=generator) - 1


def line_ref(x: float, line: list[float]) -> float:
    """Node k lies at k / (resolution - 1); beyond the ends the value is theirs."""
    at = min(max(x, 0.0), 1.0) * (len(line) - 1)
    k = min(math.floor(at), len(line) - 2)
    return (1 - (at - k)) * line[k] + (at - k) * line[k + 1]


@pytest.mark.parametrize("products", [cp_products, cp_products_torch])
def test_products_match_the_reference(products) -> None:
    positions, lines = inputs(20, 5, 3)
    positions[:8] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))  # corners
    positions[8:11] = torch.tensor([[0.5, 0.0, 1.0], [0.25, 0.75, 0.5], [1.0, 0.3, 0.3]])  # faces, nodes
    expected = [
        # Chen et al. (2022), eq. 2: v^X_r(x) v^Y_r(y) v^Z_r(z)
        [math.prod(line_ref(p[axis], lines[axis, :, r].tolist()) for axis in range(3)) for r in range(3)]
        for p in positions.tolist()
    ]
    torch.testing.assert_close(products(positions, lines), torch.tensor(expected), rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([0, 1, 63, 5000]),
    resolution=st.integers(2, 512),
    n_components=st.integers(1, 100),
    seed=st.integers(0, 99),
)
@example(n=9000, resolution=500, n_components=288, seed=0)
@example(n=1, resolution=2, n_components=1, seed=0)
def test_kernel_matches_the_twin(n: int, resolution: int, n_components: int, seed: int) -> None:
    positions, lines = inputs(n, resolution, n_components, seed)
    grad = torch.randn(n, n_components, generator=torch.Generator().manual_seed(seed))
    for kernel, g in ((cp_products, grad), (cp_sum, grad[:, 0])):
        leaf, exact = lines.clone().requires_grad_(), lines.double().requires_grad_()
        got, expected = kernel(positions, leaf), kernel(positions.double(), exact)
        assert got.grad_fn.name() != expected.grad_fn.name()  # kernel and twin indeed
        size = math.sqrt(n_components) if kernel is cp_sum else 1.0
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=ATOL * size)
        (a,) = torch.autograd.grad(got, leaf, g)
        (b,) = torch.autograd.grad(expected, exact, g.double())
        assert (a - b).abs().max() <= RTOL_GRADIENT * max(float(b.abs().max()), 1e-30)


def test_sum_is_the_sum_of_the_products() -> None:
    positions, lines = inputs(500, 17, 20)
    torch.testing.assert_close(cp_sum(positions, lines), cp_products(positions, lines).sum(-1))


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    positions, lines = inputs(9000, 32, 70)
    grad = torch.randn(9000, 70, generator=torch.Generator().manual_seed(5))

    def results(n_threads: int) -> list[Tensor]:
        set_threads(n_threads)
        leaf = lines.clone().requires_grad_()
        products, total = cp_products(positions, leaf), cp_sum(positions, leaf)
        return [
            products,
            total,
            *torch.autograd.grad((products * grad).sum() + (total * grad[:, 0]).sum(), leaf),
        ]

    before = numba.get_num_threads()
    try:
        alone = results(1)
        for n_threads in (2, 3):
            assert all(torch.equal(a, b) for a, b in zip(alone, results(n_threads), strict=True))
    finally:
        set_threads(before)


def test_strange_positions_read_nothing_outside() -> None:
    _, lines = inputs(0, 9, 3)
    wild = torch.tensor([[math.nan] * 3, [math.inf] * 3, [-math.inf] * 3, [1e30] * 3, [-5.0] * 3, [7.0] * 3])
    faces = torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3])
    for products in (cp_products, cp_products_torch, cp_sum):
        assert torch.equal(products(wild, lines), products(faces, lines))
    leaf = lines.clone().requires_grad_()
    cp_products(wild, leaf).sum().backward()
    assert leaf.grad.isfinite().all()
    assert (leaf.grad[:, 1:-1] == 0).all()  # the ends alone were touched


def test_neighbours_in_memory_are_not_read() -> None:
    positions, lines = inputs(300, 6, 5)
    positions[:8] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    room = torch.full((lines.numel() + 200,), math.nan)
    room[100:-100] = lines.flatten()
    inside = room[100:-100].view(lines.shape)
    assert torch.equal(cp_products(positions, inside), cp_products(positions, lines))


def test_positions_have_gradients_through_the_twin() -> None:
    positions, lines = inputs(6, 4, 2)
    exact = positions.double().requires_grad_(), lines.double().requires_grad_()
    assert torch.autograd.gradcheck(cp_products, exact)
    assert torch.autograd.gradcheck(cp_sum, exact)
    cp_sum(positions.requires_grad_(), lines).sum().backward()
    assert positions.grad.abs().max() > 0
