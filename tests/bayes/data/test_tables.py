"""Measurements from tables: which columns are modes and which is the value."""

from pathlib import Path

import pandas as pd
import torch
from helpers.measurements import SECONDS_2006_04_16, globe, refused, same, stations

from fieldmorph.bayes.data.observations import read_observations


def test_columns_are_recognised_by_name_and_dates_become_seconds_in_utc() -> None:
    rows = read_observations(stations())
    assert [(m.name, m.kind) for m in rows.modes] == [
        ("lat", "latitude"),
        ("lon", "longitude"),
        ("time", "time"),
    ]
    day = 86400.0
    seconds = [0.0, 1.5 * day, 2 * day + 30, 3 * day]  # 01:00 at +01:00 is midnight
    assert (rows.coordinates[:, 2] - SECONDS_2006_04_16).tolist() == seconds
    assert rows.coordinates[:, 0].tolist() == [10, 20, 30, 40]
    assert rows.values.tolist() == [1.5, 2.5, 3.5, 2.5]
    assert rows.coordinates.dtype == rows.values.dtype == torch.float64
    assert (rows.value_name, rows.value_unit, rows.dropped, rows.merged) == ("temp", None, 0, 0)
    assert rows.source == "DataFrame"


def test_any_columns_are_modes_and_numbers_stay_numbers_in_a_column_named_time() -> None:
    frame = pd.DataFrame({"pressure": [1, 2, 3], "time": [0.5, 7, 9], "day": [3, 2, 1], "x": [1.0, 2, 4]})
    rows = read_observations(frame, ["day", "time", "pressure"], "x")
    assert [(m.name, m.kind) for m in rows.modes] == [
        ("day", "number"),
        ("time", "number"),
        ("pressure", "number"),
    ]
    assert rows.coordinates.tolist() == [[3, 0.5, 1], [2, 7, 2], [1, 9, 3]]


def test_one_name_is_a_mode() -> None:
    assert read_observations(stations(), "lat", "temp").coordinates.shape == (4, 1)


def test_a_named_column_of_dates_is_a_time_whatever_its_name() -> None:
    rows = read_observations(stations(time=None, when=["2006-04-16"] * 4), ["lat", "when"], "temp")
    assert rows.modes[1].kind == "time"
    assert rows.coordinates[0, 1] == SECONDS_2006_04_16


def test_the_value_is_the_only_other_number() -> None:
    assert read_observations(stations(site=list("abcd"))).value_name == "temp"
    refused(stations(wind=[1.0, 2, 3, 4]), "several columns", "temp, wind")
    assert read_observations(stations(wind=[1.0, 2, 3, 4]), value="wind").value_name == "wind"
    refused(stations(temp=None), "no column is left for the value")


def test_the_index_that_pandas_writes_is_not_the_value(tmp_path: Path) -> None:
    stations().to_csv(tmp_path / "a.csv")
    rows = read_observations(tmp_path / "a.csv")
    assert rows.value_name == "temp"
    assert same(rows, read_observations(stations()))


def test_units_stand_in_headers() -> None:
    frame = stations(temp=None, **{"temp (K)": [1.0, 2.0, 3.0, 4.0], "depth [m]": [1, 2, 3, 4]})
    rows = read_observations(frame, ["lat", "depth"], "temp")
    assert (rows.value_name, rows.value_unit) == ("temp", "K")
    assert (rows.modes[1].name, rows.modes[1].unit) == ("depth", "m")
    refused(frame.rename(columns={"lat": "temp [C]"}), "several columns 'temp'", modes=["lon"], value="temp")


def test_two_columns_of_one_kind_must_be_named() -> None:
    refused(stations(date=["2006-04-16"] * 4), "several columns of one kind", "time", "date")


def test_without_a_coordinate_the_columns_are_listed() -> None:
    refused(pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}), "no latitude, longitude or time", "a, b")


def test_names_that_are_not_there() -> None:
    refused(stations(), "no column 'depth'; there are: lat, lon, time, temp", modes=["depth"], value="temp")
    refused(stations(), "no column 'x'", value="x")
    refused(globe(), "no variable 'depth'; there are: sst, time, latitude, longitude", modes=["depth"])
    refused(globe(), "no variable 'x'", value="x")
    refused(stations().rename(columns={"lat": "lon"}), "two columns are named 'lon'")
