"""Layers computed in blocks of rows against plain torch, with gradients."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels import layers
from fieldmorph.fields.kernels.layers import example, layers_blocked, layers_torch

pytestmark = pytest.mark.numerical


def network(
    widths: list[int], skip: int | None, bias: bool, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Random weights and biases of layers from the first width to the last; none with a skip has fewer inputs."""
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(n_out, n_in + (widths[0] if i == skip else 0), generator=generator).double()
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
    ]
    return weights, [torch.randn(n, generator=generator).double() for n in widths[1:]] if bias else []


def rows_of(n: int, width: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1)).double()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 200),
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    skip=st.integers(1, 4) | st.none(),
    bias=st.booleans(),
    block_bytes=st.sampled_from([1, 800, 3000, 1 << 19]),
)
def test_blocks_give_values_and_gradients_of_plain_layers(
    n: int, widths: list[int], skip: int | None, bias: bool, block_bytes: int
) -> None:
    skip = skip if skip is not None and skip < len(widths) - 1 else None
    weights, biases = network(widths, skip, bias)
    leaves = [x.requires_grad_() for x in (rows_of(n, widths[0]), *weights, *biases)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "BLOCK_BYTES", block_bytes)
        results = []
        for function in (layers_blocked, layers_torch):
            out = function(leaves[0], weights, biases, skip, torch.float64)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
        with torch.no_grad():
            results.append([layers_blocked(leaves[0], weights, biases, skip, torch.float64)])
    for got, expected in zip(results[0], results[1], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-9)
    assert torch.equal(results[2][0], results[0][0])


def test_rows_that_need_no_gradient_change_no_other() -> None:
    weights, biases = network([5, 8, 8, 3], 1, True)
    leaves = [x.requires_grad_() for x in (*weights, *biases)]
    rows = rows_of(40, 5)
    alone = torch.autograd.grad(layers_blocked(rows, weights, biases, 1, torch.float64).sum(), leaves)
    rows.requires_grad_()
    both = torch.autograd.grad(layers_blocked(rows, weights, biases, 1, torch.float64).sum(), [rows, *leaves])
    assert all(torch.equal(a, b) for a, b in zip(alone, both[1:], strict=True))


def test_the_number_of_threads_may_change_before_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, _ = network([4, 6, 2], None, False)
    leaves = [w.requires_grad_() for w in weights]
    monkeypatch.setattr(layers, "BLOCK_BYTES", 1)
    grads = []
    for threads in (1, 3):
        monkeypatch.setattr(layers.torch, "get_num_threads", lambda: 1)
        out = layers_blocked(rows_of(50, 4), weights, [], None, torch.float64)
        monkeypatch.setattr(layers.torch, "get_num_threads", lambda threads=threads: threads)
        grads.append(torch.autograd.grad(out.sum(), leaves))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("skip", [None, 1])
def test_gradients_of_gradients_are_those_of_plain_layers(skip: int | None) -> None:
    weights, biases = network([3, 6, 6, 1], skip, True)
    leaves = [x.requires_grad_() for x in (rows_of(8, 3), *weights, *biases)]
    results = []
    for function in (layers_blocked, layers_torch):
        out = function(leaves[0], weights, biases, skip, torch.float64).square().sum()
        (slope,) = torch.autograd.grad(out, leaves[0], create_graph=True)
        results.append(torch.autograd.grad((slope.norm(dim=-1) - 1).square().sum(), leaves))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_gradients_of_bf16_layers_add_up_in_float32() -> None:
    # The gradient of a block of 16 rows is 15 / 4 + 3 / 8 = 33 / 8, which bf16 holds exactly; of the sums over 64
    # blocks, from 128 on, it would keep whole numbers only.
    weights = [torch.ones(1, 1, requires_grad=True) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "BLOCK_BYTES", 1)
        rows = torch.full((16 * 64 * torch.get_num_threads(), 1), 0.25)
        rows[::16] = 0.375
        out = layers_blocked(rows, weights, [], None, torch.bfloat16)
        assert out.dtype == torch.float32
        grads = torch.autograd.grad(out.sum(), weights)
    for grad in grads:
        assert grad.dtype == torch.float32
        assert grad.item() == rows.sum().item()


def test_the_last_block_has_one_of_few_sizes() -> None:
    weights = [torch.zeros(128, 64), torch.zeros(16, 128)]
    size = (1 << 19) // (4 * 128) * torch.get_num_threads()
    sizes = set()
    for n in range(1, 3 * size, 7):
        blocks = layers._blocks(n, weights)
        assert blocks[0].start == 0
        assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
        assert n <= blocks[-1].stop < n + size / layers.BUCKETS
        sizes |= {block.stop - block.start for block in blocks}
    assert max(sizes) == size
    assert len(sizes) <= layers.BUCKETS


@pytest.mark.parametrize("skip", [None, 1, 3])
def test_the_example_has_all_that_a_network_may_have(skip: int | None) -> None:
    of = example(torch.Generator().manual_seed(0), skip=skip)
    for a, b in zip(*(of.run(f, torch.float64) for f in (of.kernel, of.twin)), strict=True):
        for got, expected in zip(a, b, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
