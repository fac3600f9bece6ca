"""Fitting of functional Bayesian Tucker models: restarts, sweeps, hyperparameters, stopping rule."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.ard import find_ranks
from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.entries import Entries, merge_rows
from fieldmorph.bayes.hyperparameters import default_kernel, learn
from fieldmorph.bayes.inference import State, begin, offload, recenter, restore, space_of, sweep
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.student_t import MIN_DEGREES, StudentTRows
from fieldmorph.fields.checks import check_entries, check_flag, check_nonnegative, check_whole, is_number
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.progress import OnSweep

LEARN_AFTER = 5  # sweeps; earlier functions are too rough to learn a lengthscale from
GAIN_WINDOW = 5  # sweeps over which the bound's gain is averaged
MAX_CORE_SIZE = 4096  # entries; their covariance is a dense matrix

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit.

    Attributes:
        ranks: number of functions of each mode; one number for all of them.
        kernels: name of each mode's kernel, or one for all: one of the table's `choices` (`matern12`, ...).
        cp: use a fixed superdiagonal core (CP decomposition).
        prune: treat ranks as maxima and remove functions that the measurements do not need. Not with `cp`.
        centre: subtract the mean of the values; not for data whose effects multiply.
        restarts: random initializations, of which the one with the best bound is continued.
        warm_sweeps: sweeps of each initialization.
        sweeps: maximum number of sweeps.
        tolerance: the fit ends when a sweep gains less than this, in nats per row.
        learn_every: sweeps between two updates of the kernels' hyperparameters and the mean; 0 keeps them.
        student: degrees of freedom of Student-t noise, above 2; None for Gaussian noise.
        damping: fraction of the old messages that is kept in a sweep, in [0, 1).
        seed: of everything random.

    Raises:
        SettingError: a value that is not allowed; the first one found.
    """

    ranks: tuple[int, ...] = (3,)
    kernels: tuple[str, ...] = ("matern12",)
    cp: bool = False
    prune: bool = False
    centre: bool = True
    restarts: int = 3
    warm_sweeps: int = 15
    sweeps: int = 100
    tolerance: float = 5e-4
    learn_every: int = 5
    student: float | None = None
    damping: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_entries("ranks", self.ranks)
        check_entries("kernels", self.kernels)
        for rank in self.ranks:
            check_whole("rank", rank)
        for kernel in self.kernels:
            choice(kernel)
        for name in ("cp", "prune", "centre"):
            check_flag(name, getattr(self, name))
        for name in ("restarts", "warm_sweeps", "sweeps"):
            check_whole(name, getattr(self, name))
        check_nonnegative("tolerance", self.tolerance)
        check_whole("learn_every", self.learn_every, minimum=0)
        if self.student is not None and not (
            is_number(self.student) and MIN_DEGREES < self.student < math.inf
        ):
            raise SettingError(f"Student-t noise needs more than 2 degrees of freedom; got {self.student!r}")
        if not is_number(self.damping) or not 0 <= self.damping < 1:
            raise SettingError(f"damping must lie in [0, 1); got {self.damping!r}")
        check_whole("seed", self.seed, minimum=0)
        if self.prune and self.cp:
            raise SettingError(
                "prune cannot be used with cp: CP has no core whose variances could be learned"
            )


@dataclass(frozen=True)
class FitReport:
    """Course of a fit.

    Attributes:
        bounds: evidence lower bound after every sweep, in nats, for standardized values. Without damping it never
            decreases, except where hyperparameters are updated: their prior counts there as well.
        converged: whether the fit ended before the maximum number of sweeps.
        seed: of the initialization that was continued.
    """

    bounds: tuple[float, ...]
    converged: bool
    seed: int


def fit(
    observations: Observations,
    config: FitConfig | None = None,
    *,
    weights: Float[Tensor, "n"] | None = None,
    kernels: Sequence[Kernel] | None = None,
    on_sweep: OnSweep = lambda _sweep, _bound: None,
) -> tuple[Posterior, FitReport]:
    """Fit a functional Tucker or CP model to measurements (Fang et al. 2024, arXiv 2311.04829).

    Args:
        observations: the measurements, as `read_observations` returns them.
        config: settings; the defaults of `FitConfig` if left out.
        weights: of the rows, at least 0; a weight of 2 counts as two measurements of the same value.
        kernels: gpytorch kernels, one for each mode, instead of those that the settings name. Copies are used; their
            constraints and priors hold, and parameters without gradients stay fixed.
        on_sweep: called after each sweep with its number and the bound in nats.

    Returns:
        The posterior, in the units of the measurements, and the course of the fit.

    Raises:
        SettingError: a number of ranks or kernels that is neither one nor that of the modes, CP of different ranks, a
            kernel without a known state space, or too large a core.
    """
    config = config or FitConfig()
    weights = torch.ones_like(observations.values) if weights is None else weights
    counted = weights > 0
    values, weights = observations.values[counted], weights[counted]
    shift = float(values @ weights / weights.sum()) if config.centre else 0.0
    scale = float((values - shift).square() @ weights / weights.sum()) ** 0.5 or 1.0
    entries = merge_rows(observations.coordinates[counted], (values - shift) / scale, weights)
    student = None
    if config.student is not None:
        student = StudentTRows(config.student, (values - shift) / scale, entries.rows, weights)
    names = [mode.name for mode in observations.modes]
    ranks = _ranks(_each(config.ranks, len(names), "rank"), names, entries, config.cp)
    kinds = _each(config.kernels, len(names), "kernel")
    if kernels is not None and len(kernels) != len(names):
        raise SettingError(f"expected one kernel for each of the {len(names)} modes; got {len(kernels)}")
    best, seed = None, config.seed
    for restart in range(config.restarts):
        chosen = (
            [default_kernel(kind, points) for kind, points in zip(kinds, entries.points, strict=True)]
            if kernels is None
            else copy.deepcopy(list(kernels))
        )
        generator = torch.Generator().manual_seed(config.seed + restart)
        state = begin(entries, chosen, ranks, generator, config.cp, student)
        warm = min(config.warm_sweeps, config.sweeps) if config.restarts > 1 else config.sweeps
        _run(state, config, warm, on_sweep)
        if config.prune:
            find_ranks(state, on_sweep)
        if best is None or state.bounds[-1] > best.bounds[-1]:
            best, seed = state, config.seed + restart
        if restart + 1 < config.restarts:
            offload(best)
        del state  # only one at a time, since states are large
    assert best is not None
    restore(best)
    until = config.sweeps + (len(best.bounds) if config.prune else 0)
    converged = _run(best, config, until, on_sweep)
    posterior = Posterior(
        observations.modes,
        observations.value_name,
        observations.value_unit,
        tuple(best.kernels),
        tuple(best.processes),
        best.core,
        best.noise,
        shift + scale * best.intercept,
        scale,
        value_standard_name=observations.standard_name,
        provenance={"job": "tensor fit", **asdict(config), "rows": len(values)},
    )
    return posterior, FitReport(tuple(best.bounds), converged, seed)


def _run(state: State, config: FitConfig, until: int, on_sweep: OnSweep) -> bool:
    """Run sweeps up to this number of them, and return whether the gain has become small."""
    while (n := len(state.bounds)) < until:
        if config.learn_every and n >= LEARN_AFTER and n % config.learn_every == 0:
            _learn(state)
            if config.centre:
                recenter(state)
        on_sweep(n + 1, sweep(state, config.damping))
        if n > GAIN_WINDOW + LEARN_AFTER:
            gain = (state.bounds[-1] - state.bounds[-1 - GAIN_WINDOW]) / GAIN_WINDOW
            if gain < config.tolerance * state.entries.n_rows:
                return True
    return False


def _learn(state: State) -> None:
    for mode, (kernel, process) in enumerate(zip(state.kernels, state.processes, strict=True)):
        learn(kernel, process.points, process.eta, process.lam)
        state.processes[mode] = replace(process, space=space_of(kernel))


def _each(given: tuple[_T, ...], n: int, what: str) -> tuple[_T, ...]:
    if len(given) not in (1, n):
        raise SettingError(f"expected one {what}, or {n}: one for each mode; got {len(given)}")
    return given * n if len(given) == 1 else given


def _ranks(ranks: tuple[int, ...], names: list[str], entries: Entries, cp: bool) -> tuple[int, ...]:
    """Return ranks limited to the number of distinct coordinates: more functions could not be distinguished."""
    limits = [len(points) for points in entries.points]
    if cp and len({*ranks}) > 1:
        raise SettingError(f"CP has one rank for all modes; got {ranks}")
    clipped = tuple(map(min, ranks, limits))
    if cp:
        clipped = (max(1, min(ranks[0], max(limits))),) * len(ranks)
    for name, rank, taken in zip(names, ranks, clipped, strict=True):
        if taken < rank:
            log.warning(
                "rank %d of mode %s exceeds its number of distinct coordinates; using %d", rank, name, taken
            )
    if not cp and (size := math.prod(clipped)) > MAX_CORE_SIZE:
        raise SettingError(
            f"a core of {size} entries is too large (at most {MAX_CORE_SIZE}); use lower ranks or CP"
        )
    return clipped
