"""Baselines of `bench tensor`: other packages' methods, with settings that suit them.

Each is fitted to measurements and predicts a Gaussian elsewhere, or only the mean, with a standard deviation of 1.
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gpytorch
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.bayes.calibration import Predict, held_out_scores
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.posterior import Prediction

NEIGHBOURS = 8
TRIED, WEIGHTS = (
    (3, 8, 20),
    (0.1, 1.0, 10.0, 100.0, 1000.0),
)  # numbers of neighbours; of standardised coordinates
LEAVES, RATE = 31, 0.1
SVGP_RATE = 0.05
COMPONENTS, ITERATIONS = 5, 100


Blocks = Int[Tensor, "n"] | None  # of rows that stay together when some are held out


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the other packages' models, and of their training.

    Attributes:
        trees: of gradient boosting.
        inducing, epochs, batch: inducing points, passes over the rows and rows of a step of the sparse process.
        cells: maximum number of cells of a binned tensor, which is dense.
    """

    trees: int = 1000
    inducing: int = 512
    epochs: int = 20
    batch: int = 1024
    cells: int = 1 << 20


@dataclass(frozen=True)
class Method:
    """A method that is fitted to measurements.

    Attributes:
        learn: fits it to rows and returns its predictions; blocks are rows that are held out together.
        package: that it needs; None for none.
        spread: whether it predicts a standard deviation.
    """

    learn: Callable[[Observations, Blocks], Predict]
    package: str | None = None
    spread: bool = True

    def missing(self) -> str | None:
        """Return why it cannot be run here; None where it can."""
        if self.package is None or importlib.util.find_spec(self.package):
            return None
        return f"{self.package} is not installed"


def nearest(
    rows: Observations, blocks: Blocks = None, n: int = NEIGHBOURS, weights: tuple[float, ...] = (1.0,)
) -> Predict:
    """Fit inverse-distance averages of neighbours in standardised coordinates times these weights."""
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(min(n, len(rows.values)), weights="distance")
    return _scikit(model, rows, torch.tensor(weights).double())


def tuned_nearest(rows: Observations, blocks: Blocks) -> Predict:
    """Fit `nearest` with the number of neighbours and the weight of each mode that predict held-out rows best."""

    def error(n: int, weights: tuple[float, ...]) -> float:
        learn = partial(nearest, n=n, weights=weights)
        return float(held_out_scores(rows, lambda rest, _: learn(rest), blocks=blocks)[0].square().nanmean())

    n, weights = NEIGHBOURS, (1.0,) * rows.coordinates.shape[1]
    for _ in range(2):  # coordinate descent, two rounds
        for mode in range(len(weights)):
            several = [(*weights[:mode], weight, *weights[mode + 1 :]) for weight in WEIGHTS]
            weights = min(several, key=lambda each: error(n, each))
        n = min(TRIED, key=lambda each: error(each, weights))
    return nearest(rows, n=n, weights=weights)


def boosting(rows: Observations, _: Blocks = None) -> Predict:
    """Fit scikit-learn's gradient boosting of trees on histograms."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=Sizes().trees,
        max_leaf_nodes=LEAVES,
        learning_rate=RATE,
        early_stopping=False,
        random_state=0,
    )
    return _scikit(model, rows)


def light_boosting(rows: Observations, _: Blocks = None) -> Predict:
    """Fit LightGBM's gradient boosting."""
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(
        n_estimators=Sizes().trees,
        num_leaves=LEAVES,
        learning_rate=RATE,
        random_state=0,
        verbose=-1,
        n_jobs=torch.get_num_threads(),
    )
    return _scikit(model, rows)


def parafac(rows: Observations, _: Blocks = None) -> Predict:
    """Fit CP to the tensor of binned coordinates, its empty cells masked, by alternating least squares.

    Bins are of equal width, or the coordinates themselves where they are few enough. Places outside are in an end bin.
    """
    import tensorly.decomposition

    edges = _edges(rows.coordinates, Sizes().cells)
    shape = [len(edge) + 1 for edge in edges]
    total, count = np.zeros(shape), np.zeros(shape)
    cells = _cells(edges, rows.coordinates)
    mean = float(rows.values.mean())
    np.add.at(total, cells, rows.values.numpy() - mean)
    np.add.at(count, cells, 1.0)
    weights, factors = tensorly.decomposition.parafac(
        total / np.maximum(count, 1),
        COMPONENTS,
        mask=(count > 0).astype(float),
        n_iter_max=ITERATIONS,
        init="random",
        random_state=0,
    )

    def predict(coordinates: Tensor) -> Prediction:
        there = [factor[cell] for factor, cell in zip(factors, _cells(edges, coordinates), strict=True)]
        return _certain(mean + np.prod(there, axis=0) @ weights)

    return predict


class Sparse(gpytorch.models.ApproximateGP):
    """Sparse variational Gaussian process with inducing points (Hensman et al. 2013)."""

    def __init__(self, inducing: Float[Tensor, "m modes"]):
        distribution = gpytorch.variational.CholeskyVariationalDistribution(len(inducing))
        super().__init__(gpytorch.variational.VariationalStrategy(self, inducing, distribution))
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(
            gpytorch.kernels.MaternKernel(nu=1.5, ard_num_dims=inducing.shape[1])
        )

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def sparse_process(rows: Observations, _: Blocks = None) -> Predict:
    """Fit gpytorch's sparse variational Gaussian process, with one lengthscale for each mode."""
    sizes, generator = Sizes(), torch.Generator().manual_seed(0)
    shift, scale = rows.values.mean(), rows.values.std()
    x, y = _standardised(rows.coordinates, rows).float(), ((rows.values - shift) / scale).float()
    model = Sparse(x[torch.randperm(len(x), generator=generator)[: sizes.inducing]].clone())
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    bound = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=len(x))
    steps = sizes.epochs * math.ceil(len(x) / sizes.batch)
    optimizer = torch.optim.Adam([*model.parameters(), *likelihood.parameters()], lr=SVGP_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _epoch in range(sizes.epochs):
        for part in torch.randperm(len(x), generator=generator).split(sizes.batch):
            optimizer.zero_grad()
            (-bound(model(x[part]), y[part])).backward()
            optimizer.step()
            schedule.step()
    model.eval()

    @torch.no_grad()
    def predict(coordinates: Tensor) -> Prediction:
        found = [model(part) for part in _standardised(coordinates, rows).float().split(sizes.batch)]
        mean = torch.cat([each.mean for each in found]).double()
        latent = torch.cat([each.variance for each in found]).double()
        noise = likelihood.noise.double()
        return Prediction(shift + scale * mean, scale * latent.sqrt(), scale * (latent + noise).sqrt())

    return predict


BASELINES = {
    "kNN": Method(nearest, spread=False),
    "kNN-tuned": Method(tuned_nearest, spread=False),
    "HGB": Method(boosting, spread=False),
    "LightGBM": Method(light_boosting, "lightgbm", spread=False),
    "SVGP": Method(sparse_process),
    "parafac": Method(parafac, "tensorly", spread=False),
}


def _scikit(model: Any, rows: Observations, weights: Tensor | float = 1.0) -> Predict:
    model.fit((weights * _standardised(rows.coordinates, rows)).numpy(), rows.values.numpy())
    return lambda at: _certain(model.predict((weights * _standardised(at, rows)).numpy()))


def _certain(mean: np.ndarray) -> Prediction:
    found = torch.from_numpy(np.asarray(mean, dtype=np.float64))
    return Prediction(found, torch.zeros_like(found), torch.ones_like(found))


def _standardised(coordinates: Float[Tensor, "n modes"], rows: Observations) -> Float[Tensor, "n modes"]:
    """Standardise by mean and standard deviation of the training rows' coordinates."""
    known = rows.coordinates
    return (coordinates - known.mean(0)) / known.std(0).clamp(min=1e-12)


def _edges(coordinates: Float[Tensor, "n modes"], cells: int) -> list[np.ndarray]:
    """Return the edges between the bins of every mode, as many for each as this number of cells allows."""
    points = [column.unique().numpy() for column in coordinates.unbind(1)]
    max_bins = max(len(at) for at in points)
    while math.prod(min(max_bins, len(at)) for at in points) > cells:
        max_bins -= 1
    return [
        (at[1:] + at[:-1]) / 2 if len(at) <= max_bins else np.linspace(at[0], at[-1], max_bins + 1)[1:-1]
        for at in points
    ]


def _cells(edges: list[np.ndarray], coordinates: Float[Tensor, "n modes"]) -> tuple[np.ndarray, ...]:
    return tuple(
        np.searchsorted(edge, column.numpy(), side="right")
        for edge, column in zip(edges, coordinates.unbind(1), strict=True)
    )
