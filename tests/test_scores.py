"""Scores against scipy's densities, integrals and numbers that can be counted."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from fieldmorph.bayes.intervals import GAUSSIAN, Intervals
from fieldmorph.bayes.posterior import Prediction
from fieldmorph.bayes.scores import score


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def predicted(intervals: Intervals = GAUSSIAN) -> Prediction:
    sd = tensor(1.0, 0.5, 2.0, 3.0)
    return Prediction(tensor(0.0, 1.0, -1.0, 10.0), sd / 3, sd, intervals)


VALUES = tensor(0.3, -0.5, -1.0, 13.0)


def crps_ref(mean: float, sd: float, value: float) -> float:
    """Integral of (F(x) - [x >= value])^2."""
    below = quad(lambda x: norm.cdf(x, mean, sd) ** 2, mean - 12 * sd, value, epsabs=1e-12)[0]
    above = quad(lambda x: norm.sf(x, mean, sd) ** 2, value, mean + 12 * sd, epsabs=1e-12)[0]
    return below + above


def test_errors_are_those_of_the_mean() -> None:
    found = score(predicted(), VALUES)  # errors 0.3, -1.5, 0, 3
    assert found["rmse"] == pytest.approx(math.sqrt((0.09 + 2.25 + 9) / 4))
    assert found["mae"] == pytest.approx(4.8 / 4)


def test_nlpd_is_scipys_density() -> None:
    p = predicted()
    assert score(p, VALUES)["nlpd"] == pytest.approx(-np.mean(norm.logpdf(VALUES, p.mean, p.sd)))


def test_crps_is_the_integral() -> None:
    p = predicted()
    expected = np.mean([crps_ref(*map(float, row)) for row in zip(p.mean, p.sd, VALUES, strict=True)])
    assert score(p, VALUES)["crps"] == pytest.approx(expected, abs=1e-7)


def test_coverage_and_width_are_the_intervals() -> None:
    # In standard deviations the errors are 0.3, -3, 0 and 1; the widths sum to 6.5 of them.
    z = norm.ppf(0.975)
    found = score(predicted(), VALUES)
    assert (found["cov95"], found["width"]) == pytest.approx((0.75, 2 * z * 6.5 / 4))
    narrow = score(predicted(Intervals((0.95,), (0.5,), 1.0)), VALUES)
    assert (narrow["cov95"], narrow["width"]) == pytest.approx((0.5, 2 * 0.5 * 6.5 / 4))
    assert narrow["nlpd"] == found["nlpd"]


def test_scores_are_json_values() -> None:
    found = score(predicted(), VALUES)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"rmse", "mae", "nlpd", "crps", "cov95", "width"}
