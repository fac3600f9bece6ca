"""Variational inference of functional Tucker models by message passing (Fang et al. 2024, arXiv 2311.04829).

No message uses a cavity distribution, so every update is coordinate ascent on one evidence lower bound: it never
decreases, and damping is optional.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.core import Core, CPCore, Factor, TuckerCore
from fieldmorph.bayes.entries import Entries
from fieldmorph.bayes.kernels.symmetric import pack, unpack_index
from fieldmorph.bayes.markov_gp import Process, draw_prior
from fieldmorph.bayes.noise import Noise
from fieldmorph.bayes.state_space import StateSpace, from_gpytorch
from fieldmorph.bayes.student_t import StudentTRows

PLACES_AT_ONCE = 1 << 14
SHAPE, RATE = 1e-3, 1e-3  # of the Gamma prior of the noise precision
ZERO = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class PriorMessage:
    """Message to a mode's functions from earlier entries, exp(eta' f - f' lam f / 2); none by default.

    Attributes:
        eta, lam: (points, r) and (points, r, r).
        log_evidence: logarithm of the message's integral over the functions' Gaussian process, in nats.
    """

    eta: Float[Tensor, "*points_r"] = ZERO
    lam: Float[Tensor, "*points_r_r"] = ZERO
    log_evidence: Float[Tensor, ""] = ZERO


@dataclass
class State:
    """State of an inference, which `sweep` changes in place.

    Attributes:
        entries: the measurements; with Student-t noise their weights change from sweep to sweep.
        kernels, processes, factors: of each mode: covariance, posterior, and its moments at the points.
        prior_messages, prior: priors of modes and noise in addition to the kernels; the core has its own.
        student: the rows of a fit with Student-t noise.
        intercept: constant that was subtracted from the values.
        bounds: evidence lower bound after each sweep, in nats.
        offloaded: packed lam of the processes while the state is offloaded.
    """

    entries: Entries
    kernels: list[Kernel]
    core: Core
    processes: list[Process]
    factors: list[Factor]
    noise: Noise
    prior_messages: list[PriorMessage]
    prior: Noise
    student: StudentTRows | None = None
    intercept: float = 0.0
    bounds: list[float] = field(default_factory=list)
    offloaded: list[Tensor] = field(default_factory=list)


def begin(
    entries: Entries,
    kernels: Sequence[Kernel],
    ranks: Sequence[int],
    generator: torch.Generator,
    cp: bool = False,
    student: StudentTRows | None = None,
) -> State:
    """Return an initial state: functions and core drawn from their priors, noise with the variance of the data.

    Args:
        entries: the measurements.
        kernels, ranks: of each mode.
        cp: whether the core is CP's.
        student: the rows, if the noise is Student's t.
    """
    spaces = [space_of(kernel) for kernel in kernels]
    drawn = [
        draw_prior(space, points, r, generator)
        for space, points, r in zip(spaces, entries.points, ranks, strict=True)
    ]
    factors = [Factor.of(mean, ZERO.expand(*mean.shape, mean.shape[1])) for mean in drawn]
    core: Core = CPCore(ranks[0])
    if not cp:
        mean = torch.randn(math.prod(ranks), generator=generator, dtype=torch.float64)
        core = TuckerCore(tuple(ranks), mean)
    unknown = [
        Process(space, points, ZERO.expand(len(points), r), ZERO.expand(len(points), r, r))
        for space, points, r in zip(spaces, entries.points, ranks, strict=True)
    ]
    prior = Noise(SHAPE, RATE, None if student is None else student.degrees)
    noise = prior.given(entries.n_rows, max(entries.squares, 1e-12 * entries.n_rows))
    messages = [PriorMessage() for _ in factors]
    return State(entries, list(kernels), core, unknown, factors, noise, messages, prior, student)


def sweep(state: State, damping: float = 0.0) -> float:
    """Update core, modes and noise once each, and return the evidence lower bound afterwards, in nats.

    Args:
        state: changed in place.
        damping: fraction of a mode's old messages that is kept; with it the bound may decrease.
    """
    entries, precision = state.entries, state.noise.mean
    state.core.update(state.factors, entries, precision)
    updates = [update_mode(state, mode, damping) for mode in range(len(state.factors))]
    # After the last mode's update its loss is that of all current factors.
    loss, gain, divergence = updates[-1].loss, 0.0, sum(each.divergence for each in updates)
    if state.student is not None:
        moments = place_moments(state)
        entries, gain = state.student.reweigh(entries, *moments, precision)
        loss = float(entries.squares - 2 * entries.total @ moments[0] + entries.weight @ moments[1])
        state.entries = entries
    state.noise = state.prior.given(entries.n_rows, loss)
    fit = (entries.n_rows * (state.noise.mean_log() - math.log(2 * math.pi)) - state.noise.mean * loss) / 2
    bound = fit + gain - divergence - state.core.divergence() - state.noise.divergence(state.prior)
    state.bounds.append(bound)
    return bound


@dataclass(frozen=True)
class ModeUpdate:
    """Result of one mode's update.

    Attributes:
        loss: expected sum of the entries' squared errors.
        divergence: KL divergence of the functions from their prior, in nats.
    """

    loss: float
    divergence: float


def update_mode(state: State, mode: int, damping: float = 0.0) -> ModeUpdate:
    """Update one mode's functions with the messages of all entries.

    Args:
        state: changed in place.
        mode: index of the mode.
        damping: fraction of the mode's old messages that is kept.
    """
    precision, before, prior = state.noise.mean, state.processes[mode], state.prior_messages[mode]
    eta, lam = state.core.messages(mode, state.factors, state.entries)
    eta, lam = eta.mul_(precision).add_(prior.eta), lam.mul_(precision).add_(prior.lam)
    process = Process(before.space, before.points, eta, lam)
    if damping:
        process = replace(process, eta=eta.lerp(before.eta, damping), lam=lam.lerp(before.lam, damping))
    state.processes[mode] = process
    del before
    state.factors[mode] = Factor(eta[:0], eta[:0])  # frees the old moments before the new ones are computed
    found = process.marginals()
    state.factors[mode] = factor = Factor.of(found.mean, found.covariance)
    known, total = _expected(prior.eta, prior.lam, factor), _expected(eta, lam, factor)
    loss = state.entries.squares - 2 * (total - known) / precision
    kept = _expected(process.eta, process.lam, factor) if damping else total
    return ModeUpdate(loss, kept - float(found.log_evidence) - known + float(prior.log_evidence))


def offload(state: State) -> None:
    """Release what `restore` can compute again from the rest of a state after a sweep: half of its memory."""
    if state.factors:
        state.factors, state.offloaded = [], [pack(process.lam) for process in state.processes]
        state.processes = [replace(p, lam=ZERO.expand(p.lam.shape)) for p in state.processes]


def restore(state: State) -> None:
    """Undo `offload`; a state that was not offloaded stays as it is."""
    for mode, packed in enumerate(state.offloaded):
        before = state.processes[mode]
        state.processes[mode] = whole = replace(before, lam=packed[:, unpack_index(before.eta.shape[1])])
        found = whole.marginals()
        state.factors.append(Factor.of(found.mean, found.covariance))
    state.offloaded = []


def recenter(state: State) -> None:
    """Subtract the mean residual from the values, which increases the bound.

    To represent a small constant takes a function of every mode, so that the fit would leave it to the noise.
    """
    mean, _ = place_moments(state)
    left = float((state.entries.total - state.entries.weight * mean).sum() / state.entries.weight.sum())
    state.entries = state.entries.subtract_mean(left)
    state.student = state.student and state.student.subtract_mean(left)
    state.intercept += left


def place_moments(state: State) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return mean and second moment of the function at every place of the entries."""
    found = [
        state.core.moments(
            [
                Factor(f.mean[column], f.second[column])
                for f, column in zip(state.factors, part.unbind(1), strict=True)
            ]
        )
        for part in state.entries.index.split(PLACES_AT_ONCE)
    ]
    return torch.cat([mean for mean, _ in found]), torch.cat([second for _, second in found])


def _expected(eta: Tensor, lam: Tensor, factor: Factor) -> float:
    """Return E[eta' f - f' lam f / 2], summed over points."""
    if not lam.ndim:  # there is no message
        return 0.0
    pairs = zip(*torch.triu_indices(lam.shape[1], lam.shape[2]).tolist(), strict=True)
    total = torch.tensordot(eta, factor.mean, 2)
    for (i, j), second in zip(pairs, factor.second.unbind(1), strict=True):  # without a copy of lam
        total = total - (lam[:, i, j] @ second) * (0.5 if i == j else 1.0)
    return float(total)


@torch.no_grad()
def space_of(kernel: Kernel) -> StateSpace:
    """Return the state space of a kernel with its current hyperparameters, without gradients."""
    return from_gpytorch(kernel)
