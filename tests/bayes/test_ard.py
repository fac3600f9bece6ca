"""Ranks by automatic relevance."""

import pytest
import torch
from gpytorch.kernels import MaternKernel
from torch import Tensor

from fieldmorph.bayes.ard import align, find_ranks, learn_relevance
from fieldmorph.bayes.core import TuckerCore
from fieldmorph.bayes.entries import Entries, merge_rows
from fieldmorph.bayes.inference import State, begin, space_of, sweep
from fieldmorph.bayes.markov_gp import draw_prior

pytestmark = pytest.mark.numerical

POINTS = 40


def kernel() -> MaternKernel:
    smooth = MaternKernel(nu=1.5).double()
    smooth.lengthscale = 0.3
    return smooth


def tucker(ranks: tuple[int, ...], seed: int, noise: float = 0.1, n: int = 2500) -> Entries:
    """Values of unit variance at random places of a grid, without a mean taken off."""
    generator = torch.Generator().manual_seed(seed)
    points = [torch.rand(POINTS, generator=generator, dtype=torch.float64).sort().values for _ in ranks]
    index = torch.randint(POINTS, (n, len(ranks)), generator=generator)
    value = torch.randn(1, *ranks, generator=generator, dtype=torch.float64).expand(n, *ranks)
    for mode, r in enumerate(ranks):
        function = draw_prior(space_of(kernel()), points[mode], r, generator)[index[:, mode]]
        value = torch.einsum("nr,nr...->n...", function, value)
    noise_free = value / value.std()
    values = noise_free + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return merge_rows(torch.stack([p[i] for p, i in zip(points, index.T, strict=True)], dim=1), values)


def warmed(entries: Entries, rank: int, seed: int, sweeps: int = 15) -> State:
    generator = torch.Generator().manual_seed(seed)
    modes = len(entries.points)
    state = begin(entries, [kernel() for _ in range(modes)], [rank] * modes, generator)
    for _ in range(sweeps):
        sweep(state)
    return state


def best_of(entries: Entries, rank: int, restarts: int) -> State:
    states = [warmed(entries, rank, seed) for seed in range(restarts)]
    for state in states:
        find_ranks(state)
    return max(states, key=lambda state: state.bounds[-1])


@pytest.mark.parametrize("ranks", [(2, 2), (2, 2, 2), (2, 4, 3)])
def test_the_true_ranks_are_found_from_too_many(ranks: tuple[int, ...]) -> None:
    for seed in range(2):
        state = best_of(tucker(ranks, seed), rank=6, restarts=3)
        assert isinstance(state.core, TuckerCore)
        assert state.core.ranks == ranks
        assert 1 / state.noise.mean == pytest.approx(0.01, rel=0.15)


def moments(state: State) -> tuple[Tensor, Tensor]:
    return state.core.moments(
        [type(f)(f.mean[i], f.second[i]) for f, i in zip(state.factors, state.entries.index.T, strict=True)]
    )


def test_aligning_changes_no_prediction_and_orders_the_slices() -> None:
    state = warmed(tucker((2, 3, 2), seed=0), rank=4, seed=0)
    before = moments(state)
    align(state)
    after = moments(state)
    assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(before, after, strict=True))
    assert isinstance(state.core, TuckerCore)
    core = state.core.mean.reshape(state.core.ranks)
    for mode in range(3):
        unfolded = core.movedim(mode, 0).flatten(1)
        scatter = unfolded @ unfolded.T
        energy = scatter.diagonal()
        assert (scatter - energy.diag()).abs().max() < 1e-8 * energy.max()
        assert (energy.diff() <= 1e-9).all()


def test_aligned_sweeps_continue_as_those_that_were_not() -> None:
    one, other = (warmed(tucker((2, 2, 2), seed=3), rank=3, seed=1) for _ in range(2))
    align(other)
    assert [sweep(one) for _ in range(3)] == pytest.approx([sweep(other) for _ in range(3)], abs=1e-5)


def test_variances_learned_raise_the_bound() -> None:
    plain, learned = (warmed(tucker((2, 2, 2), seed=0), rank=4, seed=0) for _ in range(2))
    align(learned)
    variances = [torch.ones(4, dtype=torch.float64) for _ in range(3)]
    for _ in range(10):
        sweep(plain)
        sweep(learned)
        assert isinstance(learned.core, TuckerCore)
        learn_relevance(learned.core, variances)
    assert sweep(learned) > sweep(plain) + 50
    assert [int((v > 1e-3 * v.max()).sum()) for v in variances] == [2, 2, 2]
