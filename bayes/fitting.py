"""Fitting a functional Bayesian Tucker model: restarts, sweeps, hyperparameters, when to stop."""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.ard import find_ranks
from fieldmorph.bayes.checks import check_entries, check_flag, check_tolerance, check_whole, is_number
from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.entries import Entries, merge_rows
from fieldmorph.bayes.hyperparameters import default_kernel, learn
from fieldmorph.bayes.inference import State, begin, put_aside, recentre, space_of, sweep, take_up
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.student_t import MIN_DEGREES, Tails
from fieldmorph.fields.errors import SettingError

LEARN_AFTER = 5  # sweeps, before which functions are too rough to learn a lengthscale from
LOOK_BACK = 5  # sweeps over which the bound's gain is averaged
LARGEST_CORE = 4096  # entries, whose covariance is a matrix

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit.

    Attributes:
        ranks: functions of each mode; one number for all of them.
        kernels: name of each mode's kernel, or one for all: one of the table's `choices` (`matern12`, ...).
        cp: a fixed superdiagonal core.
        prune: ranks are the most; functions that the measurements do not need go. Not with `cp`.
        centre: whether the mean is taken off; not where a multiplicative structure carries it.
        restarts: beginnings, of which the one with the best bound goes on.
        warm_sweeps: of every beginning.
        sweeps: at most.
        tolerance: nats for each row and sweep; with less gain the fit is done.
        learn_every: sweeps between two updates of the kernels' hyperparameters and the mean; 0 keeps them.
        student: degrees of freedom of Student-t noise, above 2; None: the noise is Gaussian.
        damping: share of the old messages that is kept.
        seed: of everything random.
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
        check_tolerance("tolerance", self.tolerance)
        check_whole("learn_every", self.learn_every, minimum=0)
        if self.student is not None and not (
            is_number(self.student) and MIN_DEGREES < self.student < math.inf
        ):
            raise SettingError(f"Student-t noise needs more than 2 degrees of freedom; got {self.student!r}")
        if not is_number(self.damping) or not 0 <= self.damping < 1:
            raise SettingError(f"damping must lie in [0, 1); got {self.damping!r}")
        check_whole("seed", self.seed, minimum=0)
        if self.prune and self.cp:
            raise SettingError("CP's functions are not pruned: its core has nothing to learn relevance by")


@dataclass(frozen=True)
class FitReport:
    """How a fit went.

    Attributes:
        bounds: evidence lower bound in nats after every sweep, for standardised values. It never falls without
            damping, up to where hyperparameters are learned: their prior counts there, too.
        converged: whether it stopped before the most sweeps.
    """

    bounds: tuple[float, ...]
    converged: bool
    seed: int


OnSweep = Callable[[int, float], None]


def fit(
    observations: Observations,
    config: FitConfig | None = None,
    *,
    weights: Float[Tensor, "n"] | None = None,
    kernels: Sequence[Kernel] | None = None,
    on_sweep: OnSweep = lambda _sweep, _bound: None,
) -> tuple[Posterior, FitReport]:
    """The posterior of a functional Tucker or CP model of these measurements.

    Args:
        weights: of the rows, at least 0: a weight of 2 is two measurements of this value.
        kernels: gpytorch's, one for each mode, instead of those that the settings name; copies are learned.

    Raises:
        SettingError: as many ranks or kernels as neither one nor the modes, CP of different ranks, or too large a core.
    """
    config = config or FitConfig()
    weights = torch.ones_like(observations.values) if weights is None else weights
    counted = weights > 0
    values, weights = observations.values[counted], weights[counted]
    shift = float(values @ weights / weights.sum()) if config.centre else 0.0
    scale = float((values - shift).square() @ weights / weights.sum()) ** 0.5 or 1.0
    entries = merge_rows(observations.coordinates[counted], (values - shift) / scale, weights)
    tails = None
    if config.student is not None:
        tails = Tails(config.student, (values - shift) / scale, entries.rows, weights)
    names = [mode.name for mode in observations.modes]
    ranks = _ranks(_each(config.ranks, len(names), "rank"), names, entries, config.cp)
    kinds = _each(config.kernels, len(names), "kernel")
    if kernels is not None and len(kernels) != len(names):
        raise SettingError(f"a kernel for each of the {len(names)} modes is needed; got {len(kernels)}")
    best, seed = None, config.seed
    for restart in range(config.restarts):
        chosen = (
            [default_kernel(kind, points) for kind, points in zip(kinds, entries.points, strict=True)]
            if kernels is None
            else copy.deepcopy(list(kernels))
        )
        generator = torch.Generator().manual_seed(config.seed + restart)
        state = begin(entries, chosen, ranks, generator, config.cp, tails)
        warm = min(config.warm_sweeps, config.sweeps) if config.restarts > 1 else config.sweeps
        _run(state, config, warm, on_sweep)
        if config.prune:
            find_ranks(state, on_sweep)
        if best is None or state.bounds[-1] > best.bounds[-1]:
            best, seed = state, config.seed + restart
        if restart + 1 < config.restarts:
            put_aside(best)
        del state  # one at a time: they are large
    assert best is not None
    take_up(best)
    most = config.sweeps + (len(best.bounds) if config.prune else 0)
    converged = _run(best, config, most, on_sweep)
    posterior = Posterior(
        observations.modes, observations.value_name, observations.value_unit, tuple(best.kernels),
        tuple(best.processes), best.core, best.noise, shift + scale * best.intercept, scale,
        provenance={"job": "tensor fit", **asdict(config), "rows": len(values)},
    )  # fmt: skip
    return posterior, FitReport(tuple(best.bounds), converged, seed)


def _run(state: State, config: FitConfig, until: int, on_sweep: OnSweep) -> bool:
    """Sweeps up to this number of them; whether the gain has become small."""
    while (n := len(state.bounds)) < until:
        if config.learn_every and n >= LEARN_AFTER and n % config.learn_every == 0:
            _learn(state)
            if config.centre:
                recentre(state)
        on_sweep(n + 1, sweep(state, config.damping))
        if n > LOOK_BACK + LEARN_AFTER:
            gain = (state.bounds[-1] - state.bounds[-1 - LOOK_BACK]) / LOOK_BACK
            if gain < config.tolerance * state.entries.n_rows:
                return True
    return False


def _learn(state: State) -> None:
    for mode, (kernel, process) in enumerate(zip(state.kernels, state.processes, strict=True)):
        learn(kernel, process.points, process.eta, process.lam)
        state.processes[mode] = replace(process, space=space_of(kernel))


def _each(given: tuple, n: int, what: str) -> tuple:
    if len(given) not in (1, n):
        raise SettingError(f"one {what} or {n}, one for each mode, are needed; got {len(given)}")
    return given * n if len(given) == 1 else given


def _ranks(ranks: tuple[int, ...], names: list[str], entries: Entries, cp: bool) -> tuple[int, ...]:
    """No more functions than distinct coordinates in a mode: more could not be told apart."""
    most = [len(points) for points in entries.points]
    if cp and len({*ranks}) > 1:
        raise SettingError(f"CP has one rank for all modes; got {ranks}")
    clipped = tuple(map(min, ranks, most))
    if cp:
        clipped = (max(1, min(ranks[0], max(most))),) * len(ranks)
    for name, rank, fewer in zip(names, ranks, clipped, strict=True):
        if fewer < rank:
            log.warning(
                "rank %d of mode %s is more than its distinct coordinates; %d is taken", rank, name, fewer
            )
    if not cp and (size := math.prod(clipped)) > LARGEST_CORE:
        raise SettingError(
            f"a core of {size} entries is too large (most: {LARGEST_CORE}); lower ranks, or take CP"
        )
    return clipped
