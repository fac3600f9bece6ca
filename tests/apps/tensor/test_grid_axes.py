"""Ranges as a user writes them become coordinates, in numbers that were not rounded off."""

import pytest
import torch

from fieldmorph.apps.tensor.grid_axes import DEFAULT_POINTS, MAX_OWN_POINTS, default_axis, parse_axis
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.fields.errors import SettingError

PLAIN = Mode("temp", unit="degC")
LAT = Mode("lat", "latitude", "degrees_north")
ATLANTIC = Mode(
    "lon", "longitude", cut=-180.0, written=0.0
)  # data on both sides of Greenwich, written 0..360
TIME = Mode("time", "time", "s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
        ("0:1:0.3", [0, 0.3, 0.6, 0.9]),
        ("30:30.4:0.1", [30, 30.1, 30.2, 30.3, 30.4]),
        ("2:-1:-1", [2, 1, 0, -1]),
        ("-3", [-3]),
        ("1,5,2.5", [1, 5, 2.5]),
        ("1e3:3e3:1e3", [1000, 2000, 3000]),
        ("4:4:1", [4]),
    ],
)
def test_numbers(text: str, expected: list[float]) -> None:
    axis = parse_axis(PLAIN, text)
    assert axis.written.tolist() == expected
    assert axis.coordinates.tolist() == expected


@pytest.mark.parametrize(
    ("text", "first", "last", "n"),
    [
        ("2020-01-01:2020-12-31:1D", "2020-01-01", "2020-12-31", 366),
        ("2020-01-01:2020-01-02:6h", "2020-01-01", "2020-01-02", 5),
        ("2020-01-01T06:00:2020-01-01T07:00:30min", "2020-01-01T06:00", "2020-01-01T07:00", 3),
        ("2020-01-01:2020-02-01:2W", "2020-01-01", "2020-01-29", 3),
        ("2020-01-31:2020-05-01:1M", "2020-01-31", "2020-04-30", 4),
        ("2000:2004:1Y", None, None, None),
        ("2000-02-29:2004-12-31:1Y", "2000-02-29", "2004-02-29", 5),
        ("2020-01-16", "2020-01-16", "2020-01-16", 1),
        ("2020-01-16,2020-03-01T12:00", "2020-01-16", "2020-03-01T12:00", 2),
    ],
)
def test_times(text: str, first: str | None, last: str | None, n: int | None) -> None:
    if first is None:
        with pytest.raises(SettingError, match="time: expected"):
            parse_axis(TIME, text)
        return
    axis = parse_axis(TIME, text)
    assert len(axis.coordinates) == n
    torch.testing.assert_close(axis.coordinates[[0, -1]], TIME.parse([first, last]), rtol=0, atol=0)


def test_times_of_another_calendar() -> None:
    mode = Mode("time", "time", "s", calendar="360_day")
    axis = parse_axis(mode, "2020-02-28:2020-03-01:1D")
    assert mode.format(axis.coordinates).tolist()[1:3] == ["2020-02-29T00:00:00", "2020-02-30T00:00:00"]
    assert len(axis.coordinates) == 4
    with pytest.raises(SettingError, match="usual calendar"):
        parse_axis(mode, "2020-01-01:2020-12-01:1M")


def test_longitudes_are_written_as_requested_and_wrapped_for_the_model() -> None:
    axis = parse_axis(ATLANTIC, "350:370:10")
    assert axis.written.tolist() == [350, 360, 370]
    assert axis.coordinates.tolist() == [-10, 0, 10]


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:3:4", "1,b", "nan", "0:inf:1", "1:2:0"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(SettingError):
        parse_axis(PLAIN, text)


def test_latitudes_end_at_the_poles() -> None:
    assert parse_axis(LAT, "-90:90:45").written.tolist() == [-90, -45, 0, 45, 90]
    with pytest.raises(SettingError, match="goes beyond ±90"):
        parse_axis(LAT, "90.5")


def test_modes_that_are_not_named() -> None:
    few = torch.tensor([1.0, 2.5, 7.0]).double()
    assert default_axis(PLAIN, few).written.tolist() == few.tolist()
    many = torch.linspace(0, 98, MAX_OWN_POINTS + 1).double()
    spread = default_axis(PLAIN, many).written
    assert (len(spread), spread[0], spread[1], spread[-1]) == (DEFAULT_POINTS, 0, 2, 98)


def test_default_longitudes_ascend_whatever_way_they_were_written() -> None:
    across = torch.tensor([-10.0, 0.0, 10.0]).double()  # 350, 0, 10 in the data
    assert default_axis(ATLANTIC, across).written.tolist() == [-10, 0, 10]
    pacific = Mode("lon", "longitude", cut=0.0, written=-180.0)
    assert default_axis(pacific, torch.tensor([181.0, 185.0]).double()).written.tolist() == [-179, -175]
