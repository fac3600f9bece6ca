"""`--help`: it is light, and every option that takes one of some names shows these."""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fieldmorph.apps.bench.registry import BENCHES
from fieldmorph.apps.cli.main import build_parser
from fieldmorph.bayes.covariances.table import choices
from fieldmorph.distill.config import LEARNING
from fieldmorph.distill.levels import LEVELS
from fieldmorph.distill.losses import LOSSES
from fieldmorph.distill.samplers import SOLVE, SOURCES
from fieldmorph.distill.stages import PVD_STAGES
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.kinds import FIELDS, PRESETS
from fieldmorph.fields.lazy import Line
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.scenes.table import READERS

COMMANDS = (
    "train",
    "convert",
    "eval",
    "render",
    "export",
    "view",
    "info",
    "demo",
    "doctor",
    "bench",
    "tensor",
)
TENSOR_JOBS = ("fit", "update", "predict", "eval", "grid", "plot", "scene", "demo")
SPLITS = ("train", "val", "test")
UNITS = ("90s", "2m", "1h", "150cs")

# What an option takes that the parser itself does not check, by the option's `dest`.
CLOSED = {
    "field": tuple(FIELDS),
    "to": tuple(FIELDS),
    "preset": tuple(MLP.presets),
    "active": (*LEVELS, "all", "none"),
    "split": SPLITS,
    "kernel": tuple(choices()),
    "only": tuple(dict.fromkeys(name for bench in BENCHES.values() for name in bench.only)),
    "budget": UNITS,
    "calibrate_by": ("s", "min", "h", "D", "W"),
    "axis": ("s", "min", "h", "D", "W", "M", "Y"),
    "mask": ("land", "sea", "mask.nc"),
    "finish": ("auto", "none"),
    "stage": (
        *(stage.name for stage in PVD_STAGES if stage.source != SOLVE),
        *SOURCES,
        *("share", "source"),
        *(f"losses.{loss}" for loss in LOSSES),
    ),
    "learning": LEARNING,
}

# Options of numbers, files and names of the user's own.
OPEN = re.findall(
    r"\w+",
    """
    aabb allow_host auth calibrate calibrate_rounds config data downscale file files folds fps high host latitude
    level longitude low max_bytes max_pixels max_psnr_drop model modes next nodes orbit output output_web points port
    rank residual residual_points restarts root_path sample scale seed seeds set setting_name setting_resolution
    size sizes steps student sweeps teacher test threads time tolerance value view
    """,
)


def commands(
    parser: argparse.ArgumentParser | None = None, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of `fieldmorph` and of every command below."""
    parser = parser or build_parser()
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from commands(below, f"{name} {word}".strip())


PARSERS = dict(commands())
OPTIONS = {
    f"{name} {action.dest}": (name, action)
    for name, parser in PARSERS.items()
    for action in parser._actions
    if action.nargs != 0
}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is broken at its hyphen."""
    monkeypatch.setenv("COLUMNS", "2000")


def help_of(command: str) -> str:
    """The help of a command in one line."""
    return " ".join(PARSERS[command].format_help().split())


def test_every_command_is_walked() -> None:
    assert list(PARSERS) == ["", *COMMANDS, *(f"tensor {job}" for job in TENSOR_JOBS)]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_shows_the_names_that_it_takes(option: str) -> None:
    command, action = OPTIONS[option]
    names = list(map(str, action.choices)) if action.choices else list(CLOSED.get(action.dest, ()))
    if isinstance(action, argparse._SubParsersAction):
        shown = help_of(command)
    else:
        assert names or action.dest in OPEN, "say in this file what the option takes"
        shown = f"{action.help} {PARSERS[command]._get_formatter()._format_args(action, action.dest)}"
        assert " ".join((action.help or "").split()) in help_of(command)
    words = re.split(r"[\s,;:()|{}=]+", shown)
    assert [name for name in names if name not in words] == []


def test_help_imports_only_the_standard_library() -> None:
    """What help takes is imports: torch alone takes seconds. The parser itself takes milliseconds."""
    script = f"""
import sys
before = set(sys.modules)
from fieldmorph.apps.cli.main import main
for words in {[name.split() for name in PARSERS]}:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
imported = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(imported - sys.stdlib_module_names), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "['fieldmorph']\n"
    for name in PARSERS:
        assert f"usage: {f'fieldmorph {name}'.strip()}" in done.stdout


def test_help_says_what_else_matters() -> None:
    assert "FIELDMORPH_DEBUG=1" in help_of("")
    assert "kernels: 1)" in help_of("bench")
    assert "kernels" not in help_of("train")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("train", [*FIELDS, *MLP.presets, "auto", "cuda"]),
        ("convert", [*FIELDS, *MLP.presets, *LEVELS]),
        ("eval", ["train, val or test"]),
        ("render", ["train, val or test", "white or black"]),
        ("bench", [f"{name}: {bench.title}" for name, bench in BENCHES.items()]),
        ("tensor fit", list(choices())),
        ("tensor scene", ["mean,sd"]),
    ],
)
def test_help_names_the_choices(command: str, named: list[str]) -> None:
    assert [name for name in named if name not in help_of(command)] == []


def test_names_in_help_are_those_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(set(field.presets) == set(PRESETS) for field in FIELDS.values())
    monkeypatch.setitem(FIELDS._lines, "clay", Line("clay", "Clay", "clay:Clay"))
    monkeypatch.setitem(READERS._lines, "notes", Line("notes", "Notes (notes.txt)", "notes:Reader"))
    [commands] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    shown = {name: " ".join(parser.format_help().split()) for name, parser in commands.choices.items()}
    assert "mlp, vm, cp, voxels, clay (default" in shown["convert"]
    assert "mlp, vm, cp, voxels, clay (default" in shown["train"]
    assert "Notes (notes.txt)" in shown["train"]
    assert "bake: hashgrid, mlp, vm, cp, voxels, clay" in shown["bench"]


def test_names_of_only_are_all_there_are() -> None:
    from fieldmorph.apps.bench import convert, stages, tensor, web_export

    assert [name for name, bench in BENCHES.items() if bench.only] == [
        name for name, bench in BENCHES.items() if "only" in bench.options
    ]
    assert list(BENCHES["convert"].only) == list(convert.ConvertPlan().students)
    assert list(BENCHES["stages"].only) == list(stages.StagesPlan().students)
    assert set(BENCHES["matrix"].only) == set(FIELDS)
    assert set(BENCHES["starts"].only) == set(STARTS)
    assert set(BENCHES["bake"].only) == set(web_export.FIELDS)
    assert set(BENCHES["tensor"].only) == set(tensor.all_methods())
