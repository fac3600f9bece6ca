"""Dates of many styles and calendars as seconds, and back."""

from datetime import date, datetime, timedelta, timezone
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.measurements import SECONDS_2006_04_16, refused, stations
from hypothesis import given
from hypothesis import strategies as st

from fieldmorph.bayes.data.coordinates import Mode, mode_of
from fieldmorph.bayes.data.observations import read_observations
from fieldmorph.fields.errors import InputError


@pytest.mark.parametrize(
    "dates",
    [
        ["13/04/2006", "16/4/2006 6:30", "01/04/2006"],  # only a 13th and a 16th of April are possible
        ["04/13/2006", "4/16/2006 6:30:00 AM", "04/01/2006"],
        ["13.4.2006", "16.4.2006 06:30", "1.4.2006"],
        ["2006-04-13", "2006-04-16T06:30", "1.4.2006"],
        ["13 Apr 2006", "2006-04-16T06:30Z", "01-Apr-2006"],
        ["2006-04-13", "2006-04-16 08:30+02:00", "20060401"],
        ["13/04/2006", "16/4/2006 6:30 UTC", "2006-04-01 00:00:00.0 GMT"],
        [date(2006, 4, 13), datetime(2006, 4, 16, 6, 30), date(2006, 4, 1)],
        [
            datetime(2006, 4, 13),
            datetime(2006, 4, 16, 8, 30, tzinfo=timezone(timedelta(hours=2))),
            datetime(2006, 4, 1),
        ],
        pd.Series(["2006-04-13", "2006-04-16T06:30", "2006-04-01"], dtype="datetime64[s]"),
        pd.DatetimeIndex(["2006-04-13", "2006-04-16T06:30", "2006-04-01"])
        .tz_localize("UTC")
        .tz_convert("Asia/Tokyo"),
        pd.Series(["2006-04-13", "2006-04-16T06:30", "2006-04-01"], dtype="category"),
    ],
)
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
    with pytest.raises(InputError, match="expected dates such as"):
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
    with pytest.raises(InputError, match="has the 360_day calendar: expected its dates as text"):
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
