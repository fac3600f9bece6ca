"""Processes anywhere on the line and samples of them, against dense matrices and gpytorch's ExactGP."""

import math

import gpytorch
import pytest
import torch
from gpytorch import kernels as gp
from torch import Tensor

from fieldmorph.bayes.markov_gp import Process, draw_prior
from fieldmorph.bayes.state_space import from_gpytorch

pytestmark = pytest.mark.numerical

NUS = (0.5, 1.5, 2.5)
every_nu = pytest.mark.parametrize("nu", NUS)


def matern(nu: float, lengthscale: float = 0.6) -> gp.Kernel:
    kernel = gp.ScaleKernel(gp.MaternKernel(nu=nu)).double()
    kernel.base_kernel.lengthscale = torch.tensor(lengthscale, dtype=torch.float64)
    kernel.outputscale = torch.tensor(1.7, dtype=torch.float64)
    return kernel


def with_a_gap(n: int, seed: int = 0) -> Tensor:
    """Ascending points in [0, 3] and [5, 6]."""
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
    return torch.where(drawn < 3, drawn, drawn + 2).sort().values


def everywhere(n: int) -> Tensor:
    """Between the points, in the gap, and on both sides of all, in no order."""
    return torch.rand(n, generator=torch.Generator().manual_seed(9), dtype=torch.float64) * 12 - 3


def coupled(points: Tensor, r: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Information of this rank at every point, none at every third where the rank is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    roots = 2 * torch.randn(len(points), r, max(rank, 1), generator=generator, dtype=torch.float64)
    roots = roots * (rank > 0)
    if rank == 1:
        roots[::3] = 0
    eta = roots @ torch.randn(len(points), max(rank, 1), 1, generator=generator, dtype=torch.float64)
    return eta[:, :, 0], roots @ roots.mT


def gram(kernel: gp.Kernel, a: Tensor, b: Tensor) -> Tensor:
    """A kernel's matrix, pair by pair: gpytorch's own takes distances from squares, good to 1e-8 only near zero."""
    first, second = a.repeat_interleave(len(b))[:, None], b.repeat(len(a))[:, None]
    with torch.no_grad():
        return kernel(first, second, diag=True).reshape(len(a), len(b))


def dense_ref(
    kernel: gp.Kernel, points: Tensor, eta: Tensor, lam: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (q, r) and joint covariance (q r, q r) of all functions at the query, with K x I written out."""
    r = eta.shape[1]
    one = torch.eye(r, dtype=torch.float64)
    prior, cross, there = (
        torch.kron(gram(kernel, a, b), one) for a, b in ((points, points), (query, points), (query, query))
    )
    information = torch.block_diag(*lam)
    system = torch.eye(len(prior), dtype=torch.float64) + information @ prior
    mean = cross @ torch.linalg.solve(system, eta.flatten())
    covariance = there - cross @ torch.linalg.solve(system, information @ cross.T)
    return mean.reshape(-1, r), covariance


def blocks(covariance: Tensor, r: int) -> Tensor:
    """Of the diagonal, (q, r, r)."""
    n = len(covariance) // r
    return covariance.reshape(n, r, n, r).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def process(kernel: gp.Kernel, points: Tensor, eta: Tensor, lam: Tensor) -> Process:
    with torch.no_grad():
        return Process(from_gpytorch(kernel), points, eta, lam)


@every_nu
def test_predictions_anywhere_are_an_exact_gps(nu: float) -> None:
    kernel, points, query = matern(nu), with_a_gap(70), everywhere(500)
    y = (3 * points).sin() + 0.2 * torch.randn(70, generator=torch.Generator().manual_seed(1)).double()
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.04

    class Exact(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(points[:, None], y, likelihood)
            self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), kernel

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    with torch.no_grad():
        expected = Exact().eval()(query[:, None])
    noise = likelihood.noise.detach()
    assert ((query > 3) & (query < 5)).sum() > 50
    assert (query < points[0]).sum() > 50
    assert (query > points[-1]).sum() > 50
    found = process(kernel, points, (y / noise)[:, None], (1 / noise).expand(70)[:, None, None])
    mean, covariance = found.at(query)
    torch.testing.assert_close(mean[:, 0], expected.mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(covariance[:, 0, 0], expected.variance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rank", [3, 1, 0])
@pytest.mark.parametrize(
    "make",
    [
        lambda: matern(0.5),
        lambda: matern(2.5),
        lambda: matern(1.5) * gp.CosineKernel().double() + matern(0.5),
        lambda: gp.ConstantKernel().double() + matern(1.5),
    ],
    ids=["matern-1/2", "matern-5/2", "product and sum", "constant"],
)
def test_coupled_functions_anywhere_match_the_dense_posterior(make, rank: int) -> None:
    kernel, points, query = make(), with_a_gap(40), everywhere(120)
    eta, lam = coupled(points, 3, rank)
    mean, covariance = process(kernel, points, eta, lam).at(query)
    expected, joint = dense_ref(kernel, points, eta, lam, query)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(covariance, blocks(joint, 3), rtol=0, atol=1e-9)


@every_nu
def test_a_query_at_a_point_is_the_points_own_posterior(nu: float) -> None:
    points = with_a_gap(40)
    found = process(matern(nu), points, *coupled(points, 2, 2))
    mean, covariance = found.at(points.flip(0))
    torch.testing.assert_close(mean.flip(0), found.marginals().mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(covariance.flip(0), found.marginals().covariance, rtol=0, atol=1e-10)


def test_one_point_informs_about_its_neighborhood() -> None:
    """exp(-d / l) correlation, variance 1.7, information 3: mean k eta / (1 + 1.7 * 3), variance 1.7 - k^2 3 / 6.1."""
    one = torch.ones(1).double()
    found = process(matern(0.5), 2 * one, 1.5 * one[:, None], 3 * one[:, None, None])
    mean, covariance = found.at(torch.tensor([1.7, 2.0, 2.6, 400.0], dtype=torch.float64))
    for m, v, d in zip(mean[:, 0].tolist(), covariance[:, 0, 0].tolist(), (0.3, 0, 0.6, 398), strict=True):
        k = 1.7 * math.exp(-d / 0.6)
        assert m == pytest.approx(k * 1.5 / 6.1, abs=1e-13)
        assert v == pytest.approx(1.7 - k * k * 3 / 6.1, abs=1e-13)


@every_nu
def test_far_away_there_is_the_prior(nu: float) -> None:
    points = with_a_gap(20)
    mean, covariance = process(matern(nu), points, *coupled(points, 2, 2)).at(
        torch.tensor([-1e6, 1e6, -1e300, 1e300]).double()
    )
    assert mean.abs().max() < 1e-12
    torch.testing.assert_close(covariance, 1.7 * torch.eye(2).double().expand(4, 2, 2), rtol=0, atol=1e-12)


def test_information_shrinks_variances() -> None:
    """More of it at a point, and one point more: nowhere does a variance grow."""
    points, query = with_a_gap(20), everywhere(200)
    eta, lam = coupled(points, 2, 2)
    less = process(matern(1.5), points[1:], eta[1:], lam[1:]).at(query)[1]
    some = process(matern(1.5), points, eta, lam).at(query)[1]
    more = process(matern(1.5), points, eta, 2 * lam).at(query)[1]
    for wide, narrow in ((less, some), (some, more)):
        assert torch.linalg.eigvalsh(wide - narrow).min() > -1e-10
        assert (wide - narrow).abs().max() > 1e-2


def test_predictions_in_parts_are_the_whole() -> None:
    points, query = with_a_gap(20), everywhere(53)
    found = process(matern(1.5), points, *coupled(points, 2, 2))
    whole = found.at(query)
    for part, expected in zip(found.at(query, max_numbers=16 * 7), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-13)
    one_by_one = [found.at(q[None]) for q in query]
    torch.testing.assert_close(torch.cat([c for _, c in one_by_one]), whole[1], rtol=0, atol=1e-13)


@pytest.mark.filterwarnings("error")
def test_a_column_of_a_table_is_a_query() -> None:
    """Not contiguous, which torch would warn of."""
    points, table = with_a_gap(5), everywhere(12).reshape(6, 2)
    found = process(matern(1.5), points, *coupled(points, 2, 2))
    for got, expected in zip(found.at(table[:, 1]), found.at(table[:, 1].contiguous()), strict=True):
        assert torch.equal(got, expected)
    column, copy = (
        found.sample(query, 1, torch.Generator().manual_seed(0))
        for query in (table[:, 1], table[:, 1].contiguous())
    )
    assert torch.equal(column, copy)


def test_no_query_gives_nothing() -> None:
    points = with_a_gap(5)
    mean, covariance = process(matern(1.5), points, *coupled(points, 2, 2)).at(torch.zeros(0).double())
    assert mean.shape == (0, 2)
    assert covariance.shape == (0, 2, 2)


@pytest.mark.parametrize("precision", [1e8, 1e12])
@pytest.mark.parametrize("make", [lambda: matern(2.5, 100.0), lambda: matern(1.5), lambda: gp.RBFKernel()])
def test_precise_points_close_to_each_other_leave_no_negative_variance(make, precision: float) -> None:
    at = with_a_gap(15)
    points = torch.stack([at, at + 1e-9]).T.flatten()
    lam = precision * torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double().expand(30, 2, 2)
    eta = (lam @ torch.stack([points.sin(), points.cos()], dim=1)[:, :, None])[:, :, 0]
    found = process(make(), points, eta, lam)
    mean, covariance = found.at(torch.cat([everywhere(300), points, at + 0.5e-9]))
    assert mean.isfinite().all()
    assert covariance.isfinite().all()
    assert covariance.diagonal(dim1=1, dim2=2).min() >= 0
    assert torch.linalg.eigvalsh(covariance).min() > -1e-15


@every_nu
def test_functions_from_the_prior_have_its_covariance(nu: float) -> None:
    """50 000 of them: an entry's standard error is sqrt((v^2 + c^2) / n), of which five are allowed."""
    kernel, points, n = matern(nu), torch.tensor([0.0, 0.1, 0.5, 0.5 + 1e-9, 4.0]).double(), 50_000
    with torch.no_grad():
        space = from_gpytorch(kernel)
    drawn = draw_prior(space, points, n, torch.Generator().manual_seed(0))
    expected = gram(kernel, points, points)
    error = ((1.7**2 + expected.square()) / n).sqrt()
    assert ((drawn @ drawn.T / n - expected).abs() < 5 * error).all()
    assert (drawn.mean(1).abs() < 5 * math.sqrt(1.7 / n)).all()


def test_samples_have_the_joint_posteriors_mean_and_covariance() -> None:
    """20 000 of them at five places, a data point and two close ones among them; five standard errors allowed."""
    kernel, points, n = matern(1.5), torch.tensor([0.0, 0.4, 1.0, 3.0]).double(), 20_000
    eta, lam = coupled(points, 2, 2, seed=2)
    lam[1] = 0.0
    eta[1] = 0.0
    query = torch.tensor([3.5, 0.4, -0.2, 1.0, 1.001]).double()
    samples = process(kernel, points, eta, lam).sample(query, n, torch.Generator().manual_seed(0)).flatten(1)
    mean, covariance = dense_ref(kernel, points, eta, lam, query)
    variance = covariance.diagonal()
    assert ((samples.mean(0) - mean.flatten()).abs() < 5 * (variance / n).sqrt()).all()
    error = ((torch.outer(variance, variance) + covariance.square()) / n).sqrt()
    assert ((samples.T.cov() - covariance).abs() < 5 * error).all()
    # Small enough to distinguish these from samples of which every place or function is drawn for itself.
    alone = covariance.diagonal().diag()
    assert ((covariance - alone).abs() / error).max() > 20
    functions = torch.ones(5, 5).kron(torch.eye(2)).double()
    assert ((covariance * (1 - functions)).abs() / error).max() > 20


def test_equal_seeds_give_equal_samples() -> None:
    points = with_a_gap(10)
    found = process(matern(2.5), points, *coupled(points, 2, 1))
    query = torch.tensor([2.0, -1.0, 2.0]).double()
    first, second, other = (found.sample(query, 3, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert first.shape == (3, 3, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(first[:, 0], first[:, 2])  # the same place twice
    assert found.sample(query, 0, torch.Generator()).shape == (0, 3, 2)


def test_samples_in_parts_are_samples() -> None:
    points = with_a_gap(10)
    found = process(matern(2.5), points, *coupled(points, 2, 1))
    query = torch.tensor([2.0, -1.0]).double()
    one_by_one = torch.Generator().manual_seed(4)
    expected = torch.cat([found.sample(query, 1, one_by_one) for _ in range(5)])
    together = found.sample(query, 5, torch.Generator().manual_seed(4), max_numbers=1)
    assert torch.equal(together, expected)
