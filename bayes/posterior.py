"""What a fitted model knows: predictions with their uncertainty at any real coordinates, and joint samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.conformal import GAUSSIAN, Intervals
from fieldmorph.bayes.core import Core, Factor
from fieldmorph.bayes.data.observations import Mode
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.bayes.noise import Noise
from fieldmorph.bayes.sparse_gp import SparseGP
from fieldmorph.bayes.student_t import central_factors

ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Prediction:
    """At n places, or those of a grid, in the unit of the measurements.

    Attributes:
        mean: of the function, and of new measurements.
        latent_sd: standard deviation of the function.
        sd: standard deviation of a new measurement, noise included, as the model has it.
        intervals: how many of these standard deviations cover which share of new measurements.
        degrees: of freedom of Student-t noise; None: the noise is Gaussian.
    """

    mean: Float[Tensor, "*n"]
    latent_sd: Float[Tensor, "*n"]
    sd: Float[Tensor, "*n"]
    intervals: Intervals = GAUSSIAN
    degrees: float | None = None

    def interval(self, level: float) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Lower and upper end of what covers this share of new measurements; calibrated if the model is."""
        half = self.intervals.factor(level) * self.sd
        if self.degrees is not None and not self.intervals.levels:
            noise = 1 - (self.latent_sd / self.sd).square()
            half = central_factors(level, noise, self.degrees) * self.sd
        return self.mean - half, self.mean + half

    def quantile(self, share: float) -> Float[Tensor, "*n"]:
        """Of a new measurement: an end of the interval that leaves out as much on both sides."""
        return self.interval(abs(2 * share - 1))[int(share > 0.5)]


@dataclass(frozen=True)
class GridAxis:
    """Coordinates of one mode, and its functions there; `axis[10:20]` is a part of it."""

    coordinates: Float[Tensor, "n"]
    factor: Factor

    def __getitem__(self, rows: slice) -> "GridAxis":
        return GridAxis(self.coordinates[rows], Factor(self.factor.mean[rows], self.factor.second[rows]))


@dataclass(frozen=True)
class Posterior:
    """A fitted functional Tucker or CP model.

    Attributes:
        modes: names, units and kinds of the coordinates, in the order of the columns.
        kernels, processes: each mode's functions, before and after the measurements.
        shift, scale: values are shift + scale times the model's.
        intervals: Gaussian, or from calibration on rows that were held out.
        provenance: how it came about, as JSON values.
        residual: a function that is added, in the value's unit (see `fit_with_residual`).
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
    provenance: dict[str, Any] = field(default_factory=dict)
    residual: SparseGP | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """Functions of each mode."""
        return tuple(process.eta.shape[1] for process in self.processes)

    @torch.no_grad()
    def predict(self, coordinates: Float[Tensor, "n modes"]) -> Prediction:
        """Mean and standard deviations; means and variances are exact under the factorised posterior."""
        found = list(self._moments(coordinates))
        mean, second = (torch.cat(part) for part in zip(*found, strict=True))
        residual = None if self.residual is None else self.residual.at(coordinates)
        return self._prediction(mean, second, residual)

    @torch.no_grad()
    def factors(self, axes: Sequence[Float[Tensor, "_"]]) -> list[GridAxis]:
        """Each mode's functions at coordinates of its own: `predict_grid` takes them, or slices of them."""
        return [
            GridAxis(axis, Factor.of(*process.at(axis)))
            for process, axis in zip(self.processes, axes, strict=True)
        ]

    @torch.no_grad()
    def predict_grid(self, axes: Sequence[GridAxis]) -> Prediction:
        """What `predict` says at all combinations of coordinates; its tensors have one axis for each mode."""
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
        """Joint samples of the function, without noise.

        Raises:
            SettingError: more places than those of a residual process can be drawn at together.
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
        """In chunks; each mode's functions are evaluated once per distinct coordinate."""
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
