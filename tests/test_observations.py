"""Measurements from tables and grids: what is recognised, wrapped, merged and dropped, and what is refused."""

import gzip
import logging
import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from fieldmorph.apps.exits import BAD_INPUT, explain
from fieldmorph.bayes import grids
from fieldmorph.bayes.coordinates import Mode, mode_of
from fieldmorph.bayes.observations import Observations, read_observations, read_points
from fieldmorph.fields.errors import InputError, SettingError

SECONDS_2006_04_16 = 1145145600.0  # date -u -d 2006-04-16 +%s


def stations(**columns: Any) -> pd.DataFrame:
    """Four measurements; columns are replaced, or left out by None."""
    frame = {
        "lat": [10.0, 20.0, 30.0, 40.0],
        "lon": [5.0, 6.0, 7.0, 8.0],
        "time": ["2006-04-16", "2006-04-17T12:00", "2006-04-18 00:00:30", "2006-04-19T01:00+01:00"],
        "temp": [1.5, 2.5, 3.5, 2.5],
    } | columns
    return pd.DataFrame({name: column for name, column in frame.items() if column is not None})


def globe(**attributes: Any) -> xr.Dataset:
    """2 times, 3 latitudes, 4 longitudes; one cell is missing."""
    values = np.arange(24.0).reshape(2, 3, 4)
    values[1, 2, 3] = np.nan
    return xr.Dataset(
        {"sst": (("time", "latitude", "longitude"), values, {"units": "K"} | attributes)},
        {
            "time": np.array(["2006-04-16", "2006-05-16T12"], dtype="datetime64[us]"),
            "latitude": ("latitude", [-5.0, 0.0, 5.0], {"units": "degrees_north"}),
            "longitude": ("longitude", [0.0, 90.0, 180.0, 270.0], {"units": "degrees_east"}),
        },
    )


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def refused(source: Any, *expected: str, **options: Any) -> None:
    """The data are refused in one line, which has all that is expected, with the exit code of bad input."""
    with pytest.raises(InputError) as caught:
        read_observations(source, **options)
    assert "\n" not in str(caught.value)
    for text in expected:
        assert text in str(caught.value)
    exit = explain(caught.value)
    assert exit is not None
    assert exit.code == BAD_INPUT


def same(a: Observations, b: Observations) -> bool:
    return torch.equal(a.coordinates, b.coordinates) and torch.equal(a.values, b.values)


# What is recognised


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


@pytest.mark.parametrize("name", ["Latitude", "LAT", "latitude", "lat [deg]"])
def test_names_are_recognised_in_any_case_and_with_a_unit(name: str) -> None:
    rows = read_observations(stations(lat=None, **{name: [1.0, 2.0, 3.0, 4.0]}))
    assert {m.kind for m in rows.modes} == {"latitude", "longitude", "time"}


@pytest.mark.parametrize("name", ["lng", "Longitude", "LON"])
def test_other_names_of_longitude(name: str) -> None:
    rows = read_observations(stations(lon=None, **{name: [1.0, 2.0, 3.0, 4.0]}))
    assert [m.name for m in rows.modes if m.kind == "longitude"] == [name]


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


def test_days_written_as_numbers_get_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    frame = stations(time=None, date=[20060430, 20060501, 20060502, 20060503])
    rows = read_observations(frame)
    assert rows.coordinates[0, 2] == 20060430
    assert "20060430 are taken as numbers, not as dates" in caplog.text


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


def test_an_index_that_says_something_is_a_column() -> None:
    frame = stations().astype({"time": object}).drop(columns="time")
    frame.index = pd.date_range("2006-04-16", periods=4, tz="UTC")
    rows = read_observations(frame)
    assert rows.modes[0].name == "time"
    assert rows.coordinates[0, 0] == SECONDS_2006_04_16
    series = stations(time=None).set_index(["lat", "lon"])["temp"]
    assert read_observations(series).coordinates.shape == (4, 2)


# Dates


@pytest.mark.parametrize(
    "dates",
    [
        ["13/04/2006", "16/4/2006 6:30", "01/04/2006"],  # only a 13th and a 16th of April are possible
        ["04/13/2006", "4/16/2006 6:30:00 AM", "04/01/2006"],
        ["13.4.2006", "16.4.2006 06:30", "1.4.2006"],
        ["2006-04-13", "2006-04-16T06:30", "1.4.2006"],
        ["13 Apr 2006", "2006-04-16T06:30Z", "01-Apr-2006"],
        ["2006-04-13", "2006-04-16 08:30+02:00", "20060401"],
        [date(2006, 4, 13), datetime(2006, 4, 16, 6, 30), date(2006, 4, 1)],
        [
            datetime(2006, 4, 13),
            datetime(2006, 4, 16, 8, 30, tzinfo=timezone(timedelta(hours=2))),
            datetime(2006, 4, 1),
        ],
        pd.Series(["2006-04-13", "2006-04-16T06:30", "2006-04-01"], dtype="datetime64[s]"),
        pd.DatetimeIndex(["2006-04-13", "2006-04-16T06:30", "2006-04-01"]).tz_localize("UTC").tz_convert("Asia/Tokyo"),
        pd.Series(["2006-04-13", "2006-04-16T06:30", "2006-04-01"], dtype="category"),
    ],
)  # fmt: skip
def test_dates_of_many_styles(dates: Any) -> None:
    day = 86400.0
    expected = [-3 * day, 6.5 * 3600, -15 * day]
    assert (mode_of("time", dates, "time").parse(dates) - SECONDS_2006_04_16).tolist() == expected


@pytest.mark.parametrize("dates", [["01/02/2006", "03/02/2006"], ["13/02/2006", "02/13/2006"]])
def test_days_and_months_are_never_guessed(dates: list[str]) -> None:
    refused(stations(time=dates * 2), "may be day/month or month/day")


@pytest.mark.parametrize("bad", ["now", "soon", "12:30", "2006-02-30", "2006-04-16 12:00 EST", "16.4.06"])
def test_what_is_no_date_is_named_with_its_row(bad: str) -> None:
    refused(stations(time=["2006-04-16", "2006-04-17", bad, bad]), "time, row 3: expected a date", repr(bad))


def test_text_in_a_column_named_time_is_a_bad_date() -> None:
    refused(stations(time=["soon", "later"] * 2), "time, row 1: expected a date, got 'soon'")


def test_a_missing_date_is_missing() -> None:
    rows = read_observations(stations(time=["2006-04-16", None, "2006-04-18", "2006-04-19"]))
    assert rows.dropped == 1
    assert len(rows.values) == 3


def test_numbers_are_no_dates_and_dates_no_numbers_later_on() -> None:
    time, number = Mode("time", "time"), Mode("pressure")
    with pytest.raises(InputError, match="give dates"):
        time.parse([2006, 2007])
    with pytest.raises(InputError, match="holds dates"):
        number.parse(pd.DatetimeIndex(["2006-04-16"]))


@given(
    st.lists(
        st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(np.datetime64), min_size=1, max_size=5
    )
)
def test_dates_come_back_to_the_microsecond(dates: list[np.datetime64]) -> None:
    mode = mode_of("time", dates)
    assert mode.kind == "time"
    seconds = mode.parse(dates)
    assert (mode.format(seconds) == np.array(dates)).all()
    assert torch.equal(mode.parse(mode.format(seconds)), seconds)
    assert torch.equal(mode.parse([str(d) for d in mode.format(seconds)]), seconds)


def test_a_time_that_is_missing_is_written_as_missing() -> None:
    assert np.isnat(Mode("time", "time").format(torch.tensor([float("nan")]))).all()


def test_another_calendar_counts_its_own_days() -> None:
    dates = [cftime.datetime(2000, 2, day, 6, calendar="360_day") for day in (1, 30)]
    mode = mode_of("time", dates)
    assert mode.calendar == "360_day"
    seconds = mode.parse([*dates, "2000-03-01T06:00:00", None])
    assert seconds[:3].diff().tolist() == [29 * 86400, 86400]
    assert (seconds[0] / 86400).item() == 30 * 360 + 30 + 0.25  # from 1970-01-01
    assert mode.format(seconds).tolist() == [
        "2000-02-01T06:00:00",
        "2000-02-30T06:00:00",
        "2000-03-01T06:00:00",
        "",
    ]
    assert torch.equal(mode.parse(mode.format(seconds[:3])), seconds[:3])
    with pytest.raises(InputError, match="row 2: expected a date, got '2000-01-31'"):
        mode.parse(["2000-01-30", "2000-01-31"])
    with pytest.raises(InputError, match="has the 360_day calendar: give its dates as text"):
        mode.parse(pd.DatetimeIndex(["2000-01-01"]))
    with pytest.raises(InputError, match="has the usual calendar, not 360_day"):
        Mode("time", "time").parse(dates)
    with pytest.raises(InputError, match="several calendars: 360_day, noleap"):
        mode_of("time", [dates[0], cftime.datetime(2000, 2, 1, calendar="noleap")])


def test_the_usual_calendar_of_cftime_is_no_other() -> None:
    dates = [cftime.datetime(2006, 4, 16, calendar="proleptic_gregorian")]
    mode = mode_of("time", dates)
    assert mode.calendar is None
    assert mode.parse(dates).tolist() == [SECONDS_2006_04_16]


def test_durations_are_seconds() -> None:
    lead = pd.to_timedelta([1, 2, 3], unit="min")
    rows = read_observations(pd.DataFrame({"lead": lead, "x": [1.0, 2, 3]}), ["lead"], "x")
    assert rows.coordinates[:, 0].tolist() == [60, 120, 180]
    assert rows.modes[0].unit == "s"


# Longitudes


@pytest.mark.parametrize(
    ("degrees", "expected", "as_written"),
    [
        ([-10, 0, 40], [-10, 0, 40], [-10, 0, 40]),
        ([350, 0, 40], [-10, 0, 40], [350, 0, 40]),  # Europe in [0, 360)
        ([150, -150, 180], [150, 210, 180], [150, -150, -180]),  # the Pacific
        ([150, 210, 180], [150, 210, 180], [150, 210, 180]),
        ([-170, -20, 10, 100], [190, -20, 10, 100], [-170, -20, 10, 100]),  # the widest gap is 150 from -170 to -20
        ([0, 90, 180, 270], [0, 90, 180, 270], [0, 90, 180, 270]),  # around the globe
        ([-180, -90, 0, 90], [-180, -90, 0, 90], [-180, -90, 0, 90]),
        ([-180, 180, 170], [180, 180, 170], [-180, -180, 170]),
        ([313, 390], [-47, 30], [-47, 30]),  # beyond both usual branches
        ([-0.1, 359.9, 3], [-0.1, -0.1, 3], [-0.1, -0.1, 3]),
        ([7], [7], [7]),
        ([10, 180], [10, 180], [10, 180]),
    ],
)  # fmt: skip
def test_longitudes_are_contiguous(
    degrees: list[float], expected: list[float], as_written: list[float]
) -> None:
    mode = mode_of("lon", degrees, "longitude")
    coordinates = mode.parse(degrees)
    assert coordinates.tolist() == expected
    assert mode.format(coordinates).tolist() == as_written


def test_dense_longitudes_around_the_globe_keep_their_branch() -> None:
    degrees = np.delete(np.arange(-180.0, 180.0), 250)  # the widest gap is between 69 and 71
    mode = mode_of("lon", degrees, "longitude")
    assert mode.cut == mode.written == -180


def test_a_hair_below_the_cut_is_at_the_cut() -> None:
    assert Mode("lon", "longitude", cut=0.0).parse([-1e-14, 360.0]).tolist() == [0, 0]


longitudes = st.floats(-360, 720, allow_nan=False).map(lambda x: round(x, 3))


@given(st.lists(longitudes, min_size=1, max_size=8), st.lists(longitudes, max_size=4))
def test_wrapping_keeps_places_and_their_differences_along_the_circle(
    data: list[float], more: list[float]
) -> None:
    mode = mode_of("lon", data, "longitude")
    assert mode.kind == "longitude"
    degrees = torch.tensor([*data, *more], dtype=torch.float64)
    x = mode.parse(degrees)
    turns = (x - degrees) / 360
    assert (turns - turns.round()).abs().max() < 1e-9
    assert ((x >= mode.cut) & (x < mode.cut + 360)).all()
    there = torch.as_tensor(mode.format(x))
    turns = (there - x) / 360
    assert (turns - turns.round()).abs().max() < 1e-9
    # Shifted twice, binary fractions are rounded to 1e-9 degrees; the same place is written in the same way.
    assert torch.allclose(mode.parse(there), x, rtol=0, atol=1e-9)
    assert torch.allclose(torch.as_tensor(mode.format(mode.parse(there))), there, rtol=0, atol=1e-9)


@given(st.lists(longitudes, min_size=2, max_size=8))
def test_the_cut_is_in_the_widest_gap(data: list[float]) -> None:
    mode = mode_of("lon", data, "longitude")
    x = mode.parse(data)
    circle = np.unique(np.array(data) % 360)
    widest = np.diff(circle, append=circle[0] + 360).max()
    assert float(x.max() - x.min()) <= 360 - 0.99 * widest + 1e-6 or widest <= 10


@pytest.mark.parametrize(
    ("column", "bad"), [("lat", 90.5), ("lat", -91.0), ("lon", 9.97e36), ("lon", -721.0)]
)
def test_no_place_on_earth(column: str, bad: float) -> None:
    refused(stations(**{column: [1.0, bad, 3.0, 4.0]}), f"{column}, row 2: {bad:g}")


def test_points_to_predict_follow_the_rules_of_the_data(tmp_path: Path) -> None:
    rows = read_observations(
        stations(lon=[350.0, 355.0, 0.0, 5.0], temp=None, **{"temp [K]": [1.0, 2, 3, 4]})
    )
    path = written(tmp_path / "p.csv", "time,lon,lat\n2006-04-16,358,1\n17.04.2006,-3,2\n")
    assert read_points(path, rows.modes).tolist() == [
        [1, -2, SECONDS_2006_04_16],
        [2, -3, SECONDS_2006_04_16 + 86400],
    ]
    with pytest.raises(InputError, match=r"p.csv has no column 'lat'; there are: lon, time"):
        read_points(written(tmp_path / "p.csv", "lon,time\n1,2006-04-16\n"), rows.modes)
    with pytest.raises(InputError, match="lon, row 2: missing"):
        read_points(written(tmp_path / "p.csv", "lat,lon,time\n1,1,2006-04-16\n1,,2006-04-16\n"), rows.modes)
    with pytest.raises(InputError, match="is no table of points"):
        read_points(globe(), rows.modes)


# Missing, repeated, drawn


def test_rows_with_missing_values_are_dropped_with_a_message(caplog: pytest.LogCaptureFixture) -> None:
    frame = stations(lat=[1.0, None, 3.0, 4.0], temp=[1.0, 2.0, 3.0, 4.0])
    frame.loc[4] = [5.0, 6.0, "2006-04-16", np.nan]
    rows = read_observations(frame)
    assert rows.dropped == 2
    assert rows.values.tolist() == [1, 3, 4]
    assert "2 rows with missing values are left out" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_a_row_that_stands_there_twice_counts_once_but_repeated_measurements_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = pd.DataFrame(
        {"lat": [1, 1, 1, 2, 1], "lon": [5, 5, 5, 6, 365], "temp": [1.0, 1.0, 2.0, 3.0, 2.0]}
    )
    rows = read_observations(frame)
    assert rows.values.tolist() == [1, 2, 3]
    assert rows.coordinates.tolist() == [[1, 5], [1, 5], [2, 6]]
    assert rows.merged == 2  # the last is the third, once around the globe
    assert "2 rows repeat" in caplog.text


def test_a_sample_is_drawn_by_the_generator_without_replacement() -> None:
    frame = pd.DataFrame({"lat": np.linspace(0, 1, 50), "temp": np.arange(50.0)})
    draw = [
        read_observations(frame, sample=10, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert same(draw[0], draw[1])
    assert not same(draw[0], draw[2])
    assert len(set(draw[0].values.tolist())) == 10
    assert (draw[0].values.diff() > 0).all()  # in the order of the file
    assert len(read_observations(frame, sample=100).values) == 50


def test_a_sample_of_a_grid_is_uniform_over_what_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(60.0).reshape(10, 6)
    values[:, 0] = np.nan
    grid = xr.DataArray(values, {"x": range(10), "y": range(6)}, ("x", "y"), name="v")
    monkeypatch.setattr(grids, "BLOCK", 12)  # two lines at a time
    counts, generator = np.zeros(60), torch.Generator().manual_seed(0)
    for _ in range(400):
        rows = read_observations(grid, sample=5, generator=generator)
        assert (6 * rows.coordinates[:, 0] + rows.coordinates[:, 1]).equal(rows.values)
        assert rows.dropped == 10
        counts[rows.values.int().numpy()] += 1
    assert counts.sum() == 2000  # five each, none twice
    drawn = counts.reshape(10, 6)[:, 1:]
    assert drawn.min() > 15  # 40 expected; the standard deviation is 6
    assert drawn.max() < 65
    assert abs(drawn[:5].sum() - 1000) < 90  # four standard deviations: no block is preferred


def test_blocks_of_a_grid_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_observations(globe())
    monkeypatch.setattr(grids, "BLOCK", 1)
    assert same(whole, read_observations(globe()))


# Files


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet", "A.CSV"])
def test_tables_come_back_from_files(name: str, tmp_path: Path) -> None:
    frame = stations(temp=[0.1, 1 / 3, -2e-300, 1e17])
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.assign(time=pd.to_datetime(frame["time"], format="ISO8601", utc=True)).to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    rows = read_observations(path)
    assert same(rows, read_observations(frame))
    assert rows.source == name
    assert same(rows, read_observations(str(path)))


def test_units_come_back_from_parquet(tmp_path: Path) -> None:
    frame = stations()
    frame.attrs["units"] = {"temp": "K", "lat": "degrees_north"}
    frame.to_parquet(tmp_path / "a.parquet")
    rows = read_observations(tmp_path / "a.parquet")
    assert rows.value_unit == "K"
    assert rows.modes[0].unit == "degrees_north"


@pytest.mark.parametrize(("engine", "form"), [("scipy", "NETCDF3_64BIT"), ("h5netcdf", "NETCDF4")])
def test_grids_come_back_from_both_kinds_of_netcdf(engine: Any, form: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    globe().to_netcdf(path, engine=engine, format=form)
    rows = read_observations(path)
    assert same(rows, read_observations(globe()))
    assert [(m.name, m.kind, m.unit) for m in rows.modes] == [
        ("time", "time", "s"),
        ("latitude", "latitude", "degrees_north"),
        ("longitude", "longitude", "degrees_east"),
    ]
    assert (rows.value_name, rows.value_unit, rows.dropped) == ("sst", "K", 1)
    assert rows.coordinates[0].tolist() == [SECONDS_2006_04_16, -5, 0]
    assert rows.coordinates[-1, 1:].tolist() == [5, 180]
    assert len(rows.values) == 23


def test_a_packed_grid_with_another_calendar(tmp_path: Path) -> None:
    grid = globe().assign_coords(
        time=xr.date_range("2000-02-29", periods=2, calendar="360_day", use_cftime=True)
    )
    packed = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    grid.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding={"sst": packed})
    rows = read_observations(tmp_path / "a.nc")
    assert rows.modes[0].calendar == "360_day"
    assert set(rows.modes[0].format(rows.coordinates[:, 0])) == {"2000-02-29T00:00:00", "2000-02-30T00:00:00"}
    assert rows.values.tolist() == list(range(23))
    assert rows.dropped == 1


def test_an_array_of_xarray_and_named_modes() -> None:
    rows = read_observations(globe()["sst"], ["longitude", "time"])
    assert [m.name for m in rows.modes] == ["longitude", "time"]
    assert rows.coordinates.shape == (23, 2)
    assert rows.coordinates[:4, 0].tolist() == [0, 90, 180, 270]


def test_dimensions_of_length_one_and_bounds_are_no_modes_and_no_values() -> None:
    grid = globe().isel(time=[0]).assign(lat_bnds=(("latitude", "bnds"), np.zeros((3, 2))), crs=0)
    grid["latitude"].attrs["bounds"] = "lat_bnds"
    rows = read_observations(grid)
    assert [m.name for m in rows.modes] == ["latitude", "longitude"]
    assert rows.value_name == "sst"


def test_scattered_data_in_netcdf_have_the_coordinates_that_run_along_them() -> None:
    frame = stations(temp=[1.0, 2, 3, 4])
    frame["time"] = pd.to_datetime(frame["time"], format="ISO8601", utc=True).dt.tz_localize(None)
    for source in (
        frame.to_xarray(),
        frame.to_xarray().set_coords(["lat", "lon", "time"]).drop_vars("index"),
    ):
        assert same(read_observations(source), read_observations(frame))
    station = xr.Dataset(
        {"temp": ("station", [1.0, 2, 3])},
        {"station": list("abc"), "lat": ("station", [1.0, 2, 3]), "lon": ("station", [4.0, 5, 6])},
    )
    assert [m.name for m in read_observations(station).modes] == ["lat", "lon"]


def test_a_curvilinear_grid_has_latitudes_and_longitudes_of_its_cells() -> None:
    lat, lon = np.meshgrid([1.0, 2.0], [5.0, 6.0, 7.0], indexing="ij")
    lat[0, 0] = np.nan
    grid = xr.Dataset(
        {"sst": (("time", "y", "x"), np.arange(12.0).reshape(2, 2, 3))},
        {
            "time": np.array(["2006-04-16", "2006-04-17"], dtype="datetime64[us]"),
            "nav_lat": (("y", "x"), lat, {"units": "degrees_north"}),
            "nav_lon": (("y", "x"), lon, {"standard_name": "longitude"}),
        },
    )
    rows = read_observations(grid)
    assert [(m.name, m.kind) for m in rows.modes] == [
        ("time", "time"),
        ("nav_lat", "latitude"),
        ("nav_lon", "longitude"),
    ]
    assert rows.dropped == 2
    assert rows.coordinates[0].tolist() == [SECONDS_2006_04_16, 1, 6]
    assert rows.coordinates[-1].tolist() == [SECONDS_2006_04_16 + 86400, 2, 7]


def test_sample_data_of_a_climate_archive() -> None:
    package = pytest.importorskip("iris_sample_data", reason="needs the extra demo-data")
    folder = Path(package.__file__).parent / "sample_data"
    rows = read_observations(folder / "ostia_monthly.nc")
    assert (rows.value_name, rows.value_unit) == ("surface_temperature", "K")
    assert [m.name for m in rows.modes] == ["time", "latitude", "longitude"]
    assert len(rows.values) + rows.dropped == 54 * 18 * 432
    assert rows.modes[0].format(rows.coordinates[:1, 0])[0] == np.datetime64("2006-04-16")
    assert rows.modes[2].cut == 0
    assert 280 < rows.values.min() < rows.values.max() < 310
    model = read_observations(folder / "A1B_north_america.nc", sample=100)
    assert model.modes[0].calendar == "360_day"


# What is refused


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "no such file", "none.csv")
    refused(tmp_path, "unsupported suffix ''")
    refused(tmp_path / "a.xlsx", "a.xlsx: unsupported suffix '.xlsx'; known: .csv")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "no such file")


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow"), ("a.nc", "xarray")])
def test_a_missing_package_names_the_extra(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"CDF")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"install fieldmorph\[bayes\]"):
        read_observations(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet", "a.nc"])
def test_empty_and_damaged_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    refused(path, name)
    path.write_bytes(b"\x89PNG\xff\xfe\x00nonsense\n" * 20)
    refused(path, name)
    if name.endswith((".csv", ".tsv")):
        path.write_text("lat,lon,temp\n".replace(",", "\t" if name == "a.tsv" else ","))
        refused(path, f"{name} has no rows")


@pytest.mark.parametrize("suffix", ["csv.gz", "parquet", "nc"])
def test_cut_off_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "nc":
        globe().to_netcdf(path, engine="h5netcdf")
    elif suffix == "parquet":
        stations().to_parquet(path)
    else:
        path.write_bytes(gzip.compress(stations().to_csv().encode()))
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, path.name, "cannot be read")


def test_lines_that_are_longer_than_the_header(tmp_path: Path) -> None:
    refused(written(tmp_path / "a.csv", "lat,temp\n1,2,3\n4,5,6\n7,8,9\n"), "a.csv cannot be read", "header")
    refused(
        written(tmp_path / "a.csv", "lat,temp\n1,2\n4,5,6\n7,8\n"), "a.csv cannot be read", "line 3, saw 3"
    )


def test_shorter_lines_have_missing_values(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "\ufefflat,temp\n1,2\n4\n7,8\n\n9,3\n")
    rows = read_observations(path)
    assert rows.dropped == 1
    assert rows.values.tolist() == [2, 8, 3]


def test_names_that_are_not_there() -> None:
    refused(stations(), "no column 'depth'; there are: lat, lon, time, temp", modes=["depth"], value="temp")
    refused(stations(), "no column 'x'", value="x")
    refused(globe(), "no variable 'depth'; there are: sst, time, latitude, longitude", modes=["depth"])
    refused(globe(), "no variable 'x'", value="x")
    refused(stations().rename(columns={"lat": "lon"}), "two columns are named 'lon'")


def test_names_that_contradict_each_other() -> None:
    for modes, value in ((["lat", "lat"], "temp"), (["lat", "temp"], "temp"), ([], "temp")):
        with pytest.raises(SettingError, match="different columns"):
            read_observations(stations(), modes, value)
    with pytest.raises(SettingError, match="named twice"):
        read_observations(stations().rename(columns={"lat": "lat [deg]"}), ["lat", "lat [deg]"], "temp")
    with pytest.raises(SettingError, match="sample must be 3 or more, got 2"):
        read_observations(stations(), sample=2)
    with pytest.raises(SettingError, match="not a list"):
        read_observations([1, 2, 3])


@pytest.mark.parametrize("column", ["temp", "lat"])
def test_text_and_infinity_are_named_with_their_row(column: str, tmp_path: Path) -> None:
    frame = stations(**{column: ["1", "2", "wet", "dry"]})
    refused(frame, f"{column}, row 3: expected a number, got 'wet'")
    frame.to_csv(tmp_path / "a.csv", index=False)
    refused(tmp_path / "a.csv", f"{column}, row 3: expected a number, got 'wet'")
    refused(stations(**{column: [1.0, 2.0, 3.0, -np.inf]}), f"{column}, row 4: infinite")


def test_infinity_in_a_grid() -> None:
    grid = globe()
    grid["sst"][1, 0, 2] = np.inf
    refused(grid, "sst, cell 15: infinite")


def test_too_little_to_fit() -> None:
    refused(stations()[:0], "DataFrame has no rows")
    refused(stations()[:1], "3 different rows are needed", "got 1")
    refused(stations()[:2], "got 2")
    refused(pd.concat([stations()[:2]] * 3), "got 2")
    refused(stations(temp=[np.nan] * 4), "got 0")
    refused(stations(temp=[7.0] * 4), "all values of temp are 7")
    refused(
        stations(lat=[1.0] * 4, lon=[361.0, 1, 1, 1], time=None, temp=[1.0, 2, 3, 4]),
        "all rows are at one place",
    )


def test_grids_that_do_not_say_enough() -> None:
    bare = globe().drop_vars(["latitude"])
    refused(bare, "dimension latitude of sst has no coordinates", "time, longitude")
    named = xr.DataArray([1.0, 2, 3], {"station": list("abc")}, ("station",), "temp")
    refused(named, "dimension station of temp has no coordinates")
    refused(globe().assign(wind=globe()["sst"]), "several variables may be the value: sst, wind")
    refused(globe()[["time"]], "no variable is left for the value")
    refused(globe().assign(name="x"), "name holds no numbers", value="name")
    refused(globe().isel(time=0, latitude=0, longitude=0), "sst is a single number", value="sst")
    other = globe().assign_coords(depth=("depth", [1.0, 2.0]))
    refused(
        other, "depth has other dimensions than sst: time, latitude, longitude", modes=["depth"], value="sst"
    )


def test_a_grid_that_is_too_large_asks_for_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "LARGEST", 20)
    refused(globe(), "sst has 24 cells; draw some of them with sample")
    assert len(read_observations(globe(), sample=4).values) == 4
