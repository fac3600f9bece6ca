"""Functional Bayesian Tucker decomposition: its posterior by message passing (Fang et al. 2024, arXiv 2311.04829).

No message of theirs has a cavity, so that every update is coordinate ascent on one evidence lower bound: it never
falls, and needs no damping.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.core import Core, CPCore, Factor, TuckerCore
from fieldmorph.bayes.entries import Entries
from fieldmorph.bayes.kernels import StateSpace, from_gpytorch
from fieldmorph.bayes.process import Process, draw_prior, infer
from fieldmorph.bayes.tails import Tails

PLACES_AT_ONCE = 1 << 14
SHAPE, RATE = 1e-3, 1e-3  # of the Gamma prior of the noise precision


@dataclass(frozen=True)
class Noise:
    """Gamma posterior of the noise precision; with degrees of freedom the noise is Student's t."""

    shape: float
    rate: float
    degrees: float | None = None

    @property
    def mean(self) -> float:
        return self.shape / self.rate

    @property
    def variance(self) -> float:
        """Of the noise."""
        return (1.0 if self.degrees is None else self.degrees / (self.degrees - 2)) / self.mean

    def divergence(self) -> float:
        """From the prior, in nats."""
        digamma = float(torch.digamma(torch.tensor(self.shape, dtype=torch.float64)))
        return (
            (self.shape - SHAPE) * digamma - math.lgamma(self.shape) + math.lgamma(SHAPE)
            + SHAPE * (math.log(self.rate) - math.log(RATE)) + self.shape * (RATE - self.rate) / self.rate
        )  # fmt: skip

    def mean_log(self) -> float:
        """E[log tau]."""
        return float(torch.digamma(torch.tensor(self.shape, dtype=torch.float64))) - math.log(self.rate)


@dataclass
class State:
    """Where inference stands; `sweep` moves it on."""

    entries: Entries
    kernels: list[Kernel]
    core: Core
    processes: list[Process]
    factors: list[Factor]
    noise: Noise
    tails: Tails | None = None
    intercept: float = 0.0
    bounds: list[float] = field(default_factory=list)


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
    factors = [
        Factor.of(mean, torch.zeros(len(mean), mean.shape[1], mean.shape[1]).double()) for mean in drawn
    ]
    core: Core = CPCore(ranks[0])
    if not cp:
        mean = torch.randn(math.prod(ranks), generator=generator, dtype=torch.float64)
        core = TuckerCore(tuple(ranks), mean)
    unknown = [
        infer(space, points, f.mean * 0, torch.zeros(*f.mean.shape, f.mean.shape[1]).double())
        for space, points, f in zip(spaces, entries.points, factors, strict=True)
    ]
    variance = max(entries.squares / entries.n_rows, 1e-12)
    noise = Noise(
        SHAPE + entries.n_rows / 2,
        RATE + entries.n_rows * variance / 2,
        None if tails is None else tails.degrees,
    )
    return State(entries, list(kernels), core, unknown, factors, noise, tails)


def sweep(state: State, damping: float = 0.0) -> float:
    """Core, modes and noise once each; the evidence lower bound afterwards.

    Args:
        damping: share of a mode's old messages that is kept; then the bound may fall.
    """
    entries, precision = state.entries, state.noise.mean
    state.core.update(state.factors, entries, precision)
    divergences = []
    for mode in range(len(state.factors)):
        eta, lam = state.core.messages(mode, state.factors, entries)
        before = state.processes[mode]
        told = (
            torch.lerp(precision * eta, before.eta, damping),
            torch.lerp(precision * lam, before.lam, damping),
        )
        process = infer(before.space, entries.points[mode], *told)
        found = process.marginals
        state.processes[mode] = process
        state.factors[mode] = Factor.of(found.mean, found.covariance)
        second = found.covariance + found.mean[:, :, None] * found.mean[:, None, :]
        explained = (process.eta * found.mean).sum() - (process.lam * second).sum() / 2
        divergences.append(float(explained - found.log_evidence))
    # The last mode's messages hold the whole data fit under all that is current.
    loss, gain = float(entries.squares - 2 * (eta * found.mean).sum() + (lam * second).sum()), 0.0
    if state.tails is not None:
        moments = place_moments(state)
        entries, gain = state.tails.reweigh(entries, *moments, precision)
        loss = float(entries.squares - 2 * entries.total @ moments[0] + entries.weight @ moments[1])
        state.entries = entries
    state.noise = Noise(SHAPE + entries.n_rows / 2, RATE + loss / 2, state.noise.degrees)
    fit = (entries.n_rows * (state.noise.mean_log() - math.log(2 * math.pi)) - state.noise.mean * loss) / 2
    bound = fit + gain - sum(divergences) - state.core.divergence() - state.noise.divergence()
    state.bounds.append(bound)
    return bound


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


@torch.no_grad()
def space_of(kernel: Kernel) -> StateSpace:
    """A kernel's state space as it is now, without gradients."""
    return from_gpytorch(kernel)
