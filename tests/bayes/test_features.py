"""Dates and xarray objects as X of the regressor, which is the command line's fit with the same defaults."""

import inspect
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from fieldmorph.apps.cli.main import build_parser
from fieldmorph.bayes.data.observations import read_observations
from fieldmorph.bayes.features import features_of
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.regressor import FunBaTRegressor
from fieldmorph.fields.errors import InputError

BRIEF = {"restarts": 1, "rank": 1, "sweeps": 5}
DAYS = pd.date_range("2020-01-01", periods=12, freq="D")


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    day = DAYS[rng.integers(0, 12, 60)]
    return pd.DataFrame({"x": rng.uniform(size=60), "day": day, "y": rng.normal(size=60)})


@pytest.fixture
def field() -> xr.DataArray:
    """A field over day, latitude and longitude with a missing cell."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(12, 5, 6))
    values[3, 2, 1] = np.nan
    return xr.DataArray(
        values,
        {"time": DAYS, "lat": np.linspace(-10, 10, 5), "lon": np.arange(0, 360, 60.0)},
        ("time", "lat", "lon"),
        name="sst",
        attrs={"units": "degC", "standard_name": "sea_surface_temperature"},
    )


def test_defaults_are_those_of_the_command_line() -> None:
    """Both sides by the names that they have: a default that changes on one side alone fails here."""
    args = vars(build_parser().parse_args(["tensor", "fit", "d.csv", "-o", "m.fm"]))
    here = {
        name: parameter.default
        for name, parameter in inspect.signature(FunBaTRegressor.__init__).parameters.items()
        if name != "self"
    }
    command = {
        "rank": args["rank"][0],
        "prune": args["prune"],
        "kernel": args["kernel"][0],
        "cp": args["cp"] or None,
        "centre": not args["no_centre"],
        "calibration": args["calibrate"] or 0.0,
        "restarts": args["restarts"],
        "sweeps": args["sweeps"],
        "tol": args["tolerance"],
        "random_state": args["seed"],
    }
    assert here == command
    assert (len(args["rank"]), len(args["kernel"]), args["student"], args["residual"]) == (1, 1, None, None)


@pytest.mark.parametrize("columns", [1, 3, 7])
def test_default_settings_of_a_fit_are_those_of_fit_config(columns: int) -> None:
    model = FunBaTRegressor()
    model.n_features_in_ = columns
    found, expected = model._config(), FitConfig()
    for name in (field.name for field in fields(FitConfig)):
        assert getattr(found, name) == getattr(expected, name), name


def test_a_table_is_fitted_as_read_observations_and_fit_do() -> None:
    rows = table()
    model = FunBaTRegressor(**BRIEF).fit(rows[["x", "day"]], rows["y"])
    config = FitConfig(ranks=(1,), restarts=1, sweeps=5)
    posterior, _ = fit(read_observations(rows, ["x", "day"], "y"), config)
    assert [mode.kind for mode in model.posterior_.modes] == ["number", "time"]
    at = torch.stack([torch.rand(9).double(), torch.arange(9.0).double() * 86400 + 1577836800], dim=1)
    torch.testing.assert_close(model.posterior_.predict(at).mean, posterior.predict(at).mean)


@pytest.mark.parametrize("kind", ["frame", "period", "object array", "other zone", "partial"])
def test_dates_may_come_in_many_forms(kind: str) -> None:
    rows = table()
    X, y = rows[["x", "day"]], rows["y"]
    expected = FunBaTRegressor(**BRIEF).fit(X, y).predict(X)
    given: Any = X.copy()
    if kind == "period":
        given["day"] = given["day"].dt.to_period("D")
    elif kind == "object array":
        given = np.array([[x, datetime.fromisoformat(str(day))] for x, day in X.to_numpy()], dtype=object)
    elif kind == "other zone":
        given["day"] = given["day"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    model = FunBaTRegressor(**BRIEF)
    model = model.partial_fit(given, y) if kind == "partial" else model.fit(given, y)
    np.testing.assert_allclose(model.predict(given), expected)


def test_an_array_of_datetime64_is_times() -> None:
    rows = table()
    days = rows[["day"]].to_numpy().astype("datetime64[s]")
    model = FunBaTRegressor(**BRIEF).fit(days, rows["y"])
    assert [mode.kind for mode in model.posterior_.modes] == ["time"]
    np.testing.assert_allclose(model.predict(days.astype("datetime64[h]")), model.predict(days))
    with pytest.raises(InputError, match="expected dates such as"):
        model.predict(np.array([[1.0]]))


def test_missing_date_is_refused() -> None:
    rows = table()
    rows.loc[3, "day"] = pd.NaT
    with pytest.raises(ValueError, match="contains NaN"):
        FunBaTRegressor(**BRIEF).fit(rows[["x", "day"]], rows["y"])


def test_a_data_array_is_coordinates_and_values(field: xr.DataArray) -> None:
    model = FunBaTRegressor(**BRIEF).fit(field)
    posterior = model.posterior_
    assert [(m.name, m.kind) for m in posterior.modes] == [
        ("time", "time"),
        ("lat", "latitude"),
        ("lon", "longitude"),
    ]
    assert (posterior.value_name, posterior.value_unit) == ("sst", "degC")
    assert posterior.provenance["rows"] == 12 * 5 * 6 - 1
    expected, _ = fit(read_observations(field), FitConfig(ranks=(1,), restarts=1, sweeps=5))
    mean, sd = model.predict(field, return_std=True)
    found = expected.predict_grid(expected.factors([p.points for p in expected.processes]))
    np.testing.assert_allclose(mean, found.mean)
    np.testing.assert_allclose(sd, found.sd)
    assert mean.dims == sd.dims == field.dims
    xr.testing.assert_equal(mean["time"], field["time"])
    assert mean.attrs == {"units": "degC", "standard_name": "sea_surface_temperature"}
    assert mean.name == "sst"


def test_values_may_have_their_dimensions_in_another_order(field: xr.DataArray) -> None:
    coordinates, values = xr.Dataset(coords=field.coords), field.transpose("lon", "time", "lat")
    found = FunBaTRegressor(**BRIEF).fit(coordinates, values).predict(field)
    xr.testing.assert_allclose(found, FunBaTRegressor(**BRIEF).fit(field).predict(field))


def test_other_grids_and_slices_come_back_in_their_shape(field: xr.DataArray) -> None:
    model = FunBaTRegressor(**BRIEF).fit(field)
    whole = model.predict(field)
    turned = model.predict(field.transpose("lon", "time", "lat"))
    assert turned.dims == ("lon", "time", "lat")
    xr.testing.assert_allclose(turned.transpose(*whole.dims), whole)
    xr.testing.assert_allclose(model.predict(field.isel(time=2)), whole.isel(time=2))
    ends = model.predict_interval(field.isel(lat=0))
    assert ends.dims == ("time", "lon", "bound")
    assert (ends.isel(bound=0) < whole.isel(lat=0)).all()
    finer = xr.Dataset(coords={"lat": [0.0, 2.5], "lon": [10.0], "time": DAYS[:3]})
    assert dict(model.predict(finer).sizes) == {"time": 3, "lat": 2, "lon": 1}


def test_a_dataset_of_places_is_a_table_along_its_dimension(field: xr.DataArray) -> None:
    model = FunBaTRegressor(**BRIEF).fit(field)
    track = xr.Dataset(
        {
            "lat": ("obs", [-10.0, 0.0, np.nan]),
            "lon": ("obs", [60.0, -60.0, 0.0]),
            "time": ("obs", DAYS[[0, 4, 5]]),
        }
    )
    found = model.predict(track)
    assert found.dims == ("obs",)
    whole = model.predict(field)
    assert float(found[0]) == pytest.approx(float(whole.sel(lat=-10, lon=60, time=DAYS[0])))
    assert float(found[1]) == pytest.approx(float(whole.sel(lat=0, lon=300, time=DAYS[4])))
    assert np.isnan(found[2])
    own = FunBaTRegressor(**BRIEF).fit(track.isel(obs=slice(2)), xr.DataArray([1.0, 2.0], dims="obs"))
    assert own.posterior_.provenance["rows"] == 2


def test_what_xarray_objects_lack_is_named(field: xr.DataArray) -> None:
    model = FunBaTRegressor(**BRIEF).fit(field)
    with pytest.raises(InputError, match=r"X has no coordinate 'time'; there are: lat, lon"):
        model.predict(field.isel(time=0, drop=True))
    with pytest.raises(InputError, match="X has no coordinates along time"):
        FunBaTRegressor(**BRIEF).fit(field.drop_vars("time"))
    with pytest.raises(InputError, match="y is missing: a Dataset"):
        FunBaTRegressor(**BRIEF).fit(field.to_dataset())
    with pytest.raises(InputError, match="y has the dimensions lat; X has time, lat, lon"):
        FunBaTRegressor(**BRIEF).fit(field, field["lat"])


def test_numbers_are_left_as_they_are() -> None:
    X = np.ones((3, 2))
    assert features_of(X).columns is X
    frame = pd.DataFrame(X)
    assert features_of(frame).columns is frame


def test_a_saved_model_takes_dates_again(tmp_path: Path) -> None:
    import pickle

    rows = table()
    model = FunBaTRegressor(**BRIEF).fit(rows[["x", "day"]], rows["y"])
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(copy.predict(rows[["x", "day"]]), model.predict(rows[["x", "day"]]))
