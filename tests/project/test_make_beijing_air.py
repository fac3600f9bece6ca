"""The script that makes the Beijing benchmark: made-up stations with a known answer, and the published rows."""

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.paths import ROOT, SHARED_DATA

from fieldmorph.apps.cli.main import main
from fieldmorph.bayes.data.observations import read_observations

TENSOR_DATA = SHARED_DATA / "tensor"
SCRIPT = ROOT / "data_scripts" / "make_beijing_air.py"
spec = importlib.util.spec_from_file_location("make_beijing_air", SCRIPT)
assert spec is not None
assert spec.loader is not None
beijing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(beijing)

DAYS = (1, 2, 4)  # of March 2013
GONE = ("Dongsi", 2)  # a day on which no hour is whole
ROWS = [(day, station) for day in DAYS for station in beijing.STATIONS if (station, day) != GONE]


def hour(no: int, station: str, day: int, hour: int, **values: Any) -> dict[str, Any]:
    """One line of a file: the station's number in the temperature, the day's in the pressure."""
    s = beijing.STATIONS.index(station)
    usual = {
        "No": no,
        "year": 2013,
        "month": 3,
        "day": day,
        "hour": hour,
        "PM2.5": 10 * s + hour,
        "PM10": 100 + s * day,
        "SO2": s + day,
        "NO2": 17,
        "CO": 300,
        "O3": 89,
        "TEMP": s + 0.04 * hour,
        "PRES": 1000 + day + 0.1 * s,
        "DEWP": -21.4,
        "RAIN": 0,
        "wd": "NNW",
        "WSPM": 5.7,
        "station": station,
    }
    return usual | values


def write_stations(folder: Path) -> Path:
    """Hours 0, 1 and 2 of each day; a fourth lacks the carbon monoxide, a fifth the wind's direction."""
    folder.mkdir(parents=True)
    for station in beijing.STATIONS:
        lines = []
        for day in DAYS:
            gone = {"O3": "NA"} if (station, day) == GONE else {}
            lines += [hour(len(lines) + 1 + h, station, day, h, **gone) for h in range(3)]
            for missing in ("CO", "wd"):
                wild = {"PM2.5": 900, "TEMP": 60, missing: "NA"}
                lines.append(hour(len(lines) + 1, station, day, 3 + (missing == "wd"), **wild))
        path = folder / f"PRSA_Data_{station}_20130301-20170228.csv"
        pd.DataFrame(lines).to_csv(path, index=False)
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """A zip of the files as the archive has them: in a zip within the zip, next to tables of something else."""
    inner = archive.with_name("PRSA2017_Data_20130301-20170228.zip")
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as pack:
        for path in folder.iterdir():
            pack.write(path, f"PRSA_Data_20130301-20170228/{path.name}")
    with zipfile.ZipFile(archive, "w") as pack:
        pack.write(inner, inner.name)
        pack.writestr("test.csv", "a,b\n1,2\n")
    inner.unlink()
    return archive


@pytest.fixture(scope="module")
def stations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stations(tmp_path_factory.mktemp("beijing") / "stations")


@pytest.fixture(scope="module")
def made(stations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "out"
    assert beijing.main([str(stations), "-o", str(output), "--fold", "3"]) == 0
    return output


def folds_ref(n: int, data_sets: int) -> list[np.ndarray]:
    """The order of the rows in five folds, after so many data sets of five folds each."""
    random = np.random.RandomState(0)
    for _ in range(data_sets + 1):
        rows, orders = np.arange(n), []
        for _ in range(5):
            random.shuffle(rows)
            orders.append(rows.copy())
    return orders


def test_a_day_is_the_mean_of_its_whole_hours(stations: Path) -> None:
    days = beijing.daily_means(beijing.read_hours(stations))
    assert list(zip(days["day"], days["station"], strict=True)) == ROWS  # by day, then by name
    numbers = [beijing.STATIONS.index(station) for _, station in ROWS]
    np.testing.assert_allclose(days["PM2.5"], [10 * s + 1 for s in numbers])  # of hours 0, 1, 2
    np.testing.assert_allclose(days["TEMP"], [s + 0.04 for s in numbers])
    seconds = [1362096000 + (day - 1) * 86400 for day, _ in ROWS]  # date -u -d 2013-03-01 +%s
    assert days["time"].tolist() == seconds


def test_arrays_are_as_described(made: Path) -> None:
    n, numbers = len(ROWS), np.array([beijing.STATIONS.index(station) for _, station in ROWS])
    day = np.array([day for day, _ in ROWS])
    for pollutant, value, data_sets in (
        ("PM2.5", 10 * numbers + 1, 8),
        ("PM10", 100 + numbers * day, 12),
        ("SO2", numbers + day, 16),
    ):
        found = dict(np.load(made / f"beijing_{pollutant}.npz"))
        np.testing.assert_allclose(found["y"] * value.std(ddof=1) + value.mean(), value, atol=1e-12)
        np.testing.assert_allclose([found["y_mean"], found["y_std"]], [value.mean(), value.std(ddof=1)])
        # 0.04 degrees are rounded away; three days are ranks 0, 1 and 2.
        np.testing.assert_allclose(found["coords_raw"][:, 0], numbers)
        np.testing.assert_allclose(found["coords_raw"][:, 1], 1000 + day + 0.1 * numbers)
        assert found["index"][:, 2].tolist() == np.searchsorted(DAYS, day).tolist()
        assert found["dims"].tolist() == [12, len(np.unique(10 * day + numbers)), 3]
        np.testing.assert_allclose(found["coords"][:, 0], 10 * numbers / 11)
        # Days 1, 2 and 4 lie a third of the way; three decimals of their standardised time are kept.
        assert np.unique(found["coords"][:, 2]) == pytest.approx([0, 10 / 3, 10], abs=5e-3)
        assert found["bins"][:, 2].tolist() == [[0, 0, 2][rank] for rank in found["index"][:, 2]]
        for fold, order in enumerate(folds_ref(n, data_sets)):
            assert found["train"][fold].tolist() == order[: n * 4 // 5].tolist()
            assert found["test"][fold].tolist() == order[n * 4 // 5 :].tolist()


def test_a_zip_in_a_zip_gives_the_same_arrays(stations: Path, made: Path, tmp_path: Path) -> None:
    archive = pack(stations, tmp_path / "beijing+multi+site.zip")
    for name, source in (("a", archive), ("b", tmp_path)):  # the file, and the folder it is in
        assert beijing.main([str(source), "-o", str(tmp_path / name)]) == 0
        for pollutant in beijing.SHUFFLES:
            one, other = (dict(np.load(f / f"beijing_{pollutant}.npz")) for f in (made, tmp_path / name))
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)


def test_tables_are_what_tensor_fit_reads(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(made / "beijing_SO2.npz"))
    modes = ["temperature", "pressure", "time"]
    for part in ("train", "test"):
        path, rows = made / f"SO2_{part}3.csv", arrays[part][3]
        read = read_observations(path, modes, "SO2")
        np.testing.assert_allclose(read.coordinates, arrays["coords_raw"][rows])
        np.testing.assert_allclose(read.values, (arrays["y"] * arrays["y_std"] + arrays["y_mean"])[rows])
        assert [mode.unit for mode in read.modes] == ["degC", "hPa", "s"]
        assert (read.value_unit, read.merged, read.dropped) == ("ug/m3", 0, 0)
    model = str(tmp_path / "m.fm")
    line = ["tensor", "fit", str(made / "SO2_train3.csv"), "--modes", ",".join(modes), "--value", "SO2"]
    assert main([*line, "--rank", "1", "--restarts", "1", "--sweeps", "3", "--quiet", "-o", model]) == 0
    capsys.readouterr()
    assert main(["tensor", "eval", model, str(made / "SO2_test3.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == len(arrays["test"][3])


def test_it_says_that_made_up_rows_are_not_the_published_ones(
    stations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beijing.main([str(stations), "-o", str(tmp_path / "out")]) == 0
    assert "35 rows on 12 x 33 x 3 indices: NOT the published ones" in capsys.readouterr().out
    assert beijing.main([str(stations), "-o", str(tmp_path / "out")]) == 3
    assert "is there already" in capsys.readouterr().err


def spoil(folder: Path, how: str) -> Path:
    """One of the ways in which a download can be bad; what to read then."""
    file = folder / "PRSA_Data_Wanliu_20130301-20170228.csv"
    text = file.read_text()
    match how:
        case "no station":
            file.unlink()
        case "twice":
            (folder / "more").mkdir()
            (folder / "more" / file.name).write_text(text)
        case "text":
            file.write_text(text.replace(",17,", ",much,", 1))
        case "no column":
            file.write_text(text.replace("TEMP", "temperature", 1))
        case "no date":
            file.write_text(text.replace(",2013,3,4,", ",2013,2,30,"))
        case "no zip":
            (folder / "a.zip").write_text("<html>")
            return folder / "a.zip"
        case "cut":
            archive = pack(folder, folder / "a.zip")
            archive.write_bytes(archive.read_bytes()[:-300])
            return archive
        case "nothing":
            return folder / "none"
    return folder


@pytest.mark.parametrize(
    ("how", "reported"),
    [
        ("no station", "no hours of Wanliu; the files are at https://archive.ics.uci.edu"),
        ("twice", "an hour of a station twice"),
        ("text", "PRSA_Data_Wanliu_20130301-20170228.csv: could not convert string to float: 'much'"),
        ("no column", "PRSA_Data_Wanliu_20130301-20170228.csv: "),
        ("no date", "are no date"),
        ("no zip", "a.zip is not a zip that can be read"),
        ("cut", "is not a zip that can be read"),
        ("nothing", "no such file or folder"),
    ],
)
def test_bad_downloads_are_one_line_and_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, reported: str
) -> None:
    source = spoil(write_stations(tmp_path / "stations"), how)
    assert beijing.main([str(source), "-o", str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err
    assert reported in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_too_large_to_be_a_station_s_is_not_unpacked(tmp_path: Path) -> None:
    archive = pack(write_stations(tmp_path / "stations"), tmp_path / "a.zip")
    with pytest.raises(beijing.InputError, match="allowed 1000"):
        list(beijing._station_files(archive, max_bytes=1000))


@pytest.mark.skipif(not TENSOR_DATA.is_dir(), reason="needs the folder shared/data/tensor")
@pytest.mark.parametrize("pollutant", sorted(beijing.SHUFFLES))
def test_the_published_rows_give_the_published_benchmark(pollutant: str) -> None:
    published = dict(np.load(TENSOR_DATA / f"beijing_{pollutant}.npz"))
    temperature, pressure, seconds = published["coords_raw"].T
    value = published["y"] * published["y_std"] + published["y_mean"]
    days = pd.DataFrame(
        {"TEMP": temperature, "PRES": pressure, "time": seconds.astype(int), pollutant: value}
    )
    found = beijing.benchmark(days, pollutant)
    assert found.keys() == published.keys()
    assert (len(days), tuple(found["dims"])) == beijing.PUBLISHED
    for name in ("index", "bins", "dims", "mode_names", "coords_raw"):
        assert np.array_equal(found[name], published[name]), name
    for name in ("coords", "y", "y_mean", "y_std"):
        np.testing.assert_allclose(found[name], published[name], rtol=0, atol=1e-10)
    for part in ("train", "test"):  # the authors' files, which have bins alone, do not distinguish these rows
        ours, theirs = found[part], published[part]
        assert ours.shape == theirs.shape
        assert np.array_equal(published["bins"][ours], published["bins"][theirs])
        np.testing.assert_allclose(published["y"][ours], published["y"][theirs], rtol=0, atol=1e-10)
        assert (ours != theirs).mean() < 0.03
