"""Smoothing in linear time, against the same posterior from dense matrices and from gpytorch's ExactGP."""

import math
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import gpytorch
import pytest
import torch
from gpytorch import kernels as gp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.bayes import kalman
from fieldmorph.bayes.kalman import Marginals, log_evidence, smooth, smooth_means, smooth_states, smooth_torch
from fieldmorph.bayes.kernels import block_algebra, sampling, smoother
from fieldmorph.bayes.state_space import StateSpace, from_gpytorch

pytestmark = pytest.mark.numerical

KERNELS = {
    "matern-1/2": lambda: gp.MaternKernel(nu=0.5),
    "matern-3/2": lambda: gp.MaternKernel(nu=1.5),
    "matern-5/2": lambda: gp.MaternKernel(nu=2.5),
    "sum": lambda: gp.MaternKernel(nu=1.5) + gp.ScaleKernel(gp.MaternKernel(nu=0.5)),
    "product": lambda: gp.MaternKernel(nu=2.5) * gp.CosineKernel(),
}
every_kernel = pytest.mark.parametrize("name", KERNELS)
INFORMATION = ("full", "singular", "some", "none")


def problem(
    name: str, points: int, r: int, seed: int = 0, information: str = "full"
) -> tuple[gp.Kernel, Tensor, Tensor, Tensor]:
    """A kernel, ascending points over ten lengthscales, and coupled information there."""
    generator = torch.Generator().manual_seed(seed)
    kernel = KERNELS[name]().double()
    for part in kernel.modules():
        if isinstance(part, gp.MaternKernel):
            part.lengthscale = 0.3 + part.nu / 5
    at = 7 * torch.rand(points, generator=generator, dtype=torch.float64).sort().values
    rank = 1 if information == "singular" else r
    roots = 2 * torch.randn(points, r, rank, generator=generator, dtype=torch.float64)
    eta = (roots @ torch.randn(points, rank, 1, generator=generator, dtype=torch.float64))[:, :, 0]
    informed = torch.ones(points, dtype=torch.float64)
    if information == "some":
        informed = (torch.rand(points, generator=generator) < 0.5).double()
    if information == "none":
        informed = torch.zeros(points, dtype=torch.float64)
    return kernel, at, eta * informed[:, None], roots @ roots.mT * informed[:, None, None]


def gram(kernel: gp.Kernel, a: Tensor, b: Tensor) -> Tensor:
    """A kernel's matrix, pair by pair: gpytorch's own takes distances from squares, good to 1e-8 only near zero."""
    first, second = a.repeat_interleave(len(b))[:, None], b.repeat(len(a))[:, None]
    with torch.no_grad():
        return kernel(first, second, diag=True).reshape(len(a), len(b))


def dense_ref(kernel: gp.Kernel, points: Tensor, eta: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance (r, points, points, r as a block per point) and log evidence with K x I written out."""
    n, r = eta.shape
    prior = torch.kron(gram(kernel, points, points), torch.eye(r, dtype=torch.float64))
    information = torch.block_diag(*lam)
    system = torch.eye(n * r, dtype=torch.float64) + information @ prior
    mean = prior @ torch.linalg.solve(system, eta.flatten())
    covariance = prior @ torch.linalg.solve(system, torch.eye(n * r, dtype=torch.float64))
    blocks = torch.stack([covariance[k * r : (k + 1) * r, k * r : (k + 1) * r] for k in range(n)])
    log_evidence = eta.flatten() @ mean / 2 - torch.linalg.slogdet(system)[1] / 2
    return mean.reshape(n, r), blocks, log_evidence


def steps(space: StateSpace, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        a = space.transition(torch.cat([points.new_zeros(1), points.diff()]))
    return a, space.stationary.detach(), space.emission


def both(kernel: gp.Kernel, points: Tensor, eta: Tensor, lam: Tensor) -> list[Marginals]:
    """From the kernel and from its twin."""
    given = (*steps(from_gpytorch(kernel), points), eta, lam)
    return [smooth(*given), smooth_torch(*given)[0]]


def agree(found: Marginals, expected: tuple[Tensor, Tensor, Tensor], tolerance: float) -> None:
    for got, wanted in zip((found.mean, found.covariance, found.log_evidence), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@every_kernel
@pytest.mark.parametrize("information", INFORMATION)
def test_three_coupled_functions_match_the_dense_posterior(name: str, information: str) -> None:
    given = problem(name, 30, 3, seed=1, information=information)
    for found in both(*given):
        agree(found, dense_ref(*given), 1e-9)


@every_kernel
@pytest.mark.parametrize("information", INFORMATION)
def test_means_of_many_are_the_smoothers_of_each(name: str, information: str) -> None:
    kernel, points, eta, lam = problem(name, 30, 3, seed=2, information=information)
    others = lam @ torch.randn(30, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    etas = torch.cat([eta[:, :, None], others], dim=2)
    given = steps(from_gpytorch(kernel), points)
    found = smooth_means(*given, etas, lam)
    for k in range(5):
        expected = smooth_torch(*given, etas[:, :, k], lam)[0].mean
        torch.testing.assert_close(found[:, :, k], expected, rtol=1e-9, atol=1e-9)
    assert smooth_means(*given, etas[:, :, :0], lam).shape == (30, 3, 0)


@every_kernel
def test_one_function_matches_an_exact_gp(name: str) -> None:
    """Mean, variance, and the likelihood of y, whose constant the information form leaves out."""
    kernel, points, _, _ = problem(name, 60, 1)
    generator = torch.Generator().manual_seed(3)
    y = (2 * points).sin() + 0.3 * torch.randn(60, generator=generator, dtype=torch.float64)
    noise = 0.05 + 0.2 * torch.rand(60, generator=generator, dtype=torch.float64)

    class Exact(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(points[:, None], y, gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise))
            self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), kernel

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    model = Exact()
    with torch.no_grad():
        evidence = gpytorch.ExactMarginalLogLikelihood(model.likelihood, model)(model(points[:, None]), y)
        posterior = model.eval()(points[:, None])
    constant = torch.distributions.Normal(0, noise.sqrt()).log_prob(y).sum()
    for found in both(kernel, points, (y / noise)[:, None], (1 / noise)[:, None, None]):
        torch.testing.assert_close(found.mean[:, 0], posterior.mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(found.covariance[:, 0, 0], posterior.variance, rtol=0, atol=1e-8)
        assert float(found.log_evidence + constant) == pytest.approx(60 * float(evidence), abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(KERNELS)),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from(INFORMATION),
    st.integers(0, 999),
)
def test_kernel_and_twin_agree(name: str, points: int, r: int, information: str, seed: int) -> None:
    kernel, at, eta, lam = problem(name, points, r, seed, information)
    given = (*steps(from_gpytorch(kernel), at), eta, lam)
    found, states, (expected, twins) = smooth(*given), smooth_states(*given), smooth_torch(*given)
    agree(found, (expected.mean, expected.covariance, expected.log_evidence), 1e-10)
    assert log_evidence(*given) == pytest.approx(float(found.log_evidence), rel=1e-12, abs=1e-12)
    for field in ("mean", "covariance", "adjoint", "precision"):
        torch.testing.assert_close(getattr(states, field), getattr(twins, field), rtol=1e-9, atol=1e-9)


def test_one_point_is_a_regression() -> None:
    """Prior variance 1, precision 3, eta 1.5: mean 1.5 / 4, variance 1 / 4, evidence (1.5^2 / 4 - log 4) / 2."""
    eta, lam = torch.tensor([[1.5]]).double(), torch.tensor([[[3.0]]]).double()
    for found in both(gp.MaternKernel(nu=1.5).double(), torch.tensor([0.7]).double(), eta, lam):
        assert found.mean.item() == pytest.approx(0.375, abs=1e-14)
        assert found.covariance.item() == pytest.approx(0.25, abs=1e-14)
        assert found.log_evidence.item() == pytest.approx((2.25 / 4 - math.log(4)) / 2, abs=1e-14)


def test_without_information_there_is_the_prior() -> None:
    given = problem("sum", 9, 2, information="none")
    prior = 1 + given[0].kernels[1].outputscale.item()
    for found in both(*given):
        assert not found.mean.any()
        torch.testing.assert_close(
            found.covariance, prior * torch.eye(2).double().expand(9, 2, 2), rtol=0, atol=1e-13
        )
        assert abs(found.log_evidence.item()) < 1e-13


@every_kernel
@pytest.mark.parametrize("precision", [1e8, 1e12])
def test_precise_points_close_to_each_other_stay_finite(name: str, precision: float) -> None:
    """Pairs 1e-9 apart, each known almost exactly: the functions go through them and no variance is negative."""
    kernel, at, _, _ = problem(name, 20, 2)
    points = torch.stack([at, at + 1e-9]).T.flatten()
    wanted = torch.stack([at.sin(), at.cos()], dim=1).repeat_interleave(2, dim=0)
    lam = precision * torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double().expand(40, 2, 2)
    eta = (lam @ wanted[:, :, None])[:, :, 0]
    found = both(kernel, points, eta, lam)[0]
    assert found.covariance.isfinite().all()
    assert found.log_evidence.isfinite()
    assert torch.linalg.eigvalsh(found.covariance).min() > 0
    torch.testing.assert_close(found.mean, wanted, rtol=0, atol=1e-5)
    # In units of the information of one point alone: its twin halves that at most, other points help little.
    root = torch.linalg.cholesky(lam)
    fractions = torch.linalg.eigvalsh(root.mT @ found.covariance @ root)
    assert fractions.max() < 1 + 1e-6
    assert fractions.min() > 0.3


@pytest.mark.parametrize("name", ["matern-3/2", "sum"])
def test_the_evidence_has_gradients_of_hyperparameters(name: str) -> None:
    kernel, points, eta, lam = problem(name, 12, 2, seed=4)

    def evidence() -> Tensor:
        space = from_gpytorch(kernel)
        a = space.transition(torch.cat([points.new_zeros(1), points.diff()]))
        return smooth_torch(a, space.stationary, space.emission, eta, lam)[0].log_evidence

    evidence().backward()
    for parameter in kernel.parameters():
        exact, parameter.grad = float(parameter.grad), None
        values = []
        for step in (1e-5, -2e-5, 1e-5):
            with torch.no_grad():
                parameter += step
                values.append(float(evidence()))
        assert abs(exact) > 1e-3
        assert exact == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_the_evidence_has_gradients_of_information() -> None:
    """d log Z / d eta is the mean, d log Z / d Lambda is -E[f f'] / 2."""
    kernel, points, eta, lam = problem("matern-5/2", 8, 2, seed=5)
    eta.requires_grad_()
    lam.requires_grad_()
    found, _ = smooth_torch(*steps(from_gpytorch(kernel), points), eta, lam)
    found.log_evidence.backward()
    mean, second = found.mean.detach(), found.covariance + found.mean[:, :, None] * found.mean[:, None, :]
    torch.testing.assert_close(eta.grad, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((lam.grad + lam.grad.mT) / 2, -second.detach() / 2, rtol=1e-9, atol=1e-9)


def test_joint_states_have_all_functions_side_by_side() -> None:
    given = problem("matern-3/2", 5, 2)
    kept = smooth_states(*steps(from_gpytorch(given[0]), given[1]), *given[2:])
    assert kept.mean.shape == kept.adjoint.shape == (5, 4)
    assert kept.covariance.shape == kept.precision.shape == (5, 4, 4)


def test_twenty_thousand_points_are_smoothed() -> None:
    """A dense posterior would need 13 GB for one matrix."""
    kernel, points, eta, lam = problem("matern-3/2", 20_000, 2)
    found = smooth(*steps(from_gpytorch(kernel), points), eta, lam)
    assert found.mean.shape == (20_000, 2)
    assert found.mean.isfinite().all()


def cost(work: Callable[[], object]) -> tuple[int, int]:
    """Return how many lines of Python `work` runs, and the most bytes that its arrays have at once."""
    n_lines, before = 0, sys.gettrace()

    def trace(_frame: FrameType, event: str, _value: object) -> Any:
        nonlocal n_lines
        n_lines += event == "line"
        return trace

    tracemalloc.start()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return n_lines, peak


@pytest.mark.parametrize("algorithm", [smooth, smooth_states, log_evidence, smooth_means])
def test_work_and_memory_grow_with_the_points_and_no_faster(
    algorithm: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels' loops run as Python, where each line is counted: as many more for every further point."""
    for module in (block_algebra, sampling, smoother, kalman):
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, getattr(value, "py_func", value))
    costs = []
    for n in (20, 40, 80):
        kernel, points, eta, lam = problem("matern-3/2", n, 2)
        chain = steps(from_gpytorch(kernel), points)
        values = eta[:, :, None] if algorithm is smooth_means else eta
        work = partial(algorithm, *chain, values, lam)
        cost(work)  # what is made once is there
        costs.append(cost(work))
    lines, sizes = zip(*costs, strict=True)
    assert lines[1] - lines[0] > 20
    assert lines[2] - lines[1] == pytest.approx(
        2 * (lines[1] - lines[0]), rel=0.02
    )  # pivoting goes by the values
    # A dense matrix of 80 points alone has 51,200 bytes more than of 40. What Python needs besides varies.
    assert sizes[2] - sizes[1] < 2 * (sizes[1] - sizes[0]) + 10_000


def test_equal_inputs_give_equal_bytes() -> None:
    given = problem("product", 40, 3, seed=6)
    first, second = both(*given)[0], both(*given)[0]
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.covariance, second.covariance)
    assert torch.equal(first.log_evidence, second.log_evidence)
