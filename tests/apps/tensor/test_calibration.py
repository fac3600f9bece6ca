"""Calibrating by blocks from the command line: which rows belong together, and that whole blocks are held out."""

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.defaults import PROGRESS

from fieldmorph.apps.cli.arguments import joined
from fieldmorph.apps.cli.main import build_parser, main
from fieldmorph.apps.tensor.calibration import Calibration, block_width
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import read_observations
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

QUICK = ["--rank", "1", "--restarts", "1", "--sweeps", "3", "--threads", "1"]


def fitted(capsys: pytest.CaptureFixture[str], *argv: Any) -> dict[str, Any]:
    """What `tensor fit` prints with --json."""
    capsys.readouterr()
    assert main([str(word) for word in ("tensor", "fit", *argv, "--json", "--quiet")]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_line_is_understood() -> None:
    line = "tensor fit d.csv --calibrate 0.2 --calibrate-by lat,lon,time=30D --calibrate-rounds 3 --tolerance 1e-3 -o m"
    args = build_parser().parse_args(joined(line.split()))
    assert (args.calibrate, args.calibrate_rounds, args.tolerance) == (0.2, 3, 1e-3)
    assert args.calibrate_by == {"lat": "", "lon": "", "time": "30D"}


@pytest.mark.parametrize(
    ("kind", "text", "width"),
    [
        ("number", "", 0.0),
        ("number", "10", 10.0),
        ("latitude", "0.5", 0.5),
        ("time", "", 0.0),
        ("time", "90s", 90.0),
        ("time", "15min", 900.0),
        ("time", "1.5h", 5400.0),
        ("time", "30D", 30 * 86400.0),
        ("time", "2W", 14 * 86400.0),
    ],
)
def test_a_block_is_as_long_as_it_says(kind: Any, text: str, width: float) -> None:
    assert block_width(Mode("x", kind), text) == width


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "ten", "10D"])
def test_what_is_no_length_of_numbers(text: str) -> None:
    with pytest.raises(SettingError, match=f"depth: expected a block width such as 10; got '{text}'"):
        block_width(Mode("depth"), text)


@pytest.mark.parametrize("text", ["30", "D", "0D", "-2D", "1M", "infD", "1e400s"])
def test_what_is_no_length_of_times(text: str) -> None:
    with pytest.raises(
        SettingError, match=rf"t: expected a block width such as 30D \(s, min, h, D, W\); got '{text}'"
    ):
        block_width(Mode("t", "time", "s"), text)


def test_rows_alike_in_all_modes_that_are_named_are_a_block() -> None:
    rows = read_observations(
        pd.DataFrame(
            {
                "latitude": [1.0, 1.0, 1.0, 2.0, 2.0],
                "time": ["2020-01-01", "2020-01-09", "2020-02-20", "2020-01-01", "2020-01-02"],
                "y": [1.0, 2.0, 3.0, 4.0, 5.0],
            }
        )
    )

    def together(**by: str) -> set[tuple[int, ...]]:
        blocks = Calibration(0.5, by).blocks(rows)
        assert blocks is not None
        labels = blocks.tolist()
        return {tuple(i for i in range(5) if labels[i] == label) for label in labels}

    assert Calibration(0.5).blocks(rows) is None
    assert together(latitude="") == {(0, 1, 2), (3, 4)}
    assert together(latitude="10") == {(0, 1, 2, 3, 4)}
    # Thirty days begin on 2019-12-10, 2020-01-09 and 2020-02-08: they are counted from 1970.
    assert together(time="30D") == {(0, 3, 4), (1,), (2,)}
    assert together(latitude="", time="30D") == {(0,), (1,), (2,), (3, 4)}


def test_whole_blocks_are_held_out_and_reported(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, tmp_path: Path
) -> None:
    options = [*QUICK, "--calibrate", "0.2", "--calibrate-by", "time=10D", "--calibrate-rounds", "2"]
    result = fitted(capsys, tensor_csv, *options, "-o", tmp_path / "m.fm")
    reported = result["calibration"]
    days = pd.to_datetime(pd.read_csv(tensor_csv)["time"])
    sizes = ((days - pd.Timestamp(0)) // pd.Timedelta(days=10)).value_counts()
    assert len(sizes) == 7  # of 60 days, so that a fifth is one
    assert (reported["share"], reported["rounds"], reported["blocks"], reported["by"]) == (
        0.2,
        2,
        2,
        {"time": "10D"},
    )
    assert reported["rows"] in {a + b for a, b in itertools.combinations(sizes, 2)}
    model = load_posterior(tmp_path / "m.fm")
    assert model.provenance["calibration"] == reported
    assert model.intervals.guaranteed < 0.7  # two blocks do not say more


def test_intervals_for_new_times_are_wider_than_for_times_seen(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, tmp_path: Path
) -> None:
    factors = []
    for by in ([], ["--calibrate-by", "time=10D", "--calibrate-rounds", "3"]):
        options = ["--rank", "2", "--restarts", "1", "--sweeps", "10", "--calibrate", "0.2", *by]
        fitted(capsys, tensor_csv, *options, "-o", tmp_path / "m.fm", "--force")
        factors.append(load_posterior(tmp_path / "m.fm").intervals.factor(0.5))
    assert factors[1] > 1.2 * factors[0]


def test_progress_counts_all_fits_and_people_read_what_was_held_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tensor_csv: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(PROGRESS, "line_seconds", 0.0)
    options = ["--calibrate", "0.3", "--calibrate-by", "lat=20,lon=20", "--calibrate-rounds", "2"]
    assert main(["tensor", "fit", str(tensor_csv), *QUICK, *options, "-o", str(tmp_path / "m.fm")]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("fit ")]
    assert len(lines) == 3 * 3  # two parts and the whole
    assert "100%" in lines[-1]
    assert "intervals calibrated on held-out blocks of lat x lon, guaranteed up to" in out


def test_a_fit_is_done_when_sweeps_gain_less_than_the_tolerance(
    capsys: pytest.CaptureFixture[str], tensor_csv: Path, tmp_path: Path
) -> None:
    ends = {}
    for tolerance in ("1000", "1e-12"):
        options = ["--rank", "2", "--restarts", "1", "--sweeps", "20", "--tolerance", tolerance]
        result = fitted(capsys, tensor_csv, *options, "-o", tmp_path / f"{tolerance}.fm")
        ends[tolerance] = result["sweeps"], result["converged"]
    assert ends["1e-12"] == (20, False)
    assert ends["1000"][0] < 20
    assert ends["1000"][1]
