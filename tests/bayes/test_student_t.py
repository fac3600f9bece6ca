"""Student-t noise."""

import pytest
import torch
from scipy.stats import norm, t
from torch import Tensor

from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.entries import merge_rows
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.hyperparameters import default_kernel
from fieldmorph.bayes.inference import begin, place_moments, recenter, sweep
from fieldmorph.bayes.posterior import Posterior, Prediction
from fieldmorph.bayes.student_t import StudentTRows, central_factors
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

NU = 3.0


def wild(n: int = 900, fraction: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates, values of which a fraction is far off, and the truth."""
    generator = torch.Generator().manual_seed(seed)
    at = (20 * torch.rand(n, 2, generator=generator, dtype=torch.float64)).round() / 20
    truth = torch.sin(5 * at[:, 0]) * torch.cos(3 * at[:, 1])
    values = truth + 0.05 * torch.randn(n, generator=generator, dtype=torch.float64)
    bad = torch.rand(n, generator=generator) < fraction
    values[bad] += 5 * torch.randn(int(bad.sum()), generator=generator, dtype=torch.float64)
    return at, values, truth


def fitted(at: Tensor, values: Tensor, student: float | None) -> Posterior:
    modes = (Mode("x", "number"), Mode("y", "number"))
    config = FitConfig(ranks=(2,), kernels=("matern52",), student=student, restarts=2, sweeps=60)
    return fit(Observations(at, values, modes, "v", None, 0, 0, ""), config)[0]


def test_outliers_have_less_effect() -> None:
    at, values, truth = wild()
    errors = {
        student: float((fitted(at, values, student).predict(at).mean - truth).square().mean().sqrt())
        for student in (None, NU)
    }
    assert errors[NU] < 0.03
    assert errors[None] > 3 * errors[NU]


def test_the_mean_is_not_that_of_wild_values() -> None:
    at, values, truth = wild()
    error = fitted(at, values + 0.05, NU).predict(at).mean - truth - 0.05
    assert abs(float(error.mean())) < 0.01


def test_without_wild_values_little_is_lost() -> None:
    at, values, truth = wild(fraction=0.0)
    errors = [
        float((fitted(at, values, s).predict(at).mean - truth).square().mean().sqrt()) for s in (None, NU)
    ]
    assert errors[1] < 1.3 * errors[0]


@pytest.mark.parametrize("cp", [False, True])
def test_the_bound_never_falls(cp: bool) -> None:
    at, values, _ = wild(300)
    entries = merge_rows(at, values)
    rows = StudentTRows(NU, values, entries.rows, torch.ones_like(values))
    kernels = [default_kernel("matern32", points) for points in entries.points]
    state = begin(entries, kernels, (2, 2), torch.Generator().manual_seed(0), cp, rows)
    bounds = torch.tensor([sweep(state) for _ in range(40)])
    assert (bounds.diff() > -1e-7 * bounds[1:].abs()).all()


@pytest.mark.parametrize("student", [None, NU])
def test_a_constant_is_taken_off_where_the_bound_gains(student: float | None) -> None:
    at, values, _ = wild(400)
    values = values + 0.07
    entries = merge_rows(at, values)
    rows = student and StudentTRows(student, values, entries.rows, torch.ones_like(values))
    kernels = [default_kernel("matern32", points) for points in entries.points]
    state = begin(entries, kernels, (1, 1), torch.Generator().manual_seed(0), student=rows)
    for _ in range(15):
        sweep(state)
    before = state.bounds[-1]
    recenter(state)
    mean, _ = place_moments(state)
    assert float((state.entries.total - state.entries.weight * mean).sum()) == pytest.approx(0, abs=1e-8)
    assert state.intercept != 0
    assert sweep(state) > before
    shifted = merge_rows(at, values - state.intercept)
    if student is None:
        assert torch.allclose(state.entries.total, shifted.total)
        assert state.entries.squares == pytest.approx(shifted.squares)


def test_weights_are_the_posterior_means_of_their_gammas() -> None:
    at, values, _ = wild(200)
    entries = merge_rows(at, values)
    rows = StudentTRows(NU, values, entries.rows, torch.ones_like(values))
    kernels = [default_kernel("matern32", points) for points in entries.points]
    state = begin(entries, kernels, (2, 2), torch.Generator().manual_seed(0), student=rows)
    mean, second = place_moments(state)
    found, gain = rows.reweigh(entries, mean, second, precision=4.0)
    row = int(values.abs().argmax())
    here = entries.rows == entries.rows[row]
    squared = (values - mean[entries.rows]).square() + (second - mean.square())[entries.rows]
    expected = (NU + 1) / (NU + 4 * squared)
    assert float(found.weight[entries.rows[row]]) == pytest.approx(float(expected[here].sum()))
    assert float(found.total[entries.rows[row]]) == pytest.approx(float((expected * values)[here].sum()))
    prior = torch.distributions.Gamma(torch.tensor(NU / 2).double(), torch.tensor(NU / 2).double())
    q = torch.distributions.Gamma(torch.tensor((NU + 1) / 2).double(), (NU + 4 * squared) / 2)
    mean_log = torch.digamma(q.concentration) - q.rate.log()
    wanted = (mean_log / 2 - torch.distributions.kl_divergence(q, prior)).sum()
    assert gain == pytest.approx(float(wanted))


def test_the_noise_has_the_variance_of_its_t() -> None:
    at, values, _ = wild(fraction=0.0)
    posterior = fitted(at, values, NU)
    assert posterior.noise.variance == pytest.approx(NU / (NU - 2) / posterior.noise.mean)
    prediction = posterior.predict(at[:5])
    noise = prediction.sd.square() - prediction.latent_sd.square()
    assert torch.allclose(noise, torch.full_like(noise, posterior.scale**2 * posterior.noise.variance))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.95, 0.999])
def test_half_widths_are_those_of_scipy_where_it_knows_them(level: float) -> None:
    own = t(NU).ppf(0.5 + level / 2) / (NU / (NU - 2)) ** 0.5
    found = central_factors(level, torch.tensor([0.0, 1.0], dtype=torch.float64), NU)
    assert found.tolist() == pytest.approx([norm.ppf(0.5 + level / 2), own], rel=1e-4)


def test_intervals_cover_their_fraction_of_a_gaussian_and_heavy_noise() -> None:
    n, generator = 200_000, torch.Generator().manual_seed(0)
    normal = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    noise = normal[:, 1] / normal[:, 2:].square().mean(1).sqrt()  # t of three degrees
    one = torch.ones(2, dtype=torch.float64)
    latent_sd = torch.tensor([0.3, 3.0], dtype=torch.float64)
    found = Prediction(0 * one, latent_sd, (latent_sd.square() + NU / (NU - 2)).sqrt(), degrees=NU)
    drawn = latent_sd * normal[:, :1] + noise[:, None]
    for level in (0.5, 0.95):
        low, high = found.interval(level)
        covered = ((low < drawn) & (drawn < high)).double().mean(0)
        assert covered.tolist() == pytest.approx([level, level], abs=0.004)
        assert found.quantile(0.5 + level / 2).tolist() == high.tolist()


def test_too_few_degrees_are_refused() -> None:
    with pytest.raises(SettingError, match="more than 2 degrees of freedom; got 2"):
        FitConfig(student=2.0)
