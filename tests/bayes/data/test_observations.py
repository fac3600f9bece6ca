"""Measurements whatever they are from: what is missing, merged and drawn."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.measurements import refused, same, stations

from fieldmorph.bayes.data.observations import read_observations
from fieldmorph.fields.errors import SettingError


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


def test_names_that_contradict_each_other() -> None:
    for modes, value in ((["lat", "lat"], "temp"), (["lat", "temp"], "temp"), ([], "temp")):
        with pytest.raises(SettingError, match="different columns"):
            read_observations(stations(), modes, value)
    with pytest.raises(SettingError, match="named twice"):
        read_observations(stations().rename(columns={"lat": "lat [deg]"}), ["lat", "lat [deg]"], "temp")
    with pytest.raises(SettingError, match="sample must be 3 or more, got 2"):
        read_observations(stations(), sample=2)
    with pytest.raises(SettingError, match="data must be a path, a pandas or an xarray object; got a list"):
        read_observations([1, 2, 3])


def test_one_row_will_do_where_nothing_is_fitted() -> None:
    rows = read_observations(stations()[:1], to_fit=False)
    assert rows.values.tolist() == [1.5]
    assert len(read_observations(stations(temp=[7.0] * 4), to_fit=False).values) == 4
    refused(stations(temp=[np.nan] * 4), "no row without missing values", to_fit=False)


def test_numbers_whose_squares_are_none() -> None:
    refused(stations(temp=[1.0, 2.0, 3e120, 4.0]), "temp reaches 3e+120; numbers up to 1e+100 can be used")
    refused(
        stations(depth=[1.0, 2.0, -1e300, 4.0]), "depth reaches 1e+300", modes=["lat", "depth"], value="temp"
    )


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
