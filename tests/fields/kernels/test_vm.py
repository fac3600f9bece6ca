"""Plane times line: a straight-line reference, the kernel against the torch twin, and what may never happen."""

import itertools
import math
from collections.abc import Iterator

import numba
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels.launch import set_threads
from fieldmorph.fields.kernels.vm import vm_products, vm_products_torch, vm_sum

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]

# Float32 against float64: a position at a resolution of 128 keeps 16 of its 23 bits for the fraction of a cell.
ATOL, RTOL_GRADIENT = 1e-5, 1e-4


def inputs(n: int, resolution: int, n_components: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(n, 3, generator=generator)
    planes = torch.rand(3, resolution, resolution, n_components, generator=generator) - 0.5
    return positions, planes, torch.rand(3, resolution, n_components, generator=generator) - 0.5


def weights_ref(x: float, resolution: int) -> dict[int, float]:
    """Weight of every node in the value at x: hats of width one cell, node k at k / (resolution - 1)."""
    x = min(max(x, 0.0), 1.0) * (resolution - 1)
    return {k: 1 - abs(x - k) for k in range(resolution) if abs(x - k) < 1}


def products_ref(position: list[float], planes: Tensor, lines: Tensor) -> list[float]:
    """Chen et al. (2022), eq. 5: v^Z o M^XY, then v^Y o M^XZ, then v^X o M^YZ, node by node."""
    x, y, z = (weights_ref(p, lines.shape[1]) for p in position)
    products = []
    for mode, (columns, rows, along) in enumerate([(x, y, z), (x, z, y), (y, z, x)]):
        for r in range(lines.shape[2]):
            plane = sum(
                a * b * float(planes[mode, j, i, r]) for i, a in columns.items() for j, b in rows.items()
            )
            products.append(plane * sum(c * float(lines[mode, k, r]) for k, c in along.items()))
    return products


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = numba.get_num_threads()
    set_threads(request.param)
    yield request.param
    set_threads(before)


@pytest.mark.parametrize("products", [vm_products, vm_products_torch])
def test_products_match_the_reference(products) -> None:
    positions, planes, lines = inputs(20, 5, 2)
    positions[:8] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))  # corners
    positions[8:11] = torch.tensor([[0.5, 0.0, 1.0], [0.25, 0.75, 0.5], [1.0, 0.3, 0.3]])  # faces, nodes
    expected = [products_ref(p, planes, lines) for p in positions.tolist()]
    torch.testing.assert_close(products(positions, planes, lines), torch.tensor(expected), rtol=0, atol=1e-6)


def test_two_components_are_worked_by_hand() -> None:
    planes, lines = torch.zeros(3, 2, 2, 1), torch.zeros(3, 2, 1)
    planes[0, 1, 0, 0], lines[0, 1, 0] = (
        8.0,
        3.0,
    )  # of (x, y): x at its first node, y at its second; z at its second
    # (1 - x) y 8 times 3 z at (1/4, 1/2, 1): 3/4 * 1/2 * 8 * 3 = 9
    at = torch.tensor([[0.25, 0.5, 1.0]])
    assert vm_products(at, planes, lines).tolist() == [[9.0, 0.0, 0.0]]
    assert vm_sum(at, planes, lines).tolist() == [9.0]


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([0, 1, 63, 5000]),
    resolution=st.integers(2, 40),
    n_components=st.integers(1, 70),
    seed=st.integers(0, 99),
)
@example(n=9000, resolution=128, n_components=48, seed=0)
@example(n=1, resolution=2, n_components=1, seed=0)
def test_kernel_matches_the_twin(n: int, resolution: int, n_components: int, seed: int) -> None:
    positions, planes, lines = inputs(n, resolution, n_components, seed)
    grad = torch.randn(n, 3 * n_components, generator=torch.Generator().manual_seed(seed))
    for kernel, g in ((vm_products, grad), (vm_sum, grad[:, 0])):
        leaves = [t.clone().requires_grad_() for t in (planes, lines)]
        exact = [t.double().requires_grad_() for t in (planes, lines)]
        got, expected = kernel(positions, *leaves), kernel(positions.double(), *exact)
        assert got.grad_fn.name() != expected.grad_fn.name()  # kernel and twin indeed
        size = math.sqrt(3 * n_components) if kernel is vm_sum else 1.0
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=ATOL * size)
        grads = torch.autograd.grad(got, leaves, g)
        for a, b in zip(grads, torch.autograd.grad(expected, exact, g.double()), strict=True):
            assert (a - b).abs().max() <= RTOL_GRADIENT * max(float(b.abs().max()), 1e-30)


def test_sum_is_the_sum_of_the_products() -> None:
    tensors = inputs(500, 17, 20)
    torch.testing.assert_close(vm_sum(*tensors), vm_products(*tensors).sum(-1))


def test_any_number_of_threads_gives_the_same_bytes(threads: int) -> None:
    positions, planes, lines = inputs(9000, 32, 40)

    def results() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (planes, lines)]
        products, total = vm_products(positions, *leaves), vm_sum(positions, *leaves)
        grad = torch.randn(products.shape, generator=torch.Generator().manual_seed(5))
        return [
            products,
            total,
            *torch.autograd.grad((products * grad).sum() + (total * grad[:, 0]).sum(), leaves),
        ]

    several = results()
    set_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(results(), several, strict=True))


def test_strange_positions_read_nothing_outside() -> None:
    _, planes, lines = inputs(0, 9, 3)
    wild = torch.tensor([[math.nan] * 3, [math.inf] * 3, [-math.inf] * 3, [1e30] * 3, [-5.0] * 3, [7.0] * 3])
    faces = torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3])
    for products in (vm_products, vm_products_torch, vm_sum):
        assert torch.equal(products(wild, planes, lines), products(faces, planes, lines))
    leaves = [t.clone().requires_grad_() for t in (planes, lines)]
    vm_products(wild, *leaves).sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    assert all((leaf.grad[:, 1:-1] == 0).all() for leaf in leaves)  # the faces alone were touched


def test_neighbours_in_memory_are_not_read() -> None:
    # Planes and lines in the middle of larger arrays of nan: one stray read would show.
    positions, planes, lines = inputs(300, 6, 5)
    positions[:8] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    padded = [torch.full((t.numel() + 200,), math.nan) for t in (planes, lines)]
    inside = []
    for room, t in zip(padded, (planes, lines), strict=True):
        room[100:-100] = t.flatten()
        inside.append(room[100:-100].view(t.shape))
    assert torch.equal(vm_products(positions, *inside), vm_products(positions, planes, lines))
    assert vm_sum(positions, *inside).isfinite().all()


def test_positions_have_gradients_through_the_twin() -> None:
    tensors = [t.double().requires_grad_() for t in inputs(6, 4, 2)]
    assert torch.autograd.gradcheck(vm_products, tensors)
    assert torch.autograd.gradcheck(vm_sum, tensors)
    positions, planes, lines = inputs(6, 4, 2)
    vm_sum(positions.requires_grad_(), planes, lines).sum().backward()
    assert positions.grad.abs().max() > 0
