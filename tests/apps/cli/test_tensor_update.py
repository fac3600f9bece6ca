"""`tensor update`: what it writes and says, and that its mistakes leave every file as it was."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fieldmorph.apps.cli import tensor as tensor_cli
from fieldmorph.apps.cli.main import build_parser, main
from fieldmorph.bayes.store import load_posterior

pytestmark = pytest.mark.numerical

HEAD = "lat,lon,time,temp"
ROWS = ["1,2,2020-01-01,3", "2,2,2020-01-02,4", "3,1,2020-01-03,5"]


def run(capsys: pytest.CaptureFixture[str], *argv: Any) -> str:
    """Standard output of a command that succeeds."""
    capsys.readouterr()
    assert main(["tensor", *(str(word) for word in argv)]) == 0
    return capsys.readouterr().out


def table(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """300 rows of the function that the model was fitted to, of the 30 days after."""
    random = np.random.default_rng(5)
    lat, lon = random.uniform(-30, 30, 300).round(2), random.uniform(-20, 20, 300).round(2)
    day = random.integers(60, 90, 300)
    value = (2 + np.sin(lat / 10)) * (1 + lon / 40) * np.cos(2 * np.pi * day / 60)
    frame = pd.DataFrame(
        {
            "lat": lat,
            "lon": lon,
            "time": pd.Timestamp("2020-01-01") + pd.to_timedelta(day, unit="D"),
            "temp": (value + 0.05 * random.standard_normal(300)).round(5),
        }
    )
    frame[:200].to_csv(tmp_path / "later.csv", index=False)
    frame[200:].to_csv(tmp_path / "test.csv", index=False)
    return tmp_path / "later.csv"


def test_command_line_is_understood() -> None:
    args = build_parser().parse_args(
        ["tensor", "update", "m.fm", "new.csv", "--sweeps", "7", "-o", "o.fm", "--force"]
    )
    assert args.handler is tensor_cli.update.run
    assert (args.model, args.data, args.sweeps, args.output, args.force) == (
        "m.fm",
        "new.csv",
        7,
        "o.fm",
        True,
    )


def test_a_model_learns_the_month_after(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, later: Path, tmp_path: Path
) -> None:
    new, test = tmp_path / "new.fm", later.with_name("test.csv")
    before = tensor_model.read_bytes()
    result = json.loads(run(capsys, "update", tensor_model, later, "-o", new, "--json"))
    assert (result["rows"], result["rows_in_all"]) == (200, 680)
    assert result["new_points"]["time"] == 30
    assert 0.04 < result["noise_sd"] < 0.08
    assert result["converged"]
    assert result["bytes"] == new.stat().st_size
    assert tensor_model.read_bytes() == before
    rmse = [json.loads(run(capsys, "eval", model, test, "--json"))["rmse"] for model in (tensor_model, new)]
    assert rmse[1] < 0.1 < 0.5 < rmse[0]
    provenance = load_posterior(new).provenance
    assert (provenance["data"], provenance["rows"]) == ("train.csv", 680)
    (reported,) = provenance["updates"]
    assert (reported["data"], reported["rows"], reported["sweeps"]) == ("later.csv", 200, result["sweeps"])
    assert len(reported["data_sha256"]) == 64


def test_it_says_what_it_did(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, later: Path, tmp_path: Path
) -> None:
    out = run(capsys, "update", tensor_model, later, "--sweeps", "1", "-o", tmp_path / "o.fm")
    assert "200 new rows, 680 in total; new coordinates: " in out
    assert "30 of time; noise 0.0" in out
    assert "nats/row after 1 sweeps" in out
    assert "note: the maximum number of sweeps was reached" in out
    assert "calibrated" not in out


def test_a_model_may_take_its_own_place(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, later: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.fm"
    own.write_bytes(tensor_model.read_bytes())
    run(capsys, "update", own, later, "-o", own, "--force")
    assert load_posterior(own).provenance["rows"] == 680
    written = own.read_bytes()
    known = {later: "was already updated with", tensor_model.with_name("train.csv"): "was fitted to"}
    for source, done in known.items():
        assert main(["tensor", "update", str(own), str(source), "-o", str(own), "--force"]) == 3
        assert f"own.fm {done} {source.name}; its rows would count twice" in capsys.readouterr().err
    assert own.read_bytes() == written


def test_rows_that_are_incomplete_are_counted(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tensor_model: Path, tmp_path: Path
) -> None:
    data = table(tmp_path / "d.csv", *ROWS, "4,1,2020-01-04,", "5,,2020-01-04,3")
    with caplog.at_level(logging.WARNING):
        out = run(capsys, "update", tensor_model, data, "-o", tmp_path / "o.fm")
    assert "3 new rows" in out
    assert "2 rows with missing values are left out" in caplog.text


def test_one_measurement_can_be_learned_and_described(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path
) -> None:
    data = table(tmp_path / "d.csv", ROWS[0])
    found = json.loads(run(capsys, "eval", tensor_model, data, "--json"))
    assert found["rows"] == 1
    reported = json.loads(run(capsys, "update", tensor_model, data, "-o", tmp_path / "o.fm", "--json"))
    assert (reported["rows"], reported["rows_in_all"]) == (1, 481)
    assert reported["sha256"] == hashlib.sha256((tmp_path / "o.fm").read_bytes()).hexdigest()
    after = json.loads(run(capsys, "eval", tmp_path / "o.fm", data, "--json"))
    assert after["rmse"] < found["rmse"]


@pytest.mark.parametrize(
    ("head", "rows", "reported"),
    [
        ("lat,lon,depth,temp", ROWS, "d.csv has no column time; the model has the modes lat, lon, time"),
        ("lat,lon,time,wind", ROWS, "no column 'temp'; there are: lat, lon, time, wind"),
        ("lat,lon,time,temp [degF]", ROWS, "d.csv has temp in degF; the model has it in K"),
        (HEAD, [], "no rows"),
        (HEAD, [r.rsplit(",", 1)[0] + "," for r in ROWS], "d.csv has no row without missing values"),
        (HEAD, [*ROWS, "4,1,2020-01-04,warm"], "temp, row 4: expected a number, got 'warm'"),
        (HEAD, [*ROWS, "4,1,2020-01-04,inf"], "temp, row 4: infinite"),
        (HEAD, [*ROWS, "91,1,2020-01-04,3"], "lat, row 4: 91 is not a latitude"),
        (HEAD, [*ROWS, "4,1,someday,3"], "time, row 4: expected a date, got 'someday'"),
    ],
)
def test_rows_that_cannot_be_learned(
    capsys: pytest.CaptureFixture[str],
    tensor_model: Path,
    tmp_path: Path,
    head: str,
    rows: list[str],
    reported: str,
) -> None:
    own = tmp_path / "own.fm"
    own.write_bytes(tensor_model.read_bytes())
    data = table(tmp_path / "d.csv", *rows, head=head)
    assert main(["tensor", "update", str(own), str(data), "-o", str(own), "--force"]) == 3
    message = capsys.readouterr().err
    assert message.startswith("fieldmorph: ")
    assert reported in message
    assert message.count("\n") == 1
    assert own.read_bytes() == tensor_model.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "own.fm"]


def test_files_are_not_overwritten_unasked(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, later: Path
) -> None:
    before = tensor_model.read_bytes(), later.read_bytes()
    for output, options, reported in (
        (tensor_model, [], "--force"),
        (later, ["--force"], "input and output are the same file"),
    ):
        assert main(["tensor", "update", str(tensor_model), str(later), "-o", str(output), *options]) == 2
        assert reported in capsys.readouterr().err
    assert (tensor_model.read_bytes(), later.read_bytes()) == before
