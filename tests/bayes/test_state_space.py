"""Kernels as stochastic differential equations, against gpytorch's covariances and the matrix exponential."""

import math
import re

import gpytorch
import pytest
import torch
from gpytorch import kernels as gp
from torch import Tensor

from fieldmorph.bayes.covariances.harmonics import N_HARMONICS
from fieldmorph.bayes.state_space import approximation_error, from_gpytorch
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical


def scaled(kernel: gp.Kernel, variance: float) -> gp.Kernel:
    outer = gp.ScaleKernel(kernel)
    outer.outputscale = variance
    return outer


def matern(nu: float, lengthscale: float) -> gp.Kernel:
    kernel = gp.MaternKernel(nu=nu)
    kernel.lengthscale = lengthscale
    return kernel


def rbf(lengthscale: float) -> gp.Kernel:
    kernel = gp.RBFKernel()
    kernel.lengthscale = lengthscale
    return kernel


def periodic(lengthscale: float, period: float) -> gp.Kernel:
    kernel = gp.PeriodicKernel()
    kernel.lengthscale, kernel.period_length = lengthscale, period
    return kernel


def cosine(period: float) -> gp.Kernel:
    kernel = gp.CosineKernel()
    kernel.period_length = period
    return kernel


def constant(value: float) -> gp.Kernel:
    kernel = gp.ConstantKernel()
    kernel.constant = torch.tensor(value)
    return kernel


EXACT = {
    "matern-1/2": lambda: matern(0.5, 0.7),
    "matern-3/2": lambda: matern(1.5, 0.3),
    "matern-5/2": lambda: matern(2.5, 1.9),
    "cosine": lambda: cosine(0.8),
    "constant": lambda: constant(2.5),
    "scale": lambda: scaled(matern(1.5, 0.4), 3.7),
    "scale of scale": lambda: scaled(scaled(matern(0.5, 0.4), 3.7), 0.2),
    "sum": lambda: matern(0.5, 0.2) + scaled(matern(2.5, 2.0), 0.3) + constant(0.6),
    "product": lambda: matern(1.5, 0.9) * cosine(0.5) * matern(0.5, 3.0),
    "sum of products": lambda: scaled(matern(1.5, 2.0) * cosine(0.7), 2.0) + matern(2.5, 0.3) * constant(0.4),
}
EVERY = {
    **EXACT,
    "rbf": lambda: rbf(0.6),
    "periodic": lambda: periodic(0.8, 1.3),
    "periodic that fades": lambda: scaled(periodic(1.0, 0.9) * matern(1.5, 4.0), 1.7) + rbf(1.1),
}
exact = pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def values_ref(kernel: gp.Kernel, distances: Tensor) -> Tensor:
    """gpytorch's own values, pair by pair: its matrices take distances from squares, good to 1e-8 only near zero."""
    at = distances.double()[:, None]
    with torch.no_grad():
        return kernel.double()(torch.zeros_like(at), at, diag=True)


@exact
def test_covariances_are_gpytorchs(make) -> None:
    distances = torch.cat([torch.zeros(1), torch.logspace(-6, 1.3, 60)]).double()
    with torch.no_grad():
        got = from_gpytorch(make().double()).covariance(distances)
        mirrored = from_gpytorch(make().double()).covariance(-distances)
    torch.testing.assert_close(got, values_ref(make(), distances), rtol=0, atol=1e-12)
    assert torch.equal(got, mirrored)


@pytest.mark.parametrize("lengthscale", [0.02, 0.6, 50.0])
def test_the_rbf_is_as_far_off_as_it_says_and_that_is_little(lengthscale: float) -> None:
    kernel = rbf(lengthscale)
    stated = approximation_error(kernel, 8 * lengthscale)
    assert 1e-4 < stated < 5e-3
    distances = torch.rand(500, generator=torch.Generator().manual_seed(0)).double() * 8 * lengthscale
    with torch.no_grad():
        off = (from_gpytorch(kernel).covariance(distances) - values_ref(kernel, distances)).abs().max()
    assert 0.9 * stated < off < 1.001 * stated
    assert approximation_error(scaled(kernel, 40.0), 8 * lengthscale) == pytest.approx(stated, rel=1e-4)


def test_a_periodic_kernel_is_within_a_thousandth_from_lengthscale_three_tenths_up() -> None:
    """Six harmonics: gpytorch's lengthscale is in its exponent undivided, so that this range has no unit."""
    assert N_HARMONICS == 6
    for period in (0.1, 7.0):
        for lengthscale in (0.3, 0.5, 1.0, 4.0, 30.0):
            assert approximation_error(periodic(lengthscale, period), 3 * period) < 1e-3
        assert 1e-3 < approximation_error(periodic(0.25, period), 3 * period) < 3e-3
        assert approximation_error(periodic(0.05, period), 3 * period) > 0.1


def test_exact_kernels_state_no_error() -> None:
    assert approximation_error(scaled(matern(1.5, 0.3) + cosine(0.7), 9.0).double(), 2.0) < 1e-7


@every
def test_transitions_are_exponentials_of_the_feedback(make) -> None:
    space = from_gpytorch(make())
    distances = torch.tensor([0.0, 1e-7, 0.013, 0.4, 1.0, 2.7]).double()
    expected = torch.linalg.matrix_exp(space.feedback * distances[:, None, None])
    torch.testing.assert_close(space.transition(distances), expected, rtol=1e-9, atol=1e-11)


@every
def test_two_steps_are_one(make) -> None:
    space = from_gpytorch(make())
    a, b = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)).double() * 3
    expected = space.transition(a) @ space.transition(b)
    torch.testing.assert_close(space.transition(a + b), expected, rtol=1e-9, atol=1e-11)


@every
def test_the_stationary_covariance_stays_and_noise_flows_in_only(make) -> None:
    space = from_gpytorch(make())
    p = space.stationary.detach()
    torch.testing.assert_close(p, p.T, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(p).min() > -1e-12
    flow = (space.feedback @ p + p @ space.feedback.T).detach()  # = -L L'
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-9)
    assert torch.linalg.eigvalsh(flow).max() < 1e-9
    a = space.transition(torch.logspace(-3, 1, 9).double()).detach()
    assert torch.linalg.eigvalsh(p - a @ p @ a.mT).min() > -1e-10


def test_the_noise_of_a_matern_enters_its_highest_derivative_alone() -> None:
    for nu, states in ((0.5, 1), (1.5, 2), (2.5, 3)):
        space = from_gpytorch(matern(nu, 0.7).double())
        flow = (space.feedback @ space.stationary + space.stationary @ space.feedback.T).detach()
        expected = torch.zeros(states, states).double()
        expected[-1, -1] = flow[-1, -1]
        torch.testing.assert_close(flow, expected, rtol=0, atol=1e-12)
        assert flow[-1, -1] < -0.1


@every
def test_no_distances_and_far_ones_are_fine(make) -> None:
    space = from_gpytorch(make())
    states = len(space.emission)
    assert space.transition(torch.zeros(0).double()).shape == (0, states, states)
    far = space.transition(torch.tensor([1e3, 1e9, 1e15]).double())
    assert far.isfinite().all()


def test_values_follow_the_hyperparameters_gradients() -> None:
    kernel = scaled(matern(1.5, 0.4) * periodic(0.7, 1.2) + rbf(0.9), 2.0).double()
    distances = torch.linspace(0, 2, 7).double()
    parameters = list(kernel.parameters())
    assert len(parameters) == 5
    from_gpytorch(kernel).covariance(distances).sum().backward()
    for parameter in parameters:
        exact, parameter.grad = float(parameter.grad), None
        values = []
        for step in (1e-5, -2e-5, 1e-5):
            with torch.no_grad():
                parameter += step
                values.append(float(from_gpytorch(kernel).covariance(distances).sum()))
        assert exact == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-8)


class Mine(gp.MaternKernel):
    """A kernel whose values nobody here can know."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.RQKernel(), "RQKernel is no kernel with a state space here; known: MaternKernel, RBF"),
        (lambda: scaled(gp.LinearKernel(), 1.0), "LinearKernel is no kernel with a state space here"),
        (lambda: matern(0.5, 1.0) * gp.PolynomialKernel(power=2), "PolynomialKernel is no kernel"),
        (lambda: Mine(), "Mine is no kernel with a state space here"),
        (lambda: gp.RBFKernel(ard_num_dims=2), "one dimension and no batch; got RBFKernel"),
        (
            lambda: constant(1.0) + scaled(gp.MaternKernel(ard_num_dims=3), 1.0),
            "no batch; got MaternKernel",
        ),
        (lambda: gp.CosineKernel(batch_shape=torch.Size([2])), "no batch; got CosineKernel"),
        (lambda: gp.ScaleKernel(gp.RBFKernel(), batch_shape=torch.Size([3])), "no batch; got ScaleKernel"),
    ],
)
def test_other_kernels_are_refused_in_a_line(make, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        from_gpytorch(make())
    assert "\n" not in str(caught.value)


def test_a_negative_lengthscale_is_refused() -> None:
    """By gpytorch when it is set; by us where a constraint of the user's own allows it, or a step overshot."""
    with pytest.raises(RuntimeError, match="out of bounds"):
        matern(1.5, -1.0)
    loose = gp.MaternKernel(nu=1.5, lengthscale_constraint=gpytorch.constraints.Interval(-2.0, 2.0))
    loose.lengthscale = -1.0
    with pytest.raises(SettingError, match=r"must be positive; got -1$"):
        from_gpytorch(loose)
    for value in (math.nan, math.inf, -1e6):
        kernel = scaled(rbf(1.0), 1.0)
        kernel.raw_outputscale.data.fill_(value)
        with pytest.raises(SettingError, match="must be positive"):
            from_gpytorch(kernel)
