"""Columns as coordinates: kinds by name, longitudes on one branch, and what is no number."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.measurements import refused, stations
from hypothesis import given
from hypothesis import strategies as st

from fieldmorph.bayes.data.coordinates import Mode, mode_of
from fieldmorph.bayes.data.observations import read_observations

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("name", ["Latitude", "LAT", "latitude", "lat [deg]"])
def test_names_are_recognised_in_any_case_and_with_a_unit(name: str) -> None:
    rows = read_observations(stations(lat=None, **{name: [1.0, 2.0, 3.0, 4.0]}))
    assert {m.kind for m in rows.modes} == {"latitude", "longitude", "time"}


@pytest.mark.parametrize("name", ["lng", "Longitude", "LON"])
def test_other_names_of_longitude(name: str) -> None:
    rows = read_observations(stations(lon=None, **{name: [1.0, 2.0, 3.0, 4.0]}))
    assert [m.name for m in rows.modes if m.kind == "longitude"] == [name]


def test_days_written_as_numbers_get_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    frame = stations(time=None, date=[20060430, 20060501, 20060502, 20060503])
    rows = read_observations(frame)
    assert rows.coordinates[0, 2] == 20060430
    assert "20060430 are taken as numbers, not as dates" in caplog.text


def test_durations_are_seconds() -> None:
    lead = pd.to_timedelta([1, 2, 3], unit="min")
    rows = read_observations(pd.DataFrame({"lead": lead, "x": [1.0, 2, 3]}), ["lead"], "x")
    assert rows.coordinates[:, 0].tolist() == [60, 120, 180]
    assert rows.modes[0].unit == "s"


@pytest.mark.parametrize(
    ("degrees", "expected", "as_written"),
    [
        ([-10, 0, 40], [-10, 0, 40], [-10, 0, 40]),
        ([350, 0, 40], [-10, 0, 40], [350, 0, 40]),  # Europe in [0, 360)
        ([150, -150, 180], [150, 210, 180], [150, -150, -180]),  # the Pacific
        ([150, 210, 180], [150, 210, 180], [150, 210, 180]),
        (
            [-170, -20, 10, 100],
            [190, -20, 10, 100],
            [-170, -20, 10, 100],
        ),  # the widest gap is 150 from -170 to -20
        ([0, 90, 180, 270], [0, 90, 180, 270], [0, 90, 180, 270]),  # around the globe
        ([-180, -90, 0, 90], [-180, -90, 0, 90], [-180, -90, 0, 90]),
        ([-180, 180, 170], [180, 180, 170], [-180, -180, 170]),
        ([313, 390], [-47, 30], [-47, 30]),  # beyond both usual branches
        ([-0.1, 359.9, 3], [-0.1, -0.1, 3], [-0.1, -0.1, 3]),
        ([7], [7], [7]),
        ([10, 180], [10, 180], [10, 180]),
    ],
)
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


@pytest.mark.parametrize("column", ["temp", "lat"])
def test_text_and_infinity_are_named_with_their_row(column: str, tmp_path: Path) -> None:
    frame = stations(**{column: ["1", "2", "wet", "dry"]})
    refused(frame, f"{column}, row 3: expected a number, got 'wet'")
    frame.to_csv(tmp_path / "a.csv", index=False)
    refused(tmp_path / "a.csv", f"{column}, row 3: expected a number, got 'wet'")
    refused(stations(**{column: [1.0, 2.0, 3.0, -np.inf]}), f"{column}, row 4: infinite")


def test_outside_is_beyond_the_range_of_the_data() -> None:
    points = torch.tensor([-5.0, 0.0, 10.0]).double()
    values = torch.tensor([-5.1, -5.00001, 3.0, 10.0, 10.01, torch.nan]).double()
    assert Mode("x").outside(values, points).tolist() == [True, False, False, False, True, False]
    assert not Mode("x").outside(points[:1], points[:1]).any()


def test_no_longitude_is_outside_of_data_round_the_globe() -> None:
    whole, part = torch.arange(0.0, 355.0, 5.0).double(), torch.arange(0.0, 340.0, 5.0).double()
    lon = Mode("lon", "longitude", cut=0.0)
    assert not lon.outside(torch.tensor([359.0]).double(), whole).any()
    assert lon.outside(torch.tensor([340.0, 335.0]).double(), part).tolist() == [True, False]
