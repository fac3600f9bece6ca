"""A residual process serves places not seen before, counts noise once, and is part of all that a model does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fieldmorph.bayes.calibration import blocks_of, fit_calibrated, held_out_scores
from fieldmorph.bayes.conformal import calibrate_intervals
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.experimental_design import where_next
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.metrics import scores_of
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.residual_gp import ResidualConfig, fit_with_residual
from fieldmorph.bayes.store import load_posterior, save_posterior
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

QUICK = FitConfig(ranks=(2,), restarts=1, sweeps=12)
PLACES = ResidualConfig(("lat", "lon"))
NOISE = 0.3


def stations(generator: torch.Generator, n: int = 60, years: int = 12) -> Observations:
    """Each has a longitude of its own, a climate that depends on the direction north-east, and all have good years."""
    lat = torch.randint(0, 8, (n,), generator=generator).double()
    lon = 10 * torch.rand(n, generator=generator, dtype=torch.float64)
    climate = 4 * ((lat + lon) / 3).sin()
    good = torch.randn(years, generator=generator, dtype=torch.float64)
    noise = NOISE * torch.randn(n, years, generator=generator, dtype=torch.float64)
    columns = [lat[:, None], lon[:, None], torch.arange(years).double()]
    coordinates = torch.stack([c.expand(n, years).flatten() for c in columns], dim=1)
    modes = (Mode("lat"), Mode("lon"), Mode("year"))
    values = 20 + climate[:, None] + good + noise
    return Observations(coordinates, values.flatten(), modes, "t", "K", 0, 0, "test")


def part(rows: Observations, chosen: Tensor) -> Observations:
    return replace(rows, coordinates=rows.coordinates[chosen], values=rows.values[chosen])


@pytest.fixture(scope="module")
def rows() -> Observations:
    return stations(torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(rows: Observations) -> Tensor:
    """Of 48 of the 60 stations, nine years of ten."""
    place = blocks_of(rows, {"lat": 0, "lon": 0})
    whole = torch.isin(place, torch.arange(0, 60, 5), invert=True)
    return whole & (torch.rand(len(place), generator=torch.Generator().manual_seed(1)) < 0.9)


@pytest.fixture(scope="module")
def posterior(rows: Observations, seen: Tensor) -> Posterior:
    return fit_with_residual(part(rows, seen), QUICK, PLACES)[0]


def test_new_places_are_served_and_known_ones_not_worse(
    rows: Observations, seen: Tensor, posterior: Posterior
) -> None:
    new = torch.isin(rows.coordinates[:, 1], rows.coordinates[seen][:, 1], invert=True)
    plain, _ = fit(part(rows, seen), QUICK)
    found = {}
    for name, chosen in (("new", new), ("known", ~new & ~seen)):
        test = part(rows, chosen)
        found[name] = [scores_of(p, test.coordinates, test.values) for p in (plain, posterior)]
    off, on = found["new"]
    assert on["rmse"] < 0.6 * off["rmse"]
    assert on["nlpd"] < off["nlpd"]
    assert on["cov95"] > 0.85
    off, on = found["known"]
    assert on["rmse"] < 1.1 * off["rmse"]
    assert on["rmse"] < 1.5 * NOISE


def test_prediction_is_the_sum_and_noise_counts_once(rows: Observations, posterior: Posterior) -> None:
    assert posterior.residual is not None
    query = rows.coordinates[::7] + 0.3
    found, model = posterior.predict(query), replace(posterior, residual=None).predict(query)
    mean, variance = posterior.residual.at(query)
    torch.testing.assert_close(found.mean, model.mean + mean)
    torch.testing.assert_close(found.latent_sd.square(), model.latent_sd.square() + variance)
    noise = posterior.scale**2 * posterior.noise.variance
    torch.testing.assert_close(found.sd.square(), found.latent_sd.square() + noise)
    assert 0.7 * NOISE < noise**0.5 < 1.3 * NOISE


def test_the_model_is_fitted_to_what_the_process_leaves(
    rows: Observations, seen: Tensor, posterior: Posterior
) -> None:
    assert posterior.residual is not None
    known = part(rows, seen)
    left = known.values - posterior.residual.at(known.coordinates)[0]
    expected, _ = fit(replace(known, values=left), QUICK)
    bare = replace(posterior, residual=None)
    assert torch.equal(bare.predict(rows.coordinates).mean, expected.predict(rows.coordinates).mean)
    assert posterior.provenance["residual"] == {
        "modes": ("lat", "lon"),
        "n_inducing": 256,
        "kernel": "matern12",
    }


def test_a_grid_is_its_cells_also_in_parts(posterior: Posterior) -> None:
    axes = [torch.linspace(-1, 9, n, dtype=torch.float64) for n in (4, 3, 5)]
    sides = posterior.factors(axes)
    whole, at = posterior.predict_grid(sides), posterior.predict(torch.cartesian_prod(*axes))
    some = posterior.predict_grid([sides[0][1:3], sides[1], sides[2][2:]])
    for name in ("mean", "latent_sd", "sd"):
        torch.testing.assert_close(getattr(whole, name).flatten(), getattr(at, name))
        torch.testing.assert_close(getattr(whole, name)[1:3, :, 2:], getattr(some, name))


def test_a_file_gives_back_the_same_bits(tmp_path: Path, rows: Observations, posterior: Posterior) -> None:
    save_posterior(tmp_path / "a.fm", posterior)
    loaded = load_posterior(tmp_path / "a.fm")
    assert posterior.residual is not None
    assert loaded.residual is not None
    query = rows.coordinates + 0.1
    for got, expected in zip(loaded.residual.at(query), posterior.residual.at(query), strict=True):
        assert torch.equal(got, expected)
    save_posterior(tmp_path / "b.fm", loaded)
    again = load_posterior(tmp_path / "b.fm")
    assert torch.equal(again.predict(query).mean, loaded.predict(query).mean)
    assert torch.equal(again.predict(query).sd, loaded.predict(query).sd)
    torch.testing.assert_close(
        loaded.predict(query).mean, posterior.predict(query).mean, rtol=1e-9, atol=1e-9
    )


def test_intervals_are_calibrated_with_it(rows: Observations) -> None:
    blocks, few = blocks_of(rows, {"lat": 0, "lon": 0}), replace(QUICK, sweeps=4)
    calibrated, _ = fit_calibrated(rows, few, fraction=0.4, blocks=blocks, residual=PLACES)

    def learn(rest: Observations, _: Tensor):
        return fit_with_residual(rest, few, PLACES)[0].predict

    scores, block = held_out_scores(rows, learn, fraction=0.4, blocks=blocks)
    held = ~scores.isnan()
    assert calibrated.intervals == calibrate_intervals(scores[held], block[held])
    plain, _ = fit_with_residual(rows, few, PLACES)
    assert torch.equal(calibrated.predict(rows.coordinates).mean, plain.predict(rows.coordinates).mean)


def test_samples_are_of_the_sum(posterior: Posterior, generator: torch.Generator) -> None:
    query = torch.tensor([[2.0, 3.0, 4.0], [2.0, 3.0, 9.0], [7.5, 30.0, 4.0]], dtype=torch.float64)
    samples, found = posterior.sample(query, 3000, generator), posterior.predict(query)
    assert ((samples.mean(0) - found.mean).abs() < 0.1 * found.latent_sd).all()
    torch.testing.assert_close(samples.std(0), found.latent_sd, rtol=0.1, atol=0)
    picks = where_next(posterior, query, 2, generator=generator)
    assert int(picks.rows[0]) == 2  # nobody has been there


def test_weights_reach_both(rows: Observations) -> None:
    weights = torch.ones_like(rows.values)
    weights[::2] = 0
    few = replace(QUICK, sweeps=3)
    weighed, _ = fit_with_residual(rows, few, PLACES, weights=weights)
    kept, _ = fit_with_residual(part(rows, weights > 0), few, PLACES)
    torch.testing.assert_close(weighed.predict(rows.coordinates).mean, kept.predict(rows.coordinates).mean)


def test_impossible_settings_are_refused(rows: Observations, unchecked: None) -> None:
    for settings, message in (
        ({"modes": ()}, "a residual process needs at least one mode"),
        ({"modes": ("lat",), "n_inducing": 0}, "n_inducing must be a whole number of at least 1; got 0"),
        ({"modes": ("lat",), "n_inducing": 2.5}, "got 2.5"),
        ({"modes": ("lat",), "kernel": "rbf"}, "unknown kernel 'rbf'; known: matern12, matern32, matern52"),
    ):
        with pytest.raises(SettingError, match=message):
            ResidualConfig(**settings)
    with pytest.raises(SettingError, match="unknown mode 'place'; known: lat, lon, year"):
        fit_with_residual(rows, QUICK, ResidualConfig(("lat", "place")))
