"""Every mistake of a user of the tensor commands is one line with its exit code, and no file is lost or left behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from fieldmorph.apps.cli.main import main
from fieldmorph.fields.checkpoint import write_checkpoint

HEAD = "lat,lon,time,temp"
ROWS = ["1,2,2020-01-01,3", "2,2,2020-01-02,4", "3,1,2020-01-03,5", "4,1,2020-01-04,3.5"]
MODES = ["--modes", "lat,lon,time", "--value", "temp"]


def refused(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    capsys.readouterr()
    try:
        code = main(["tensor", *(str(word) for word in argv)])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fieldmorph: ")
    assert captured.err.count("\n") == 1
    return code, captured.err


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder into which nothing may come."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def table(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("rows", "options", "reported"),
    [
        (
            ROWS,
            ["--modes", "lat,lon,day", "--value", "temp"],
            "no column 'day'; there are: lat, lon, time, temp",
        ),
        (ROWS, ["--modes", "lat,lon,time", "--value", "t"], "no column 't'; there are: lat, lon, time, temp"),
        ([*ROWS, "5,1,2020-01-05,warm"], MODES, "temp, row 5: expected a number, got 'warm'"),
        ([*ROWS, "north,1,2020-01-05,4"], MODES, "lat, row 5: expected a number, got 'north'"),
        ([*ROWS, "5,1,someday,4"], MODES, "time, row 5: expected a date, got 'someday'"),
        ([*ROWS, "5,1,2020-01-05,inf"], MODES, "temp, row 5: infinite"),
        ([*ROWS, "91,1,2020-01-05,4"], MODES, "lat, row 5: 91 is not a latitude within ±90"),
        ([*ROWS, "9,1000,2020-01-05,4"], MODES, "1000 is not a longitude"),
        ([r.rsplit(",", 1)[0] + ",7" for r in ROWS], MODES, "all values of temp are 7"),
        (ROWS[:1], MODES, "3 different rows are needed, without missing values; got 1"),
        ([], MODES, "no rows"),
        ([f"1,2,2020-01-01,{k}" for k in range(5)], MODES, "all rows are at one place"),
        ([f"{k},2,2020-01-01," for k in range(5)], MODES, "got 0"),
        ([*ROWS, "1,2,2020-01-01,3,9"], MODES, "cannot be read"),
    ],
)
def test_data_that_cannot_be_fitted(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    out: Path,
    rows: list[str],
    options: list[str],
    reported: str,
) -> None:
    code, message = refused(
        capsys, "fit", table(tmp_path / "d.csv", *rows), *options, "-o", out / "m.fm", "--quiet"
    )
    assert code == 3
    assert reported in message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (["--rank", "3,3"], "expected one rank, or 3: one for each mode; got 2"),
        (["--rank", "3,0,3"], "at least 1; got '0'"),
        (["--rank", "2,3,3", "--cp"], "CP has one rank"),
        (["--kernel", "rbf"], "unknown kernel 'rbf'; known: matern12, matern32, matern52"),
        (["--calibrate", "1.5"], "fraction between 0 and 1; got '1.5'"),
        (["--calibrate", "0.01"], "cannot be held out"),
        (["--calibrate-by", "lat"], "--calibrate-by and --calibrate-rounds need --calibrate FRACTION"),
        (["--calibrate-rounds", "2"], "--calibrate-by and --calibrate-rounds need --calibrate FRACTION"),
        (
            ["--calibrate", "0.5", "--calibrate-rounds", "3"],
            "3 disjoint parts with a fraction of 0.5 each cannot",
        ),
        (["--calibrate", "0.5", "--calibrate-by", "depth"], "unknown mode 'depth'; known: lat, lon, time"),
        (["--calibrate", "0.5", "--calibrate-by", "lat,,lon"], "blocks look like lat,lon or lat,lon,year=10"),
        (["--calibrate", "0.5", "--calibrate-by", "lat,lat=2"], "blocks look like"),
        (["--calibrate", "0.5", "--calibrate-by", "lat,latitude=2"], "lat is given twice"),
        (
            ["--calibrate", "0.5", "--calibrate-by", "lat=-1"],
            "lat: expected a block width such as 10; got '-1'",
        ),
        (
            ["--calibrate", "0.5", "--calibrate-by", "time=1"],
            "time: expected a block width such as 30D (s, min, h, D, W)",
        ),
        (
            ["--calibrate", "0.5", "--calibrate-by", "time=1000W"],
            "a fraction of 0.5 of 1 blocks cannot be held out",
        ),
        (["--tolerance", "0"], "expected a positive number; got '0'"),
        (["--sweeps", "0"], "at least 1; got '0'"),
        (["--sample", "2"], "sample must be 3 or more"),
        (["--value", "lat"], "must be different columns"),
    ],
)
def test_settings_that_cannot_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path, options: list[str], reported: str
) -> None:
    data = table(tmp_path / "d.csv", *ROWS)
    code, message = refused(capsys, "fit", data, *MODES, *options, "-o", out / "m.fm", "--quiet")
    assert code == 2
    assert reported in message
    assert list(out.iterdir()) == []


def test_files_that_are_no_data(capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path) -> None:
    bare = tmp_path / "bare.nc"
    xr.Dataset({"t": (("y", "x"), np.random.default_rng(0).random((4, 5)))}).to_netcdf(
        bare, engine="h5netcdf"
    )
    broken = tmp_path / "broken.nc"
    broken.write_bytes(b"\x89HDF nothing")
    unknown = tmp_path / "d.xlsx"
    unknown.write_bytes(b"PK")
    for data, reported in (
        (bare, "dimension y of t has no coordinate"),
        (broken, "broken.nc cannot be read"),
        (unknown, "unsupported suffix '.xlsx'; known: .csv"),
        (tmp_path / "none.csv", "no such file"),
    ):
        code, message = refused(capsys, "fit", data, "-o", out / "m.fm")
        assert code == 3
        assert reported in message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("head", "row", "reported"),
    [
        (
            "depth,lon,time",
            "1,2,2020-01-01",
            "p.csv has no column lat; the model has the modes lat, lon, time",
        ),
        ("a,b", "1,2", "has no column lat, lon, time"),
        ("lat,latitude,longitude,date", "91,2,3,2020-01-01", "lat, row 1: 91 is not a latitude within ±90"),
        ("lat,lon,time", "1,2,5", "time holds dates: expected dates such as"),
        ("lat,lon,time", "1,east,2020-01-01", "lon, row 1: expected a number, got 'east'"),
        ("lat,lon,time,mean", "1,2,2020-01-01,3", "already has a column mean"),
        ("latitude,Latitude,lon,time", "1,1,2,2020-01-01", "has no column lat"),
    ],
)
def test_points_that_cannot_be_predicted(
    capsys: pytest.CaptureFixture[str],
    tensor_model: Path,
    tmp_path: Path,
    out: Path,
    head: str,
    row: str,
    reported: str,
) -> None:
    points = table(tmp_path / "p.csv", row, head=head)
    code, message = refused(capsys, "predict", tensor_model, points, "-o", out / "o.csv")
    assert code == 3
    assert reported in message
    assert list(out.iterdir()) == []


def test_tables_that_are_none(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path, out: Path
) -> None:
    grid = tmp_path / "g.nc"
    xr.Dataset({"t": ("lat", [1.0, 2.0])}, {"lat": [1.0, 2.0]}).to_netcdf(grid, engine="h5netcdf")
    points = table(tmp_path / "p.csv", "1,2,2020-01-01", head="lat,lon,time")
    empty = table(tmp_path / "e.csv", head="lat,lon,time")
    for source, output, code, reported in (
        (grid, "o.csv", 3, "is a grid, not a table of points: fieldmorph tensor grid"),
        (empty, "o.csv", 3, "e.csv has no rows"),
        (points, "o.xlsx", 2, "must end in .csv"),
        (points, "missing/o.csv", 3, "cannot write"),
    ):
        assert refused(capsys, "predict", tensor_model, source, "-o", out / output)[0] == code
        assert reported in refused(capsys, "predict", tensor_model, source, "-o", out / output)[1]
    assert list(out.iterdir()) == []


def test_measurements_of_something_else(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path
) -> None:
    other = table(tmp_path / "t.csv", *ROWS, head="lat,lon,time,wind")
    code, message = refused(capsys, "eval", tensor_model, other)
    assert code == 3
    assert "no column 'temp'; there are: lat, lon, time, wind" in message
    unit = table(tmp_path / "u.csv", *ROWS, head="lat,lon,time,temp [degF]")
    code, message = refused(capsys, "eval", tensor_model, unit)
    assert code == 3
    assert "u.csv has temp in degF; the model has it in K" in message
    code, message = refused(capsys, "plot", tensor_model, "--data", other, "-o", tmp_path / "plots")
    assert code == 3
    assert not (tmp_path / "plots").exists()


def test_coordinates_in_another_unit(capsys: pytest.CaptureFixture[str], tmp_path: Path, out: Path) -> None:
    rows = [f"{900 + k},{k % 3},{k % 4}" for k in range(12)]
    model, data = tmp_path / "m.fm", table(tmp_path / "d.csv", *rows, head="p [hPa],depth,temp")
    assert (
        main(
            ["tensor", "fit", str(data), "--modes", "p,depth", "--value", "temp", "-o", str(model), "--quiet"]
        )
        == 0
    )
    grid = tmp_path / "g.nc"
    xr.Dataset(
        {"temp": (("p", "depth"), np.eye(3))},
        {"p": ("p", [9.0, 8, 7], {"units": "Pa"}), "depth": [1.0, 2, 3]},
    ).to_netcdf(grid, engine="h5netcdf")
    for source in (table(tmp_path / "o.csv", *rows, head="p [Pa],depth [m],temp"), grid):
        for line in (["eval", model, source], ["update", model, source, "-o", out / "o.fm"]):
            code, message = refused(capsys, *line)
            assert code == 3
            assert f"{source.name} has p in Pa; the model has it in hPa" in message
    code, message = refused(capsys, "predict", model, tmp_path / "o.csv", "-o", out / "o.csv")
    assert (code, list(out.iterdir())) == (3, [])
    assert "o.csv has p in Pa; the model has it in hPa" in message
    unknown = table(tmp_path / "u.csv", *rows, head="p,depth [m],temp")
    assert main(["tensor", "predict", str(model), str(unknown), "-o", str(out / "u.csv"), "--quiet"]) == 0


def test_output_that_is_there_needs_force(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, tensor_model: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    taken.with_suffix(".nc").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_text("mine")
    for line in (
        ["fit", tensor_csv, "-o", taken],
        ["predict", tensor_model, tensor_csv, "-o", taken],
        ["grid", tensor_model, "-o", taken.with_suffix(".nc")],
        ["plot", tensor_model, "-o", folder],
        ["demo", "-o", folder],
    ):
        code, message = refused(capsys, *line)
        assert code == 2
        assert "--force" in message
    assert taken.read_text() == taken.with_suffix(".nc").read_text() == (folder / "x").read_text() == "mine"
    assert len(list(folder.iterdir())) == 1


def test_output_is_no_input(capsys: pytest.CaptureFixture[str], tensor_csv: Path, tensor_model: Path) -> None:
    before = tensor_csv.read_bytes(), tensor_model.read_bytes()
    for line in (
        ["fit", tensor_csv, "-o", tensor_csv],
        ["predict", tensor_model, tensor_csv, "-o", tensor_csv],
    ):
        code, message = refused(capsys, *line, "--force")
        assert code == 2
        assert "input and output are the same file" in message
    assert before == (tensor_csv.read_bytes(), tensor_model.read_bytes())


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (["--axis", "depth=0:10:1"], "unknown mode 'depth'; known: lat, lon, time"),
        (["--lat", "0:10"], "lat: expected from:to:step"),
        (["--lat", "0:95:1"], "'0:95:1' goes beyond ±90"),
        (["--lat", "5", "--axis", "lat=6"], "lat is given twice"),
        (["--axis", "lat=5", "--axis", "lat=6"], "lat is given twice"),
        (["--axis", "lat"], "looks like temp=0:30:1; got 'lat'"),
        (["--lon", "0:10:-1"], "from 0 to 10 by -1: the step does not lead from start to end"),
        (["--lon", "0:1:1e-12"], "more than"),
        (
            ["--time", "2020-01-01:2020-02-01"],
            "as 2020-01-01:2020-12-31:1D (steps in s, min, h, D, W, M or Y)",
        ),
        (["--time", "2020-02-01:2020-01-01:1M"], "the step does not lead from start to end"),
        (["--time", "0:10:1"], "time: expected"),
    ],
)
def test_grids_that_cannot_be(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, out: Path, options: list[str], reported: str
) -> None:
    code, message = refused(capsys, "grid", tensor_model, *options, "-o", out / "g.nc")
    assert code == 2
    assert reported in message
    assert list(out.iterdir()) == []


def test_grid_that_does_not_fit_on_the_disk(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, out: Path
) -> None:
    ranges = ["--lat", "-90:90:0.001", "--lon", "-180:180:0.001", "--time", "2020-01-01:2029-01-01:1h"]
    code, message = refused(capsys, "grid", tensor_model, *ranges, "-o", out / "g.nc")
    assert code == 6
    assert "GB; " in message
    assert list(out.iterdir()) == []


def test_model_files_and_others(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, tensor_model: Path, tmp_path: Path, out: Path
) -> None:
    field, text, pickle = tmp_path / "f.fm", tmp_path / "t.fm", tmp_path / "p.fm"
    write_checkpoint(field, {}, {})
    text.write_text("hello")
    torch.save({"a": 1}, pickle)
    for line in (
        ["predict", "{}", tensor_csv, "-o", out / "o.csv"],
        ["eval", "{}", tensor_csv],
        ["grid", "{}", "-o", out / "g.nc"],
        ["plot", "{}", "-o", out],
    ):
        for file, code, reported in (
            (field, 3, "is a field checkpoint; expected a posterior checkpoint (a fitted tensor model)"),
            (text, 3, "not a fieldmorph checkpoint"),
            (pickle, 4, "never unpickle"),
            (tmp_path / "none.fm", 3, "cannot read"),
        ):
            found, message = refused(capsys, *[file if word == "{}" else word for word in line])
            assert found == code
            assert reported in message
    assert list(out.iterdir()) == []


def test_other_commands_say_what_a_model_is(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, few_views: Path, out: Path
) -> None:
    for line in (
        ["eval", tensor_model, "--data", few_views],
        ["render", tensor_model, "--orbit", 2, "-o", out / "o.mp4"],
        ["convert", tensor_model, "-o", out / "s.fm"],
    ):
        assert main([str(word) for word in line]) == 3
        reported = capsys.readouterr().err
        assert f"{tensor_model} is a tensor model, not a field; `fieldmorph tensor scene" in reported
        assert reported.count("\n") == 1
    assert list(out.iterdir()) == []


def test_packages_that_are_missing_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tensor_model: Path, tmp_path: Path
) -> None:
    def none(*_: object, **__: object) -> None:
        raise ImportError("No module named 'h5netcdf'")

    monkeypatch.setattr("fieldmorph.apps.tensor.grid.write_grid", none)
    code, message = refused(capsys, "grid", tensor_model, "-o", tmp_path / "g.nc")
    assert code == 2
    assert "pip install 'fieldmorph[bayes]' (No module named 'h5netcdf')" in message


def test_model_of_one_coordinate_in_a_mode(tmp_path: Path) -> None:
    rows = pd.DataFrame({"lat": 5.0, "lon": np.arange(20.0), "temp": np.arange(20.0) % 7})
    rows.to_csv(tmp_path / "d.csv", index=False)
    model = tmp_path / "m.fm"
    assert main(["tensor", "fit", str(tmp_path / "d.csv"), "--sweeps", "5", "-o", str(model)]) == 0
    assert main(["tensor", "grid", str(model), "-o", str(tmp_path / "g.nc")]) == 0
    with xr.open_dataset(tmp_path / "g.nc", engine="h5netcdf") as grid:
        assert grid["temp"].shape == (1, 20)
        assert np.isfinite(grid["temp"]).all()
    assert main(["tensor", "plot", str(model), "-o", str(tmp_path / "plots")]) == 0
