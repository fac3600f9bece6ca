"""Conformal half-widths against ranks counted by hand, and against what they promise."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fieldmorph.bayes.conformal import GAUSSIAN, LEVELS, Intervals, calibrate_intervals
from fieldmorph.bayes.posterior import Prediction
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical


def prediction(intervals: Intervals) -> Prediction:
    mean, sd = torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, 0.5]).double()
    return Prediction(mean, sd / 2, sd, intervals)


def test_factors_are_the_residuals_of_the_textbooks_ranks() -> None:
    # Of n = 19, ceil(20 L): the 10th, 16th, 18th and 19th; 99 % would need the 20th.
    drawn = torch.randperm(19, generator=torch.Generator().manual_seed(0)).double() + 1
    found = calibrate_intervals(drawn)
    assert found.levels == LEVELS
    assert found.factors == (10, 16, 18, 19, 19)
    assert found.guaranteed == pytest.approx(0.95)


@given(st.integers(1, 60), st.integers(1, 99))
def test_the_rank_is_the_smallest_that_suffices(n: int, percent: int) -> None:
    rank = -(-(n + 1) * percent // 100)  # in whole numbers
    found = calibrate_intervals(torch.arange(1, n + 1).double(), levels=(percent / 100,))
    if rank <= n:
        assert found.factors == (rank,)
    else:
        assert found.factors == pytest.approx((max(n, norm.ppf(0.5 + percent / 200)),))


def test_a_new_residual_is_covered_as_often_as_promised(generator: torch.Generator) -> None:
    # Uniform residuals: the k-th smallest of n covers with probability k / (n + 1) in the mean.
    covered = [
        calibrate_intervals(torch.rand(24, generator=generator).double(), levels=(0.8,)).factors[0]
        for _ in range(2000)
    ]
    assert sum(covered) / 2000 == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 25 / 2000))


def test_new_blocks_are_covered_as_often_as_promised(generator: torch.Generator) -> None:
    # A block's residuals are near each other: with rows counted one by one, a large block would decide.
    inside = []
    for _ in range(1500):
        levels = torch.rand(25, generator=generator).double()
        sizes = torch.randint(1, 30, (25,), generator=generator)
        blocks = torch.arange(25).repeat_interleave(sizes)
        known = blocks < 24
        limit = calibrate_intervals(levels[blocks][known], blocks[known], levels=(0.8,)).factors[0]
        inside.append(levels[24].item() <= limit)
    assert sum(inside) / 1500 >= 0.8 - 3 * math.sqrt(0.8 * 0.2 / 1500)


def test_rows_of_a_block_share_its_weight() -> None:
    # Block 0 holds 90 % of the rows, all below the others': it is still a tenth of the blocks.
    scores = torch.cat([torch.zeros(81), torch.arange(1.0, 10)]).double()
    blocks = torch.cat([torch.full((81,), 7), torch.arange(10, 19)])
    found = calibrate_intervals(scores, blocks, levels=(0.5, 0.8))
    assert found.factors == (5, 8)  # of 10 blocks, ceil(11 L) = 6 and 9 of them, block 0 the first
    assert calibrate_intervals(scores, levels=(0.5, 0.8)).factors == (0, 0)
    assert found.guaranteed == pytest.approx(10 / 11)


def test_without_levels_factors_are_the_gaussians() -> None:
    for level in (0.0, 0.5, 0.95, 0.999999):
        assert GAUSSIAN.factor(level) == pytest.approx(norm.ppf(0.5 + level / 2), abs=1e-9)
    assert prediction(GAUSSIAN).quantile(0.25)[0].item() == pytest.approx(1 + norm.ppf(0.25))


def test_factors_grow_through_the_calibrated_ones() -> None:
    intervals = Intervals((0.5, 0.9), (0.3, 3.0), 0.99)
    assert intervals.factor(0.5) == pytest.approx(0.3)
    assert intervals.factor(0.9) == pytest.approx(3.0)
    grown = [intervals.factor(level / 200) for level in range(200)]
    assert grown[0] == 0
    assert all(a < b for a, b in itertools.pairwise(grown))
    # Beyond the last one, as much wider than the Gaussian's as there.
    assert intervals.factor(0.99) == pytest.approx(3.0 * norm.ppf(0.995) / norm.ppf(0.95))


def test_few_residuals_make_no_interval_narrower_than_the_models() -> None:
    found = calibrate_intervals(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert found.factors[0] == 0.2
    assert found.factors[1:] == pytest.approx([norm.ppf(0.5 + level / 2) for level in LEVELS[1:]])
    assert found.guaranteed == 0.75


def test_intervals_and_quantiles_of_a_prediction_agree() -> None:
    found = prediction(Intervals((0.5, 0.9), (0.3, 3.0), 0.99))
    low, high = found.interval(0.9)
    torch.testing.assert_close(low, torch.tensor([1 - 3.0, -2 - 1.5]).double())
    torch.testing.assert_close(high, torch.tensor([1 + 3.0, -2 + 1.5]).double())
    torch.testing.assert_close(found.quantile(0.05), low)
    torch.testing.assert_close(found.quantile(0.95), high)
    torch.testing.assert_close(found.quantile(0.5), found.mean)


@pytest.mark.parametrize("level", [1.0, -0.1, 1.5, math.nan])
def test_an_impossible_level_is_refused(level: float) -> None:
    with pytest.raises(SettingError, match=r"\[0, 1\)"):
        GAUSSIAN.factor(level)


def test_nothing_held_out_is_refused() -> None:
    with pytest.raises(SettingError, match="no rows"):
        calibrate_intervals(torch.zeros(0).double())
