"""Scores against scipy's densities, integrals and numbers that can be counted."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, t

from fieldmorph.bayes.conformal import GAUSSIAN, Intervals
from fieldmorph.bayes.metrics import score
from fieldmorph.bayes.posterior import Prediction

pytestmark = pytest.mark.numerical


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


@pytest.mark.parametrize("degrees", [2.5, 4.0, 30.0])
def test_scores_of_wild_noise_are_those_of_students_t(degrees: float) -> None:
    sd, mean = tensor(1.0, 0.5, 2.0, 3.0), tensor(0.0, 1.0, -1.0, 10.0)
    found = score(Prediction(mean, 0 * sd, sd, degrees=degrees), VALUES)
    law = t(degrees, mean, sd * math.sqrt((degrees - 2) / degrees))
    assert found["nlpd"] == pytest.approx(-np.mean(law.logpdf(VALUES)), abs=1e-6)
    crps = []
    for k, value in enumerate(VALUES.tolist()):
        one = t(degrees, float(mean[k]), float(sd[k]) * math.sqrt((degrees - 2) / degrees))
        crps.append(quad(lambda x, f=one.cdf: f(x) ** 2, -math.inf, value)[0])
        crps[-1] += quad(lambda x, f=one.sf: f(x) ** 2, value, math.inf)[0]
    assert found["crps"] == pytest.approx(np.mean(crps), abs=1e-5)


def test_an_unsure_function_adds_to_wild_noise() -> None:
    latent, noise, degrees = 0.7, 0.4, 3.0
    law = t(degrees, scale=noise * math.sqrt((degrees - 2) / degrees))
    density = quad(lambda f: norm.pdf(f, 0, latent) * law.pdf(1.3 - f), -math.inf, math.inf, epsabs=1e-12)[0]
    sd = tensor(math.hypot(latent, noise))
    found = score(Prediction(tensor(0.0), tensor(latent), sd, degrees=degrees), tensor(1.3))
    assert found["nlpd"] == pytest.approx(-math.log(density), abs=1e-6)


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
