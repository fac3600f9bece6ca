"""`fieldmorph export` with more than one format: options are those of the table's lines."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.exports.table import EXPORTS, ExportFormat, Option


@dataclass(frozen=True)
class Written:
    output: str
    degree: int
    keep_colors: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        return f"{self.output}: points"


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second format, which has one option in common with web pages and has one of its own."""

    def export_points(
        path: str, output: str, *, device: str, force: bool, on_progress: Any, degree: int = 7, **more: str
    ) -> Written:
        on_progress("points", 1, 2)
        return Written(output, degree, more.get("keep_colors", "all"))

    module = ModuleType("points_of_a_test")
    module.export_points = export_points  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    shared = Option("degree", "of the points (default 7)", type=int, choices=(0, 1, 2))
    own = Option("keep_colors", "which (default: all)")
    line = ExportFormat("point cloud", "points_of_a_test:export_points", "a file", (shared, own))
    monkeypatch.setitem(EXPORTS, "points", line)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that fails as bad usage does."""
    capsys.readouterr()
    try:
        code: Any = main(["export", "a.fm", *words, "--quiet"])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr()
    assert (code, said.out, said.err.count("\n")) == (2, "", 1)
    return said.err


@pytest.mark.usefixtures("points")
def test_a_format_of_the_table_is_an_option_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "a.fm", "--points", "a.ply", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": "a.ply", "degree": 7, "keep_colors": "all"}
    assert (
        main(
            [
                "export",
                "a.fm",
                "--points",
                "a.ply",
                "--degree",
                "2",
                "--keep-colors",
                "none",
                "--quiet",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out) == {"output": "a.ply", "degree": 2, "keep_colors": "none"}
    assert main(["export", "a.fm", "--points", "a.ply", "--quiet"]) == 0
    assert capsys.readouterr().out == "a.ply: points\n"


@pytest.mark.usefixtures("points")
def test_a_call_has_one_format_and_its_own_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "one of the arguments --web --points is required" in refusal(capsys)
    assert "not allowed with argument" in refusal(capsys, "--web", "a.html", "--points", "a.ply")
    page = str(tmp_path / "a.html")
    assert "--keep-colors is not an option of --web" in refusal(capsys, "--web", page, "--keep-colors", "all")
    reported = refusal(capsys, "--points", "a.ply", "--resolution", "16")
    assert "--resolution is not an option of --points" in reported
    assert "invalid choice: 3" in refusal(capsys, "--points", "a.ply", "--degree", "3")


@pytest.mark.usefixtures("points")
def test_help_names_every_format_and_whose_an_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["export", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Export a field: web page, point cloud." in said
    assert "--points OUTPUT a file" in said
    assert "web: of the spherical harmonics (default 1); points: of the points (default 7)" in said
    assert "cells along the longest side, a multiple of 8 (default 256)" in said


def test_formats_that_disagree_about_an_option_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ExportFormat("points", "none:none", "a file", (Option("degree", "of the points", type=float),))
    monkeypatch.setitem(EXPORTS, "points", line)
    with pytest.raises(ValueError, match="--degree takes different values in web, points"):
        main(["info", "a.fm"])
