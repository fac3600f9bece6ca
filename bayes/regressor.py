"""Functional Tucker models as a scikit-learn regressor; every column of X is a mode."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fieldmorph.fields.types import StateDict

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("the regressor needs scikit-learn: install fieldmorph[bayes]") from error

from fieldmorph.bayes.calibration import fit_calibrated
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.features import Features, features_of, measured_of, whole_rows
from fieldmorph.bayes.fitting import MAX_CORE_SIZE, FitConfig, fit
from fieldmorph.bayes.posterior import Prediction
from fieldmorph.bayes.store import build_posterior, describe_posterior
from fieldmorph.bayes.streaming import update

DESCRIBED = "posterior_"  # attribute that is pickled in the form that files have


class FunBaTRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """Functional Bayesian Tucker or CP regression that passes scikit-learn's estimator checks.

    A value is a sum of products of one smooth function per column. This suits a few columns that act together, such as
    places, times and settings, but not many columns of which most are noise. With one column it is a Gaussian process.

    X may be an array, a DataFrame, in both of which columns of dates are times, or an xarray object: a DataArray, whose
    dimensions are the modes and whose values are y, or a Dataset of coordinates. Predictions on an xarray object have
    its cells and are DataArrays.

    Every setting is an argument of its own, since scikit-learn clones and searches estimators by their arguments. Their
    defaults are those of `fieldmorph tensor fit`.

    Args:
        rank: number of functions of each column, or a sequence with one number for each.
        prune: treat ranks as maxima and remove functions that the measurements do not need.
        kernel: name of a kernel (`fieldmorph.bayes.covariances.table.choices`), or a sequence with one for each column.
        cp: use a fixed superdiagonal core (CP); None does so if a Tucker core would be too large to be learned.
        centre: subtract the mean of y.
        calibration: fraction of the rows that is held out to calibrate intervals, by a second fit; 0 for none.
        restarts: random initializations, of which the best is continued.
        sweeps: maximum number of sweeps.
        tol: the fit ends when a sweep gains less than this, in nats per row.
        random_state: of the initializations and of the held-out rows; None for other ones at each fit.

    Attributes:
        posterior_: the fitted `Posterior`; it predicts on grids, draws samples, and can be saved by `save_posterior`.
        n_iter_: number of sweeps.
        n_features_in_, feature_names_in_: number and names of the columns.
    """

    def __init__(
        self,
        *,
        rank: Any = 3,
        prune: bool = False,
        kernel: Any = "matern12",
        cp: bool | None = None,
        centre: bool = True,
        calibration: float = 0.0,
        restarts: int = 3,
        sweeps: int = 100,
        tol: float = 5e-4,
        random_state: Any = 0,
    ) -> None:
        self.rank = rank
        self.prune = prune
        self.kernel = kernel
        self.cp = cp
        self.centre = centre
        self.calibration = calibration
        self.restarts = restarts
        self.sweeps = sweeps
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "FunBaTRegressor":
        """Fit the model to n rows: X (n, columns), y (n,), sample_weight (n,) or None; a weight of 2 counts twice.

        Args:
            y: may be left out if X is an xarray DataArray; missing cells of xarray objects are left out.

        Raises:
            ValueError: rows that scikit-learn's checks refuse, and what `fit` and `fit_calibrated` raise.
        """
        measured = X if y is None else y
        features = features_of(X)
        X, y, weights = self._rows(features, X, y, sample_weight, ensure_min_samples=2)
        names = getattr(self, "feature_names_in_", [f"x{k}" for k in range(X.shape[1])])
        modes = features.modes or tuple(Mode(str(name)) for name in names)
        attributes = getattr(measured, "attrs", {}) if features.cells is not None else {}
        observations = Observations(
            X,
            y,
            modes,
            str(getattr(measured, "name", None) or "y") if features.cells is not None else "y",
            attributes.get("units"),
            0,
            0,
            "arrays",
            attributes.get("standard_name"),
        )
        if self.calibration:
            found = fit_calibrated(observations, self._config(), fraction=self.calibration, weights=weights)
        else:
            found = fit(observations, self._config(), weights=weights)
        self.posterior_, self.n_iter_ = found[0], len(found[1].bounds)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "FunBaTRegressor":
        """Fit at the first call, then update the model with more rows (see `bayes.streaming.update`)."""
        if not hasattr(self, "posterior_"):
            return self.fit(X, y, sample_weight)
        features = features_of(X, self.posterior_.modes)
        X, y, weights = self._rows(features, X, y, sample_weight, reset=False)
        self.posterior_, report = update(
            self.posterior_, X, y, weights=weights, sweeps=_plain(self.sweeps), tolerance=_plain(self.tol)
        )
        self.n_iter_ = len(report.bounds)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the mean (n,), and with `return_std` also the standard deviation (n,) of a new measurement.

        At the cells of an xarray object they are DataArrays; cells without coordinates have no value.
        """
        features, found = self._predict(X)
        mean, sd = (self._in_shape(features, values) for values in (found.mean, found.sd))
        return (mean, sd) if return_std else mean

    def predict_interval(self, X: Any, level: float = 0.95) -> Any:
        """Return the ends (n, 2) of central intervals of new measurements; calibrated if `calibration` is not 0.

        At the cells of an xarray object they are a DataArray whose last dimension is `bound`.
        """
        features, found = self._predict(X)
        return self._in_shape(features, torch.stack(found.interval(level), dim=1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # with ten columns of which nine are noise
        return tags

    def _rows(
        self, features: Features, X: Any, y: Any, sample_weight: Any, **checks: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return rows as tensors, without those of weight 0 and without missing cells of xarray objects."""
        X, y = features.columns, measured_of(X, y, features)
        if features.cells is not None:
            kept = whole_rows(X, y)
            X, y = X[kept], y[kept]
            if sample_weight is not None:
                sample_weight = np.asarray(sample_weight, np.float64).ravel()[kept]
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, **checks)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            if not weights.any():
                raise ValueError("sample_weight is zero everywhere")
            X, y, weights = X[weights > 0], y[weights > 0], torch.tensor(weights[weights > 0])
        return torch.tensor(X), torch.tensor(y, dtype=torch.float64), weights

    def _predict(self, X: Any) -> tuple[Features, Prediction]:
        """Return what was given, and predictions at its rows that have coordinates."""
        check_is_fitted(self)
        features = features_of(X, self.posterior_.modes)
        columns = features.columns
        if features.cells is not None:
            columns = columns[_known(features)]
        columns = validate_data(self, columns, dtype=np.float64, reset=False)
        return features, self.posterior_.predict(torch.tensor(columns))

    def _in_shape(self, features: Features, values: Tensor) -> Any:
        """Return predictions in the shape of what was given."""
        if features.cells is None:
            return values.numpy()
        whole = np.full((len(features.columns), *values.shape[1:]), np.nan)
        whole[_known(features)] = values.numpy()
        of = self.posterior_
        attributes = {"units": of.value_unit, "standard_name": of.value_standard_name}
        return features.in_shape(whole, of.value_name, {k: v for k, v in attributes.items() if v is not None})

    def _config(self) -> FitConfig:
        k = self.n_features_in_
        several = np.iterable(self.rank) and not isinstance(self.rank, str)
        ranks = tuple(
            int(r) if isinstance(r, Integral) else r for r in (self.rank if several else (self.rank,))
        )
        kernels = (self.kernel,) if isinstance(self.kernel, str) else tuple(self.kernel)
        seed = self.random_state
        if not isinstance(seed, Integral) or isinstance(seed, bool):
            seed = check_random_state(seed).randint(2**31)
        config = FitConfig(
            ranks,
            kernels,
            cp=bool(self.cp),
            prune=_plain(self.prune),
            centre=_plain(self.centre),
            restarts=_plain(self.restarts),
            sweeps=_plain(self.sweeps),
            tolerance=_plain(self.tol),
            seed=int(seed),
        )
        large = len({*ranks}) == 1 and ranks[0] ** k > MAX_CORE_SIZE
        return replace(config, cp=large) if self.cp is None else config

    def __getstate__(self) -> StateDict:
        """Return a state with the posterior as in its file, since kernels hold functions that cannot be pickled."""
        state: StateDict = super().__getstate__().copy()
        if DESCRIBED in state:
            state[DESCRIBED] = describe_posterior(state[DESCRIBED])
        return state

    def __setstate__(self, state: StateDict) -> None:
        state = dict(state)
        if DESCRIBED in state:
            state[DESCRIBED] = build_posterior(*state[DESCRIBED])
        super().__setstate__(state)


def _known(features: Features) -> Any:
    """Return which cells have all coordinates."""
    return features.columns.notna().all(axis=1).to_numpy()


def _plain(value: Any) -> Any:
    """Return a numpy scalar, as a parameter search over arrays sets them, as a plain number or flag."""
    return value.item() if isinstance(value, np.generic) else value
