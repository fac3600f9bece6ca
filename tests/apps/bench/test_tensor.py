"""The tensor benchmark: every method on the same rows, calibrated intervals, and a failure that costs one row."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench import tensor as module
from fieldmorph.apps.bench.tensor import bench_tensor, measure, tensor_table
from fieldmorph.apps.bench.tensor_baselines import BASELINES, Blocks, Method
from fieldmorph.apps.cli.main import main
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig
from fieldmorph.bayes.posterior import Prediction
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.runtime import STATUS

N, PLACES = 400, 50
METHODS = ("tucker3", "kNN")


def constant(rows: Observations, _blocks: Blocks) -> Callable[[torch.Tensor], Prediction]:
    """The mean of what was learned from, everywhere."""
    mean = rows.values.mean()
    return lambda at: Prediction(
        mean.expand(len(at)), torch.zeros(len(at)).double(), torch.ones(len(at)).double()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files: products of waves at 50 places and times; one of them has folds of whole places, too."""
    random = np.random.default_rng(0)
    place, year = random.integers(0, PLACES, N), random.uniform(0, 10, N).round(1)
    at = random.uniform(0, 10, (PLACES, 2)).round(2)
    coords = np.column_stack([at[place], year])
    y = (
        3
        + np.sin(coords[:, 0] / 2) * np.cos(coords[:, 1] / 3) * (1 + year / 5)
        + 0.1 * random.standard_normal(N)
    )
    new = place < 10
    row = random.permutation(N)
    arrays: dict[str, Any] = {
        "y": y,
        "coords": coords,
        "train": np.stack([row[100:], row[:300]]),
        "test": np.stack([row[:100], row[300:]]),
    }
    made = tmp_path / "data"
    made.mkdir()
    np.savez(made / "sea.npz", **arrays)
    np.savez(
        made / "air.npz",
        **arrays,
        place_train0=np.flatnonzero(~new),
        place_test0=np.flatnonzero(new),
        y_std=2.0,
    )
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short fits."""
    quick = FitConfig(ranks=(1,), kernels=("matern32",), restarts=1, sweeps=4)
    monkeypatch.setitem(module.OURS, "tucker3", quick)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs run here, in this process, and are noted down."""
    calls = []

    def inline(job: Any, *, threads: int, **settings: Any) -> dict[str, Any]:
        calls.append((settings["path"].stem, settings["split"], settings["fold"], settings["method"]))
        return job(**settings)

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


def test_every_method_meets_every_fold(requested: list[Any], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bench_tensor(folder, out, only=METHODS, quiet=True)
    assert result["failed"] == 0, result["rows"]
    folds = [
        ("air", "rows", 0),
        ("air", "rows", 1),
        ("air", "places", 0),
        ("sea", "rows", 0),
        ("sea", "rows", 1),
    ]
    assert requested == [(*fold, method) for fold in folds for method in METHODS]
    first, second = (row for row in result["rows"] if (row["data"], row["method"]) == ("sea/rows", "tucker3"))
    (mean,) = (e for e in result["summary"] if (e["data"], e["method"]) == ("sea/rows", "tucker3"))
    for name in ("rmse", "nlpd", "calibrated_cov95", "core_seconds"):
        assert mean[name] == pytest.approx((first[name] + second[name]) / 2)
    assert mean["folds"] == 2
    assert mean["rmse_sd"] == pytest.approx(abs(first["rmse"] - second["rmse"]) / math.sqrt(2))
    for row in result["rows"]:
        assert row["rmse"] < 1.2
        assert row["rmse"] >= row["mae"] > row["crps"] > 0
        assert 0 <= row["cov95"] <= 1
        assert row["core_seconds"] > 0
        assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] >= row["program_memory_bytes"] > 0
    assert json.loads((out / "tensor.json").read_text()) == result
    assert bench_tensor(folder, out, only=METHODS, quiet=True) == result
    assert len(requested) == 10


def test_the_table_says_what_the_json_says(requested: list[Any], folder: Path, tmp_path: Path) -> None:
    result = bench_tensor(folder, tmp_path / "out", only=("air", *METHODS), quiet=True)
    text = (tmp_path / "out/tensor.md").read_text()
    assert text == tensor_table(result) + "\n"
    assert "**air/places**: 3" in text
    assert "new places; 1 fold; mode0 (" in text
    assert "new rows; 2 folds; mode0 (" in text
    assert "values in standard deviations" in text
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    rows = [row for row in rows if row[0] in METHODS]
    for row, entry in zip(rows, result["summary"], strict=True):
        spread = "" if entry["rmse_sd"] is None else f" ± {entry['rmse_sd']:.3f}"
        assert row[:2] == [entry["method"], f"{entry['rmse']:.4f}{spread}"]
        assert row[5:9] == [
            f"{100 * entry['cov95']:.1f} %",
            f"{entry['width']:.3f}",
            f"{100 * entry['calibrated_cov95']:.1f} %",
            f"{entry['calibrated_width']:.3f}",
        ]


def test_a_mean_without_deviation_gets_that_of_rows_held_out(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(BASELINES, "constant", Method(constant, spread=False))
    found = measure(str(folder / "sea.npz"), "rows", 0, "constant", 1.0)
    with np.load(folder / "sea.npz") as data:
        train, test = (data["y"][data[part][0]] for part in ("train", "test"))
    off = test - train.mean()
    assert found["rmse"] == pytest.approx(math.sqrt((off**2).mean()))
    sd = found["width"] / (2 * 1.959964)
    assert sd == pytest.approx(train.std(), rel=0.15)
    assert found["cov95"] == pytest.approx((abs(off) <= 1.959964 * sd).mean())
    assert found["nlpd"] == pytest.approx(
        ((off / sd) ** 2 / 2).mean() + math.log(sd * math.sqrt(2 * math.pi)), rel=1e-5
    )
    assert 0.85 < found["calibrated_cov95"] <= 1


def test_a_process_of_the_place_stands_next_to_a_model(folder: Path) -> None:
    """Values are a function of the place that no product of its two coordinates gives: rank 1 alone misses it."""
    with np.load(folder / "air.npz") as data:
        arrays = dict(data)
    a, b, _ = arrays["coords"].T
    np.savez(folder / "air.npz", **arrays | {"y": np.sin(a) * np.cos(b) + np.cos(2 * a) * b / 5})
    alone, with_residual = (
        measure(str(folder / "air.npz"), "rows", 0, name, 1.0) for name in ("tucker3", "tucker3-residual")
    )
    assert with_residual["rmse"] < 0.5 * alone["rmse"]


def test_blocks_are_held_out_whole_and_often_enough(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    seen: list[torch.Tensor] = []

    def spied(rows: Observations, blocks: Blocks) -> Any:
        seen.append(rows.coordinates)
        return constant(rows, blocks)

    monkeypatch.setitem(BASELINES, "spied", Method(spied))
    measure(str(folder / "air.npz"), "places", 0, "spied", 1.0)
    few, whole, *rest = seen
    assert len(few) == module.FEW
    assert len(rest) == 5  # of 40 places 8 at once, until 39 have been
    places = len(whole[:, :2].unique(dim=0))
    assert [len(part[:, :2].unique(dim=0)) for part in rest] == [places - round(0.2 * places)] * 5


@pytest.mark.parametrize(
    ("only", "sets", "methods"),
    [
        (("kNN",), ["air/rows", "air/places", "sea/rows"], ["kNN"]),
        (("air/places", "kNN"), ["air/places"], ["kNN"]),
        (("sea", "air/rows", "kNN", "HGB"), ["air/rows", "sea/rows"], ["kNN", "HGB"]),
    ],
)
def test_some_data_and_some_methods(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, only: Any, sets: Any, methods: Any
) -> None:
    monkeypatch.setattr(runner, "in_child", lambda *_, **__: {"error": "OSError: no room"})
    result = bench_tensor(folder, tmp_path / "out", only=only, n_folds=1, quiet=True)
    assert list(result["sets"]) == sets
    assert {about["folds"] for about in result["sets"].values()} == {1}
    assert [(row["data"], row["fold"], row["method"]) for row in result["rows"]] == [
        (name, 0, method) for name in sets for method in methods
    ]
    assert result["failed"] == len(result["rows"])
    assert (
        f"- failed: {sets[0]}, 0, {methods[0]}: OSError: no room" in (tmp_path / "out/tensor.md").read_text()
    )


def test_a_method_whose_package_is_missing_is_left_out(
    requested: list[Any], monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(BASELINES, "magic", Method(constant, "no_such_package_here"))
    result = bench_tensor(folder, tmp_path / "out", only=("sea", "magic", "kNN"), n_folds=1, quiet=True)
    assert {row["method"] for row in result["rows"]} == {"kNN"}
    assert result["failed"] == 0
    assert (
        "- not run: magic: no_such_package_here is not installed" in (tmp_path / "out/tensor.md").read_text()
    )


def test_mistakes_are_reported_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    line = ["bench", "tensor", "--data", str(folder), "-o", str(tmp_path / "out"), "--only"]
    assert main([*line, "sea/places"]) == 2
    assert "unknown data set or method 'sea/places'; known: HGB," in capsys.readouterr().err
    with pytest.raises(SettingError, match="at most 1; got 2"):
        bench_tensor(folder, tmp_path / "out", scale=2.0)
    assert main(["bench", "tensor", "--data", str(tmp_path / "no"), "-o", str(tmp_path / "out")]) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_come_from_processes_of_their_own(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    line = [
        "bench",
        "tensor",
        "--data",
        str(folder),
        "--only",
        "sea,kNN,tucker3",
        "--folds",
        "1",
        "--scale",
        "0.5",
    ]
    assert main([*line, "--threads", "1", "--quiet", "--json", "-o", str(tmp_path / "out")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in result["rows"]] == ["tucker3", "kNN"]
    assert result["share"] == 0.5
    for row in result["rows"]:
        assert row["rmse"] < 0.9
        assert 0.1e9 < row["peak_memory_bytes"] < 2e9 or not STATUS.exists()
