"""NeRF's positional encoding: the kernel against sines and cosines in double precision."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fieldmorph.fields.encodings import positional_encoding
from fieldmorph.fields.kernels.positional import positional_encoding_numba, positional_encoding_torch

pytestmark = pytest.mark.numerical


@given(
    x=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=8),
    n_frequencies=st.integers(0, 16),
)
def test_kernel_matches_double_precision(x: list[float], n_frequencies: int) -> None:
    positions = torch.tensor(x)[:, None].expand(-1, 3)
    expected = positional_encoding_torch(positions.double(), n_frequencies)
    got = positional_encoding_numba(positions, n_frequencies)
    assert got.shape == (len(x), 3 * (1 + 2 * n_frequencies))
    # the polynomial's error of 7e-9, and a few roundings of numbers up to pi
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6)


def test_order_is_positions_then_sines_then_cosines() -> None:
    positions = torch.tensor([[0.0, 0.25, 0.5]])
    half = math.sqrt(0.5)
    sines, cosines = [0, half, 1, 0, 1, 0], [1, half, 0, 1, 0, -1]
    expected = torch.tensor([[0, 0.25, 0.5, *sines, *cosines]])
    for encode in (positional_encoding_numba, positional_encoding_torch):
        torch.testing.assert_close(encode(positions, 2), expected, rtol=0, atol=1e-6)


def test_what_is_not_finite_stays_so() -> None:
    encoded = positional_encoding_numba(torch.tensor([[math.nan, math.inf, 0.5]]), 2)
    assert encoded[0, [3, 6, 9, 12]].isnan().all()
    assert not encoded[0, [4, 7, 10, 13]].isfinite().any()
    assert encoded[0, [5, 8, 11, 14]].isfinite().all()


def test_positions_that_need_a_gradient_have_one() -> None:
    x = torch.tensor([[0.1, -0.2, 0.3]], requires_grad=True)
    encoded = positional_encoding(x, 1)
    (slope,) = torch.autograd.grad(encoded[0, 3:6].sum(), x)
    torch.testing.assert_close(slope, math.pi * torch.cos(math.pi * x))
    assert positional_encoding(x.detach().double(), 1).dtype == torch.float64
