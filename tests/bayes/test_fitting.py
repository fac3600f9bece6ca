"""Fitting: restarts, when to stop, ranks, weights, and what is refused."""

import logging
import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

NAMES = ("x", "y", "z")


def waves(n: int = 700, seed: int = 0, noise: float = 0.1) -> Observations:
    generator = torch.Generator().manual_seed(seed)
    at = (30 * torch.rand(n, 3, generator=generator, dtype=torch.float64)).round() / 30
    x, y, z = at.unbind(1)
    values = 3 + torch.sin(5 * x) * y + torch.cos(4 * y) * z
    values = values + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return Observations(at, values, tuple(Mode(name, "number") for name in NAMES), "v", None, 0, 0, "")


def brief(**settings: Any) -> FitConfig:
    return FitConfig(**{"ranks": (2,), "kernels": ("matern52",), "restarts": 1, "sweeps": 12, **settings})


def test_noise_is_found_and_predictions_are_better_than_it() -> None:
    posterior, report = fit(waves(), FitConfig(ranks=(4,), kernels=("matern52",)))
    assert report.converged
    assert posterior.scale * posterior.noise.variance**0.5 == pytest.approx(0.1, rel=0.1)
    truth = waves(noise=0.0)
    assert (posterior.predict(truth.coordinates).mean - truth.values).square().mean().sqrt() < 0.06


def test_the_beginning_with_the_best_bound_continues() -> None:
    alone = [fit(waves(), brief(seed=seed))[1].bounds for seed in range(3)]
    _, report = fit(waves(), brief(restarts=3, warm_sweeps=12))
    assert report.seed == max(range(3), key=lambda seed: alone[seed][-1])
    assert report.bounds == alone[report.seed]
    assert len({bounds[-1] for bounds in alone}) == 3


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    one, same, other = (
        fit(waves(), brief(seed=seed))[0].predict(waves().coordinates).mean for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    rows = waves(200)
    weights = 1 + (torch.arange(200) < 80).double()
    twice = replace(
        rows,
        coordinates=torch.cat([rows.coordinates, rows.coordinates[:80]]),
        values=torch.cat([rows.values, rows.values[:80]]),
    )
    weighted, given = fit(rows, brief(), weights=weights)[0], fit(twice, brief())[0]
    assert torch.allclose(
        weighted.predict(rows.coordinates).mean, given.predict(rows.coordinates).mean, atol=1e-6
    )


def test_a_fit_stops_when_it_gains_little() -> None:
    _, soon = fit(waves(), brief(sweeps=60, tolerance=0.05))
    _, late = fit(waves(), brief(sweeps=60, tolerance=1e-9, learn_every=0))
    assert soon.converged
    assert len(soon.bounds) < 30
    assert not late.converged
    assert len(late.bounds) == 60


def test_ranks_are_clipped_to_what_can_be_distinguished(caplog: pytest.LogCaptureFixture) -> None:
    rows = waves(200)
    rows.coordinates[:, 2] = (rows.coordinates[:, 2] > 0.5).double()
    with caplog.at_level(logging.WARNING):
        assert fit(rows, brief(ranks=(3,)))[0].ranks == (3, 3, 2)
    assert "rank 3 of mode z exceeds its number of distinct coordinates; using 2" in caplog.text


def test_pruned_ranks_are_those_of_the_data() -> None:
    rows = waves(1500, noise=0.05)
    x, y, z = rows.coordinates.unbind(1)
    noise = rows.values - 3 - torch.sin(5 * x) * y - torch.cos(4 * y) * z
    product = replace(rows, values=torch.sin(5 * x) * (1 + y) * torch.cos(2 * z) + noise)
    posterior, _ = fit(product, FitConfig(ranks=(4,), kernels=("matern52",), prune=True, centre=False))
    assert posterior.ranks == (1, 1, 1)


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"ranks": (2, 3)}, "expected one rank, or 3: one for each mode; got 2"),
        ({"kernels": ("matern12", "matern32")}, "expected one kernel, or 3: one for each mode; got 2"),
        ({"ranks": (2, 2, 3), "cp": True}, "CP has one rank for all modes"),
        ({"ranks": (20,)}, "a core of 8000 entries is too large"),
    ],
)
def test_settings_that_do_not_suit_the_modes_are_refused(settings: dict[str, Any], reported: str) -> None:
    with pytest.raises(SettingError, match=reported):
        fit(waves(100), brief(**settings))


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"ranks": (0,)}, "rank must be a whole number of at least 1; got 0"),
        ({"ranks": ()}, r"ranks must be a tuple with one entry or more; got \(\)"),
        ({"ranks": 3}, "ranks must be a tuple with one entry or more; got 3"),
        ({"ranks": (True,)}, "rank must be a whole number of at least 1; got True"),
        ({"kernels": ()}, r"kernels must be a tuple with one entry or more; got \(\)"),
        ({"kernels": "matern12"}, "kernels must be a tuple with one entry or more; got 'matern12'"),
        ({"kernels": ("matern12", "rbf")}, "unknown kernel 'rbf'; known: matern12, matern32, matern52"),
        ({"cp": 1}, "cp must be True or False; got 1"),
        ({"prune": "yes"}, "prune must be True or False; got 'yes'"),
        ({"centre": None}, "centre must be True or False; got None"),
        ({"restarts": 0}, "restarts must be a whole number of at least 1; got 0"),
        ({"warm_sweeps": 0}, "warm_sweeps must be a whole number of at least 1; got 0"),
        ({"sweeps": 2.0}, "sweeps must be a whole number of at least 1; got 2.0"),
        ({"tolerance": -1e-4}, "tolerance must be a finite number of at least 0; got -0.0001"),
        ({"tolerance": math.nan}, "tolerance must be a finite number of at least 0; got nan"),
        ({"tolerance": math.inf}, "tolerance must be a finite number of at least 0; got inf"),
        ({"tolerance": "0.1"}, "tolerance must be a finite number of at least 0; got '0.1'"),
        ({"learn_every": -1}, "learn_every must be a whole number of at least 0; got -1"),
        ({"student": 2.0}, "Student-t noise needs more than 2 degrees of freedom; got 2.0"),
        ({"student": math.nan}, "Student-t noise needs more than 2 degrees of freedom; got nan"),
        ({"student": "4"}, "Student-t noise needs more than 2 degrees of freedom; got '4'"),
        ({"damping": 1.0}, r"damping must lie in \[0, 1\); got 1.0"),
        ({"damping": math.nan}, r"damping must lie in \[0, 1\); got nan"),
        ({"damping": None}, r"damping must lie in \[0, 1\); got None"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"prune": True, "cp": True}, "prune cannot be used with cp"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    settings: dict[str, Any], reported: str, unchecked: None
) -> None:
    with pytest.raises(SettingError, match=reported + "$" if "got" in reported else reported) as caught:
        FitConfig(**settings)
    assert "\n" not in str(caught.value)


def test_every_setting_of_a_fit_is_checked(unchecked: None) -> None:
    """What nobody could mean is refused for each of them."""
    for setting in fields(FitConfig):
        with pytest.raises(SettingError):
            FitConfig(**{setting.name: object()})
