"""Files and objects that hold measurements: what comes back from each kind, and damaged ones."""

import gzip
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.measurements import SECONDS_2006_04_16, globe, refused, same, stations, written

from fieldmorph.bayes.data.observations import read_observations


def test_an_index_that_says_something_is_a_column() -> None:
    frame = stations().astype({"time": object}).drop(columns="time")
    frame.index = pd.date_range("2006-04-16", periods=4, tz="UTC")
    rows = read_observations(frame)
    assert rows.modes[0].name == "time"
    assert rows.coordinates[0, 0] == SECONDS_2006_04_16
    series = stations(time=None).set_index(["lat", "lon"])["temp"]
    assert read_observations(series).coordinates.shape == (4, 2)


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


def test_columns_between_semicolons_are_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "lat;temp\n1,5;2,5\n2;3\n3;4\n")
    refused(path, "a.csv cannot be read: columns are separated by ';'; expected ','")


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
