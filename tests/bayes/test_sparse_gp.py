"""The sparse process is a dense one where it is exact, near it where it is not, and learns what made its data."""

import math

import pytest
import torch
from gpytorch.kernels import MaternKernel, ScaleKernel
from torch import Tensor

from fieldmorph.bayes import sparse_gp as module
from fieldmorph.bayes.sparse_gp import SparseGP, fit_sparse
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

UNITS = torch.tensor([10.0, 1e6], dtype=torch.float64)  # of two coordinates


def places(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 2, generator=generator, dtype=torch.float64) * UNITS


def wave(x: Tensor) -> Tensor:
    """Between -7 and 13."""
    return 3 + 10 * (2 * math.pi * x[:, 0] / UNITS[0]).sin() * (x[:, 1] / UNITS[1])


def noise(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64)


def posterior_ref(
    gp: SparseGP, x: Tensor, y: Tensor, variance: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    """Rasmussen & Williams 2006, equations 2.25 and 2.26, with the Matern kernel in their equation 4.14."""

    def k(a: Tensor, b: Tensor) -> Tensor:
        distance = math.sqrt(3) * torch.cdist(a / gp.lengthscale, b / gp.lengthscale)
        return gp.amplitude**2 * (1 + distance) * (-distance).exp()

    solved = torch.linalg.solve(k(x, x) + torch.diag(variance), torch.cat([y[:, None], k(x, query)], dim=1))
    mean = k(query, x) @ solved[:, 0]
    return mean, gp.amplitude**2 - (k(x, query) * solved[:, 1:]).sum(0)


def given(monkeypatch: pytest.MonkeyPatch, fraction: float) -> None:
    """Nothing is learned: lengthscales 1 and 1, variance 0.9, and this fraction of the values' variance is noise."""
    kernel = ScaleKernel(MaternKernel(nu=1.5, ard_num_dims=2)).double()
    kernel.outputscale, kernel.base_kernel.lengthscale = 0.9, 1.0
    monkeypatch.setattr(module, "_learn", lambda *_: (kernel, fraction))


def test_with_all_places_inducing_it_is_the_dense_process(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    given(monkeypatch, 0.05)
    x, query = places(40, generator), 2 * places(30, generator)
    counts = torch.arange(40) % 3 + 1  # measurements at each place
    rows = torch.arange(40).repeat_interleave(counts)
    y = wave(x[rows]) + noise(len(rows), generator)
    gp = fit_sparse(x[rows], y, kernel="matern32")
    total = torch.zeros(40, dtype=torch.float64).index_add_(0, rows, y - y.mean())
    variance = 0.05 * y.var(correction=0) / counts
    mean, found = posterior_ref(gp, x, total / counts, variance, query)
    torch.testing.assert_close(gp.at(query)[0], mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(gp.at(query)[1], found, rtol=0, atol=1e-3)
    assert len(gp.inducing) == 40


def test_fewer_points_lose_little(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    given(monkeypatch, 0.05)
    x, query = places(600, generator), places(100, generator)
    y = wave(x) + noise(600, generator)
    exact, sparse, poor = (fit_sparse(x, y, n_inducing=n, kernel="matern32") for n in (600, 60, 4))
    assert len(sparse.inducing) == 60
    apart = [float((gp.at(query)[0] - exact.at(query)[0]).abs().max()) for gp in (sparse, poor)]
    assert apart[0] < 0.6 < 2 < apart[1]
    assert sparse.at(query)[1].mean() > exact.at(query)[1].mean()


def weighed_and_repeated(generator: torch.Generator) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Places, values and weights, ten of 2, ten of 0 and thirty of 1; and the rows that these stand for."""
    x = places(50, generator)
    y = wave(x) + noise(50, generator)
    weights = torch.ones(50, dtype=torch.float64)
    weights[:10], weights[10:20] = 2, 0
    kept = torch.cat([torch.arange(10), torch.arange(10), torch.arange(20, 50)])
    return (x, y, weights), (x[kept], y[kept], torch.ones(50, dtype=torch.float64))


def test_a_weight_is_a_count_and_none_is_no_row(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    given(monkeypatch, 0.05)
    fits = [fit_sparse(x, y, weights=w) for x, y, w in weighed_and_repeated(generator)]
    query = places(20, generator)
    # 40 sums of 40 float64 products of up to 13, solved with a matrix conditioned 1 + 40 * 2 * 0.9 / 0.05 = 1441
    bound = 40 * 1441 * 13 * torch.finfo(torch.float64).eps
    for got, expected in zip(*(gp.at(query) for gp in fits), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=bound)


def test_weights_and_repeated_rows_are_learned_from_alike(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """Where the optimiser ends is not unique; how good that is differs by no more than a step that ends it gains."""
    step, losses = torch.optim.LBFGS.step, []

    def recorded(self, loss) -> None:
        step(self, loss)
        losses.append(float(loss()))

    monkeypatch.setattr(torch.optim.LBFGS, "step", recorded)
    for x, y, weights in weighed_and_repeated(generator):
        fit_sparse(x, y, weights=weights)
    assert losses[0] == pytest.approx(losses[1], rel=0, abs=module.TOLERANCE)


def test_hyperparameters_are_those_that_made_the_data(generator: torch.Generator) -> None:
    """Drawn from a prior with the lengthscales 2 and 4e5, standard deviation 3, and noise 0.5."""
    x = places(900, generator)
    kernel = MaternKernel(nu=1.5, ard_num_dims=2).double()
    kernel.lengthscale = torch.tensor([0.2, 0.4], dtype=torch.float64)
    with torch.no_grad():
        root = torch.linalg.cholesky(kernel(x / UNITS).to_dense() + 1e-9 * torch.eye(900))
    truth = 3 * root @ noise(900, generator)
    gp = fit_sparse(x[:700], (truth + 0.5 * noise(900, generator))[:700], n_inducing=100, kernel="matern32")
    assert 1 < float(gp.lengthscale[0]) < 4
    assert 2e5 < float(gp.lengthscale[1]) < 8e5
    assert 1.5 < gp.amplitude < 6
    mean, variance = gp.at(x[700:])
    z = (truth[700:] - truth[:700].mean() - mean) / variance.sqrt()
    assert 0.8 < float(z.square().mean().sqrt()) < 1.3


def test_the_bound_is_the_evidence_where_all_places_are_inducing(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """Without a step of learning the loss is that of the dense process with unit hyperparameters, priors apart."""
    losses = []
    monkeypatch.setattr(torch.optim.LBFGS, "step", lambda _self, loss: losses.append(float(loss())))
    x = places(30, generator) / UNITS
    y, count = noise(30, generator), torch.full((30,), 2.0, dtype=torch.float64)
    kernel, fraction = module._learn(x, y, count, 1.5, 30, "matern32")
    distance = math.sqrt(3) * torch.cdist(x, x)
    covariance = (1 + distance) * (-distance).exp() + fraction / 2 * torch.eye(30)
    dense = torch.distributions.MultivariateNormal(torch.zeros(30).double(), covariance).log_prob(y)
    # of two rows their mean, and their difference, whose Gaussian has not the mean's 1 / sqrt(2)
    scattered = -(1.5 / fraction + 30 * math.log(fraction)) / 2
    expected = float(dense) + 15 * math.log(2 * math.pi) - 15 * math.log(2) + scattered
    priors = float(module.log_prior(kernel).detach())
    assert -losses[0] == pytest.approx(expected + priors, abs=1e-2)


def test_a_grid_is_its_cells_and_constant_along_other_columns(generator: torch.Generator) -> None:
    x = torch.cat([places(60, generator), torch.rand(60, 2, generator=generator).double()], dim=1)
    gp = fit_sparse(x, wave(x[:, [3, 1]] * torch.tensor([10.0, 1.0])), columns=[1, 3])
    axes = [torch.linspace(0, float(x[:, k].max()), k + 2, dtype=torch.float64) for k in range(4)]
    cells = torch.cartesian_prod(*axes)
    for on_grid, at in zip(gp.on_grid(axes), gp.at(cells), strict=True):
        assert on_grid.shape == (1, 3, 1, 5)
        torch.testing.assert_close(on_grid.expand(2, 3, 4, 5).flatten(), at)


def test_samples_have_the_mean_and_the_covariance(generator: torch.Generator) -> None:
    x = places(40, generator)
    gp = fit_sparse(x, wave(x) + noise(40, generator))
    query = places(6, generator)
    query = torch.cat([query, query[:1], query[:1] + 1e-3 * UNITS])
    samples = gp.sample(query, 4000, generator)
    mean, variance = gp.at(query)
    sd = variance.sqrt()
    assert ((samples.mean(0) - mean).abs() < 4 * sd / 4000**0.5).all()
    torch.testing.assert_close(samples.std(0), sd, rtol=0.06, atol=0)
    assert torch.equal(samples[:, 0], samples[:, 6])
    assert float(torch.corrcoef(samples[:, [0, 7]].T)[0, 1]) > 0.9


def test_too_many_places_for_joint_samples_are_refused(generator: torch.Generator) -> None:
    x = places(10, generator)
    gp = fit_sparse(x, wave(x))
    gp.sample(x[[0, 1, 2, 3, 4, 4]], 1, generator, max_places=5)
    with pytest.raises(SettingError, match="limited to 5 distinct places; got 6"):
        gp.sample(x[:6], 1, generator, max_places=5)


def test_the_same_data_make_the_same_bits(generator: torch.Generator) -> None:
    few = {"n_inducing": 20, "max_learning_places": 40, "max_candidates": 50}
    x = places(60, generator)
    y = wave(x) + noise(60, generator)
    one, same, other = (fit_sparse(x, y, seed=seed, **few) for seed in (1, 1, 2))
    assert torch.equal(one.at(x)[0], same.at(x)[0])
    assert not torch.equal(one.at(x)[0], other.at(x)[0])


@pytest.mark.parametrize("case", ["one place", "a constant column", "three rows", "no noise", "one value"])
def test_poor_data_give_finite_functions(case: str, generator: torch.Generator) -> None:
    x, n = places(30, generator), {"three rows": 3}.get(case, 30)
    y = wave(x) + (0 if case == "no noise" else noise(30, generator))
    if case == "one place":
        x = x[:1].expand(30, 2)
    if case == "a constant column":
        x[:, 1] = 7
    if case == "one value":
        y = torch.full_like(y, 1e-9)
    mean, variance = fit_sparse(x[:n], y[:n]).at(torch.cat([x, 100 * x]))
    assert mean.isfinite().all()
    assert (variance >= 0).all()
    assert variance.isfinite().all()
