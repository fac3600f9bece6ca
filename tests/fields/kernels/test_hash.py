"""tiny-cuda-nn's hash grid: its format from a straight-line reference, and the kernel against the torch twin."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import HashLevels, hash_levels
from fieldmorph.fields.kernels.ops import hash_encode

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]

F = np.float32

# A weight is rounded 5 times (three 1 - f, two products), its product with an entry once, their sum 7 times; entries
# are at most 1/2 and weights sum to 1. Positions are the same bits: scale * x + 0.5 is rounded once on any processor.
ROUNDING = 13 * 2**-24 * 0.5

# Vertices per axis, 16 levels from 16. In real arithmetic level 3 of 512 has 16 * 2 = 32, and 1024 level 5 has 64;
# float32 gives 33 and 65 there. 33^3 no longer fits into 2^15 entries, so the level is hashed instead of dense.
RESOLUTIONS = {
    500: [16, 21, 26, 32, 41, 51, 64, 80, 101, 127, 159, 200, 252, 316, 398, 500],
    512: [16, 21, 26, 33, 41, 51, 65, 81, 102, 129, 162, 204, 257, 323, 407, 513],
    1000: [16, 22, 28, 37, 49, 64, 84, 111, 146, 192, 252, 332, 438, 577, 760, 1000],
    1024: [16, 22, 28, 37, 49, 65, 85, 112, 148, 195, 257, 338, 446, 589, 777, 1025],
    2048: [16, 23, 31, 43, 59, 81, 112, 154, 213, 295, 407, 562, 777, 1073, 1483, 2048],
}


def levels_of(finest: int, log2_size: int, n_levels: int = 16, base: int = 16) -> HashLevels:
    return hash_levels(n_levels, log2_size, base, 2 ** (math.log2(finest / base) / max(n_levels - 1, 1)))


def levels_ref(n_levels: int, log2_size: int, base: int, growth: float) -> list[tuple[float, int, int, bool]]:
    """Scale, vertices per axis, entries and hashed or not (Müller et al. 2022, eq. 2 and 3, in float32)."""
    log2_growth = F(math.log2(float(F(growth))))
    out = []
    for level in range(n_levels):
        power = F(math.pow(2.0, float(F(F(level) * log2_growth))))
        scale = F(F(power * F(base)) - F(1))
        resolution = math.ceil(float(scale)) + 1
        entries = -(-(resolution**3) // 8) * 8
        out.append((float(scale), resolution, min(entries, 2**log2_size), resolution**3 > 2**log2_size))
    return out


def index_ref(x: int, y: int, z: int, resolution: int, size: int, hashed: bool) -> int:
    """Müller et al. (2022), eq. 4; its wrap of 32 bits spelled out."""
    if hashed:
        return (x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)) % size
    return (x + y * resolution + z * resolution * resolution) % size


def encode_ref(position: tuple[float, ...], table: np.ndarray, levels: list[tuple]) -> list[float]:
    """One position, corner by corner."""
    features, first = [], 0
    for scale, resolution, size, hashed in levels:
        at = [float(F(scale * float(F(p)) + 0.5)) for p in position]
        low = [math.floor(a) for a in at]
        total = np.zeros(table.shape[1])
        for corner in itertools.product((0, 1), repeat=3):
            weight = math.prod(a - b if c else 1 - (a - b) for a, b, c in zip(at, low, corner, strict=True))
            vertex = [b + c for b, c in zip(low, corner, strict=True)]
            total += weight * table[first + index_ref(*vertex, resolution, size, hashed)]
        features += total.tolist()
        first += size
    return features


def inputs(levels: HashLevels, n: int, n_features: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(n, 3, generator=generator)
    table = torch.rand(levels.n_entries, n_features, generator=generator) - 0.5
    return positions, table, torch.randn(n, len(levels.scales) * n_features, generator=generator)


@pytest.mark.parametrize("finest", RESOLUTIONS)
def test_resolutions_are_pinned(finest: int) -> None:
    assert levels_of(finest, 19).resolutions.tolist() == RESOLUTIONS[finest]


@pytest.mark.parametrize("finest", [500, 1000, 2048])
def test_clean_resolutions_are_those_of_real_arithmetic(finest: int) -> None:
    real = [math.ceil(16 * (finest / 16) ** (level / 15) - 1 - 1e-9) + 1 for level in range(16)]
    assert RESOLUTIONS[finest] == real


@pytest.mark.parametrize(("finest", "log2_size"), [(512, 15), (2048, 19), (1024, 17), (64, 24)])
def test_levels_match_the_reference(finest: int, log2_size: int) -> None:
    levels = levels_of(finest, log2_size)
    expected = levels_ref(16, log2_size, 16, (finest / 16) ** (1 / 15))
    got = zip(levels.scales, levels.resolutions, levels.sizes, levels.hashed, strict=True)
    assert [(float(s), int(r), int(n), bool(h)) for s, r, n, h in got] == expected
    assert levels.offsets.tolist() == [0, *np.cumsum([n for _, _, n, _ in expected])]


def test_float32_rounding_turns_a_dense_level_into_a_hashed_one() -> None:
    assert levels_of(512, 15).hashed.tolist() == [False] * 3 + [True] * 13  # 33^3 > 2^15
    assert levels_of(500, 15).hashed.tolist() == [False] * 4 + [True] * 12  # 32^3 = 2^15 just fits


def test_parameter_counts_are_worked_by_hand() -> None:
    # 16^3, 21^3 = 9261 and 26^3 rounded up to eights, then 13 full tables
    assert levels_of(512, 15).n_entries == 4096 + 9264 + 17576 + 13 * 2**15


@pytest.mark.parametrize("encode", [hash_encode, hash_encode_torch])
def test_far_faces_wrap_around(encode) -> None:
    levels = hash_levels(1, 12, 16, 1.0)  # one dense level: scale 15, 16^3 entries
    table = torch.arange(4096, dtype=torch.float32)[:, None]
    # At the corner (1, 1, 1) the sample lies at 15.5, between vertices 15 and 16. x + 16 y + 256 z mod 4096 of the
    # eight: 4095, 0, 15, 16, 255, 256, 271, 272; each weighs 1/8.
    got = encode(torch.ones(1, 3), table, levels)
    assert got.item() == (4095 + 0 + 15 + 16 + 255 + 256 + 271 + 272) / 8


@pytest.mark.parametrize("encode", [hash_encode, hash_encode_torch])
@pytest.mark.parametrize(("finest", "log2_size", "n_features"), [(512, 15, 2), (2048, 14, 1), (64, 19, 4)])
def test_encoding_matches_the_reference(encode, finest: int, log2_size: int, n_features: int) -> None:
    levels = levels_of(finest, log2_size)
    positions, table, _ = inputs(levels, 40, n_features)
    positions[:8] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    positions[8] = torch.tensor([0.5, 0.0, 1.0])
    shapes = levels_ref(16, log2_size, 16, (finest / 16) ** (1 / 15))
    expected = [encode_ref(p, table.double().numpy(), shapes) for p in positions.tolist()]
    got = encode(positions, table, levels).double()
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=0, atol=ROUNDING)


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([0, 1, 63, 64, 65, 130, 20_000]),
    n_levels=st.integers(1, 20),
    n_features=st.sampled_from([1, 2, 4]),
    log2_size=st.integers(4, 16),
    base=st.integers(1, 20),
    growth=st.floats(1.0, 2.0),
    seed=st.integers(0, 99),
)
@example(n=65, n_levels=19, n_features=2, log2_size=4, base=8, growth=2.0, seed=0)  # cells beyond int64
def test_kernel_matches_the_twin(n, n_levels, n_features, log2_size, base, growth, seed) -> None:
    levels = hash_levels(n_levels, log2_size, base, growth)
    positions, table, grad = inputs(levels, n, n_features, seed)
    leaf, exact = table.clone().requires_grad_(), table.double().requires_grad_()
    got, expected = hash_encode(positions, leaf, levels), hash_encode_torch(positions, exact, levels)
    torch.testing.assert_close(
        got.double(), expected, rtol=0, atol=2 * ROUNDING
    )  # the twin's weights are float32
    got.backward(grad)
    expected.backward(grad.double())
    scale = exact.grad.abs().max().clamp(min=1e-30)
    assert ((leaf.grad - exact.grad).abs().max() / scale) < 1e-4


def test_backward_repeats_exactly() -> None:
    levels = levels_of(512, 15)
    positions, table, grad = inputs(levels, 30_000)
    leaf = table.requires_grad_()
    first, second = (
        torch.autograd.grad(hash_encode(positions, leaf, levels), leaf, grad)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_gradient_is_the_transpose_of_the_encoding() -> None:
    levels = levels_of(128, 12, n_levels=4)
    positions, table, grad = inputs(levels, 500)
    leaf = table.requires_grad_()
    encoded = hash_encode(positions, leaf, levels)
    image = float((grad * encoded.detach()).sum())
    (table_grad,) = torch.autograd.grad(encoded, leaf, grad)
    # the encoding is linear in the table: <grad, E t> = <E^T grad, t>
    assert image == pytest.approx(float((table_grad * table.detach()).sum()), rel=1e-3, abs=1e-3)


def test_positions_have_gradients_through_the_twin() -> None:
    levels = hash_levels(2, 6, 2, 1.7)
    positions, table, _ = inputs(levels, 4)
    positions = positions.double().requires_grad_()
    table = table.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, t: hash_encode(x, t, levels), (positions, table))
    leaf = positions.detach().float().requires_grad_()
    hash_encode(leaf, table.detach().float(), levels).sum().backward()
    assert leaf.grad.abs().max() > 0


def test_numbers_outside_the_box_stay_inside_the_table() -> None:
    levels = levels_of(64, 15, n_levels=4)
    _, table, _ = inputs(levels, 0)
    wild = torch.tensor([[math.nan] * 3, [math.inf] * 3, [-math.inf] * 3, [1e30] * 3, [-5.0] * 3, [7.0] * 3])
    assert hash_encode(wild, table, levels).shape == (6, 8)  # whatever the values, no crash
    inside = torch.full((6, 3), 0.3)
    torch.testing.assert_close(hash_encode(inside, table, levels), hash_encode_torch(inside, table, levels))


def test_float64_positions_do_not_need_a_second_kernel() -> None:
    levels = levels_of(64, 15, n_levels=4)
    positions, table, _ = inputs(levels, 50)
    assert torch.equal(hash_encode(positions.double(), table, levels), hash_encode(positions, table, levels))
