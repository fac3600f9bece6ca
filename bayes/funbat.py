"""Functional Bayesian Tucker decomposition: its posterior by message passing (Fang et al. 2024, arXiv 2311.04829).

No message of theirs has a cavity, so that every update is coordinate ascent on one evidence lower bound: it never
falls, and needs no damping.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from gpytorch.kernels import Kernel

from fieldmorph.bayes.core import Core, CPCore, Factor, TuckerCore
from fieldmorph.bayes.entries import Entries
from fieldmorph.bayes.kernels import StateSpace, from_gpytorch
from fieldmorph.bayes.process import Process, draw_prior, infer

SHAPE, RATE = 1e-3, 1e-3  # of the Gamma prior of the noise precision


@dataclass(frozen=True)
class Noise:
    """Gamma posterior of the noise precision."""

    shape: float
    rate: float

    @property
    def mean(self) -> float:
        return self.shape / self.rate

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
    bounds: list[float] = field(default_factory=list)


def begin(
    entries: Entries,
    kernels: Sequence[Kernel],
    ranks: Sequence[int],
    generator: torch.Generator,
    cp: bool = False,
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
    noise = Noise(SHAPE + entries.n_rows / 2, RATE + entries.n_rows * variance / 2)
    return State(entries, list(kernels), core, unknown, factors, noise)


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
    loss = float(entries.squares - 2 * (eta * found.mean).sum() + (lam * second).sum())
    state.noise = Noise(SHAPE + entries.n_rows / 2, RATE + loss / 2)
    fit = (entries.n_rows * (state.noise.mean_log() - math.log(2 * math.pi)) - state.noise.mean * loss) / 2
    bound = fit - sum(divergences) - state.core.divergence() - state.noise.divergence()
    state.bounds.append(bound)
    return bound


@torch.no_grad()
def space_of(kernel: Kernel) -> StateSpace:
    """A kernel's state space as it is now, without gradients."""
    return from_gpytorch(kernel)
