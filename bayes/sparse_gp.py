"""Sparse variational Gaussian process of several coordinates jointly, with inducing points among the places.

It is gpytorch's (Hensman et al. 2013, arXiv 1309.6835). Since the noise is Gaussian, the optimal distribution of the
inducing values has a closed form for given hyperparameters (Titsias 2009), and these maximize the collapsed bound,
whose gradient is that of the variational bound at that optimum. So there is no step size and no order of minibatches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from gpytorch import settings
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel, ScaleKernel
from gpytorch.means import ZeroMean
from gpytorch.models import ApproximateGP
from gpytorch.priors import LogNormalPrior
from gpytorch.variational import CholeskyVariationalDistribution, VariationalStrategy
from jaxtyping import Float, Int
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.entries import merge_rows
from fieldmorph.bayes.hyperparameters import log_prior
from fieldmorph.fields.errors import SettingError

ITERATIONS = 50
TOLERANCE = 1e-3  # gain in nats, or change of a logarithm, at which the optimizer stops
ROWS_AT_ONCE = 1 << 13
MIN_VARIANCE = 1e-6  # of a unit variance; places with less need no inducing point
PRIOR_SD = 2.0  # of the logarithms of lengthscales and variance, in units of the data
MIN_NOISE = 1e-4  # of the values' variance


@dataclass(frozen=True)
class SparseGP:
    """A Gaussian process with mean zero and a kernel of the table's `choices`, given the measurements.

    Attributes:
        columns: of the coordinates that it is a function of; it is constant along all others.
        kernel: its name in the table of covariances.
        lengthscale: along each of these columns, in the coordinates' units.
        amplitude: prior standard deviation, in the value's unit.
        inducing: inducing points.
        mean, root: mean and root of the covariance (root root') of the whitened values there, that is divided by the
            amplitude and the Cholesky factor of their prior correlations.
    """

    columns: tuple[int, ...]
    kernel: str
    lengthscale: Float[Tensor, "columns"]
    amplitude: float
    inducing: Float[Tensor, "m columns"]
    mean: Float[Tensor, "m"]
    root: Float[Tensor, "m m"]

    @torch.no_grad()
    def at(self, coordinates: Float[Tensor, "n modes"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Return mean and variance of the function, in the value's unit and its square.

        Args:
            coordinates: in the units of the fit, all columns of them.
        """
        places, rows = coordinates[:, self.columns].double().unique(dim=0, return_inverse=True)
        mean, variance = self._moments(places)
        return mean[rows], variance[rows]

    @torch.no_grad()
    def on_grid(
        self, axes: Sequence[Float[Tensor, "_"]]
    ) -> tuple[Float[Tensor, "*grid"], Float[Tensor, "*grid"]]:
        """Return the same on a grid, an axis for each mode; its length is 1 along modes that do not matter."""
        places = torch.cartesian_prod(*(axes[k] for k in self.columns)).reshape(-1, len(self.columns))
        shape = [len(axis) if k in self.columns else 1 for k, axis in enumerate(axes)]
        mean, variance = self._moments(places.double())
        return mean.reshape(shape), variance.reshape(shape)

    @torch.no_grad()
    def sample(
        self,
        coordinates: Float[Tensor, "n modes"],
        n_samples: int,
        generator: torch.Generator,
        max_places: int = 4000,
    ) -> Float[Tensor, "samples n"]:
        """Return joint samples of the function, in the value's unit.

        Args:
            coordinates: in the units of the fit, all columns of them.
            n_samples: number of joint samples.
            generator: of the draws.
            max_places: number of distinct places; their covariance is a dense matrix.

        Raises:
            SettingError: more distinct places than `max_places`.
        """
        places, rows = coordinates[:, self.columns].double().unique(dim=0, return_inverse=True)
        if len(places) > max_places:
            raise SettingError(
                f"with a residual process, joint samples are limited to {max_places} distinct places; "
                f"got {len(places)}"
            )
        found = self._process(places)
        noise = torch.randn(n_samples, len(places), generator=generator, dtype=torch.float64)
        drawn: Tensor = found.mean + noise @ psd_safe_cholesky(found.covariance_matrix).T
        return self.amplitude * drawn[:, rows]

    def _moments(self, places: Float[Tensor, "n columns"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        parts = [self._process.marginals(part) for part in places.split(ROWS_AT_ONCE)]
        mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return self.amplitude * mean, self.amplitude**2 * variance

    @cached_property
    def _process(self) -> "_Process":
        kernel = choice(self.kernel).make(ard_num_dims=len(self.columns))
        kernel.lengthscale = self.lengthscale
        process = _Process(kernel, self.inducing)
        process.set_inducing_values(self.mean, self.root)
        process.eval()
        return process


def fit_sparse(
    coordinates: Float[Tensor, "n modes"],
    values: Float[Tensor, "n"],
    *,
    columns: Sequence[int] | None = None,
    n_inducing: int = 256,
    kernel: str = "matern12",
    weights: Float[Tensor, "n"] | None = None,
    seed: int = 0,
    max_candidates: int = 10_000,
    max_learning_places: int = 2048,
) -> SparseGP:
    """Fit a sparse Gaussian process with Gaussian noise to values, whose mean is subtracted.

    Rows at the same place are merged, so that the process is exact for at most `n_inducing` places. Lengthscales and
    variance have log-normal priors, around the places' standard deviations and the values' variance.

    Args:
        columns: of the coordinates that the function depends on; by default all.
        n_inducing: maximum number of inducing points; time is proportional to the places times its square.
        kernel: one of the table's `choices`.
        weights: of the rows, at least 0.
        seed: of the draw of places for hyperparameters and inducing points, where there are more than needed.
        max_candidates: places among which inducing points are chosen.
        max_learning_places: from which hyperparameters are learned.

    Raises:
        SettingError: an unknown kernel.
    """
    columns = tuple(range(coordinates.shape[1]) if columns is None else columns)
    weights = torch.ones_like(values) if weights is None else weights
    places, y, count, scatter = _merged(coordinates[:, columns], values, weights)
    scale = float((y.square() @ count + scatter) / count.sum()) ** 0.5 or 1.0
    y, scatter = y / scale, scatter / scale**2
    spread = places.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    some, many = order[:max_learning_places], order[:max_candidates]
    scatter = scatter * float(count[some].sum() / count.sum())
    learned, noise = _learn(places[some] / spread, y[some], count[some], scatter, n_inducing, kernel)
    lengthscale = learned.base_kernel.lengthscale.detach()[0]
    variance = float(learned.outputscale.detach())
    inducing = places[many][_choose(learned.base_kernel, places[many] / spread, n_inducing)]
    blank = torch.zeros(len(inducing), dtype=torch.float64)
    prior = SparseGP(
        columns, kernel, lengthscale * spread, scale * variance**0.5, inducing, blank, torch.diag(blank + 1)
    )
    known = _optimal_values(prior._process, places, y / variance**0.5, count * variance / noise)
    return SparseGP(prior.columns, kernel, prior.lengthscale, prior.amplitude, inducing, *known)


class _Process(ApproximateGP):  # type: ignore[misc]  # gpytorch has no annotations
    """gpytorch's sparse variational process with mean zero."""

    def __init__(self, kernel: Kernel, inducing: Float[Tensor, "m columns"]) -> None:
        distribution = CholeskyVariationalDistribution(len(inducing))
        super().__init__(VariationalStrategy(self, inducing, distribution, learn_inducing_locations=False))
        self.mean, self.kernel, self.distribution = ZeroMean(), kernel, distribution
        self.variational_strategy.variational_params_initialized.fill_(1)  # or gpytorch draws them at random
        self.double()

    def forward(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean(x), self.kernel(x))

    def marginals(self, x: Float[Tensor, "n columns"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Return mean and variance; gpytorch's own `variance` warns about rounding."""
        found = self(x)
        return found.mean, found.lazy_covariance_matrix.diagonal().clamp(min=0)

    @torch.no_grad()
    def set_inducing_values(self, mean: Float[Tensor, "m"], root: Float[Tensor, "m m"]) -> None:
        """Set mean and covariance root of the whitened values at the inducing points."""
        self.distribution.variational_mean.copy_(mean)
        self.distribution.chol_variational_covar.copy_(root)


def _merged(
    coordinates: Tensor, values: Tensor, weights: Tensor
) -> tuple[Float[Tensor, "places columns"], Float[Tensor, "places"], Float[Tensor, "places"], float]:
    """Return places, mean and sum of weights there, and the weighted sum of squares around these means."""
    counted = weights > 0
    values, weights = values[counted].double(), weights[counted].double()
    values = values - values @ weights / weights.sum()
    entries = merge_rows(coordinates[counted], values, weights)
    places = [points[i] for points, i in zip(entries.points, entries.index.unbind(1), strict=True)]
    mean = entries.total / entries.weight
    scatter = entries.squares - float(entries.total @ mean)
    return torch.stack(places, dim=1), mean, entries.weight, max(scatter, 0.0)


def _learn(
    x: Float[Tensor, "n columns"],
    y: Float[Tensor, "n"],
    count: Float[Tensor, "n"],
    scatter: float,
    n_inducing: int,
    kernel_name: str,
) -> tuple[ScaleKernel, float]:
    """Return the kernel and the noise variance that maximize the collapsed bound plus the log priors."""
    prior = LogNormalPrior(0.0, PRIOR_SD)
    kernel = ScaleKernel(
        choice(kernel_name).make(ard_num_dims=x.shape[1], lengthscale_prior=prior), outputscale_prior=prior
    ).double()
    kernel.outputscale = kernel.base_kernel.lengthscale = 1.0
    process = _Process(kernel, x[_choose(kernel, x, n_inducing)]).train()
    log_noise = torch.full((), -1.0, dtype=torch.float64, requires_grad=True)
    free = [*kernel.parameters(), log_noise]
    optimizer = torch.optim.LBFGS(
        free, max_iter=ITERATIONS, tolerance_change=TOLERANCE, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        noise = log_noise.exp() + MIN_NOISE
        process.set_inducing_values(*_optimal_values(process, x, y, count / noise.detach()))
        mean, variance = process.marginals(x)
        left = (count * ((y - mean).square() + variance)).sum() + scatter
        fit = -(left / noise + count.sum() * noise.log()) / 2
        bound: Tensor = fit - process.variational_strategy.kl_divergence() + log_prior(kernel)
        (-bound).backward()
        return -bound.detach()

    optimizer.step(loss)
    return kernel, float(log_noise.detach().exp()) + MIN_NOISE


@torch.no_grad()
def _optimal_values(
    process: _Process, x: Float[Tensor, "n columns"], y: Float[Tensor, "n"], precision: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m m"]]:
    """Return the optimal whitened mean and root for values with Gaussian noise (Titsias 2009, equation 10)."""
    inducing = process.variational_strategy.inducing_points
    jitter = settings.variational_cholesky_jitter.value(torch.float64)
    eye = torch.eye(len(inducing), dtype=torch.float64)
    root = psd_safe_cholesky(process.kernel(inducing).to_dense() + jitter * eye)
    total, information = torch.zeros(len(inducing), dtype=torch.float64), eye
    for part in torch.arange(len(x)).split(ROWS_AT_ONCE):
        seen = torch.linalg.solve_triangular(root, process.kernel(inducing, x[part]).to_dense(), upper=False)
        weighed = seen * precision[part]
        information = information + weighed @ seen.T
        total = total + weighed @ y[part]
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(information))
    return covariance @ total, psd_safe_cholesky(covariance)


@torch.no_grad()
def _choose(kernel: Kernel, x: Float[Tensor, "n columns"], n: int) -> Int[Tensor, "m"]:
    """Return rows, each with the largest variance given those before (Burt et al. 2020, arXiv 2008.00323, 4.2.3)."""
    left, known = kernel(x, diag=True), x.new_zeros(min(n, len(x)), len(x))
    chosen: list[int] = []
    for k, column in enumerate(known):
        row = int(left.argmax())
        if chosen and left[row] < MIN_VARIANCE:
            break
        covariance = kernel(x[row : row + 1], x).to_dense()[0] - known[:k, row] @ known[:k]
        column.copy_(covariance / left[row].sqrt())
        left = (left - column.square()).clamp(min=0)
        left[row] = 0
        chosen.append(row)
    return torch.tensor(chosen)
