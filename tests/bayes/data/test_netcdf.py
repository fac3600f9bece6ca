"""Measurements from grids: dimensions as modes, samples, and what says too little."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers.measurements import SECONDS_2006_04_16, globe, refused, same, stations

from fieldmorph.bayes.data.netcdf import GridConfig
from fieldmorph.bayes.data.observations import read_observations

pytestmark = pytest.mark.numerical

TWO_LINES = GridConfig(block=12)  # at a time


def test_a_sample_of_a_grid_is_uniform_over_what_is_not_missing() -> None:
    values = np.arange(60.0).reshape(10, 6)
    values[:, 0] = np.nan
    grid = xr.DataArray(values, {"x": range(10), "y": range(6)}, ("x", "y"), name="v")
    counts, generator = np.zeros(60), torch.Generator().manual_seed(0)
    for _ in range(400):
        rows = read_observations(grid, sample=5, generator=generator, grid=TWO_LINES)
        assert (6 * rows.coordinates[:, 0] + rows.coordinates[:, 1]).equal(rows.values)
        assert rows.dropped == 10
        counts[rows.values.int().numpy()] += 1
    assert counts.sum() == 2000  # five each, none twice
    drawn = counts.reshape(10, 6)[:, 1:]
    assert drawn.min() > 15  # 40 expected; the standard deviation is 6
    assert drawn.max() < 65
    assert abs(drawn[:5].sum() - 1000) < 90  # four standard deviations: no block is preferred


def test_blocks_of_a_grid_are_all_read() -> None:
    assert same(read_observations(globe()), read_observations(globe(), grid=GridConfig(block=1)))


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


def test_infinity_in_a_grid() -> None:
    grid = globe()
    grid["sst"][1, 0, 2] = np.inf
    refused(grid, "sst, cell 15: infinite")


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


def test_a_grid_that_is_too_large_requests_a_sample() -> None:
    small = GridConfig(max_cells=20)
    refused(globe(), "sst has 24 cells; draw some of them with sample", grid=small)
    assert len(read_observations(globe(), sample=4, grid=small).values) == 4
