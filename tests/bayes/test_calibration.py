"""Calibration: what is held out is not seen, and intervals cover what they say, on new rows and on new blocks."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import SHARED_DATA
from torch import Tensor

from fieldmorph.bayes import calibration as module
from fieldmorph.bayes.calibration import blocks_of, fit_calibrated
from fieldmorph.bayes.conformal import GAUSSIAN, calibrate_intervals
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.metrics import score
from fieldmorph.bayes.posterior import Posterior, Prediction
from fieldmorph.bayes.store import load_posterior, save_posterior
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

TENSOR_DATA = SHARED_DATA / "tensor"
measured = pytest.mark.skipif(not TENSOR_DATA.is_dir(), reason="needs the folder shared/data/tensor")
QUICK = FitConfig(restarts=1, sweeps=25)
TINY = FitConfig(restarts=1, sweeps=6, ranks=(1,))


def observations(coordinates: Tensor, values: Tensor, names: tuple[str, ...] = ("a", "b")) -> Observations:
    modes = tuple(Mode(name) for name in names)
    return Observations(coordinates.double(), values.double(), modes, "y", None, 0, 0, "test")


def synthetic(n: int, generator: torch.Generator) -> Observations:
    """A product of two waves with noise of Student's t, three degrees of freedom: a Gaussian is too wide at 50 %."""
    coordinates = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    normal = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    noise = normal[:, 0] / normal[:, 1:].square().mean(1).sqrt()
    smooth = (5 * coordinates[:, 0]).sin() * (4 * coordinates[:, 1]).cos()
    return observations(coordinates, smooth + 0.2 * noise)


def read_rows(name: str, key: str, fold: int) -> tuple[Observations, Observations]:
    """A fold's rows to fit and its test rows."""
    with np.load(TENSOR_DATA / f"{name}.npz") as data:
        names = tuple(str(x) for x in data["mode_names"])
        parts = []
        for part in (f"{key}train", f"{key}test"):
            rows = data[part][fold] if part in data else data[f"{part}{fold}"]
            columns = torch.from_numpy(data["coords_raw"][rows])
            parts.append(observations(columns, torch.from_numpy(data["y"][rows]), names))
    return parts[0], parts[1]


def covered(prediction: Prediction, values: Tensor, level: float) -> float:
    low, high = prediction.interval(level)
    return float(((low <= values) & (values <= high)).double().mean())


def test_held_out_rows_are_not_seen_and_blocks_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fit(observations(torch.rand(40, 2), torch.randn(40)), TINY)
    fitted: list[Tensor] = []
    requested: list[Tensor] = []

    def spied(rows: Observations, config: FitConfig, *, weights: Tensor, **_others) -> tuple:
        assert torch.equal(weights, rows.coordinates[:, 0])  # the weights go with their rows
        fitted.append(rows.coordinates[:, 0])
        return real

    def predicted(_self: Posterior, coordinates: Tensor) -> Prediction:
        requested.append(coordinates[:, 0])
        one = torch.ones(len(coordinates), dtype=torch.float64)
        return Prediction(2 * one, one, 4 * one)

    monkeypatch.setattr(module, "fit", spied)
    monkeypatch.setattr(Posterior, "predict", predicted)
    numbers = torch.arange(40.0).double()
    rows = observations(torch.stack([numbers, numbers], dim=1), numbers.square())
    blocks = torch.arange(40) // 4 + 100
    posterior, _ = fit_calibrated(
        rows, fraction=0.3, rounds=3, blocks=blocks, weights=numbers, config=FitConfig(seed=3)
    )
    assert len(requested) == 3
    assert len(fitted) == 4
    for seen, held in zip(fitted, requested, strict=False):
        assert torch.equal(torch.cat([seen, held]).sort().values, numbers)
        assert len(held) == 12
        assert (held.long() // 4).unique(return_counts=True)[1].tolist() == [4, 4, 4]
    assert torch.equal(fitted[-1], numbers)
    everything = torch.cat(requested)
    assert len(everything.unique()) == 36  # nothing twice
    counted = everything[everything > 0]  # the row without weight does not count
    assert len(counted) == 35
    residuals = (counted.square() - 2).abs() / 4
    assert posterior.intervals == calibrate_intervals(residuals, blocks[counted.long()])
    assert posterior.provenance["calibration"] == {"share": 0.3, "rounds": 3, "rows": 35, "blocks": 9}


def test_intervals_hold_where_the_models_own_do_not(generator: torch.Generator) -> None:
    posterior, _ = fit_calibrated(synthetic(600, generator), QUICK, fraction=0.4)
    new = synthetic(4000, generator)
    found = posterior.predict(new.coordinates)
    for level, own in ((0.5, 0.58), (0.8, 0.83)):
        assert covered(found, new.values, level) == pytest.approx(level, abs=0.07)
        assert covered(replace(found, intervals=GAUSSIAN), new.values, level) > own
    assert covered(found, new.values, 0.95) == pytest.approx(0.95, abs=0.03)


def test_the_final_model_is_the_one_of_all_rows(generator: torch.Generator) -> None:
    rows = synthetic(120, generator)
    posterior, report = fit_calibrated(rows, TINY)
    plain, plain_report = fit(rows, TINY)
    assert report == plain_report
    new = torch.rand(9, 2, generator=generator, dtype=torch.float64)
    assert torch.equal(posterior.predict(new).mean, plain.predict(new).mean)
    assert torch.equal(posterior.predict(new).sd, plain.predict(new).sd)
    assert posterior.intervals.levels
    assert plain.intervals == GAUSSIAN


def test_calibration_is_kept_in_a_file(tmp_path: Path, generator: torch.Generator) -> None:
    posterior, _ = fit_calibrated(synthetic(60, generator), TINY)
    save_posterior(tmp_path / "model.safetensors", posterior)
    loaded = load_posterior(tmp_path / "model.safetensors")
    assert loaded.intervals == posterior.intervals
    assert loaded.provenance["calibration"] == posterior.provenance["calibration"]


def test_blocks_are_alike_in_the_modes_named() -> None:
    lat, lon = torch.tensor([1.5, 1.5, 2.5, 1.5, 1.5]), torch.tensor([7.0, 7.0, 7.0, 8.0, 7.0])
    year = torch.tensor([1799.0, 1790.0, 1799.0, 1799.0, 1800.0])
    rows = observations(torch.stack([lat, lon, year], dim=1), torch.zeros(5), ("lat", "lon", "year"))
    places = blocks_of(rows, {"lat": 0, "lon": 0})
    assert places.tolist() == [places[0], places[0], places[2], places[3], places[0]]
    assert len(places.unique()) == 3
    decades = blocks_of(rows, {"lat": 0, "lon": 0, "year": 10})
    assert decades[0] == decades[1] != decades[4]
    assert len(decades.unique()) == 4
    assert len(blocks_of(rows, {"year": 10}).unique()) == 2


def test_impossible_blocks_and_shares_are_refused(unchecked: None) -> None:
    rows = observations(torch.rand(10, 2), torch.randn(10))
    for widths, message in (
        ({"c": 0}, "unknown mode 'c'; known: a, b"),
        ({}, "a, b"),
        ({"a": -1}, "width in a"),
    ):
        with pytest.raises(SettingError, match=message):
            blocks_of(rows, widths)
    for fraction, rounds in ((0.0, 1), (1.0, 1), (0.01, 1), (0.99, 1), (0.5, 0), (0.5, 3), (0.2, 1.5)):
        with pytest.raises(SettingError, match="held out"):
            fit_calibrated(rows, QUICK, fraction=fraction, rounds=rounds)


def test_too_little_held_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = observations(torch.rand(30, 2), torch.randn(30))
    with caplog.at_level(logging.WARNING):
        fit_calibrated(rows, TINY, fraction=0.5, blocks=torch.arange(30) // 3)
    assert "5 held-out blocks guarantee intervals only up to 83 %" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fit_calibrated(rows, TINY, fraction=0.65)
    assert not caplog.text


@measured
@pytest.mark.slow
def test_intervals_hold_on_beijings_air() -> None:
    rows, test = read_rows("beijing_PM2.5", "", 0)
    posterior, _ = fit_calibrated(rows, QUICK)
    found = posterior.predict(test.coordinates)
    for level, slack in ((0.5, 0.03), (0.8, 0.025), (0.9, 0.02), (0.95, 0.015), (0.99, 0.007)):
        assert covered(found, test.values, level) == pytest.approx(level, abs=slack)
    assert score(replace(found, intervals=GAUSSIAN), test.values)["cov95"] < 0.93


@measured
@pytest.mark.slow
def test_intervals_for_new_places_need_places_held_out() -> None:
    rows, test = read_rows("US_temp_unique", "place_", 0)
    blocks = blocks_of(rows, {"latitude_degN": 0, "longitude_degW": 0})
    by_place, _ = fit_calibrated(rows, QUICK, blocks=blocks, fraction=0.34, rounds=2)
    by_row, _ = fit_calibrated(rows, QUICK, fraction=0.1)
    found = {name: p.predict(test.coordinates) for name, p in (("place", by_place), ("row", by_row))}
    assert covered(found["row"], test.values, 0.95) < 0.92
    assert covered(found["place"], test.values, 0.95) >= 0.93
