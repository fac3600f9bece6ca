"""Functional Tucker models as a scikit-learn regressor; every column of X is a mode."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.posterior import Prediction
from fieldmorph.bayes.store import build_posterior, describe_posterior
from fieldmorph.bayes.streaming import update

MAX_CORE_SIZE = 256  # entries up to which a core is learned by default

DESCRIBED = "posterior_"  # attribute that is pickled in the form that files have


class FunBaTRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """Functional Bayesian Tucker or CP regression that passes scikit-learn's estimator checks.

    A value is a sum of products of one smooth function per column. This suits a few columns that act together, such as
    places, times and settings, but not many columns of which most are noise. With one column it is a Gaussian process.

    Every setting is an argument of its own, since scikit-learn clones and searches estimators by their arguments.

    Args:
        rank: number of functions of each column, or a sequence with one number for each.
        prune: treat ranks as maxima and remove functions that the measurements do not need.
        kernel: name of a kernel (`fieldmorph.bayes.covariances.table.choices`), or a sequence with one for each column.
        cp: use a fixed superdiagonal core (CP); None does so if a Tucker core would have more than 256 entries.
        centre: subtract the mean of y.
        calibration: fraction of the rows that is held out to calibrate intervals, by a second fit; 0 for none.
        restarts: random initializations, of which the best is continued.
        sweeps: maximum number of sweeps.
        tol: the fit ends when a sweep gains less than this, in nats per row.
        random_state: of the initializations and of the held-out rows.

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
        """Fit the model to n rows: X (n, columns), y (n,), sample_weight (n,) or None; a weight of 2 counts twice.

        Raises:
            ValueError: rows that scikit-learn's checks refuse, and what `fit` and `fit_calibrated` raise.
        """
        X, y, weights = self._rows(X, y, sample_weight, ensure_min_samples=2)
        names = getattr(self, "feature_names_in_", [f"x{k}" for k in range(X.shape[1])])
        modes = tuple(Mode(str(name)) for name in names)
        observations = Observations(X, y, modes, "y", None, 0, 0, "arrays")
        if self.calibration:
            found = fit_calibrated(observations, self._config(), fraction=self.calibration, weights=weights)
        else:
            found = fit(observations, self._config(), weights=weights)
        self.posterior_, self.n_iter_ = found[0], len(found[1].bounds)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FunBaTRegressor":
        """Fit at the first call, then update the model with more rows (see `bayes.streaming.update`)."""
        if not hasattr(self, "posterior_"):
            return self.fit(X, y, sample_weight)
        X, y, weights = self._rows(X, y, sample_weight, reset=False)
        self.posterior_, report = update(
            self.posterior_, X, y, weights=weights, sweeps=self.sweeps, tolerance=self.tol
        )
        self.n_iter_ = len(report.bounds)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the mean (n,), and with `return_std` also the standard deviation (n,) of a new measurement."""
        found = self._predict(X)
        return (found.mean.numpy(), found.sd.numpy()) if return_std else found.mean.numpy()

    def predict_interval(self, X: Any, level: float = 0.95) -> NDArray[np.float64]:
        """Return the ends (n, 2) of central intervals of new measurements; calibrated if `calibration` is not 0."""
        return torch.stack(self._predict(X).interval(level), dim=1).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # with ten columns of which nine are noise
        return tags

    def _rows(
        self, X: Any, y: Any, sample_weight: Any, **checks: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return rows as tensors, without those of weight 0."""
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
            ranks,
            kernels,
            cp=bool(self.cp),
            prune=self.prune,
            centre=self.centre,
            restarts=self.restarts,
            sweeps=self.sweeps,
            tolerance=self.tol,
            seed=seed,
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
