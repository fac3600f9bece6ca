"""How a fit grows with its rows: a row for every size, with figures that can be believed."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import Defaults

from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.tensor_scaling import ScalingPlan, bench_tensor_sizes, sizes_table
from fieldmorph.apps.cli.main import main
from fieldmorph.fields.errors import SettingError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started, and fits are short."""
    monkeypatch.setattr(runner, "in_child", lambda job, *, threads, **settings: job(**settings))
    plan = Defaults(ScalingPlan)
    for name, value in {"restarts": 1, "sweeps": 7, "n_tested": 200}.items():
        monkeypatch.setattr(plan, name, value)


def test_every_size_is_fitted_twice(tmp_path: Path) -> None:
    result = bench_tensor_sizes((1100, 1000), tmp_path, quiet=True)
    assert result["failed"] == 0, result["rows"]
    assert [row["rows"] for row in result["rows"]] == [1100, 1000] * 2
    assert len({row["coordinates"] for row in result["rows"]}) == 2
    for row in result["rows"]:
        assert row["sweeps"] <= 7
        assert 0 < 6 * row["sweep_core_seconds"] <= row["core_seconds"]
        assert 0.1 < row["rmse"] < 0.8
    assert json.loads((tmp_path / "tensor_sizes.json").read_text()) == result
    text = (tmp_path / "tensor_sizes.md").read_text()
    assert text == sizes_table(result) + "\n"
    assert f"| 1,100 | 1,001 a mode | {result['rows'][0]['sweep_core_seconds']:.3f} |" in text


def test_rows_of_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = ["bench", "tensor", "--sizes", "1e3", "--quiet", "--json", "-o", str(tmp_path / "b")]
    assert main(line) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [row["rows"] for row in result["rows"]] == [1000, 1000]


def test_sizes_that_make_no_sense(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="1000 or more; got 10"):
        bench_tensor_sizes((10, 2000), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    with pytest.raises(SystemExit):
        main(["bench", "tensor", "--sizes", "1e3,1000.5"])
    assert "whole numbers" in capsys.readouterr().err
