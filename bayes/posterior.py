"""Posterior of a tensor model: predictions with uncertainty at any real coordinates, and joint samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Bool, Float
from torch import Tensor

from fieldmorph.bayes.conformal import GAUSSIAN, Intervals
from fieldmorph.bayes.core import Core, Factor
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.bayes.noise import Noise
from fieldmorph.bayes.sparse_gp import SparseGP
from fieldmorph.bayes.student_t import central_factors
from fieldmorph.fields.types import JsonObject

ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Prediction:
    """Predictions at n places or on a grid, in the unit of the measurements.

    Attributes:
        mean: of the function and of new measurements.
        latent_sd: standard deviation of the function.
        sd: standard deviation of a new measurement, which includes the noise.
        intervals: half-widths of intervals of new measurements in these standard deviations.
        degrees: of freedom of Student-t noise; None for Gaussian noise.
    """

    mean: Float[Tensor, "*n"]
    latent_sd: Float[Tensor, "*n"]
    sd: Float[Tensor, "*n"]
    intervals: Intervals = GAUSSIAN
    degrees: float | None = None

    def interval(self, level: float) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Return lower and upper end of the central interval of new measurements; calibrated if the model is.

        Args:
            level: probability that a new measurement lies inside, in [0, 1).

        Raises:
            SettingError: a level outside [0, 1).
        """
        half = self.intervals.factor(level) * self.sd
        if self.degrees is not None and not self.intervals.levels:
            noise = 1 - (self.latent_sd / self.sd).square()
            half = central_factors(level, noise, self.degrees) * self.sd
        return self.mean - half, self.mean + half

    def quantile(self, probability: float) -> Float[Tensor, "*n"]:
        """Return a quantile of a new measurement, as an end of a central interval; `probability` lies in (0, 1)."""
        return self.interval(abs(2 * probability - 1))[int(probability > 0.5)]


@dataclass(frozen=True)
class GridAxis:
    """Coordinates of one mode and the moments of its functions there; `axis[10:20]` is a part of it."""

    coordinates: Float[Tensor, "n"]
    factor: Factor

    def __getitem__(self, rows: slice) -> "GridAxis":
        return GridAxis(self.coordinates[rows], Factor(self.factor.mean[rows], self.factor.second[rows]))


@dataclass(frozen=True)
class Posterior:
    """A fitted functional Tucker or CP model.

    Attributes:
        modes: names, units and kinds of the coordinates, in the order of the columns.
        value_name, value_unit: of the measured value; the unit is None if unknown.
        kernels, processes: prior covariance and posterior of each mode's functions.
        core, noise: their posteriors, for standardized values.
        shift, scale: values are shift + scale times the standardized ones.
        intervals: Gaussian, or calibrated on held-out rows.
        provenance: settings and data of the fit, as JSON values.
        residual: process that is added to the model, in the value's unit (see `fit_with_residual`).
        value_standard_name: of the measured value in the CF conventions; None if unknown.
    """

    modes: tuple[Mode, ...]
    value_name: str
    value_unit: str | None
    kernels: tuple[Kernel, ...]
    processes: tuple[Process, ...]
    core: Core
    noise: Noise
    shift: float
    scale: float
    intervals: Intervals = GAUSSIAN
    provenance: JsonObject = field(default_factory=dict)
    residual: SparseGP | None = None
    value_standard_name: str | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """Number of functions of each mode."""
        return tuple(process.eta.shape[1] for process in self.processes)

    @torch.no_grad()
    def predict(self, coordinates: Float[Tensor, "n modes"]) -> Prediction:
        """Return mean and standard deviations, exact under the factorized posterior.

        Args:
            coordinates: in the model's units (`Mode.parse`), a column for each mode.
        """
        found = list(self._moments(coordinates))
        mean, second = (torch.cat(part) for part in zip(*found, strict=True))
        residual = None if self.residual is None else self.residual.at(coordinates)
        return self._prediction(mean, second, residual)

    def extrapolates(self, coordinates: Float[Tensor, "n modes"]) -> Bool[Tensor, "n"]:
        """Return whether places lie outside the range of the data along any mode.

        Args:
            coordinates: in the model's units, a column for each mode.
        """
        columns = zip(self.modes, self.processes, coordinates.unbind(1), strict=True)
        return torch.stack([mode.outside(column, process.points) for mode, process, column in columns]).any(0)

    @torch.no_grad()
    def factors(self, axes: Sequence[Float[Tensor, "_"]]) -> list[GridAxis]:
        """Return each mode's functions at the coordinates of its axis, for `predict_grid`; it takes slices, too.

        Args:
            axes: for each mode its coordinates, in the model's units.
        """
        return [
            GridAxis(axis, Factor.of(*process.at(axis)))
            for process, axis in zip(self.processes, axes, strict=True)
        ]

    @torch.no_grad()
    def predict_grid(self, axes: Sequence[GridAxis]) -> Prediction:
        """Return the predictions at all combinations of coordinates; their tensors have one axis for each mode.

        Args:
            axes: from `factors`, one for each mode.
        """
        moments = self.core.grid_moments([axis.factor for axis in axes])
        residual = self.residual
        left = None if residual is None else residual.on_grid([axis.coordinates for axis in axes])
        return self._prediction(*moments, left)

    def _prediction(self, mean: Tensor, second: Tensor, residual: tuple[Tensor, Tensor] | None) -> Prediction:
        latent = (second - mean.square()).clamp(min=0)
        mean = self.shift + self.scale * mean
        if residual is not None:
            mean, latent = mean + residual[0], latent + residual[1] / self.scale**2
        return Prediction(
            mean,
            self.scale * latent.sqrt(),
            self.scale * (latent + self.noise.variance).sqrt(),
            self.intervals,
            self.noise.degrees,
        )

    @torch.no_grad()
    def sample(
        self, coordinates: Float[Tensor, "n modes"], n_samples: int, generator: torch.Generator
    ) -> Float[Tensor, "samples n"]:
        """Return joint samples of the function, without noise, in the value's unit.

        Args:
            coordinates: in the model's units, a column for each mode.
            n_samples: number of joint samples.
            generator: of the draws.

        Raises:
            SettingError: there is a residual process, and more places than it can be sampled at jointly.
        """
        drawn = [
            process.sample(column, n_samples, generator)
            for process, column in zip(self.processes, coordinates.double().unbind(1), strict=True)
        ]
        samples = self.shift + self.scale * self.core.values(drawn, generator)
        if self.residual is not None:
            samples = samples + self.residual.sample(coordinates, n_samples, generator)
        return samples

    def _moments(self, coordinates: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield moments in chunks; each mode's functions are evaluated once per distinct coordinate."""
        factors, rows = [], []
        for process, column in zip(self.processes, coordinates.double().unbind(1), strict=True):
            distinct, row = column.unique(return_inverse=True)
            factors.append(Factor.of(*process.at(distinct)))
            rows.append(row)
        for part in torch.arange(len(coordinates)).split(ROWS_AT_ONCE):
            at = [
                Factor(f.mean[row[part]], f.second[row[part]]) for f, row in zip(factors, rows, strict=True)
            ]
            yield self.core.moments(at)
