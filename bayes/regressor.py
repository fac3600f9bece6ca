"""Functional Tucker models as a scikit-learn regressor: every column of X is a mode."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("the regressor needs scikit-learn: install fieldmorph[bayes]") from error

from fieldmorph.bayes.calibration import fit_calibrated
from fieldmorph.bayes.data.observations import Mode, Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.posterior import Prediction
from fieldmorph.bayes.store import build_posterior, describe_posterior
from fieldmorph.bayes.streaming import update

LARGEST_CORE = 256  # entries, up to which a core is learned unless `cp` says

COPIED = "posterior_"


class FunBaTRegressor(RegressorMixin, BaseEstimator):
    """Functional Bayesian Tucker or CP regression, with the estimator's contract of scikit-learn.

    A value is a sum of products of one smooth function per column: right for a few columns that act together, such as
    places, times and settings, not for many of which most are noise. With one column it is a Gaussian process.

    Args:
        rank: functions of each column, or a sequence with one number for each.
        prune: rank is the most; functions that the measurements do not need go.
        kernel: name of a kernel (`fieldmorph.bayes.covariances.table.choices`), or a sequence with one for each column.
        cp: a fixed superdiagonal core; None where a core would have more than 256 entries.
        centre: whether the mean is taken off y.
        calibration: share of the rows that is held out to calibrate intervals, with a second fit; 0 for none.
        restarts: beginnings, of which the best goes on.
        sweeps: at most.
        tol: nats for each row and sweep; with less gain the fit is done.
        random_state: of the beginnings and of the rows held out.

    Attributes:
        posterior_: predicts grids, samples, and is what `save_posterior` takes.
        n_iter_: sweeps done.
    """

    def __init__(
        self,
        *,
        rank: Any = 3,
        prune: bool = False,
        kernel: Any = "matern32",
        cp: bool | None = None,
        centre: bool = True,
        calibration: float = 0.0,
        restarts: int = 3,
        sweeps: int = 100,
        tol: float = 5e-4,
        random_state: Any = None,
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FunBaTRegressor":
        """A weight of 2 is two measurements of the same value."""
        X, y, weights = self._rows(X, y, sample_weight, ensure_min_samples=2)
        names = getattr(self, "feature_names_in_", [f"x{k}" for k in range(X.shape[1])])
        modes = tuple(Mode(str(name)) for name in names)
        observations = Observations(X, y, modes, "y", None, 0, 0, "arrays")
        if self.calibration:
            found = fit_calibrated(observations, self._config(), share=self.calibration, weights=weights)
        else:
            found = fit(observations, self._config(), weights=weights)
        self.posterior_, self.n_iter_ = found[0], len(found[1].bounds)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FunBaTRegressor":
        """`fit` the first time; then learn from more rows without those before (see `bayes.streaming.update`)."""
        if not hasattr(self, "posterior_"):
            return self.fit(X, y, sample_weight)
        X, y, weights = self._rows(X, y, sample_weight, reset=False)
        self.posterior_, report = update(
            self.posterior_, X, y, weights=weights, sweeps=self.sweeps, tolerance=self.tol
        )
        self.n_iter_ = len(report.bounds)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean, and with `return_std` also the standard deviation of a new measurement."""
        found = self._predict(X)
        return (found.mean.numpy(), found.sd.numpy()) if return_std else found.mean.numpy()

    def predict_interval(self, X: Any, level: float = 0.95) -> np.ndarray:
        """Lower and upper ends (n, 2) of what covers this share of new measurements; calibrated if `calibration` is."""
        return torch.stack(self._predict(X).interval(level), dim=1).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = (
            True  # on ten columns, nine of them noise: their product drowns in it
        )
        return tags

    def _rows(
        self, X: Any, y: Any, sample_weight: Any, **checks: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As tensors, those without weight left out."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, **checks)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            if not weights.any():
                raise ValueError("sample_weight is zero everywhere")
            X, y, weights = X[weights > 0], y[weights > 0], torch.tensor(weights[weights > 0])
        return torch.tensor(X), torch.tensor(y, dtype=torch.float64), weights

    def _predict(self, X: Any) -> Prediction:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.posterior_.predict(torch.tensor(X))

    def _config(self) -> FitConfig:
        k = self.n_features_in_
        several = np.iterable(self.rank) and not isinstance(self.rank, str)
        ranks = tuple(
            int(r) if isinstance(r, Integral) else r for r in (self.rank if several else (self.rank,))
        )
        kernels = (self.kernel,) if isinstance(self.kernel, str) else tuple(self.kernel)
        seed = int(check_random_state(self.random_state).randint(2**31))
        config = FitConfig(
            ranks, kernels, cp=bool(self.cp), prune=self.prune, centre=self.centre, restarts=self.restarts,
            sweeps=self.sweeps, tolerance=self.tol, seed=seed,
        )  # fmt: skip
        large = len({*ranks}) == 1 and ranks[0] ** k > LARGEST_CORE
        return replace(config, cp=large) if self.cp is None else config

    def __getstate__(self) -> dict[str, Any]:
        """A posterior's kernels hold functions, which cannot be pickled: it travels as its file would have it."""
        state = super().__getstate__().copy()
        if COPIED in state:
            state[COPIED] = describe_posterior(state[COPIED])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if COPIED in state:
            state[COPIED] = build_posterior(*state[COPIED])
        super().__setstate__(state)
