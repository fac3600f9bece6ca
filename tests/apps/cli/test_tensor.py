"""The tensor commands: what they write is right, what they print says so, and a table comes back as it was."""

import gzip
import json
import logging
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray
from helpers.defaults import PROGRESS

from fieldmorph.apps.cli import tensor as tensor_cli
from fieldmorph.apps.cli.arguments import joined
from fieldmorph.apps.cli.main import build_parser, main
from fieldmorph.apps.tensor.jobs import predict_file
from fieldmorph.bayes.store import load_posterior

pytestmark = pytest.mark.numerical


def run(capsys: pytest.CaptureFixture[str], *argv: Any) -> str:
    """Standard output of a command that succeeds."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def truth(table: pd.DataFrame) -> np.ndarray:
    day = (pd.to_datetime(table["time"]) - pd.Timestamp("2020-01-01")).dt.total_seconds() / 86400
    return (2 + np.sin(table["lat"] / 10)) * (1 + table["lon"] / 40) * np.cos(2 * np.pi * day / 60)


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """Places and times between those that were measured."""
    random = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "station": [f"{i:03}" for i in range(50)],
            "lat": random.uniform(-25, 25, 50).round(3),
            "lon": random.uniform(-18, 18, 50).round(3),
            "time": pd.Timestamp("2020-01-05") + pd.to_timedelta(random.integers(0, 48 * 24, 50), unit="h"),
            "note": ["1.50", "NA"] * 25,
        }
    )
    table.to_csv(tmp_path / "points.csv", index=False)
    return tmp_path / "points.csv"


@pytest.mark.parametrize(
    ("line", "handler", "expected"),
    [
        (
            "fit d.csv --modes lat,lon,time --value temp --rank 3,3,5 --kernel matern12,matern32,matern52 -o m.fm",
            tensor_cli.fit.run,
            {
                "modes": ("lat", "lon", "time"),
                "rank": (3, 3, 5),
                "kernel": ("matern12", "matern32", "matern52"),
            },
        ),
        ("fit d.nc -o m.fm", tensor_cli.fit.run, {"rank": (3,), "kernel": ("matern12",), "restarts": 3}),
        (
            "fit d.csv --cp --no-centre --restarts 1 --sweeps 9 --calibrate 0.1 --sample 50 --seed 2 --threads 1 "
            "--json --force -o m.fm",
            tensor_cli.fit.run,
            {
                "cp": True,
                "no_centre": True,
                "restarts": 1,
                "sweeps": 9,
                "calibrate": 0.1,
                "sample": 50,
                "seed": 2,
            },
        ),
        (
            "fit d.csv --residual lat,lon --residual-points 99 -o m.fm",
            tensor_cli.fit.run,
            {"residual": ("lat", "lon"), "residual_points": 99},
        ),
        (
            "predict m.fm p.csv --level 0.9 -o o.csv",
            tensor_cli.predict.run,
            {"level": 0.9, "points": "p.csv"},
        ),
        ("eval m.fm t.csv --json", tensor_cli.evaluate.run, {"test": "t.csv", "json": True}),
        (
            "grid m.fm --lat -30:60:0.5 --time 2020-01-01:2020-12-31:1D --axis temp=0:30:1 -o g.nc",
            tensor_cli.grid.run,
            {"latitude": "-30:60:0.5", "longitude": None, "axis": [("temp", "0:30:1")]},
        ),
        ("plot m.fm --data t.csv -o p", tensor_cli.plot.run, {"data": "t.csv"}),
        ("demo", tensor_cli.demo.run, {"output": "demo_output/tensor", "seed": 0}),
    ],
)
def test_command_line_is_understood(line: str, handler: Any, expected: dict[str, Any]) -> None:
    args = vars(build_parser().parse_args(joined(["tensor", *line.split()])))
    assert args["handler"] is handler
    assert {key: args[key] for key in expected} == expected


def test_fit_says_what_it_found(capsys: pytest.CaptureFixture[str], tensor_csv: Path, tmp_path: Path) -> None:
    options = ["--rank", "2", "--kernel", "matern52", "--restarts", "1", "--threads", "1"]
    result = json.loads(run(capsys, "tensor", "fit", tensor_csv, *options, "--json", "-o", tmp_path / "a.fm"))
    assert (result["rows"], result["dropped"], result["merged"], result["core"]) == (480, 0, 0, "tucker")
    assert [(mode["name"], mode["kind"], mode["rank"]) for mode in result["modes"]] == [
        ("lat", "latitude", 2),
        ("lon", "longitude", 2),
        ("time", "time", 2),
    ]
    assert result["modes"][2]["points"] == 59  # no row is of January 25
    assert 0.04 < result["noise_sd"] < 0.08
    assert result["converged"]
    posterior = load_posterior(tmp_path / "a.fm")
    assert posterior.provenance["data"] == "train.csv"
    assert result["bytes"] == (tmp_path / "a.fm").stat().st_size

    short = run(capsys, "tensor", "fit", tensor_csv, *options, "--sweeps", "2", "-o", tmp_path / "b.fm")
    assert "480 rows; Tucker 2 x 2 x 2; lat Matern-5/2, lengthscale" in short
    assert "days; noise" in short
    assert " K; bound" in short
    assert "nats/row after 2 sweeps" in short
    assert "note: the maximum number of sweeps was reached" in short


def test_fit_counts_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, tmp_path: Path
) -> None:
    lines = tensor_csv.read_text().splitlines()
    (tmp_path / "d.csv").write_text("\n".join([*lines[:40], lines[1], "1,2,2020-01-03,", "1,,2020-01-03,4"]))
    out = run(
        capsys, "tensor", "fit", tmp_path / "d.csv", "--rank", "1", "--sweeps", "2", "-o", tmp_path / "m.fm"
    )
    assert "39 rows (left out: 2 incomplete, 1 repeated)" in out


def test_fit_clips_ranks_and_says_so(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    table = pd.DataFrame({"a": [0, 1] * 20, "b": np.arange(40) / 4, "y": np.arange(40) % 7})
    table.to_csv(tmp_path / "d.csv", index=False)
    with caplog.at_level(logging.WARNING):
        out = run(
            capsys,
            "tensor",
            "fit",
            tmp_path / "d.csv",
            "--modes",
            "a,b",
            "--rank",
            "4",
            "--sweeps",
            "3",
            "-o",
            tmp_path / "m.fm",
        )
    assert "Tucker 2 x 4" in out
    assert "rank 4 of mode a" in caplog.text


def test_fit_is_repeatable(capsys: pytest.CaptureFixture[str], tensor_csv: Path, tmp_path: Path) -> None:
    made = []
    for name in ("a.fm", "b.fm"):
        run(capsys, "tensor", "fit", tensor_csv, "--sweeps", "3", "--sample", "100", "-o", tmp_path / name)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_fit_shows_sweeps_on_the_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tensor_csv: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(PROGRESS, "line_seconds", 0.0)
    options = ["--sweeps", "3", "--restarts", "2", "--calibrate", "0.1"]
    main(["tensor", "fit", str(tensor_csv), *options, "-o", str(tmp_path / "m.fm")])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fit ")]
    assert len(lines) == 12  # two beginnings of three sweeps, twice
    assert all("sweep" in line and "nats/row" in line for line in lines)
    assert "100%" in lines[-1]


def test_prediction_is_right_and_keeps_the_table(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, points: Path, tmp_path: Path
) -> None:
    out = run(capsys, "tensor", "predict", tensor_model, points, "-o", tmp_path / "out.csv")
    assert "50 rows" in out
    assert "temp (K)" in out
    before, after = points.read_text().splitlines(), (tmp_path / "out.csv").read_text().splitlines()
    assert after[0] == before[0] + ",mean,sd,lower,upper,extrapolated"
    assert all(new.startswith(old + ",") for old, new in zip(before, after, strict=True))
    table = pd.read_csv(tmp_path / "out.csv")
    expected = truth(table)
    assert np.sqrt(((table["mean"] - expected) ** 2).mean()) < 0.05  # the noise
    assert table["sd"].between(0.045, 0.2).all()
    np.testing.assert_allclose(table["upper"] - table["mean"], 1.959964 * table["sd"], rtol=1e-5)
    np.testing.assert_allclose(table["mean"] - table["lower"], 1.959964 * table["sd"], rtol=1e-5)
    assert expected.between(table["lower"], table["upper"]).mean() > 0.9


def test_prediction_of_incomplete_rows_is_empty(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("lat,lon,time\n1,2,2020-01-05\n,2,2020-01-05\n1,2,2020-01-05\n")
    out = run(capsys, "tensor", "predict", tensor_model, tmp_path / "p.csv", "-o", tmp_path / "o.csv")
    assert "1 of them without coordinates" in out
    rows = (tmp_path / "o.csv").read_text().splitlines()
    assert rows[2] == ",2,2020-01-05,,,,,"
    assert rows[1] == rows[3]


def test_rows_outside_the_data_are_marked_and_warned_of_once(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tensor_model: Path,
    tmp_path: Path,
) -> None:
    rows = ["1,2,2020-01-05", "31,2,2020-01-05", ",2,2030-01-05", "1,2,2020-03-01", "1,-20.1,2030-01-01"]
    (tmp_path / "p.csv").write_text("\n".join(["lat,lon,time", *rows]) + "\n")
    words = ["tensor", "predict", tensor_model, tmp_path / "p.csv", "--json", "-o", tmp_path / "o.csv"]
    assert json.loads(run(capsys, *words))["extrapolated"] == 3
    marks = pd.read_csv(tmp_path / "o.csv", dtype=str)["extrapolated"]
    assert marks.fillna("").tolist() == ["False", "True", "", "True", "True"]
    [warning] = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        r"3 of 5 rows lie outside the range of the data in lat \(-29\.\d+ to 29\.\d+\), lon \(-19\.\d+ to 19\.\d+\), "
        r"time \(2020-01-01 to 2020-02-29\); they are marked as extrapolated",
        warning,
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_prediction_reads_and_writes_every_table(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, points: Path, tmp_path: Path, suffix: str
) -> None:
    table = pd.read_csv(points).rename(columns={"lat": "Latitude", "lon": "lng", "time": "date"})
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".parquet":
        table.to_parquet(source)
    else:
        table.to_csv(source, index=False, sep="\t" if "tsv" in suffix else ",")
    run(capsys, "tensor", "predict", tensor_model, source, "--level", "0.5", "-o", output)
    run(capsys, "tensor", "predict", tensor_model, points, "-o", tmp_path / "plain.csv")
    if suffix == ".parquet":
        found = pd.read_parquet(output)
    else:
        found = pd.read_csv(output, sep="\t" if "tsv" in suffix else ",")
    plain = pd.read_csv(tmp_path / "plain.csv")
    np.testing.assert_allclose(found["mean"], plain["mean"])
    np.testing.assert_allclose((found["upper"] - found["mean"]) / found["sd"], 0.67449, rtol=1e-4)
    if suffix == ".csv.gz":
        assert gzip.decompress(output.read_bytes()).startswith(
            b"station,Latitude,lng,date,note,mean,sd,lower"
        )


def test_prediction_comes_in_pieces(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, points: Path, tmp_path: Path
) -> None:
    run(capsys, "tensor", "predict", tensor_model, points, "-o", tmp_path / "whole.csv")
    predict_file(tensor_model, points, tmp_path / "pieces.csv", rows_at_once=7)
    whole, pieces = (pd.read_csv(tmp_path / name) for name in ("whole.csv", "pieces.csv"))
    pd.testing.assert_frame_equal(whole, pieces, rtol=1e-9)


def test_eval_scores_the_test_rows(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, points: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(points)
    table["temp [K]"] = truth(table) + 0.05 * np.random.default_rng(2).standard_normal(len(table))
    table.rename(columns={"lat": "latitude"}).to_csv(tmp_path / "test.csv", index=False)
    found = json.loads(run(capsys, "tensor", "eval", tensor_model, tmp_path / "test.csv", "--json"))
    assert found["rows"] == 50
    assert 0.04 < found["rmse"] < 0.075
    assert found["mae"] < found["rmse"]
    assert 0.5 * found["mae"] < found["crps"] < found["mae"]
    assert found["cov95"] >= 0.88
    assert 0.2 < found["width"] < 0.3  # 3.92 x 0.05 and what the functions are unsure of
    assert found["nlpd"] == pytest.approx(
        math.log(found["rmse"]) + 0.5 * math.log(2 * math.pi) + 0.5, abs=0.15
    )
    shown = run(capsys, "tensor", "eval", tensor_model, tmp_path / "test.csv")
    assert f"{'RMSE':<25} {found['rmse']:.4g} K" in shown
    assert "inside the 95 % interval" in shown


def test_calibration_is_kept_and_used(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, points: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.fm"
    options = ["--rank", "2", "--restarts", "1", "--sweeps", "10", "--calibrate", "0.2"]
    out = run(capsys, "tensor", "fit", tensor_csv, *options, "-o", model)
    assert "intervals calibrated on held-out rows, guaranteed up to 99 %" in out  # 96 of 97
    intervals = load_posterior(model).intervals
    run(capsys, "tensor", "predict", model, points, "-o", tmp_path / "o.csv")
    table = pd.read_csv(tmp_path / "o.csv")
    np.testing.assert_allclose(
        (table["upper"] - table["mean"]) / table["sd"], intervals.factor(0.95), rtol=1e-5
    )


def test_a_residual_process_is_reported_and_used(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, points: Path, tmp_path: Path
) -> None:
    model, options = tmp_path / "m.fm", ["--restarts", "1", "--sweeps", "5", "--sample", "200"]
    options += ["--residual", "lat,time", "--residual-points", "40"]
    out = run(capsys, "tensor", "fit", tensor_csv, *options, "-o", model)
    reported = r"plus a residual process of lat x time, sd [\d.]+ K, lengthscales [\d.e+]+° in lat, [\d.]+ days in time"
    assert re.search(reported, out)
    assert re.search(reported, run(capsys, "info", model))
    assert json.loads(run(capsys, "info", model, "--json"))["residual"]["points"] == 40
    run(capsys, "tensor", "predict", model, points, "-o", tmp_path / "o.csv")
    table, posterior = pd.read_csv(tmp_path / "o.csv"), load_posterior(model)
    at = torch.stack([mode.parse(table[mode.name]) for mode in posterior.modes], dim=1)
    np.testing.assert_allclose(table["mean"], posterior.predict(at).mean, atol=1e-4)
    assert (
        posterior.predict(at).mean - replace(posterior, residual=None).predict(at).mean
    ).abs().max() > 0.01
    axes = ["--lat", "-20:20:10", "--lon", "0,5", "--time", "2020-01-09"]
    run(capsys, "tensor", "grid", model, *axes, "-o", tmp_path / "g.nc")
    with xarray.open_dataset(tmp_path / "g.nc", engine="h5netcdf") as grid:
        cell = grid["temp"].sel(lat=10, lon=5).item()
    second = pd.Timestamp("2020-01-09").timestamp()
    expected = posterior.predict(torch.tensor([[10.0, 5.0, second]], dtype=torch.float64))
    assert cell == pytest.approx(float(expected.mean), abs=1e-4)
    for wrong, message in (
        (["--residual", "lat,place"], "unknown mode 'place'; known: lat, lon, time"),
        (["--residual-points", "9"], "--residual-points needs --residual"),
    ):
        assert main(["tensor", "fit", str(tensor_csv), *wrong, "-o", str(tmp_path / "x.fm")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x.fm").exists()


def test_info_shows_a_model(capsys: pytest.CaptureFixture[str], tensor_model: Path) -> None:
    shown = run(capsys, "info", tensor_model)
    for reported in (
        "kind: posterior",
        "value: temp (K)",
        "rows: 480",
        "core: tucker, 2 x 2 x 2",
        "noise: 0.0",
        "mode time: 59 points from 2020-01-01 to 2020-02-29, rank 2, Matern-5/2, lengthscale",
    ):
        assert reported in shown
    reported = json.loads(run(capsys, "info", tensor_model, "--json"))
    assert [mode["rank"] for mode in reported["modes"]] == [2, 2, 2]
    assert reported["modes"][0]["kernel"]["kernel"] == "MaternKernel"
    assert reported["value"] == {"name": "temp", "unit": "K"}


def test_nothing_is_left_next_to_the_output(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tensor_model: Path,
    points: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(points, out / "mine.csv")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert (
        main(["tensor", "predict", str(tensor_model), str(points), "--force", "-o", str(out / "mine.csv")])
        == 6
    )
    assert "No space left" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["mine.csv"]
    assert (out / "mine.csv").read_bytes() == points.read_bytes()


def test_scene_is_a_field_like_any_other(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scene.fm"
    reported = json.loads(run(capsys, "tensor", "scene", tensor_model, "--nodes", 24, "--json", "-o", output))
    assert reported["low"] < reported["high"]
    assert json.loads(run(capsys, "info", output, "--json"))["field"] == "voxels"
    assert main(["tensor", "scene", str(tensor_model), "-o", str(output)]) == 2
    assert "use --force" in capsys.readouterr().err
    assert main(["tensor", "scene", str(output), "-o", str(tmp_path / "other.fm")]) == 3
    assert "is a field checkpoint; expected a posterior" in capsys.readouterr().err
