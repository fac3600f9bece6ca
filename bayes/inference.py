"""Functional Bayesian Tucker decomposition: its posterior by message passing (Fang et al. 2024, arXiv 2311.04829).

No message of theirs has a cavity, so that every update is coordinate ascent on one evidence lower bound: it never
falls, and needs no damping.
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
from fieldmorph.bayes.student_t import Tails

PLACES_AT_ONCE = 1 << 14
SHAPE, RATE = 1e-3, 1e-3  # of the Gamma prior of the noise precision
ZERO = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class Earlier:
    """What was known of a mode's functions before these entries: exp(eta' f - f' lam f / 2), nothing by default.

    Attributes:
        log_evidence: logarithm of its integral over the functions' prior.
    """

    eta: Float[Tensor, "*points_r"] = ZERO
    lam: Float[Tensor, "*points_r_r"] = ZERO
    log_evidence: Float[Tensor, ""] = ZERO


@dataclass
class State:
    """Where inference stands; `sweep` moves it on.

    Attributes:
        earlier, prior: what modes and noise have as priors, besides the kernels; the core has its own.
        aside: packed lam of the processes while the state is put aside.
    """

    entries: Entries
    kernels: list[Kernel]
    core: Core
    processes: list[Process]
    factors: list[Factor]
    noise: Noise
    earlier: list[Earlier]
    prior: Noise
    tails: Tails | None = None
    intercept: float = 0.0
    bounds: list[float] = field(default_factory=list)
    aside: list[Tensor] = field(default_factory=list)


def begin(
    entries: Entries,
    kernels: Sequence[Kernel],
    ranks: Sequence[int],
    generator: torch.Generator,
    cp: bool = False,
    tails: Tails | None = None,
) -> State:
    """Functions drawn from their prior, a core to match, and noise as large as the data."""
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
    prior = Noise(SHAPE, RATE, None if tails is None else tails.degrees)
    noise = prior.given(entries.n_rows, max(entries.squares, 1e-12 * entries.n_rows))
    earlier = [Earlier() for _ in factors]
    return State(entries, list(kernels), core, unknown, factors, noise, earlier, prior, tails)


def sweep(state: State, damping: float = 0.0) -> float:
    """Core, modes and noise once each; the evidence lower bound afterwards.

    Args:
        damping: share of a mode's old messages that is kept; then the bound may fall.
    """
    entries, precision = state.entries, state.noise.mean
    state.core.update(state.factors, entries, precision)
    # The last mode's messages hold the whole data fit under all that is current.
    found = [inform(state, mode, damping) for mode in range(len(state.factors))]
    loss, gain, divergence = found[-1].loss, 0.0, sum(each.divergence for each in found)
    if state.tails is not None:
        moments = place_moments(state)
        entries, gain = state.tails.reweigh(entries, *moments, precision)
        loss = float(entries.squares - 2 * entries.total @ moments[0] + entries.weight @ moments[1])
        state.entries = entries
    state.noise = state.prior.given(entries.n_rows, loss)
    fit = (entries.n_rows * (state.noise.mean_log() - math.log(2 * math.pi)) - state.noise.mean * loss) / 2
    bound = fit + gain - divergence - state.core.divergence() - state.noise.divergence(state.prior)
    state.bounds.append(bound)
    return bound


@dataclass(frozen=True)
class Informed:
    """What a mode's new functions mean.

    Attributes:
        loss: mean of the entries' sum of squared errors.
        divergence: of the functions from their prior, in nats.
    """

    loss: float
    divergence: float


def inform(state: State, mode: int, damping: float = 0.0) -> Informed:
    """Update one mode's functions by the messages that the entries give them."""
    precision, before, earlier = state.noise.mean, state.processes[mode], state.earlier[mode]
    eta, lam = state.core.messages(mode, state.factors, state.entries)
    eta, lam = eta.mul_(precision).add_(earlier.eta), lam.mul_(precision).add_(earlier.lam)
    process = Process(before.space, before.points, eta, lam)
    if damping:
        process = replace(process, eta=eta.lerp(before.eta, damping), lam=lam.lerp(before.lam, damping))
    state.processes[mode] = process
    del before
    state.factors[mode] = Factor(eta[:0], eta[:0])  # what is old and as large as all that is known goes first
    found = process.marginals()
    state.factors[mode] = factor = Factor.of(found.mean, found.covariance)
    known, heard = _expected(earlier.eta, earlier.lam, factor), _expected(eta, lam, factor)
    loss = state.entries.squares - 2 * (heard - known) / precision
    kept = _expected(process.eta, process.lam, factor) if damping else heard
    return Informed(loss, kept - float(found.log_evidence) - known + float(earlier.log_evidence))


def put_aside(state: State) -> None:
    """Keep of a state, after a sweep, what it can be taken up from again, in half of the memory."""
    if state.factors:
        state.factors, state.aside = [], [pack(process.lam) for process in state.processes]
        state.processes = [replace(p, lam=ZERO.expand(p.lam.shape)) for p in state.processes]


def take_up(state: State) -> None:
    """Make a state whole again; one that was not put aside stays as it is."""
    for mode, packed in enumerate(state.aside):
        before = state.processes[mode]
        state.processes[mode] = whole = replace(before, lam=packed[:, unpack_index(before.eta.shape[1])])
        found = whole.marginals()
        state.factors.append(Factor.of(found.mean, found.covariance))
    state.aside = []


def recentre(state: State) -> None:
    """Take the mean of what is left unexplained off the values, which the bound gains by.

    A small constant would need a function of every mode; it is easier for them to leave it to the noise.
    """
    mean, _ = place_moments(state)
    left = float((state.entries.total - state.entries.weight * mean).sum() / state.entries.weight.sum())
    state.entries = state.entries.less(left)
    state.tails = state.tails and state.tails.less(left)
    state.intercept += left


def place_moments(state: State) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Mean and second moment of the function at every place of the entries."""
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
    """E[eta' f - f' lam f / 2], summed over points."""
    if not lam.ndim:  # nothing is known
        return 0.0
    pairs = zip(*torch.triu_indices(lam.shape[1], lam.shape[2]).tolist(), strict=True)
    told = torch.tensordot(eta, factor.mean, 2)
    for (i, j), second in zip(pairs, factor.second.unbind(1), strict=True):  # no copy of what is large
        told = told - (lam[:, i, j] @ second) * (0.5 if i == j else 1.0)
    return float(told)


@torch.no_grad()
def space_of(kernel: Kernel) -> StateSpace:
    """A kernel's state space as it is now, without gradients."""
    return from_gpytorch(kernel)
