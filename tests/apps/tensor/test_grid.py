"""A grid's file opens in xarray with the right coordinates, says what predict says, and is the same block by block."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor.grid import block_shape, blocks, grid_file, value_type, write_grid
from fieldmorph.apps.tensor.grid_axes import grid_axes
from fieldmorph.apps.tensor.map_layers import MapLayers, MapSettings
from fieldmorph.apps.tensor.masks import GridMask
from fieldmorph.bayes.conformal import Intervals
from fieldmorph.bayes.store import load_posterior, save_posterior

pytestmark = pytest.mark.numerical

RANGES = {"latitude": "-20:20:10", "longitude": "-15:15:5", "time": "2020-01-05:2020-01-25:5D"}


def opened(path: Path) -> Any:
    with xr.open_dataset(path, engine="h5netcdf") as data:
        return data.load()


@pytest.fixture
def grid(tensor_model: Path, tmp_path: Path) -> Any:
    grid_file(tensor_model, tmp_path / "g.nc", RANGES)
    return opened(tmp_path / "g.nc")


def test_coordinates_and_attributes(grid: Any) -> None:
    assert dict(grid.sizes) == {"time": 5, "lat": 5, "lon": 7, "bnds": 2}
    assert grid["temp"].dims == grid["temp_sd"].dims == ("time", "lat", "lon")
    assert grid["lat"].values.tolist() == [-20, -10, 0, 10, 20]
    assert grid["lon"].values.tolist() == [-15, -10, -5, 0, 5, 10, 15]
    assert (grid["time"].values == pd.date_range("2020-01-05", "2020-01-25", freq="5D").values).all()
    lat = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y", "bounds": "lat_bnds"}
    lon = {"standard_name": "longitude", "units": "degrees_east", "axis": "X", "bounds": "lon_bnds"}
    assert (grid["lat"].attrs, grid["lon"].attrs) == (lat, lon)
    assert grid["time"].attrs == {"standard_name": "time", "axis": "T"}
    assert grid.attrs["Conventions"] == "CF-1.8"
    assert grid["temp"].attrs["units"] == grid["temp_sd"].attrs["units"] == "K"
    assert grid["temp"].attrs["ancillary_variables"] == "temp_sd extrapolated"
    assert grid["temp_sd"].attrs["half_width_95"] == pytest.approx(1.959964)
    assert grid["temp"].dtype == np.float32


def test_grid_says_what_predict_says(grid: Any, tensor_model: Path, tmp_path: Path) -> None:
    table = grid[["temp", "temp_sd"]].to_dataframe().reset_index()
    table[["lat", "lon", "time"]].to_csv(tmp_path / "p.csv", index=False)
    assert (
        main(["tensor", "predict", str(tensor_model), str(tmp_path / "p.csv"), "-o", str(tmp_path / "o.csv")])
        == 0
    )
    predicted = pd.read_csv(tmp_path / "o.csv")
    np.testing.assert_allclose(table["temp"], predicted["mean"], rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(table["temp_sd"], predicted["sd"], rtol=2e-7)


def test_an_interval_that_differs_from_cell_to_cell_is_no_attribute(
    tensor_model: Path, tmp_path: Path
) -> None:
    posterior = load_posterior(tensor_model)
    heavy = replace(posterior, noise=replace(posterior.noise, degrees=3.0))
    for name, model in (
        ("own", heavy),
        ("calibrated", replace(heavy, intervals=Intervals((0.95,), (1.7,), 0.99))),
    ):
        save_posterior(tmp_path / f"{name}.fm", model)
        grid_file(tmp_path / f"{name}.fm", tmp_path / f"{name}.nc", RANGES)
    attributes = [opened(tmp_path / f"{name}.nc")["temp_sd"].attrs for name in ("own", "calibrated")]
    assert "half_width_95" not in attributes[0]
    assert "half_width_95" not in attributes[0]["comment"]
    assert attributes[1]["half_width_95"] == pytest.approx(1.7)


@pytest.mark.parametrize(("block", "chunk"), [(1, 1), (11, 4), (64, 9), (200, 30)])
def test_blocks_make_the_same_grid(
    grid: Any, tensor_model: Path, tmp_path: Path, block: int, chunk: int
) -> None:
    posterior, reported = load_posterior(tensor_model), []
    axes = grid_axes(posterior, RANGES)
    path = tmp_path / "pieces.nc"
    write_grid(path, posterior, axes, "f4", lambda done, total: reported.append((done, total)), block, chunk)
    xr.testing.assert_allclose(opened(path), grid, rtol=1e-6)
    assert reported[-1] == (175, 175)
    assert len(reported) >= 175 // max(block, chunk)


@pytest.mark.parametrize(
    ("shape", "chunk", "most"), [((5, 5, 7), 4, 11), ((3,), 2, 2), ((4, 100), 30, 64), ((2, 3), 9, 1)]
)
def test_blocks_cover_every_cell_once(shape: tuple[int, ...], chunk: int, most: int) -> None:
    seen, box = np.zeros(shape, int), block_shape(shape, chunk)
    for where in blocks(shape, box, most):
        seen[where] += 1
        assert seen[where].size <= max(most, np.prod(box))
        assert all(part.start % side == 0 for part, side in zip(where, box, strict=True))
    assert (seen == 1).all()


def test_modes_left_out_take_the_data_s_own(tensor_model: Path, tmp_path: Path) -> None:
    result = grid_file(tensor_model, tmp_path / "g.nc", {"lat": "3", "time": "2020-01-05T12:00"})
    grid = opened(tmp_path / "g.nc")
    points = load_posterior(tensor_model).processes[1].points
    assert grid["lon"].values.tolist() == points.tolist()
    assert result.sizes == {"time": 1, "lat": 1, "lon": len(points)}
    assert grid["time"].values[0] == np.datetime64("2020-01-05T12:00")


def test_other_modes_and_calendars(tmp_path: Path) -> None:
    """Generic modes keep names and units; a calendar of a climate model is written as such."""
    random = np.random.default_rng(0)
    days = xr.date_range("2001-02-25", periods=8, freq="D", calendar="360_day", use_cftime=True)
    source = xr.Dataset(
        {"rate": (("day", "pressure"), random.random((8, 5)), {"units": "mol s-1"})},
        {"day": days, "pressure": ("pressure", np.arange(5.0) * 100, {"units": "hPa"})},
    )
    source.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    main(
        [
            "tensor",
            "fit",
            str(tmp_path / "d.nc"),
            "--rank",
            "1",
            "--sweeps",
            "3",
            "-o",
            str(tmp_path / "m.fm"),
        ]
    )
    ranges = ["--axis", "pressure=0:400:200", "--time", "2001-02-29:2001-03-02:1D"]
    assert main(["tensor", "grid", str(tmp_path / "m.fm"), *ranges, "-o", str(tmp_path / "g.nc")]) == 0
    grid = opened(tmp_path / "g.nc")
    assert grid["rate"].dims == ("day", "pressure")
    assert grid["rate"].attrs["units"] == "mol s-1"
    assert grid["pressure"].attrs["units"] == "hPa"
    assert [str(day)[:10] for day in grid["day"].values] == [
        "2001-02-29",
        "2001-02-30",
        "2001-03-01",
        "2001-03-02",
    ]
    assert grid["day"].values[0].calendar == "360_day"


def test_single_precision_only_where_it_is_enough(tensor_model: Path) -> None:
    from dataclasses import replace

    posterior = load_posterior(tensor_model)
    assert value_type(posterior) == "f4"
    assert value_type(replace(posterior, shift=1e7)) == "f8"


def test_unfinished_grid_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tensor_model: Path, tmp_path: Path
) -> None:
    def broken(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid_file(tensor_model, tmp_path / "g.nc", RANGES, on_cells=broken)
    assert [p.name for p in tmp_path.iterdir()] == []


def test_cells_have_bounds_in_the_middle_between_neighbours(tensor_model: Path, tmp_path: Path) -> None:
    ranges = {"latitude": "-89:89:2", "longitude": "15,5,-5", "time": "2020-01-05,2020-01-10"}
    grid_file(tensor_model, tmp_path / "g.nc", ranges)
    grid = opened(tmp_path / "g.nc")
    assert grid["lat_bnds"].values[[0, 1, -1]].tolist() == [[-90, -88], [-88, -86], [88, 90]]
    assert grid["lon_bnds"].values.tolist() == [[20, 10], [10, 0], [0, -10]]
    assert "time_bnds" not in grid  # instants
    grid_file(tensor_model, tmp_path / "one.nc", {"latitude": "3", "longitude": "5", "time": "2020-01-05"})
    assert "bounds" not in opened(tmp_path / "one.nc")["lat"].attrs


def test_file_is_compressed_and_says_how_it_was_made(tensor_model: Path, tmp_path: Path) -> None:
    grid_file(tensor_model, tmp_path / "g.nc", RANGES)
    with h5netcdf.File(tmp_path / "g.nc") as file:
        for name in ("temp", "temp_sd", "extrapolated"):
            stored = file.variables[name]
            assert (stored.compression, stored.shuffle) == ("gzip", True)
        assert np.isnan(file.variables["temp"].attrs["_FillValue"])
        assert file.variables["temp"].attrs["_FillValue"].dtype == np.float32
        history = str(file.attrs["history"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: fieldmorph tensor grid model.fm", history)


def test_standard_name_of_the_data_comes_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    attributes = {"units": "K", "standard_name": "air_temperature"}
    source = xr.Dataset(
        {"t2m": (("lat", "lon"), random.random((6, 8)), attributes)},
        {"lat": np.arange(6.0), "lon": np.arange(8.0)},
    )
    source.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    fit = ["tensor", "fit", str(tmp_path / "d.nc"), "--rank", "1", "--sweeps", "3"]
    assert main([*fit, "-o", str(tmp_path / "m.fm")]) == 0
    grid_file(tmp_path / "m.fm", tmp_path / "g.nc")
    grid = opened(tmp_path / "g.nc")
    names = {name: grid[name].attrs["standard_name"] for name in grid.data_vars if "bnds" not in name}
    assert names == {
        "t2m": "air_temperature",
        "t2m_sd": "air_temperature standard_error",
        "extrapolated": "air_temperature status_flag",
    }


def test_cells_outside_the_data_are_marked_and_warned_of_once(
    caplog: pytest.LogCaptureFixture, tensor_model: Path, tmp_path: Path
) -> None:
    ranges = {"latitude": "-40:40:20", "longitude": "0", "time": "2020-01-05,2021-01-05"}
    result = grid_file(tensor_model, tmp_path / "g.nc", ranges)
    marks = opened(tmp_path / "g.nc")["extrapolated"].values[:, :, 0].tolist()
    assert marks == [[1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert (result.extrapolated, result.masked) == (7, 0)
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith("7 of 10 cells lie outside the range of the data in lat (-29.")
    assert "time (2020-01-01 to 2020-02-29)" in warning
    caplog.clear()
    grid_file(tensor_model, tmp_path / "inside.nc", RANGES)
    assert not caplog.records


@pytest.mark.parametrize("block", [1, 9, 1000])
def test_masked_cells_have_no_value_in_any_block(tensor_model: Path, tmp_path: Path, block: int) -> None:
    posterior = load_posterior(tensor_model)
    axes = grid_axes(posterior, RANGES)
    kept = np.arange(35).reshape(5, 7) % 3 != 0  # (latitudes, longitudes)
    mask = GridMask("every third", kept, axes[0].written, axes[1].written)
    counts = write_grid(
        tmp_path / "g.nc", posterior, axes, "f4", lambda *_: None, block, 1, layers=MapLayers(mask)
    )
    grid = opened(tmp_path / "g.nc")
    assert (np.isfinite(grid["temp"].values) == kept).all()
    assert (np.isfinite(grid["temp_sd"].values) == kept).all()
    assert counts.masked == 5 * int((~kept).sum())
    assert grid["temp"].attrs["comment"] == "only cells that the mask keeps have a value: every third"


def test_land_and_sea_are_masked_by_the_command(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("global_land_mask", reason="needs the extra maps")
    ranges = ["--lat", "0:20:10", "--lon", "-20,10,15", "--time", "2020-01-05"]
    words = ["tensor", "grid", str(tensor_model), *ranges, "--mask", "land", "--json"]
    assert main([*words, "-o", str(tmp_path / "g.nc")]) == 0
    result = json.loads(capsys.readouterr().out)
    kept = np.isfinite(opened(tmp_path / "g.nc")["temp"].values[0])
    assert kept.tolist() == [[False, True, True], [False, True, True], [False, True, True]]
    assert (result["masked"], result["cells"]) == (3, 9)


def test_mask_by_distance_keeps_cells_of_plain_coordinates(tmp_path: Path) -> None:
    """The first mode is across, so that the mask's rows are the file's columns."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"x": random.uniform(0, 4, 30), "y": random.uniform(0, 2, 30)})
    table.assign(v=random.normal(size=30)).to_csv(tmp_path / "d.csv", index=False)
    pd.DataFrame({"x": [1.0], "y": [2.0], "v": [0.0]}).to_csv(tmp_path / "near.csv", index=False)
    fit = ["tensor", "fit", str(tmp_path / "d.csv"), "--modes", "x,y", "--rank", "1", "--sweeps", "2"]
    assert main([*fit, "-o", str(tmp_path / "m.fm")]) == 0
    maps = MapSettings("1.1", tmp_path / "near.csv")
    grid_file(tmp_path / "m.fm", tmp_path / "g.nc", {"x": "0:4:1", "y": "0:2:1"}, maps=maps)
    grid = opened(tmp_path / "g.nc")
    assert grid["v"].dims == ("x", "y")
    kept = np.argwhere(np.isfinite(grid["v"].values)).tolist()
    assert kept == [[0, 2], [1, 1], [1, 2], [2, 2]]
