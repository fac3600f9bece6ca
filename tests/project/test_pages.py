"""What README and docs show is true: commands parse, Python runs, links lead somewhere, words are the field's."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.pages import NAMES, blocks, commands, links, sections, text_of
from helpers.paths import ROOT

from fieldmorph.apps.cli.arguments import joined
from fieldmorph.apps.cli.config import with_config
from fieldmorph.apps.cli.main import build_parser
from fieldmorph.bayes.fitting import FitConfig

COMMANDS = [(name, command) for name in NAMES for command in dict.fromkeys(commands(name))]
EXTENDING = (
    "docs/extending.md",
    "docs/extending-the-program.md",
)  # their blocks are files: see test_extending.py
WITH_PYTHON = [name for name in NAMES if blocks(name, "python") and name not in EXTENDING]
SHORTER = [
    (r'Budget\.parse\("[^"]+"\)', "Budget(steps=2)"),
    (r"resolution=64", "resolution=16"),
    (r"FunBaTRegressor\(", "FunBaTRegressor(restarts=1, sweeps=5, "),
    (r"\bfit\(observations, ", "fit(observations, _short_fit, "),
]


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_parses(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command.partition(" > ")[0], comments=True)
    arguments = words[words.index("fieldmorph") + 1 :]
    if not arguments or arguments in (["--help"], ["--version"], ["tensor"]):
        return
    if not [word for word in arguments if word.startswith("-")] and arguments[0] in (
        "train",
        "convert",
        "export",
        "tensor",
    ):
        arguments.append("--help")  # the name of a command in a sentence
    if "--config" in arguments:
        monkeypatch.chdir(tmp_path)
        (tmp_path / arguments[arguments.index("--config") + 1]).write_text(blocks(name, "toml")[0])
        arguments = with_config(build_parser(), arguments)
    if arguments[-1] == "--help" or arguments[0] == "--print-completion":
        with pytest.raises(SystemExit, match=r"^0$"):
            build_parser().parse_args(joined(arguments))
    else:
        build_parser().parse_args(joined(arguments))


def test_the_pages_show_commands_of_every_kind() -> None:
    shown = {shlex.split(command, comments=True)[1] for _, command in COMMANDS if " " in command}
    parser = build_parser()
    [subcommands] = [a for a in parser._actions if a.choices and a.dest == "==SUPPRESS=="] or [
        a for a in parser._actions if isinstance(a.choices, dict)
    ]
    assert set(subcommands.choices or ()) <= shown


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        target for name in NAMES for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", text_of(name), re.M)
    }
    assert {"demo", "test", "install", "docs"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.fixture
def desk(tmp_path: Path, few_views: Path, teacher: Path, tensor_csv: Path, tensor_model: Path) -> Path:
    """A folder with the files that the pages name, small ones."""
    (tmp_path / "apps" / "data").mkdir(parents=True)
    shutil.copytree(few_views, tmp_path / "apps" / "data" / "spot")
    for name in ("teacher.fm", "student.fm"):
        shutil.copy(teacher, tmp_path / name)
    shutil.copy(tensor_csv, tmp_path / "measurements.csv")
    shutil.copy(tensor_model, tmp_path / "sea.fm")
    return tmp_path


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_every_python_block_runs(name: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    code = "\n".join(blocks(name, "python"))
    for long, short in SHORTER:
        code = re.sub(long, short, code)
    exec(
        compile(code, name, "exec"),
        {"__name__": name, "_short_fit": FitConfig(restarts=1, warm_sweeps=2, sweeps=5)},
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_link_and_image_leads_somewhere(name: str) -> None:
    for file, section in links(name):
        assert file.exists(), file
        assert not section or section in sections(file), (file.name, section)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_fill_in(name: str) -> None:
    assert "@@" not in text_of(name)
    assert "TODO" not in text_of(name)


def test_every_page_and_image_is_linked() -> None:
    linked = {file for name in NAMES for file, _ in links(name)}
    pages = {ROOT / name for name in NAMES if name.startswith("docs/") and name != "docs/README.md"}
    images = {path for path in (ROOT / "docs" / "images").rglob("*") if path.is_file()}
    assert pages | images <= linked


@pytest.mark.parametrize("name", NAMES)
def test_every_file_in_backticks_exists(name: str) -> None:
    paths = re.findall(r"`((?:apps|bayes|distill|fields|tests|docs|data_scripts)/[\w./-]*)`", text_of(name))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_pages_claim_no_package_index() -> None:
    installs = [line for name in NAMES for line in re.findall(r"pip install.*", text_of(name))]
    assert all("-e '." in line for line in installs)


@pytest.mark.parametrize("name", ["convert_and_compare", "tensor_forecast"])
def test_the_examples_run(
    name: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    short = {"convert_and_compare": ["--steps", "2"], "tensor_forecast": ["--steps", "3", "--rows", "300"]}
    monkeypatch.setattr(sys, "argv", [name, *short[name], "--output", "out"])
    runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.count("\n") >= 1
    assert any(Path("out").iterdir())


def test_the_notebook_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.chdir(desk)
    notebook = json.loads((ROOT / "docs" / "examples" / "notebook.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in code:
        text = "".join(cell["source"])
        for long, short in SHORTER:
            text = re.sub(long, short, text)
        exec(compile(text, "notebook", "exec"), names)
    assert isinstance(names["teacher"].field, torch.nn.Module)  # type: ignore[attr-defined]
