"""What `bench tensor` holds functional Tucker models against: other packages' methods, with settings that suit them.

Each learns from measurements and says what it expects at other places: a Gaussian, or the mean alone, with 1 for its
standard deviation.
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
TREES, LEAVES, RATE = 1000, 31, 0.1
INDUCING, EPOCHS, BATCH, SVGP_RATE = 512, 20, 1024, 0.05
CELLS = 1 << 20  # most of a binned tensor: it is stored whole
COMPONENTS, ITERATIONS = 5, 100


Blocks = Int[Tensor, "n"] | None  # of rows that stay together when some are held out


@dataclass(frozen=True)
class Method:
    """How to learn from measurements.

    Attributes:
        package: without which it cannot be run.
        spread: whether it says how far off it may be.
    """

    learn: Callable[[Observations, Blocks], Predict]
    package: str | None = None
    spread: bool = True

    def missing(self) -> str | None:
        """Why it cannot be run here, if so."""
        if self.package is None or importlib.util.find_spec(self.package):
            return None
        return f"{self.package} is not installed"


def nearest(
    rows: Observations, blocks: Blocks = None, n: int = NEIGHBOURS, weights: tuple[float, ...] = (1.0,)
) -> Predict:
    """Neighbours in standardised coordinates times these weights, averaged by one over their distance."""
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(min(n, len(rows.values)), weights="distance")
    return _scikit(model, rows, torch.tensor(weights).double())


def tuned_nearest(rows: Observations, blocks: Blocks) -> Predict:
    """The same with a number of neighbours and a weight for each mode that predict rows or blocks held out best."""

    def error(n: int, weights: tuple[float, ...]) -> float:
        learn = partial(nearest, n=n, weights=weights)
        return float(held_out_scores(rows, lambda rest, _: learn(rest), blocks=blocks)[0].square().nanmean())

    n, weights = NEIGHBOURS, (1.0,) * rows.coordinates.shape[1]
    for _ in range(2):  # one choice after the other, twice
        for mode in range(len(weights)):
            several = [(*weights[:mode], weight, *weights[mode + 1 :]) for weight in WEIGHTS]
            weights = min(several, key=lambda each: error(n, each))
        n = min(TRIED, key=lambda each: error(each, weights))
    return nearest(rows, n=n, weights=weights)


def boosting(rows: Observations, _: Blocks = None) -> Predict:
    """scikit-learn's gradient boosting of trees on histograms."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=RATE, early_stopping=False, random_state=0
    )
    return _scikit(model, rows)


def light_boosting(rows: Observations, _: Blocks = None) -> Predict:
    """LightGBM's."""
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(
        n_estimators=TREES, num_leaves=LEAVES, learning_rate=RATE, random_state=0, verbose=-1,
        n_jobs=torch.get_num_threads(),
    )  # fmt: skip
    return _scikit(model, rows)


def parafac(rows: Observations, _: Blocks = None) -> Predict:
    """CP of the tensor of binned coordinates, its empty cells masked, by alternating least squares.

    Bins are of equal width, or the coordinates themselves where they are few enough. Places outside are in an end bin.
    """
    import tensorly.decomposition

    edges = _edges(rows.coordinates)
    shape = [len(edge) + 1 for edge in edges]
    total, count = np.zeros(shape), np.zeros(shape)
    cells = _cells(edges, rows.coordinates)
    mean = float(rows.values.mean())
    np.add.at(total, cells, rows.values.numpy() - mean)
    np.add.at(count, cells, 1.0)
    weights, factors = tensorly.decomposition.parafac(
        total / np.maximum(count, 1), COMPONENTS, mask=(count > 0).astype(float), n_iter_max=ITERATIONS, init="random",
        random_state=0,
    )  # fmt: skip

    def predict(coordinates: Tensor) -> Prediction:
        there = [factor[cell] for factor, cell in zip(factors, _cells(edges, coordinates), strict=True)]
        return _certain(mean + np.prod(there, axis=0) @ weights)

    return predict


class Sparse(gpytorch.models.ApproximateGP):
    """A Gaussian process told by its values at inducing points (Hensman et al. 2013)."""

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
    """gpytorch's sparse variational Gaussian process, one lengthscale for each mode."""
    generator = torch.Generator().manual_seed(0)
    shift, scale = rows.values.mean(), rows.values.std()
    x, y = _standardised(rows.coordinates, rows).float(), ((rows.values - shift) / scale).float()
    model = Sparse(x[torch.randperm(len(x), generator=generator)[:INDUCING]].clone())
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    bound = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=len(x))
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    optimizer = torch.optim.Adam([*model.parameters(), *likelihood.parameters()], lr=SVGP_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _epoch in range(EPOCHS):
        for part in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            (-bound(model(x[part]), y[part])).backward()
            optimizer.step()
            schedule.step()
    model.eval()

    @torch.no_grad()
    def predict(coordinates: Tensor) -> Prediction:
        found = [model(part) for part in _standardised(coordinates, rows).float().split(BATCH)]
        mean = torch.cat([each.mean for each in found]).double()
        latent = torch.cat([each.variance for each in found]).double()
        noise = likelihood.noise.double()
        return Prediction(shift + scale * mean, scale * latent.sqrt(), scale * (latent + noise).sqrt())

    return predict


PEERS = {
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
    """By mean and deviation of the coordinates of the rows that are learned from."""
    known = rows.coordinates
    return (coordinates - known.mean(0)) / known.std(0).clamp(min=1e-12)


def _edges(coordinates: Float[Tensor, "n modes"]) -> list[np.ndarray]:
    """Between the bins of every mode, as many for each as `CELLS` allow."""
    points = [column.unique().numpy() for column in coordinates.unbind(1)]
    most = max(len(at) for at in points)
    while math.prod(min(most, len(at)) for at in points) > CELLS:
        most -= 1
    return [
        (at[1:] + at[:-1]) / 2 if len(at) <= most else np.linspace(at[0], at[-1], most + 1)[1:-1]
        for at in points
    ]


def _cells(edges: list[np.ndarray], coordinates: Float[Tensor, "n modes"]) -> tuple[np.ndarray, ...]:
    return tuple(
        np.searchsorted(edge, column.numpy(), side="right")
        for edge, column in zip(edges, coordinates.unbind(1), strict=True)
    )
