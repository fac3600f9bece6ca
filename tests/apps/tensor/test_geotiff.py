"""GeoTIFFs of grids: bands are the variables of the NetCDF file, in place, and what is missing is said in one line."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor import geotiff
from fieldmorph.apps.tensor.grid import grid_file
from fieldmorph.apps.tensor.map_layers import MapSettings
from fieldmorph.fields.errors import SettingError

RANGES = {"latitude": "-20:20:10", "longitude": "-15:15:5", "time": "2020-01-05:2020-01-25:10D"}


def test_bands_are_the_variables_of_the_grid(tensor_model: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geotiff")
    pytest.importorskip("rioxarray")
    mask = xr.Dataset(
        {"keep": (("lat", "lon"), np.eye(5, 7))},
        {"lat": np.arange(-20.0, 21, 10), "lon": np.arange(-15.0, 16, 5)},
    )
    mask.to_netcdf(tmp_path / "mask.nc", engine="h5netcdf")
    maps = MapSettings(str(tmp_path / "mask.nc"))
    grid_file(tensor_model, tmp_path / "g.nc", RANGES, maps=maps)
    result = grid_file(tensor_model, tmp_path / "g.tif", RANGES, maps=maps)
    assert result.variables == ["temp", "temp_sd", "extrapolated"]
    with (
        xr.open_dataset(tmp_path / "g.nc", engine="h5netcdf") as grid,
        rasterio.open(tmp_path / "g.tif") as tif,
    ):
        assert tif.crs.to_epsg() == 4326
        assert tif.bounds == (-17.5, -25, 17.5, 25)
        assert np.isnan(tif.nodata)
        days = ["2020-01-05", "2020-01-15", "2020-01-25"]
        assert list(tif.descriptions) == [f"{name} {day}" for name in result.variables for day in days]
        for band, (name, time) in enumerate(((n, t) for n in result.variables for t in range(3)), start=1):
            np.testing.assert_array_equal(tif.read(band), grid[name].values[time, ::-1].astype(np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.nc", "g.tif", "mask.nc"]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"latitude": "0"}, "evenly spaced coordinates; give lat as from:to:step"),
        ({"latitude": "0:4:2"}, "evenly spaced coordinates; give lon as from:to:step"),
        (
            {**RANGES, "time": "2020-01-01T00:00:2020-12-31T00:00:5min"},
            "at most 65535 bands; this grid would have 315363",
        ),
    ],
)
def test_grids_that_a_geotiff_cannot_hold_are_refused(
    tensor_model: Path, tmp_path: Path, ranges: dict[str, str], message: str
) -> None:
    pytest.importorskip("rioxarray", reason="needs the extra geotiff")
    with pytest.raises(SettingError, match=message):
        grid_file(tensor_model, tmp_path / "g.tif", ranges)


def test_missing_package_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tensor_model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(geotiff, "PACKAGE", "a_package_that_nobody_has")
    assert main(["tensor", "grid", str(tensor_model), "-o", str(tmp_path / "g.tif")]) == 2
    assert capsys.readouterr().err == f"fieldmorph: {geotiff.NEEDED}\n"
    assert main(["tensor", "grid", str(tensor_model), "-o", str(tmp_path / "g.png")]) == 2
    assert "must end in .nc (NetCDF) or .tif (GeoTIFF)" in capsys.readouterr().err
