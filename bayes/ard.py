"""Rank selection by automatic relevance determination (ARD): unneeded functions of a Tucker model are removed.

The core has the prior gamma_{i j ...} ~ N(0, v^1_i v^2_j ...) with a variance for each function of each mode, learned
by the fixed-point iteration of MacKay (1992). Variances of functions that the data do not need shrink to zero.
"""

import torch
from torch import Tensor

from fieldmorph.bayes.core import Factor, Prior, TuckerCore
from fieldmorph.bayes.inference import State, sweep
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.fields.progress import OnSweep

SWEEPS = 60  # 40 are not always enough to remove an unneeded function
ALIGN_EVERY = 4  # sweeps
PRUNE_AFTER = 5  # sweeps of learning
MIN_VARIANCE = 1e-8
RELEVANCE = 1e-3  # of a mode's largest variance, below which a function is removed


def find_ranks(state: State, on_sweep: OnSweep = lambda _sweep, _bound: None) -> None:
    """Run sweeps that remove unneeded functions from a Tucker model; its core keeps the learned prior variances.

    A mean that is not subtracted from the values takes one more function of every mode. The bound may decrease where
    functions are removed.

    Args:
        state: changed in place.
        on_sweep: called after each sweep with its number and the bound in nats.
    """
    align(state)
    core = state.core
    assert isinstance(core, TuckerCore)
    energy = core.mean.reshape(core.ranks).square()
    variances = [
        energy.movedim(mode, 0).flatten(1).mean(1).clamp(min=MIN_VARIANCE) / (energy.mean() if mode else 1.0)
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
    """Update all modes' prior variances once; `variances` and the core's prior change in place."""
    mean, spread = core.mean.reshape(core.ranks), core.covariance.diagonal().reshape(core.ranks)
    for mode in range(len(variances)):
        rest = _outer([v if k != mode else torch.ones_like(v) for k, v in enumerate(variances)])
        own = _outer(variances).clamp(min=MIN_VARIANCE)
        determined = (1 - spread / own).clamp(min=0)
        energy = (mean.square() / rest).movedim(mode, 0).flatten(1).sum(1)
        count = determined.movedim(mode, 0).flatten(1).sum(1)
        variances[mode] = (energy / count.clamp(min=1e-6)).clamp(min=MIN_VARIANCE)
    core.prior = Prior.independent(_outer(variances).flatten().clamp(min=MIN_VARIANCE))


def align(state: State) -> None:
    """Rotate every mode's functions so that the core's slices are orthogonal and ordered (De Lathauwer et al. 2000).

    Functions of one mode share a prior that no rotation changes, so that inference finds them in an arbitrary rotation,
    in which all of them carry part of a function that is not needed.

    Args:
        state: of a Tucker model; changed in place.
    """
    core = state.core
    assert isinstance(core, TuckerCore)
    k = len(core.ranks)
    for mode in range(k):
        unfolded = core.mean.reshape(core.ranks).movedim(mode, 0).flatten(1)
        rotation = torch.linalg.svd(unfolded, full_matrices=True).U.T
        core.mean = _rotated(core.mean.reshape(core.ranks), mode, rotation).flatten()
        whole = _rotated(core.covariance.reshape(core.ranks + core.ranks), mode, rotation)
        core.covariance = _rotated(whole, mode + k, rotation).reshape(core.covariance.shape)
        before = state.processes[mode]
        process = Process(
            before.space, before.points, before.eta @ rotation.T, rotation @ before.lam @ rotation.T
        )
        state.processes[mode], state.factors[mode] = process, _factor(process)


def prune(state: State, variances: list[Tensor]) -> None:
    """Remove the functions whose prior variance is negligible.

    Args:
        state: of a Tucker model; changed in place.
        variances: prior variance of each function, by mode; shortened like the functions.
    """
    core = state.core
    assert isinstance(core, TuckerCore)
    for mode, variance in enumerate(variances):
        kept = (variance > RELEVANCE * variance.max()).nonzero()[:, 0]
        if len(kept) < len(variance):
            variances[mode] = variance[kept]
            _keep(core, mode, kept)
            before = state.processes[mode]
            lam = before.lam[:, kept][:, :, kept]
            process = Process(before.space, before.points, before.eta[:, kept].contiguous(), lam.contiguous())
            state.processes[mode], state.factors[mode] = process, _factor(process)
    core.prior = Prior.independent(_outer(variances).flatten().clamp(min=MIN_VARIANCE))


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


def _rotated(tensor: Tensor, axis: int, rotation: Tensor) -> Tensor:
    rotated: Tensor = torch.tensordot(rotation, tensor, dims=([1], [axis]))
    return rotated.movedim(0, axis)


def _outer(vectors: list[Tensor]) -> Tensor:
    whole = vectors[0]
    for vector in vectors[1:]:
        whole = whole[..., None] * vector
    return whole
