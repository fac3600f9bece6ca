"""Dates are written at the resolution of the data."""

import numpy as np
import pandas as pd
import pytest
import torch

from fieldmorph.apps.tensor.date_words import words_for
from fieldmorph.bayes.data.coordinates import Mode

TIME = Mode("time", "time", "s")


def seconds(dates: pd.DatetimeIndex) -> torch.Tensor:
    return torch.from_numpy(np.asarray(dates.as_unit("s").asi8, dtype=np.float64))


@pytest.mark.parametrize(
    ("start", "frequency", "expected"),
    [
        ("2006-04-16 12:00", "MS", ["May 2006", "June 2006", "July 2006", "August 2006"]),
        ("2006-07-15", "YS", ["2007", "2008", "2009", "2010"]),
        (
            "2006-12-01",
            "QS-DEC",
            [
                "December to February 2007",
                "March to May 2007",
                "June to August 2007",
                "September to November 2007",
            ],
        ),
        ("2006-02-28", "D", ["2006-02-28", "2006-03-01", "2006-03-02", "2006-03-03"]),
        (
            "2006-02-28 06:00",
            "6h",
            ["2006-02-28 06:00", "2006-02-28 12:00", "2006-02-28 18:00", "2006-03-01"],
        ),
        ("2006-02-14", "91D", ["February 2006", "May 2006", "August 2006", "November 2006"]),
    ],
)
def test_resolution_follows_from_the_dates(start: str, frequency: str, expected: list[str]) -> None:
    points = seconds(pd.date_range(start, periods=4, freq=frequency))
    assert words_for(TIME, points)(points) == expected


def test_months_that_hold_two_dates_are_written_as_dates() -> None:
    points = seconds(pd.date_range("2006-03-01", periods=4, freq="30D"))
    assert words_for(TIME, points)(points) == ["2006-03-01", "2006-03-31", "2006-04-30", "2006-05-30"]


def test_other_modes_and_calendars() -> None:
    points = torch.tensor([0.0, 30.0 * 86400, 60.0 * 86400]).double()
    model = Mode("time", "time", "s", calendar="360_day")
    assert words_for(model, points)(points) == ["January 1970", "February 1970", "March 1970"]
    assert words_for(Mode("lat", "latitude"), points)(torch.tensor([-3.5]).double()) == ["3.5°S"]
    assert words_for(TIME, points[:1])(points[:1]) == ["1970-01-01"]
