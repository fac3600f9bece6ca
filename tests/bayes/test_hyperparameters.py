"""Kernels that are made for data, and learned from it."""

import math

import pytest
import torch
from gpytorch.kernels import MaternKernel
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from fieldmorph.bayes.hyperparameters import PointRuns, default_kernel, learn, log_prior
from fieldmorph.bayes.inference import space_of
from fieldmorph.bayes.kalman import log_evidence, smooth
from fieldmorph.bayes.markov_gp import draw_prior
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

TRUE = 0.08
PRECISION = 400.0


def information(unit: float = 1.0, r: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Points over one extent, and precise information on functions drawn at the true lengthscale."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, generator=generator, dtype=torch.float64).sort().values
    kernel = MaternKernel(nu=1.5).double()
    kernel.lengthscale = TRUE
    values = draw_prior(space_of(kernel), points, r, generator)
    values = values + PRECISION**-0.5 * torch.randn(300, r, generator=generator, dtype=torch.float64)
    return unit * points, PRECISION * values, PRECISION * torch.eye(r).double().repeat(300, 1, 1)


def learned(
    unit: float = 1.0, rounds: int = 6, runs: PointRuns | None = None
) -> tuple[MaternKernel, list[float]]:
    points, eta, lam = information(unit)
    kernel = default_kernel("matern32", points)
    return kernel, [learn(kernel, points, eta, lam, runs) for _ in range(rounds)]


def test_the_lengthscale_is_found_and_every_round_gains() -> None:
    kernel, gains = learned()
    assert kernel.lengthscale.item() == pytest.approx(TRUE, rel=0.2)
    assert gains[0] > 10
    assert min(gains) >= 0


def test_runs_of_points_lead_near_and_are_checked_on_all() -> None:
    exact, exact_gains = learned()
    kernel, gains = learned(runs=PointRuns(n_runs=12, length=12))
    assert 0 < abs(kernel.lengthscale.item() / exact.lengthscale.item() - 1) < 0.1
    # The gains are of all points, so that they cannot be more.
    assert sum(exact_gains) - 1 < sum(gains) < sum(exact_gains) + 1e-6
    before = kernel.lengthscale.item()
    first = PointRuns(n_runs=1, length=3)  # which say nothing of the others
    assert learn(kernel, *information(), first) == 0
    assert kernel.lengthscale.item() == pytest.approx(before, rel=1e-12)


def test_runs_are_spread_over_all_points() -> None:
    runs = PointRuns(n_runs=3, length=2)
    assert runs.indices(6) == slice(None)
    assert runs.indices(9).tolist() == [0, 1, 3, 4, 7, 8]


@pytest.mark.parametrize("unit", [1e-6, 1e8])
def test_the_unit_of_a_coordinate_does_not_matter(unit: float) -> None:
    assert learned(unit)[0].lengthscale.item() / unit == pytest.approx(
        learned()[0].lengthscale.item(), rel=0.02
    )


def test_a_prior_holds_against_little_data() -> None:
    points, eta, lam = information()
    kernel = MaternKernel(nu=1.5, lengthscale_prior=LogNormalPrior(math.log(0.5), 0.01)).double()
    kernel.lengthscale = 0.5
    for _ in range(5):
        learn(kernel, points, eta * 1e-3, lam * 1e-3)
    assert kernel.lengthscale.item() == pytest.approx(0.5, rel=0.05)
    exact = torch.distributions.LogNormal(math.log(0.5), 0.01).log_prob(kernel.lengthscale.detach()).sum()
    assert float(log_prior(kernel)) == pytest.approx(float(exact), rel=1e-4)


def test_what_has_nothing_to_learn_stays() -> None:
    points, eta, lam = information()
    kernel = default_kernel("matern12", points)
    kernel.requires_grad_(False)
    before = kernel.lengthscale.item()
    assert learn(kernel, points, eta, lam) == 0
    assert kernel.lengthscale.item() == before
    assert learn(default_kernel("matern12", points), points[:1], eta[:1], lam[:1]) == 0


def test_the_filter_alone_has_the_smoother_s_evidence() -> None:
    points, eta, lam = information()
    space = space_of(default_kernel("matern52", points))
    steps = torch.cat([points.new_zeros(1), points.diff()])
    chain = (space.transition(steps), space.stationary, space.emission, eta, lam)
    assert log_evidence(*chain) == pytest.approx(float(smooth(*chain).log_evidence), rel=1e-12)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(SettingError, match="'tea'; known: matern12, matern32, matern52"):
        default_kernel("tea", torch.linspace(0, 1, 5))
