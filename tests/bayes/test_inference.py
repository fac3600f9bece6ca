"""Functional Tucker decomposition: its bound, against dense divergences and an exact evidence, and what it recovers."""

import math
from functools import reduce
from itertools import pairwise

import pytest
import torch
from gpytorch import kernels as gp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gammaln, k0
from torch import Tensor

from fieldmorph.bayes.core import Factor, TuckerCore
from fieldmorph.bayes.entries import merge_rows
from fieldmorph.bayes.inference import RATE, SHAPE, State, begin, offload, restore, space_of, sweep
from fieldmorph.bayes.kernels.symmetric import unpack_index
from fieldmorph.bayes.markov_gp import draw_prior
from fieldmorph.bayes.noise import Noise

pytestmark = pytest.mark.numerical

cores = pytest.mark.parametrize("cp", [False, True], ids=["tucker", "cp"])


def matern(nu: float, lengthscale: float) -> gp.Kernel:
    kernel = gp.MaternKernel(nu=nu).double()
    kernel.lengthscale = lengthscale
    return kernel


def constant(value: float) -> gp.Kernel:
    kernel = gp.ConstantKernel().double()
    kernel.constant = torch.tensor(value, dtype=torch.float64)
    return kernel


def small(
    modes: int, n: int, seed: int, places: int = 6, weighted: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Few rows of a tensor with few places a mode, most of it missing, some rows at one place."""
    generator = torch.Generator().manual_seed(seed)
    grid = 3 * torch.rand(modes, places, generator=generator, dtype=torch.float64)
    coordinates = torch.stack([g[torch.randint(places, (n,), generator=generator)] for g in grid], dim=1)
    values = (2 * coordinates.sum(1)).sin() + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    weights = 0.2 + torch.rand(n, generator=generator, dtype=torch.float64)
    return coordinates, values, weights if weighted else torch.ones_like(values)


def begun(
    rows: tuple[Tensor, Tensor, Tensor], ranks: tuple[int, ...], cp: bool, seed: int = 0, nu: float = 1.5
) -> State:
    kernels = [matern(nu, 0.5 + 0.3 * mode) for mode in range(len(ranks))]
    return begin(merge_rows(*rows), kernels, ranks, torch.Generator().manual_seed(seed), cp)


def kron(vectors: list[Tensor]) -> Tensor:
    """The last one's index runs fastest."""
    return reduce(torch.kron, [v.contiguous() for v in vectors])


def bound_ref(state: State, rows: tuple[Tensor, Tensor, Tensor]) -> float:
    """E[log p(y | z, gamma, tau)] of every row less four kinds of divergence, all from dense matrices."""
    coordinates, values, weights = rows
    ranks = tuple(process.eta.shape[1] for process in state.processes)
    divergence, marginals = 0.0, []
    for kernel, process, r in zip(state.kernels, state.processes, ranks, strict=True):
        # N(0, K x I) times exp(eta' f - f' lam f / 2) and its divergence from N(0, K x I).
        points = process.points
        pairs = (points.repeat_interleave(len(points))[:, None], points.repeat(len(points))[:, None])
        with torch.no_grad():
            gram = kernel(*pairs, diag=True).reshape(len(points), len(points))
        prior = torch.kron(gram, torch.eye(r).double())
        information = torch.block_diag(*process.lam)
        precision = torch.linalg.inv(prior) + information
        covariance = torch.linalg.inv(precision)
        mean = covariance @ process.eta.flatten()
        divergence += 0.5 * float(
            torch.linalg.solve(prior, covariance).trace()
            + mean @ torch.linalg.solve(prior, mean)
            - len(mean)
            + torch.linalg.slogdet(prior)[1]
            - torch.linalg.slogdet(covariance)[1]
        )
        marginals.append((mean, covariance))
    if isinstance(state.core, TuckerCore):
        posterior = torch.distributions.MultivariateNormal(state.core.mean, state.core.covariance)
        prior = torch.distributions.MultivariateNormal(
            0 * state.core.mean, torch.eye(len(state.core.mean)).double()
        )
        divergence += float(torch.distributions.kl_divergence(posterior, prior))
        gamma, gammas = state.core.mean, state.core.covariance + torch.outer(state.core.mean, state.core.mean)
    else:
        gamma = torch.zeros(ranks).double()
        for j in range(ranks[0]):
            gamma[(j,) * len(ranks)] = 1
        gamma = gamma.flatten()
        gammas = torch.outer(gamma, gamma)
    shape, rate = torch.tensor([state.noise.shape, state.noise.rate]).double()
    tau = torch.distributions.Gamma(shape, rate)
    divergence += float(
        torch.distributions.kl_divergence(
            tau, torch.distributions.Gamma(torch.tensor(SHAPE).double(), torch.tensor(RATE).double())
        )
    )
    fit = 0.0
    for place, y, weight in zip(coordinates, values, weights, strict=True):
        means, seconds = [], []
        for (mean, covariance), process, x, r in zip(marginals, state.processes, place, ranks, strict=True):
            i = int((process.points == x).nonzero()) * r
            means.append(mean[i : i + r])
            seconds.append(covariance[i : i + r, i : i + r] + torch.outer(means[-1], means[-1]))
        loss = y * y - 2 * y * (gamma @ kron(means)) + (gammas * kron(seconds)).sum()
        fit += 0.5 * float(
            weight * (torch.digamma(shape) - rate.log() - math.log(2 * math.pi) - shape / rate * loss)
        )
    return fit - divergence


@cores
@pytest.mark.parametrize(("ranks", "nu"), [((2,), 1.5), ((2, 2), 0.5), ((3, 3, 3), 1.5), ((2, 2, 2, 2), 2.5)])
def test_the_bound_is_what_dense_matrices_say(ranks: tuple[int, ...], nu: float, cp: bool) -> None:
    if not cp:
        ranks = tuple(r - k % 2 for k, r in enumerate(ranks))
    rows = small(len(ranks), 25, seed=len(ranks))
    state = begun(rows, ranks, cp, nu=nu)
    for _ in range(3):
        assert sweep(state) == pytest.approx(bound_ref(state, rows), rel=1e-7, abs=1e-6)
    assert len(state.bounds) == 3


def test_the_bound_of_damped_messages_is_what_dense_matrices_say() -> None:
    rows = small(3, 25, seed=1)
    state = begun(rows, (2, 1, 2), cp=False)
    for _ in range(3):
        assert sweep(state, damping=0.6) == pytest.approx(bound_ref(state, rows), rel=1e-7, abs=1e-6)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_bound_is_below_the_exact_evidence_and_near_it(n: int) -> None:
    """CP of rank 1 with constant functions: y = f + noise, f the product of two normals.

    Its density is K0(|f| / s) / (pi s), tau's integral a Student t's: the rest is one integral. Mean field loses
    log 2 by taking one of two mirrored modes, and what the product's ridge is longer than its box.
    """
    values = 1.5 + 0.4 * torch.randn(n, generator=torch.Generator().manual_seed(n)).double()
    rows = torch.zeros(n, 2), values
    s = math.sqrt(1.3 * 0.6)
    shape = SHAPE + n / 2

    def joint(f: float) -> float:
        rate = RATE + 0.5 * float((values - f).square().sum())
        log = SHAPE * math.log(RATE) - gammaln(SHAPE) + gammaln(shape) - shape * math.log(rate)
        return math.exp(log - n / 2 * math.log(2 * math.pi) + 2 * n) * k0(abs(f) / s) / (math.pi * s)

    centre = float(values.mean())
    edges = [-9, -1, 0, centre - 1, centre - 0.2, centre, centre + 0.2, centre + 1, 9]
    total = sum(quad(joint, a, b, limit=200)[0] for a, b in pairwise(sorted(edges)))
    evidence = math.log(total) - 2 * n
    state = begin(merge_rows(*rows), [constant(1.3), constant(0.6)], (1, 1), torch.Generator(), cp=True)
    for _ in range(200):
        sweep(state)
    assert evidence - 3 < state.bounds[-1] < evidence - (0.5 if n > 1 else 0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 30),
    st.booleans(),
    st.sampled_from([0.5, 1.5, 2.5]),
    st.integers(0, 9999),
)
def test_the_bound_never_falls(modes: int, n: int, cp: bool, nu: float, seed: int) -> None:
    drawn = torch.randint(1, 4, (modes,), generator=torch.Generator().manual_seed(seed)).tolist()
    ranks = (drawn[0],) * modes if cp else tuple(drawn)
    state = begun(small(modes, n, seed), ranks, cp, seed, nu)
    for _ in range(12):
        sweep(state)
    for earlier, later in pairwise(state.bounds):
        assert later >= earlier - 1e-8 * (1 + abs(earlier))


def test_a_better_bound_is_a_better_place() -> None:
    """Against bounds that stay because nothing is learned: hundreds of nats are gained, by the fit."""
    rows = small(3, 300, seed=3, places=9, weighted=False)
    state = begun(rows, (3, 3, 3), cp=False)
    for _ in range(40):
        sweep(state)
    assert state.bounds[-1] > state.bounds[0] + 100
    mean, _ = state.core.moments([Factor.of(*p.at(rows[0][:, k])) for k, p in enumerate(state.processes)])
    assert (mean - rows[1]).square().mean() < 0.3 * rows[1].var()


def test_the_noise_is_what_is_left() -> None:
    """rate = b0 + (sum of weight times E[(y - gamma' z)^2]) / 2, from the posterior's own moments."""
    rows = small(3, 40, seed=5)
    state = begun(rows, (2, 3, 2), cp=False)
    for _ in range(4):
        sweep(state)
    at = [
        Factor(f.mean[index], f.second[index])
        for f, index in (
            (f, torch.searchsorted(p.points, rows[0][:, k].contiguous()))
            for k, (f, p) in enumerate(zip(state.factors, state.processes, strict=True))
        )
    ]
    mean, square = state.core.moments(at)
    loss = (rows[2] * (rows[1].square() - 2 * rows[1] * mean + square)).sum()
    assert state.noise.rate == pytest.approx(RATE + float(loss) / 2, rel=1e-9)
    assert state.noise.shape == pytest.approx(SHAPE + float(rows[2].sum()) / 2, rel=1e-12)


def test_the_noises_divergence_is_the_textbooks() -> None:
    for shape, rate in ((0.501, 0.3), (3.0, 0.02), (2000.0, 4e5)):
        noise = Noise(shape, rate)
        own = torch.distributions.Gamma(*torch.tensor([shape, rate]).double())
        prior = torch.distributions.Gamma(*torch.tensor([SHAPE, RATE]).double())
        expected = float(torch.distributions.kl_divergence(own, prior))
        assert noise.divergence(Noise(SHAPE, RATE)) == pytest.approx(expected, rel=1e-6)
        assert noise.mean == pytest.approx(float(own.mean), rel=1e-6)
    samples = torch.distributions.Gamma(3.0, 0.02).sample((200_000,)).log()
    error = float(samples.std()) / math.sqrt(len(samples))
    assert abs(Noise(3.0, 0.02).mean_log() - float(samples.mean())) < 5 * error


def synthetic(
    ranks: tuple[int, ...], noise: float, seed: int, rows: int = 4000, cp: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates, values and the noise in them, of a tensor of 25^3 places whose values have variance 1."""
    generator = torch.Generator().manual_seed(seed)
    points = [10 * torch.rand(25, generator=generator, dtype=torch.float64).sort().values for _ in ranks]
    index = torch.stack([torch.randint(25, (rows,), generator=generator) for _ in ranks], dim=1)
    functions = [
        draw_prior(space_of(matern(2.5, 2.0)), p, r, generator) for p, r in zip(points, ranks, strict=True)
    ]
    core = torch.randn(ranks, generator=generator, dtype=torch.float64)
    at = [u[i] for u, i in zip(functions, index.unbind(1), strict=True)]
    values = torch.einsum("na,na,na->n", *at) if cp else torch.einsum("abc,na,nb,nc->n", core, *at)
    errors = noise * torch.randn(rows, generator=generator, dtype=torch.float64)
    coordinates = torch.stack([p[i] for p, i in zip(points, index.unbind(1), strict=True)], dim=1)
    return coordinates, values / values.std() + errors, errors


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(
    ("ranks", "cp"), [((2, 2, 2), False), ((2, 3, 2), False), ((3, 3, 3), False), ((3, 3, 3), True)]
)
def test_a_low_rank_tensor_is_recovered(ranks: tuple[int, ...], cp: bool, noise: float) -> None:
    """Of 15 625 places a fifth are seen: on others the error is the noise's, give or take 5 %."""
    coordinates, values, errors = synthetic(ranks, noise, seed=0, cp=cp)
    known = 3200
    entries = merge_rows(coordinates[:known], values[:known])
    state = begin(entries, [matern(2.5, 2.0)] * 3, ranks, torch.Generator().manual_seed(1), cp)
    for _ in range(60):
        sweep(state)
    at = [Factor.of(*p.at(coordinates[known:, k])) for k, p in enumerate(state.processes)]
    mean, square = state.core.moments(at)
    rmse = (mean - values[known:]).square().mean().sqrt()
    assert rmse < 1.05 * errors[known:].square().mean().sqrt()
    assert state.noise.mean**-0.5 == pytest.approx(noise, rel=0.05)
    # Scores of what is measured next are a standard normal's, as far as 800 of them show.
    scores = (values[known:] - mean) / (square - mean.square() + 1 / state.noise.mean).sqrt()
    assert 0.9 < scores.square().mean() < 1.15


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 999))
def test_neither_order_nor_splitting_of_rows_matters(modes: int, cp: bool, seed: int) -> None:
    coordinates, values, weights = small(modes, 15, seed)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    twice = (torch.cat([x, x]) for x in (coordinates, values))
    states = [
        begun((coordinates, values, weights), (2,) * modes, cp),
        begun((coordinates[order], values[order], weights[order]), (2,) * modes, cp),
        begun((*twice, torch.cat([weights, weights]) / 2), (2,) * modes, cp),
    ]
    for state in states:
        for _ in range(4):
            sweep(state)
    query = torch.linspace(-1, 5, 7).double()
    first, *others = states
    for other in others:
        assert other.bounds == pytest.approx(first.bounds, rel=1e-8, abs=1e-8)
        assert other.noise.mean == pytest.approx(first.noise.mean, rel=1e-8)
        for mine, theirs in zip(first.processes, other.processes, strict=True):
            for a, b in zip(mine.at(query), theirs.at(query), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


@cores
def test_equal_seeds_give_equal_bytes(cp: bool) -> None:
    rows = small(3, 60, seed=8)
    first, second, other = (begun(rows, (2, 2, 2), cp, seed) for seed in (1, 1, 2))
    for state in (first, second, other):
        for _ in range(3):
            sweep(state)
    assert first.bounds == second.bounds
    assert first.bounds != other.bounds
    for a, b in zip(first.factors, second.factors, strict=True):
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.second, b.second)


@cores
def test_a_state_that_was_offloaded_continues_as_if_it_had_not(cp: bool) -> None:
    whole, parted = (begun(small(3, 40, seed=3), (2, 2, 2), cp) for _ in range(2))
    for _ in range(3):
        sweep(whole)
        sweep(parted)
        offload(parted)
        offload(parted)  # once more changes nothing
        assert not parted.factors
        restore(parted)
        restore(parted)
    assert parted.bounds == pytest.approx(whole.bounds, rel=1e-12)
    for one, other in zip(parted.factors, whole.factors, strict=True):
        torch.testing.assert_close(one.second, other.second, rtol=1e-9, atol=1e-9)


def test_a_beginning_knows_nothing_but_is_not_symmetric() -> None:
    state = begun(small(3, 30, seed=2), (2, 3, 2), cp=False)
    for process, factor, r in zip(state.processes, state.factors, (2, 3, 2), strict=True):
        assert not process.marginals().mean.any()
        one = torch.eye(r).double().expand(len(process.points), r, r)
        torch.testing.assert_close(process.marginals().covariance, one, rtol=0, atol=1e-12)
        assert factor.mean.abs().min() > 0
        mean = factor.mean
        torch.testing.assert_close(factor.second[:, unpack_index(r)], mean[:, :, None] * mean[:, None, :])
    assert state.noise.mean == pytest.approx(state.entries.n_rows / state.entries.squares, rel=0.05)


def test_values_of_any_size_are_finite() -> None:
    """Unstandardised, all alike, or a single row."""
    for values in (torch.full((6,), 3e5), torch.zeros(6), 1e-7 * torch.ones(6), torch.ones(1)):
        n = len(values)
        coordinates = torch.stack([torch.arange(n), torch.arange(n) % 2]).T.double()
        state = begun((coordinates, values.double(), torch.ones(n).double()), (2, 2), cp=False)
        for _ in range(20):
            sweep(state)
        assert all(map(math.isfinite, state.bounds))
        for earlier, later in pairwise(state.bounds):
            assert later >= earlier - 1e-7 * (1 + abs(earlier))


def test_one_mode_is_an_exact_gp_whose_noise_is_learned() -> None:
    """The evidence is one integral over tau, of dense Gaussians; mean field loses a little of it."""
    coordinates, values, _ = small(1, 40, seed=4, places=25)
    state = begin(merge_rows(coordinates, values), [matern(1.5, 0.5)], (1,), torch.Generator(), cp=True)
    for _ in range(60):
        sweep(state)
    n, kernel = len(values), state.kernels[0]
    x = torch.cat([coordinates, torch.tensor([[-0.5], [1.234], [7.0]]).double()])
    with torch.no_grad():
        gram = kernel(x.repeat_interleave(n + 3, dim=0), x.repeat(n + 3, 1), diag=True).reshape(n + 3, n + 3)
    one = torch.eye(n).double()

    def log_joint(log_tau: float) -> float:
        normal = torch.distributions.MultivariateNormal(0 * values, gram[:n, :n] + math.exp(-log_tau) * one)
        prior = SHAPE * (math.log(RATE) + log_tau) - RATE * math.exp(log_tau) - math.lgamma(SHAPE)
        return float(normal.log_prob(values)) + prior

    grid = torch.linspace(-2, 7, 400).double()
    evidence = (
        torch.tensor([log_joint(t) for t in grid.tolist()]).double().logsumexp(0) + grid.diff()[0].log()
    )
    assert evidence - 0.5 < state.bounds[-1] < evidence - 1e-3
    system = gram[:n, :n] + one / state.noise.mean
    mean, covariance = state.processes[0].at(x[n:, 0])
    expected = gram[n:, :n] @ torch.linalg.solve(system, values)
    torch.testing.assert_close(mean[:, 0], expected, rtol=1e-6, atol=1e-6)
    variance = gram[n:, n:] - gram[n:, :n] @ torch.linalg.solve(system, gram[:n, n:])
    torch.testing.assert_close(covariance[:, 0, 0], variance.diagonal(), rtol=1e-6, atol=1e-6)
