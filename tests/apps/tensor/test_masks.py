"""Masks keep the cells that they say, on any branch of longitudes, and say in one line what they lack."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor import globe
from fieldmorph.apps.tensor.globe import coastlines, is_land
from fieldmorph.apps.tensor.map_layers import MapLayers, MapSettings, open_layers
from fieldmorph.apps.tensor.masks import on_globe, open_mask, read_mask
from fieldmorph.bayes.data.coordinates import Mode, mode_of_variable
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.errors import InputError, SettingError

LAT, LON = Mode("lat", "latitude"), Mode("lon", "longitude")
needs_land = pytest.mark.skipif(
    importlib.util.find_spec("global_land_mask") is None, reason="needs the extra maps"
)


def numbers(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


@pytest.fixture
def no_land(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with land and sea is not installed."""
    monkeypatch.setattr(globe, "PACKAGE", "a_package_that_nobody_has")
    globe._land.cache_clear()


@needs_land
def test_land_is_land_on_every_branch_of_longitudes() -> None:
    """Central Africa, the Atlantic, the Gulf of Guinea; rows from the south, as a map has them."""
    expected = [[True, False, True], [True, False, False]]
    for turn in (-360, 0, 360):
        longitudes = numbers(20, -25, 5.5) + turn
        assert is_land(numbers(7.5, 0), longitudes).tolist() == expected
    assert is_land(numbers(-90, 90), numbers(-180, 180, 0)).tolist() == [[True] * 3, [False] * 3]


@needs_land
def test_coastlines_surround_madagascar() -> None:
    lines = coastlines(42.5, 51.0, -26.5, -11.5)
    longest = max(lines, key=len)
    assert longest[0] == pytest.approx(longest[-1], abs=0.1)  # closed
    assert longest[:, 0].min() == pytest.approx(43.2, abs=0.2)
    assert longest[:, 1].max() == pytest.approx(-11.95, abs=0.2)
    there = max(coastlines(402.5, 411.0, -26.5, -11.5), key=len)
    for corner in (np.min, np.max):
        np.testing.assert_allclose(corner(there, axis=0) - corner(longest, axis=0), [360, 0], atol=0.02)


@needs_land
def test_sea_is_what_is_not_land() -> None:
    x, y = numbers(20, -25), numbers(0, 7.5)
    land, sea = (open_mask(text, LON, LAT).keeps(x, y) for text in ("land", "sea"))
    assert (land == ~sea).all()
    assert land.any()
    assert sea.any()


def mask_file(path: Path, values: Any, **more: Any) -> Path:
    coordinates = {"latitude": [2.0, 1.0, 0.0], "longitude": [0.0, 90.0, 180.0, 270.0]}
    variables = {"keep": (("latitude", "longitude"), np.asarray(values)), **more}
    xr.Dataset(variables, coordinates).to_netcdf(path, engine="h5netcdf")
    return path


def test_mask_file_is_looked_up_at_the_nearest_cell(tmp_path: Path) -> None:
    path = mask_file(tmp_path / "m.nc", [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0.6, 0.4]])
    mask = read_mask(path)
    kept = mask.keeps(numbers(-90, 91, 44, 46, -180, 316), numbers(0, 1.4, 2.4, 2.6))
    assert kept.tolist() == [
        [False, False, False, False, True, False],
        [False, True, False, True, False, False],
        [True, False, False, False, False, False],
        [False] * 6,  # beyond the last cell
    ]
    assert mask.words == "m.nc"


def test_field_with_missing_values_is_a_mask(tmp_path: Path) -> None:
    path = mask_file(tmp_path / "sst.nc", [[np.nan, 0, 20, 1], [3, np.nan, 0, 0], [0, 0, 0, np.nan]])
    kept = read_mask(path).keeps(numbers(0, 90, 180, 270), numbers(0, 1, 2))
    assert kept.tolist() == [[True] * 3 + [False], [True, False, True, True], [False] + [True] * 3]


def test_first_time_of_a_mask_counts_and_several_need_a_name(tmp_path: Path) -> None:
    times = (("time", "latitude", "longitude"), np.stack([np.ones((3, 4)), np.zeros((3, 4))]))
    path = mask_file(tmp_path / "m.nc", np.zeros((3, 4)), other=times)
    x, y = numbers(0, 90), numbers(0, 1)
    assert not open_mask(f"{path}:keep", LON, LAT).keeps(x, y).any()
    assert open_mask(f"{path}:other", LON, LAT).keeps(x, y).all()
    with pytest.raises(InputError, match="several masks may be the value: keep, other"):
        open_mask(str(path), LON, LAT)
    with pytest.raises(
        InputError, match=r"m.nc has no mask 'x' over latitude and longitude; there are: keep"
    ):
        open_mask(f"{path}:x", LON, LAT)


def test_distance_is_measured_on_the_globe() -> None:
    """A degree of a great circle has 111.2 km; the nearest measurement may lie across the date line."""
    measured = numbers(179.5, 0), numbers(0, 80)
    mask = open_mask("120km", LON, LAT, measured)
    assert mask.keeps(numbers(-179.6, -179.3, 0, 6.1, 6.3), numbers(0, 80)).tolist() == [
        [True, False, False, False, False],
        [False, False, True, True, False],
    ]
    nearer = open_mask("1deg", LON, LAT, measured)
    assert nearer.keeps(numbers(-179.6, -179.4), numbers(0)).tolist() == [[True, False]]


def test_distance_without_a_globe_is_in_the_common_unit() -> None:
    x, y = Mode("x", unit="m"), Mode("y", unit="m")
    mask = open_mask("2.5", x, y, (numbers(0), numbers(0)))
    assert mask.keeps(numbers(0, 2, 3), numbers(0, 2)).tolist() == [[True, True, False], [True, False, False]]
    with pytest.raises(SettingError, match="common unit"):
        open_mask("2.5", x, Mode("t", unit="s"), (numbers(0), numbers(0)))
    with pytest.raises(SettingError, match=r"needs a unit: 2\.5km or 2\.5deg"):
        open_mask("2.5", LON, LAT, (numbers(0), numbers(0)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("see", "unknown mask 'see'; known: land, sea, .*; did you mean sea?"),
        ("300km", "the mask 300km needs the measurements: --points TABLE"),
        ("missing.nc", "no such file: missing.nc"),
    ],
)
def test_mask_that_is_none_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises((SettingError, InputError), match=message) as caught:
        open_mask(text, LON, LAT)
    assert len(str(caught.value).splitlines()) == 1


def test_globe_is_needed_for_land() -> None:
    with pytest.raises(SettingError, match="land needs latitudes and longitudes; the map is over x and y"):
        open_mask("land", Mode("x"), Mode("y"))


@pytest.mark.usefixtures("no_land")
def test_missing_package_is_one_line_for_a_mask_and_a_warning_for_coastlines(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tensor_model: Path, tmp_path: Path
) -> None:
    command = ["tensor", "grid", str(tensor_model), "--mask", "sea", "-o", str(tmp_path / "g.nc")]
    assert main(command) == 2
    assert capsys.readouterr().err == f"fieldmorph: {globe.NEEDED}\n"
    layers = open_layers(load_posterior(tensor_model), MapSettings())
    assert layers.coasts == []
    assert [record.getMessage() for record in caplog.records] == [f"maps have no coastlines: {globe.NEEDED}"]


def test_measured_places_are_read_once_each(tensor_model: Path, tensor_csv: Path, tmp_path: Path) -> None:
    lines = tensor_csv.read_text().splitlines()
    later = lines[1].replace(lines[1].split(",")[2], "2020-02-20")
    (tmp_path / "p.csv").write_text("\n".join([*lines[:21], later]) + "\n")
    layers = open_layers(load_posterior(tensor_model), MapSettings("500km", tmp_path / "p.csv"))
    assert layers.measured is not None
    assert len(layers.measured[0]) == 20
    lat, lon = (float(text) for text in lines[1].split(",")[:2])
    kept = layers.kept(torch.tensor([lon]).double(), torch.tensor([lat, lat + 60]).double())
    assert kept is not None
    assert kept.tolist() == [[True], [False]]
    assert MapLayers().kept(torch.zeros(1).double(), torch.zeros(1).double()) is None


def test_a_rotated_pole_is_no_place_on_the_globe(tmp_path: Path) -> None:
    """Degrees about another pole than the Earth's have no land and no coastlines, but distances and own masks."""
    degrees = numbers(0, 1, 2)
    names = {"grid_longitude": "rlon", "grid_latitude": "rlat"}
    x, y = (
        mode_of_variable(name, degrees, {"standard_name": standard, "units": "degrees"})
        for standard, name in names.items()
    )
    assert (x.kind, y.kind, x.rotated, y.rotated) == ("longitude", "latitude", True, True)
    assert not on_globe(x, y)
    for text in ("land", "sea"):
        with pytest.raises(
            SettingError,
            match=f"the mask {text} needs latitudes and longitudes; rlon and rlat are those of a rotated",
        ):
            open_mask(text, x, y)
    near = open_mask("120km", x, y, (numbers(0), numbers(0)))
    assert near.keeps(numbers(0, 1, 2), numbers(0)).tolist() == [[True, True, False]]
    plain = mask_file(tmp_path / "m.nc", np.ones((3, 4)))
    with pytest.raises(InputError, match="needs latitudes and longitudes of a rotated pole"):
        open_mask(str(plain), x, y)
    with xr.open_dataset(plain) as grid:
        turned = grid.load().rename(latitude="rlat", longitude="rlon")
    turned["rlat"].attrs["standard_name"], turned["rlon"].attrs["standard_name"] = (
        "grid_latitude",
        "grid_longitude",
    )
    turned.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
    assert open_mask(str(tmp_path / "r.nc"), x, y).keeps(numbers(0), numbers(1)).all()
    with pytest.raises(InputError, match="needs latitudes and longitudes, each"):
        open_mask(str(tmp_path / "r.nc"), LON, LAT)
