"""The regressor against scikit-learn's contract and its Gaussian process, and what it adds to them."""

import math
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from fieldmorph.bayes.conformal import GAUSSIAN
from fieldmorph.bayes.core import CPCore, TuckerCore
from fieldmorph.bayes.regressor import FunBaTRegressor
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

BRIEF = {"restarts": 1, "rank": 1, "sweeps": 5, "random_state": 0}
EXCEPTIONS: dict[
    str, str
] = {}  # its tag `poor_score` says that it is poor on ten columns, nine of them noise


def waves(n: int, seed: int = 0, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(n, 2))
    return X, 7 + np.sin(5 * X[:, 0]) * np.cos(4 * X[:, 1]) + noise * rng.normal(size=n)


@parametrize_with_checks([FunBaTRegressor(**BRIEF)], expected_failed_checks=lambda _: EXCEPTIONS)
def test_scikit_learns_contract_holds(estimator, check, unchecked) -> None:
    check(estimator)


def test_a_product_of_functions_is_found_with_its_noise() -> None:
    model = FunBaTRegressor(kernel="matern32", random_state=0, restarts=2, sweeps=40).fit(*waves(400))
    X, y = waves(500, seed=1, noise=0)
    mean, sd = model.predict(X, return_std=True)
    assert 1 - np.mean((mean - y) ** 2) / y.var() > 0.97
    assert model.score(X, y) == pytest.approx(1 - np.mean((mean - y) ** 2) / y.var())
    assert 0.09 < sd.min() < np.median(sd) < 0.15  # a new measurement's: noise 0.1 and what is not known
    assert mean.dtype == sd.dtype == np.float64


@pytest.mark.parametrize(("kernel", "nu"), [("matern12", 0.5), ("matern32", 1.5), ("matern52", 2.5)])
def test_one_column_is_a_gaussian_process(kernel: str, nu: float) -> None:
    X, y = waves(60)
    X = X[:, :1]
    model = FunBaTRegressor(kernel=kernel, **{**BRIEF, "sweeps": 20}, cp=True, centre=False).fit(X, y)
    scale = np.sqrt(np.mean(y**2))
    process = model.posterior_.processes[0]
    (precision,) = process.lam.unique().tolist()  # of the noise in the last sweep, for values of variance 1
    lengthscale = model.posterior_.kernels[0].lengthscale.item()
    exact = GaussianProcessRegressor(Matern(lengthscale, nu=nu), alpha=1 / precision, optimizer=None)
    exact.fit(X, y / scale)
    query = np.linspace(-0.5, 1.5, 50)[:, None]
    mean, sd = exact.predict(query, return_std=True)
    np.testing.assert_allclose(model.predict(query), scale * mean, rtol=0, atol=1e-7)
    latent = model.posterior_.predict(torch.tensor(query)).latent_sd.numpy()
    np.testing.assert_allclose(latent, scale * sd, rtol=0, atol=1e-7)


def test_a_core_is_learned_for_few_columns_only() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 8)), rng.normal(size=30)
    cores = [FunBaTRegressor(**{**BRIEF, "rank": 3}).fit(X[:, :k], y).posterior_.core for k in (2, 6, 8)]
    assert [type(core) for core in cores] == [TuckerCore, TuckerCore, CPCore]  # 9, 729 and 6561 entries
    assert isinstance(FunBaTRegressor(**BRIEF, cp=True).fit(X[:, :2], y).posterior_.core, CPCore)
    with pytest.raises(SettingError, match="6561 entries is too large"):
        FunBaTRegressor(**{**BRIEF, "rank": 9}, cp=False).fit(X[:, :4], y)


def test_columns_may_have_ranks_and_kernels_of_their_own() -> None:
    X, y = waves(40)
    model = FunBaTRegressor(**{**BRIEF, "rank": (2, 1)}, kernel=("matern12", "matern52")).fit(X, y)
    assert model.posterior_.ranks == (2, 1)
    assert [kernel.nu for kernel in model.posterior_.kernels] == [0.5, 2.5]
    for wrong, message in (
        ({"kernel": "rbf"}, "unknown kernel 'rbf'; known: matern12"),
        ({"rank": (1, 1, 1)}, "expected one rank, or 2"),
        ({"rank": 0}, "rank must be"),
        ({"calibration": 1.5}, "held out"),
    ):
        with pytest.raises(SettingError, match=message):
            FunBaTRegressor(**{**BRIEF, **wrong}).fit(X, y)


@pytest.mark.parametrize("rank", [2.5, (2.5, 1), "two"])
def test_a_rank_that_is_no_whole_number_is_refused(unchecked: None, rank: Any) -> None:
    with pytest.raises(SettingError, match=r"rank must be a whole number of at least 1; got (2.5|'two')"):
        FunBaTRegressor(**{**BRIEF, "rank": rank}).fit(*waves(20))


def test_settings_are_those_of_the_fit() -> None:
    settings = {"rank": 2, "kernel": "matern12", "cp": True, "centre": False, "restarts": 2, "sweeps": 3}
    reported = FunBaTRegressor(**settings, tol=0.125, random_state=0).fit(*waves(20)).posterior_.provenance
    fitted = {"ranks": (2,), "kernels": ("matern12",), "tolerance": 0.125}
    for name, value in (settings | fitted).items():
        assert name in ("rank", "kernel") or reported[name] == value


def test_intervals_are_calibrated_if_requested() -> None:
    X, y = waves(100)
    plain = FunBaTRegressor(**BRIEF).fit(X, y)
    mean, sd = plain.predict(X, return_std=True)
    ends = plain.predict_interval(X, 0.9)
    np.testing.assert_allclose(
        ends, np.stack([mean - 1.644854 * sd, mean + 1.644854 * sd], axis=1), atol=1e-6
    )
    assert plain.posterior_.intervals == GAUSSIAN
    model = FunBaTRegressor(**BRIEF, calibration=0.4).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), mean)
    assert model.posterior_.provenance["calibration"]["rows"] == 40
    factor = model.posterior_.intervals.factor(0.95)
    np.testing.assert_allclose(model.predict_interval(X)[:, 1], mean + factor * sd)
    assert factor != pytest.approx(1.96, abs=1e-3)


def test_weights_are_repetitions() -> None:
    X, y = waves(30)
    weights = np.arange(30) % 3
    weighted = FunBaTRegressor(**BRIEF).fit(X, y, sample_weight=weights)
    repeated = FunBaTRegressor(**BRIEF).fit(X.repeat(weights, axis=0), y.repeat(weights))
    for got, expected in zip(weighted.predict(X, True), repeated.predict(X, True), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert np.abs(weighted.predict(X) - FunBaTRegressor(**BRIEF).fit(X, y).predict(X)).max() > 1e-3
    with pytest.raises(ValueError, match="zero"):
        FunBaTRegressor(**BRIEF).fit(X, y, sample_weight=0 * weights)
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        FunBaTRegressor(**BRIEF).fit(X, y, sample_weight=weights - 1)


@pytest.mark.parametrize("case", ["constant y", "constant column", "two rows", "duplicates", "seconds"])
def test_poor_data_give_finite_predictions(case: str) -> None:
    X, y = waves(20)
    if case == "constant y":
        y[:] = 3.0
    elif case == "constant column":
        X[:, 1] = 1.0
    elif case == "two rows":
        X, y = X[:2], y[:2]
    elif case == "duplicates":
        X, y = X[np.arange(20) % 3], y[np.arange(20) % 3]
    else:
        X[:, 0] = 1.6e9 + 86400 * np.arange(20)
    model = FunBaTRegressor(restarts=2, sweeps=8, random_state=0).fit(X, y)
    mean, sd = model.predict(np.concatenate([X, X + 1]), return_std=True)
    assert np.isfinite(mean).all()
    assert (np.isfinite(sd) & (sd > 0)).all()
    if case == "constant y":
        np.testing.assert_allclose(mean, 3.0, atol=1e-6)


def test_a_copy_by_pickle_predicts_the_same() -> None:
    X, y = waves(40)
    model = FunBaTRegressor(**BRIEF, calibration=0.5).fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    query = np.linspace(-1, 2, 20).reshape(10, 2)
    for got, expected in zip(copy.predict(query, True), model.predict(query, True), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(copy.predict_interval(query), model.predict_interval(query), rtol=1e-12)
    assert copy.posterior_.intervals == model.posterior_.intervals
    with pytest.raises(ValueError, match="not fitted"):
        check_is_fitted(clone(model))


def test_seeds_decide() -> None:
    X, y = waves(40)
    first, second, other = (FunBaTRegressor(**{**BRIEF, "random_state": s}).fit(X, y) for s in (3, 3, 4))
    assert np.array_equal(first.predict(X), second.predict(X))
    assert not np.array_equal(first.predict(X), other.predict(X))


def test_columns_names_are_the_modes() -> None:
    X, y = waves(30)
    model = FunBaTRegressor(**BRIEF).fit(pd.DataFrame(X, columns=["lat", "time"]), y)
    assert [mode.name for mode in model.posterior_.modes] == ["lat", "time"]
    assert {mode.kind for mode in model.posterior_.modes} == {"number"}  # nothing is read into names
    assert model.n_iter_ == 5


def test_rows_may_come_in_parts() -> None:
    """The first half of an axis, then the other; without a second call nothing is known of that."""
    X, y = waves(300)
    early = X[:, 0] < 0.5
    model = FunBaTRegressor(**{**BRIEF, "sweeps": 60}, kernel="matern32").partial_fit(X[early], y[early])
    truth = waves(300, seed=1, noise=0)
    before = model.score(*truth)
    posterior = model.posterior_
    assert model.partial_fit(X[~early], y[~early]) is model
    assert before < 0.6 < 0.95 < model.score(*truth)
    assert posterior.provenance["rows"] == early.sum() < model.posterior_.provenance["rows"] == 300
    assert model.n_iter_ == model.posterior_.provenance["updates"][0]["sweeps"]
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :1], y)


def test_settings_can_be_searched() -> None:
    search = GridSearchCV(
        FunBaTRegressor(**{**BRIEF, "sweeps": 15}), {"rank": [1], "cp": [True, False]}, cv=2
    )
    search.fit(*waves(60))
    assert set(search.best_params_) == {"rank", "cp"}
    assert not math.isnan(search.best_score_)


def test_settings_may_be_scalars_of_numpy() -> None:
    grid = {"centre": np.array([True, False]), "sweeps": np.arange(4, 6), "tol": np.zeros(1, np.float32)}
    search = GridSearchCV(FunBaTRegressor(**BRIEF), grid, cv=2, error_score="raise").fit(*waves(40))
    assert search.best_params_["sweeps"] in (4, 5)
    pickle.loads(pickle.dumps(search.best_estimator_)).partial_fit(*waves(10, seed=1))
