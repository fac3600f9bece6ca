"""What the README shows exists: pictures, commands, the Python lines."""

import ast
import importlib
import re
import shlex

import pytest
from helpers.paths import ROOT

from fieldmorph.apps.cli.arguments import joined
from fieldmorph.apps.cli.main import build_parser

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    set(
        re.findall(
            r"fieldmorph (?:train|convert|eval|render|info|doctor|bench|demo|tensor \w)[^`\n|]*", README
        )
    )
)


def test_pictures_and_files_are_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    build_parser().parse_args(joined(shlex.split(command, comments=True)[1:]))


def test_python_lines_name_what_exists() -> None:
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    imports = [node for node in ast.parse(blocks).body if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert all(hasattr(module, alias.name) for alias in node.names)
