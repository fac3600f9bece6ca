"""Ranks by automatic relevance: the core's prior variance is learned for every function, and idle functions go.

gamma_{i j ...} ~ N(0, v^1_i v^2_j ...), a variance for each function of each mode, by MacKay's fixed point (1992): what
the data do not determine shrinks to nothing within a few sweeps.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fieldmorph.bayes.core import Factor, Prior, TuckerCore
from fieldmorph.bayes.inference import State, sweep
from fieldmorph.bayes.markov_gp import Process

SWEEPS = 60  # with 40 an idle function may still be there
ALIGN_EVERY = 4  # sweeps
PRUNE_AFTER = 5  # sweeps of learning
LEAST = 1e-8  # a variance
IDLE = 1e-3  # share of a mode's largest variance below which a function is idle


def find_ranks(state: State, on_sweep: Callable[[int, float], None] = lambda _sweep, _bound: None) -> None:
    """Sweeps in which idle functions leave a Tucker model, whose core then keeps the variances that were learned.

    A mean that is taken off the values is one function more in every mode. The bound may fall where functions go.
    """
    align(state)
    core = state.core
    assert isinstance(core, TuckerCore)
    energy = core.mean.reshape(core.ranks).square()
    variances = [
        energy.movedim(mode, 0).flatten(1).mean(1).clamp(min=LEAST) / (energy.mean() if mode else 1.0)
        for mode in range(len(core.ranks))
    ]
    for n in range(SWEEPS):
        if n and n % ALIGN_EVERY == 0:
            align(state)
        bound = sweep(state)
        learn_relevance(core, variances)
        if n >= PRUNE_AFTER:
            prune(state, variances)
        on_sweep(len(state.bounds), bound)


def learn_relevance(core: TuckerCore, variances: list[Tensor]) -> None:
    """One round over the modes; `variances` and the core's prior change in place."""
    mean, spread = core.mean.reshape(core.ranks), core.covariance.diagonal().reshape(core.ranks)
    for mode in range(len(variances)):
        rest = _outer([v if k != mode else torch.ones_like(v) for k, v in enumerate(variances)])
        own = _outer(variances).clamp(min=LEAST)
        determined = (1 - spread / own).clamp(min=0)
        energy = (mean.square() / rest).movedim(mode, 0).flatten(1).sum(1)
        count = determined.movedim(mode, 0).flatten(1).sum(1)
        variances[mode] = (energy / count.clamp(min=1e-6)).clamp(min=LEAST)
    core.prior = Prior.independent(_outer(variances).flatten().clamp(min=LEAST))


def align(state: State) -> None:
    """Rotate every mode's functions so that the core's slices are orthogonal, the largest first (De Lathauwer 2000).

    Functions of one mode share a prior that no rotation changes, so inference leaves them turned anyhow, and a
    function that is not needed is hidden in all of them.
    """
    core = state.core
    assert isinstance(core, TuckerCore)
    k = len(core.ranks)
    for mode in range(k):
        unfolded = core.mean.reshape(core.ranks).movedim(mode, 0).flatten(1)
        turn = torch.linalg.svd(unfolded, full_matrices=True).U.T
        core.mean = _turned(core.mean.reshape(core.ranks), mode, turn).flatten()
        whole = _turned(core.covariance.reshape(core.ranks + core.ranks), mode, turn)
        core.covariance = _turned(whole, mode + k, turn).reshape(core.covariance.shape)
        before = state.processes[mode]
        process = Process(before.space, before.points, before.eta @ turn.T, turn @ before.lam @ turn.T)
        state.processes[mode], state.factors[mode] = process, _factor(process)


def prune(state: State, variances: list[Tensor]) -> None:
    """Take out the functions that are idle."""
    core = state.core
    assert isinstance(core, TuckerCore)
    for mode, variance in enumerate(variances):
        kept = (variance > IDLE * variance.max()).nonzero()[:, 0]
        if len(kept) < len(variance):
            variances[mode] = variance[kept]
            _keep(core, mode, kept)
            before = state.processes[mode]
            lam = before.lam[:, kept][:, :, kept]
            process = Process(before.space, before.points, before.eta[:, kept].contiguous(), lam.contiguous())
            state.processes[mode], state.factors[mode] = process, _factor(process)
    core.prior = Prior.independent(_outer(variances).flatten().clamp(min=LEAST))


def _keep(core: TuckerCore, mode: int, kept: Tensor) -> None:
    k = len(core.ranks)
    mean = core.mean.reshape(core.ranks).index_select(mode, kept)
    whole = core.covariance.reshape(core.ranks + core.ranks)
    whole = whole.index_select(mode, kept).index_select(mode + k, kept)
    core.ranks = tuple(mean.shape)
    core.mean, core.covariance = mean.flatten(), whole.reshape(mean.numel(), mean.numel())


def _factor(process: Process) -> Factor:
    found = process.marginals()
    return Factor.of(found.mean, found.covariance)


def _turned(tensor: Tensor, axis: int, turn: Tensor) -> Tensor:
    return torch.tensordot(turn, tensor, dims=([1], [axis])).movedim(0, axis)


def _outer(vectors: list[Tensor]) -> Tensor:
    whole = vectors[0]
    for vector in vectors[1:]:
        whole = whole[..., None] * vector
    return whole
