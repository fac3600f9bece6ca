"""Completion in shells: the scripts are valid, and know commands, options, names and files."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fieldmorph.apps.cli.completion import NAMES, SHELLS
from fieldmorph.apps.cli.main import build_parser, main
from fieldmorph.fields.kinds import FIELDS


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_commands_and_choices(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    text = script(capsys, shell)
    assert [name for name in ("convert", "tensor", "doctor", "fit", *FIELDS) if name not in text] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fieldmorph conv", ["convert"]),
        ("fieldmorph tensor pr", ["predict"]),
        ("fieldmorph convert --max", ["--max-bytes", "--max-psnr-drop"]),
        ("fieldmorph convert --to hash", ["hashgrid"]),
        ("fieldmorph train --device c", ["cpu", "cuda"]),
        ("fieldmorph bench ker", ["kernels"]),
        ("fieldmorph info stu", ["student.fm"]),
    ],
)
def test_bash_completes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, expected: list[str]
) -> None:
    (tmp_path / "completion").write_text(script(capsys, "bash"))
    (tmp_path / "student.fm").touch()
    words = line.split()
    test = f"""
source ./completion
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
$(complete -p fieldmorph | sed 's/.*-F \\([^ ]*\\).*/\\1/') fieldmorph {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", test], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == expected


def test_names_are_of_options_that_exist() -> None:
    from fieldmorph.apps.cli.completion import FILES, _actions

    there = {action.dest for action in _actions(build_parser())}
    assert {*NAMES, *FILES} <= there
