"""Every command line parses, help is light, and every error has its exit code."""

import errno
import importlib
import inspect
import logging
import re
import signal
from typing import Any

import pytest

from fieldmorph.apps.bench.registry import BENCHES
from fieldmorph.apps.cli.main import build_parser, main
from fieldmorph.apps.console.exits import explain
from fieldmorph.fields.errors import InputError, SettingError, UnsafeError
from fieldmorph.fields.loop import Interrupted


def refused(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in argv])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fieldmorph: ")
    assert captured.err.count("\n") == 1
    return code, captured.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "train D -o t.fm",
            {"data": "D", "field": "hashgrid", "preset": "small", "budget": "120cs", "steps": None},
        ),
        ("train D --field mlp --preset paper --downscale 2 -o t.fm", {"field": "mlp", "downscale": 2}),
        ("train D --aabb -1,-1,-1,1,1,2.5 -o t.fm", {"aabb": (-1, -1, -1, 1, 1, 2.5)}),
        (
            "train D --steps 50 --seed 1 --threads 2 --device cpu -o t.fm --json",
            {"steps": 50, "seed": 1, "threads": 2},
        ),
        ("train D --budget 90s --resume --force -o t.fm", {"budget": "90s", "resume": True, "force": True}),
        (
            "train --set n_levels=4 --set skip=null --set a=b D -o t.fm",
            {"data": "D", "set": [("n_levels", 4), ("skip", None), ("a", "b")]},
        ),
        ("convert t.fm --to mlp -o s.fm", {"teacher": "t.fm", "to": "mlp", "budget": "180cs", "json": False}),
        ("convert t.fm --to hashgrid --preset paper --budget 120s --seed 2 -o s.fm", {"budget": "120s"}),
        ("convert t.fm --steps 9 --resume --force --device auto --threads 1 -o s.fm --json", {"steps": 9}),
        ("eval s.fm --data D --json", {"file": "s.fm", "data": "D", "split": "test", "teacher": None}),
        ("eval s.fm --data D --downscale 2 --split val --teacher t.fm --threads 2", {"teacher": "t.fm"}),
        (
            "render s.fm --data D --split test --downscale 4 -o out",
            {"data": "D", "orbit": None, "downscale": 4},
        ),
        ("render s.fm --orbit 60 -o o.mp4 --depth --opacity --size 64x48", {"orbit": 60, "size": (64, 48)}),
        (
            "render s.fm --orbit 6 -o o.mp4 --fps 24 --background black --force",
            {"fps": 24, "background": "black"},
        ),
        ("info t.fm --json", {"file": "t.fm", "json": True}),
        ("demo", {"output": "demo_output", "budget": "280cs"}),
        ("demo -o d --budget 60cs --force --json", {"output": "d", "force": True}),
        ("doctor --json", {"json": True}),
        ("bench kernels --json --threads 2", {"what": "kernels", "threads": 2}),
        (
            "bench convert --data D --downscale 2 --seeds 1 --scale 0.5 -o b --json",
            {"what": "convert", "data": "D", "seeds": 1, "scale": 0.5, "output": "b"},
        ),
        (
            "bench matrix --only mlp,vm",
            {"what": "matrix", "only": ("mlp", "vm"), "seeds": None, "scale": 1.0},
        ),
        ("bench convert --only mlp-small,vm-small", {"what": "convert", "only": ("mlp-small", "vm-small")}),
        ("bench stages --only vm --scale 0.5", {"what": "stages", "only": ("vm",), "scale": 0.5}),
        ("bench active --seeds 2 --scale 0.4", {"what": "active", "seeds": 2}),
        ("bench starts --only vm --force", {"what": "starts", "only": ("vm",), "force": True}),
    ],
)
def test_command_line_is_understood(line: str, expected: dict[str, Any]) -> None:
    from fieldmorph.apps.cli.arguments import joined

    args = vars(build_parser().parse_args(joined(line.split())))
    handler = {"eval": "evaluate"}.get(line.split()[0], line.split()[0])
    assert args["handler"] is importlib.import_module(f"fieldmorph.apps.cli.{handler}").run
    assert {key: args[key] for key in expected} == expected


@pytest.mark.parametrize("name", BENCHES)
def test_benches_in_the_table_take_the_options_it_names(name: str) -> None:
    if name == "view":
        pytest.importorskip("gradio")
    function, table = BENCHES[name].load()
    parameters = inspect.signature(function).parameters
    assert set(BENCHES[name].options) <= set(parameters)
    if "n_seeds" in BENCHES[name].options:
        assert parameters["n_seeds"].default == BENCHES[name].seeds
    assert callable(table)


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("fieldmorph 0.")


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("fly", "choose from train, convert"),
        ("convrt a.fm", "did you mean convert?"),
        ("tensor fot a.csv", "did you mean fit?"),
        ("convert a.fm --too mlp", "unrecognized option --too; did you mean --to?"),
        ("train D --feild=mlp", "unrecognized option --feild; did you mean --field?"),
        ("train D -o t.fm --steps 3 --field hashgird", "did you mean hashgrid?"),
        ("train D -o t.fm --steps 3 --preset papper", "did you mean paper?"),
        ("train D -o t.fm --steps 3 --set widht=3 --field mlp", "did you mean width?"),
        ("bench kernel", "did you mean kernels?"),
        ("train D", "-o/--output"),
        ("train D -o t.fm --step 3", "unrecognized"),
        ("train D -o t.fm --steps 0", "at least 1; got '0'"),
        ("train D -o t.fm --steps 3 --budget 3s", "not allowed with"),
        ("train D -o t.fm --seed -1", "0 to 999999999; got '-1'"),
        ("train D -o t.fm --aabb 1,2,3", "six numbers"),
        ("train D -o t.fm --set width", "width=64; got 'width'"),
        ("train D -o t.fm --downscale 1.5", "at least 1; got '1.5'"),
        ("train D -o t.fm --budget soon", "90s, 2m, 1h or 150cs (core-seconds); got 'soon'"),
        ("train D -o t.fm --budget 0s", "got '0s'"),
        ("train D -o t.fm --device tpu", "choose from auto, cpu, cuda"),
        ("render a.fm -o x", "--data --orbit"),
        ("render a.fm -o x --orbit 3 --size 12", "640x480; got '12'"),
        ("bench tea", "choose from kernels, convert"),
    ],
)
def test_usage_mistake_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], line: str, reported: str
) -> None:
    code, message = refused(capsys, *line.split())
    assert code == 2
    assert reported in message


@pytest.mark.parametrize(
    ("line", "shown"), [("", "\n    train  +fit a field"), ("tensor", "\n    fit  +fit a model")]
)
def test_a_command_that_needs_another_shows_its_help(
    capsys: pytest.CaptureFixture[str], line: str, shown: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert re.search(shown, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("a"), 2),
        (InputError("a"), 3),
        (UnsafeError("a"), 4),
        (MemoryError(), 6),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (PermissionError(errno.EACCES, "Permission denied"), 3),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 6),
        (KeyboardInterrupt(), 130),
        (Interrupted(signal.SIGINT, None), 130),
        (Interrupted(signal.SIGTERM, None), 143),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    reported = explain(error)
    assert reported is not None
    assert reported.code == code
    assert reported.message


@pytest.mark.parametrize(
    ("option", "expected"),
    [([], ["warning: w"]), (["-q"], []), (["-v"], ["0.0 s: fieldmorph 0.", "0.0 s: d", "warning: w"])],
)
def test_quiet_and_verbose(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: list[str],
    expected: list[str],
) -> None:
    def run(_args: Any) -> int:
        log = logging.getLogger("fieldmorph.any")
        log.debug("d")
        log.warning("w")
        print("result")
        return 0

    monkeypatch.setattr("fieldmorph.apps.cli.info.run", run)
    assert main(["info", "a.fm", *option]) == 0
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    lines = captured.err.splitlines()
    assert len(lines) == len(expected)
    assert all(line.startswith(f"fieldmorph: {text}") for line, text in zip(lines, expected, strict=True))


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = refused(capsys, "info", "a.fm", "-q", "-v")
    assert code == 2
    assert "not allowed with argument -q/--quiet" in message
