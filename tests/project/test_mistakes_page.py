"""The page of mistakes shows what users get for them today."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from helpers.generated import check_part

from fieldmorph.apps.cli.main import main

PAGE = "docs/mistakes.md"
MISTAKES = (
    "convrt teacher.fm -o student.fm",
    "convert teacher.fm --too mlp -o student.fm",
    "train spot --field hashgird -o new.fm",
    "train spot --field mlp --set widht=64 -o new.fm",
    "train spot -o teacher.fm",
    "train sport -o new.fm",
    "train spot --budget soon -o new.fm",
    "train spot --budget 0.001s -o new.fm",
    "convert sea.csv -o student.fm",
    "convert teacher.fm -o teacher.fm --force",
    "convert teacher.fm --max-psnr-drop 0.5 -o student.fm",
    "convert --config run.toml",
    "eval teacher.fm --data spot --split best",
    "render teacher.fm --orbit 60 -o orbit.avi",
    "render teacher.fm --orbit 60 --size 640 -o orbit.mp4",
    "info weights.pt",
    "bench kernels --only hsah",
)


@pytest.fixture
def desk(tmp_path: Path, few_views: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which somebody works."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(few_views, "spot")
    shutil.copy(teacher, "teacher.fm")
    Path("sea.csv").write_text("lat,lon,temp\n1,2,3\n")
    Path("run.toml").write_text('[convert]\nteacher = "teacher.fm"\nbudgett = "60s"\n')
    torch.save({"weights": torch.zeros(1)}, "weights.pt")
    return tmp_path


def answer(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A command line, what standard error gets for it, and the exit code."""
    try:
        code = main(shlex.split(line))
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    [text] = [line for line in captured.err.splitlines() if "compiling kernels" not in line]
    text = re.sub(r"ended after \d+ steps", "ended after 1 steps", text)
    text = re.sub(r"about \d+s would do", "about 10s would do", text)
    return f"$ fieldmorph {line}\n{text}\n(exit code {code})"


def test_the_answers_are_those_of_the_page(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(desk.rglob("*"))
    answers = [answer(line, capsys) for line in MISTAKES]
    assert len(answers) >= 15
    assert all(re.search(r"\(exit code [234]\)$", text) for text in answers)
    assert sorted(desk.rglob("*")) == before
    check_part(PAGE, "answers", "```text\n" + "\n\n".join(answers) + "\n```")
