"""Tucker and CP cores: expectations under factorised posteriors, against distributions that can be enumerated."""

import itertools
import math
from dataclasses import replace
from functools import reduce

import pytest
import torch
from torch import Tensor

from fieldmorph.bayes.core import Core, CPCore, Factor, Prior, TuckerCore
from fieldmorph.bayes.entries import Entries, merge_rows
from fieldmorph.bayes.kernels.symmetric import unpack_index

pytestmark = pytest.mark.numerical

RANKS = [(3,), (2, 3), (3, 1), (2, 3, 4), (3, 1, 2), (2, 3, 1, 2), (1, 1, 1)]
every_rank = pytest.mark.parametrize("ranks", RANKS, ids=str)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entries(modes: int, n: int = 14, seed: int = 0) -> Entries:
    """Rows at three or four points of each mode, unequal weights, some places twice."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.stack(
        [torch.randint(3 + k % 2, (n,), generator=generator) for k in range(modes)], dim=1
    )
    return merge_rows(
        coordinates.double(), normal(n, seed=seed + 1), 0.5 + torch.rand(n, generator=generator).double()
    )


def factors(ranks: tuple[int, ...], given: Entries, spread: float = 0.5) -> list[Factor]:
    found = []
    for mode, (r, points) in enumerate(zip(ranks, given.points, strict=True)):
        root = spread * normal(len(points), r, r, seed=20 + mode)
        found.append(Factor.of(normal(len(points), r, seed=10 + mode), root @ root.mT))
    return found


def uncertain(ranks: tuple[int, ...], spread: float = 0.5) -> TuckerCore:
    core = TuckerCore(ranks, normal(math.prod(ranks), seed=30))
    root = spread * normal(math.prod(ranks), math.prod(ranks), seed=31)
    core.covariance = root @ root.T
    return core


def prior(ranks: tuple[int, ...]) -> Prior:
    """Of unequal, dependent entries."""
    root = normal(math.prod(ranks), math.prod(ranks), seed=33)
    return Prior(normal(math.prod(ranks), seed=32), root @ root.T + torch.eye(len(root)).double())


def kron(vectors: list[Tensor]) -> Tensor:
    """The last one's index runs fastest."""
    return reduce(torch.kron, [v.contiguous() for v in vectors], torch.ones(1, dtype=torch.float64))


def second(factor: Factor, point: int) -> Tensor:
    r = factor.mean.shape[1]
    return factor.second[point][unpack_index(r)]


def corners(mean: Tensor, covariance: Tensor) -> list[Tensor]:
    """Equally likely vectors, 2^r of them, that have this mean and covariance."""
    root = torch.linalg.cholesky(covariance)
    signs = itertools.product((-1.0, 1.0), repeat=len(mean))
    return [mean + root @ torch.tensor(s, dtype=torch.float64) for s in signs]


def messages_ref(core: TuckerCore, mode: int, given: list[Factor], at: Entries) -> tuple[Tensor, Tensor]:
    """One place at a time: y E[W_(k)] E[z\\k] and E[W_(k) S W_(k)'], S the Kronecker product of second moments."""
    k, r, size = len(core.ranks), core.ranks[mode], math.prod(core.ranks)
    others = [m for m in range(k) if m != mode]
    order = torch.arange(size).reshape(core.ranks).movedim(mode, 0).reshape(r, -1)  # gamma's index of W_(k)
    moments = core.covariance + torch.outer(core.mean, core.mean)
    eta = torch.zeros(len(at.points[mode]), r).double()
    lam = torch.zeros(len(at.points[mode]), r, r).double()
    for place, weight, total in zip(at.index.tolist(), at.weight, at.total, strict=True):
        z = kron([given[m].mean[place[m]] for m in others])
        s = kron([second(given[m], place[m]) for m in others])
        eta[place[mode]] += total * (core.mean[order] @ z)
        for i in range(r):
            for j in range(r):
                lam[place[mode], i, j] += weight * (moments[order[i]][:, order[j]] * s).sum()
    return eta, lam


@every_rank
def test_each_unfolding_pairs_with_the_other_modes(ranks: tuple[int, ...]) -> None:
    """Without variances gamma' z = u_k' a_k for every mode k: at one place of value 1, eta is a_k itself."""
    given = [
        Factor.of(normal(1, r, seed=mode), torch.zeros(1, r, r).double()) for mode, r in enumerate(ranks)
    ]
    core = TuckerCore(ranks, normal(math.prod(ranks), seed=9))
    value = core.mean @ kron([f.mean[0] for f in given])
    one = merge_rows(torch.zeros(1, len(ranks)), torch.ones(1).double())
    for mode, factor in enumerate(given):
        eta, lam = core.messages(mode, given, one)
        torch.testing.assert_close(factor.mean[0] @ eta[0], value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(lam[0], torch.outer(eta[0], eta[0]), rtol=1e-12, atol=1e-12)
    mean, square = core.moments(given)
    torch.testing.assert_close(mean[0], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(square[0], value**2, rtol=1e-12, atol=1e-12)


@every_rank
def test_messages_match_the_reference(ranks: tuple[int, ...]) -> None:
    at = entries(len(ranks))
    core, given = uncertain(ranks), factors(ranks, at)
    for mode in range(len(ranks)):
        for got, expected in zip(
            core.messages(mode, given, at), messages_ref(core, mode, given, at), strict=True
        ):
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ranks", [(2, 2), (2, 1, 2), (1, 2, 1, 2)], ids=str)
def test_messages_and_moments_are_expectations(ranks: tuple[int, ...]) -> None:
    """Every combination of equally likely factors and cores, so that expectations are means over thousands."""
    at = merge_rows(
        torch.zeros(1, len(ranks)), torch.full((1,), 0.75).double(), torch.full((1,), 2.0).double()
    )
    core = uncertain(ranks)
    covariances = [0.3 * normal(r, r, seed=40 + r) for r in ranks]
    covariances = [
        root @ root.T + 0.1 * torch.eye(r).double() for root, r in zip(covariances, ranks, strict=True)
    ]
    means = [normal(r, seed=50 + mode) for mode, r in enumerate(ranks)]
    given = [Factor.of(m[None], c[None]) for m, c in zip(means, covariances, strict=True)]
    choices = [corners(m, c) for m, c in zip(means, covariances, strict=True)]
    cores = torch.stack(corners(core.mean, core.covariance)).unflatten(1, ranks)
    letters = "abcd"[: len(ranks)]
    values = torch.stack(
        [
            torch.einsum(f"n{letters}," + ",".join(letters) + "->n", cores, *chosen)
            for chosen in itertools.product(*choices)
        ]
    )
    mean, square = core.moments(given)
    torch.testing.assert_close(mean[0], values.mean(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(square[0], values.square().mean(), rtol=1e-11, atol=1e-11)
    for mode in range(len(ranks)):
        rest = [m for m in range(len(ranks)) if m != mode]
        left = ",".join(letters[m] for m in rest)
        a = torch.stack(
            [
                torch.einsum(f"n{letters},{left}->n{letters[mode]}", cores, *chosen)
                for chosen in itertools.product(*[choices[m] for m in rest])
            ]
        ).flatten(0, 1)
        eta, lam = core.messages(mode, given, at)
        torch.testing.assert_close(eta[0], 2.0 * 0.75 * a.mean(0), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(lam[0], 2.0 * a.T @ a / len(a), rtol=1e-11, atol=1e-11)


@every_rank
def test_moments_match_the_reference(ranks: tuple[int, ...]) -> None:
    """E[gamma' z] and tr(E[gamma gamma'] E[z z']), row by row."""
    at = merge_rows(torch.arange(5.0)[:, None].expand(5, len(ranks)), torch.ones(5).double())
    core, given = uncertain(ranks), factors(ranks, at)
    mean, square = core.moments(given)
    moments = core.covariance + torch.outer(core.mean, core.mean)
    for n in range(5):
        z = kron([f.mean[n] for f in given])
        zz = kron([second(f, n) for f in given])
        assert mean[n].item() == pytest.approx(float(core.mean @ z), rel=1e-11)
        assert square[n].item() == pytest.approx(float((moments * zz).sum()), rel=1e-11)
    assert (square > mean.square()).all()


@every_rank
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_core_is_a_ridge_regression(ranks: tuple[int, ...], spread: float) -> None:
    """With known factors on their Kronecker products; uncertain ones add their spread to the Gram matrix."""
    at = entries(len(ranks), n=20)
    core, given = TuckerCore(ranks, normal(math.prod(ranks))), factors(ranks, at, spread)
    core.prior = prior(ranks)
    core.update(given, at, precision=3.0)
    z = torch.stack([kron([f.mean[i] for f, i in zip(given, place, strict=True)]) for place in at.index])
    gram = z.T @ (at.weight[:, None] * z)
    if spread:
        gram = sum(
            w * kron([second(f, i) for f, i in zip(given, place, strict=True)])
            for w, place in zip(at.weight, at.index.tolist(), strict=True)
        )
    information = 3.0 * gram + core.prior.precision
    reported = 3.0 * z.T @ at.total + core.prior.precision @ core.prior.mean
    torch.testing.assert_close(core.mean, torch.linalg.solve(information, reported))
    torch.testing.assert_close(core.covariance, torch.linalg.inv(information))


@every_rank
def test_the_divergence_is_the_textbooks(ranks: tuple[int, ...]) -> None:
    core, before = uncertain(ranks), prior(ranks)
    core.prior = before
    posterior = torch.distributions.MultivariateNormal(core.mean, core.covariance)
    dense = torch.distributions.MultivariateNormal(before.mean, precision_matrix=before.precision)
    expected = torch.distributions.kl_divergence(posterior, dense)
    assert core.divergence() == pytest.approx(float(expected), rel=1e-9)


def test_independent_entries_have_a_diagonal_prior() -> None:
    variance = torch.tensor([0.5, 2.0]).double()
    found = Prior.independent(variance)
    assert found.mean.tolist() == [0, 0]
    assert found.precision.tolist() == [[2.0, 0.0], [0.0, 0.5]]


@every_rank
def test_a_core_as_prior_learns_as_if_it_had_all_rows(ranks: tuple[int, ...]) -> None:
    """With the same factors and noise: rows in two parts, the first part's posterior being the second's prior."""
    rows, core = entries(len(ranks), n=30), TuckerCore(ranks, normal(math.prod(ranks)))
    given = factors(ranks, rows)
    parts = [replace(rows, weight=rows.weight * part, total=rows.total * part) for part in (0.3, 0.7)]
    core.update(given, rows, precision=2.0)
    first = TuckerCore(ranks, normal(math.prod(ranks)))
    first.update(given, parts[0], precision=2.0)
    second = first.as_prior()
    assert second.divergence() == pytest.approx(0, abs=1e-8)
    before = first.mean.clone(), first.covariance.clone()
    second.update(given, parts[1], precision=2.0)
    torch.testing.assert_close(second.mean, core.mean)
    torch.testing.assert_close(second.covariance, core.covariance)
    assert torch.equal(first.mean, before[0])
    assert torch.equal(first.covariance, before[1])


@pytest.mark.parametrize("modes", [1, 2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cp_is_tucker_with_ones_on_the_superdiagonal(modes: int, rank: int) -> None:
    ranks = (rank,) * modes
    ones = torch.zeros(ranks).double()
    for r in range(rank):
        ones[(r,) * modes] = 1
    tucker, cp = TuckerCore(ranks, ones.flatten()), CPCore(rank)
    at = entries(modes)
    given = factors(ranks, at)
    for mode in range(modes):
        for got, expected in zip(cp.messages(mode, given, at), tucker.messages(mode, given, at), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    rows = [Factor(f.mean[:3], f.second[:3]) for f in given]
    for got, expected in zip(cp.moments(rows), tucker.moments(rows), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert cp.divergence() == 0
    before = [x.clone() for x in cp.messages(0, given, at)]
    cp.update(given, at, 5.0)
    assert all(map(torch.equal, before, cp.messages(0, given, at)))


def _drawn(core: Core, ranks: tuple[int, ...], samples: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    functions = [normal(1, 4, r, seed=60 + mode).expand(samples, 4, r) for mode, r in enumerate(ranks)]
    return core.values(functions, torch.Generator().manual_seed(seed)), [f[0] for f in functions]


def test_sampled_values_have_the_cores_mean_and_covariance() -> None:
    """20 000 cores for the same functions; five standard errors allowed."""
    ranks, n = (2, 3, 2), 20_000
    core = uncertain(ranks, spread=0.2)
    values, functions = _drawn(core, ranks, n)
    z = torch.stack([kron([f[place] for f in functions]) for place in range(4)])
    covariance = z @ core.covariance @ z.T
    variance = covariance.diagonal()
    assert ((values.mean(0) - z @ core.mean).abs() < 5 * (variance / n).sqrt()).all()
    error = ((torch.outer(variance, variance) + covariance.square()) / n).sqrt()
    assert ((values.T.cov() - covariance).abs() < 5 * error).all()


def test_cps_values_are_sums_of_products() -> None:
    values, (a, b, c) = _drawn(CPCore(3), (3, 3, 3), 2)
    torch.testing.assert_close(values, (a * b * c).sum(1).expand(2, 4))
