"""Names in annotations exist: linter and types overlook them, since jaxtyping's axes are names of no variable."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

FOLDERS = ("fields", "distill", "bayes", "apps", "data_scripts", "tests")


def undefined(*paths: Path) -> list[str]:
    """Names that are not defined, without those that may be axes: small letters, digits and underscores."""
    pytest.importorskip("ruff", reason="pip install ruff")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821", "--output-format=json"]
    found = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    messages = [(line["filename"], line["message"]) for line in json.loads(found.stdout)]
    return [f"{file}: {text}" for file, text in messages if not re.search(r"`[a-z0-9_]+`", text)]


def test_names_in_annotations_are_defined() -> None:
    assert undefined(*(ROOT / folder for folder in FOLDERS)) == []


def test_a_name_that_is_not_imported_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('def state(x: Float[Tensor, "n_rays 3"]) -> StateDict: ...\n')
    names = {re.findall("`(.*)`", line)[0] for line in undefined(file)}
    assert names == {"Float", "Tensor", "StateDict"}
