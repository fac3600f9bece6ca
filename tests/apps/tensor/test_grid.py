"""A grid's file opens in xarray with the right coordinates, says what predict says, and is the same block by block."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor.grid import block_shape, blocks, grid_file, value_type, write_grid
from fieldmorph.apps.tensor.grid_axes import grid_axes
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
    assert dict(grid.sizes) == {"time": 5, "lat": 5, "lon": 7}
    assert grid["temp"].dims == grid["temp_sd"].dims == ("time", "lat", "lon")
    assert grid["lat"].values.tolist() == [-20, -10, 0, 10, 20]
    assert grid["lon"].values.tolist() == [-15, -10, -5, 0, 5, 10, 15]
    assert (grid["time"].values == pd.date_range("2020-01-05", "2020-01-25", freq="5D").values).all()
    assert grid["lat"].attrs == {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
    assert grid["lon"].attrs == {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
    assert grid["time"].attrs == {"standard_name": "time", "axis": "T"}
    assert grid.attrs["Conventions"] == "CF-1.8"
    assert grid["temp"].attrs["units"] == grid["temp_sd"].attrs["units"] == "K"
    assert grid["temp"].attrs["ancillary_variables"] == "temp_sd"
    assert grid["temp_sd"].attrs["half_width_95"] == pytest.approx(1.959964)
    assert grid["temp"].dtype == np.float32


def test_grid_says_what_predict_says(grid: Any, tensor_model: Path, tmp_path: Path) -> None:
    table = grid.to_dataframe().reset_index()
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
