"""The tensor demo in small: every file is there and the summary says what the files say."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers.defaults import Defaults

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor import demo
from fieldmorph.apps.tensor.demo import DemoPlan, even, open_cells
from fieldmorph.bayes.store import load_posterior

PLAN = Defaults(DemoPlan)
needs_data = pytest.mark.skipif(
    importlib.util.find_spec("iris_sample_data") is None, reason="needs the extra demo-data"
)


@needs_data
def test_cells_are_sea() -> None:
    cells = open_cells()
    assert list(cells.columns) == ["latitude", "longitude", "time", demo.VALUE]
    assert cells["time"].nunique() == 54
    assert cells[demo.VALUE].between(15, 35).all()


@needs_data
@pytest.mark.slow
def test_demo_leaves_its_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = {"n_train": 300, "n_test": 200, "ranks": (2, 2, 2), "dpi": 40}
    for name, value in {**small, "latitude": "-4:4:2", "longitude": "0:350:10"}.items():
        monkeypatch.setattr(PLAN, name, value)
    out = tmp_path / "demo"
    assert main(["tensor", "demo", "-o", str(out), "--quiet", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert sorted(p.name for p in out.iterdir()) == sorted([*summary["files"], "summary.json"])
    drawn, month = pd.read_csv(out / "measurements.csv"), pd.read_csv(out / "month.csv")
    assert len(drawn) == summary["fit"]["rows"] == 300
    assert set(month["time"]) == {"2009-01-16 12:00:00"}
    assert not set(month["time"]) & set(drawn["time"])
    overlap = pd.merge(drawn, pd.read_csv(out / "test.csv"), on=["latitude", "longitude", "time"])
    assert overlap.empty
    assert main(["tensor", "eval", str(out / "model.fm"), str(out / "month.csv"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["rmse"] == summary["scores"]["month"]["rmse"]
    values = drawn[demo.VALUE].mean() - month[demo.VALUE]
    assert summary["scores"]["month"]["rmse_mean"] == pytest.approx(np.sqrt((values**2).mean()))
    assert summary["scores"]["month"]["rmse"] < summary["scores"]["month"]["rmse_mean"]
    for number in (scores["rmse"], summary["scores"]["test"]["rmse_nearest"]):
        assert f"{number:.3f}" in shown
    with xr.open_dataset(out / "month.nc", engine="h5netcdf") as grid:
        assert dict(grid.sizes) == {"time": 1, "latitude": 5, "longitude": 36, "bnds": 2}
        assert grid["temperature"].attrs["units"] == "degC"
    assert load_posterior(out / "model.fm").intervals.levels


def test_missing_data_say_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, demo.PACKAGE, None)
    assert main(["tensor", "demo", "-o", str(tmp_path / "demo")]) == 3
    reported = capsys.readouterr().err
    assert (
        reported
        == "fieldmorph: the demo's data are in another package: pip install 'fieldmorph[demo-data]'\n"
    )
    assert not (tmp_path / "demo").exists()


def test_even_fills_what_lies_on_land() -> None:
    sea = torch.tensor([3.0, 0.0, 1.0, 7.0, 8.0, 1.0]).double()
    assert even(sea).tolist() == list(range(9))
    assert even(sea[:1]).tolist() == [3]
