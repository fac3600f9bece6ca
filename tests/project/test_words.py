"""Words that the project has given up for those of its field, where users read.

A folder joins by one more line in `COVERED`; of Python files everything is read, comments and names included.
"""

import re
from pathlib import Path

import pytest
from helpers.paths import ROOT

# Folders and files that are covered, and the endings that are read there.
COVERED: dict[str, tuple[str, ...]] = {
    "README.md": (".md",),
    "CONTRIBUTING.md": (".md",),
    "docs": (".md", ".py", ".ipynb"),
    ".github": (".yml",),
    "apps/package": (".py",),
}

# A pattern that no text has, and what to write instead.
BANNED: dict[str, str] = {
    r"photographs?\b|photographed": "training images, test images, ground truth",
    r"films?\b": "video",
    r"\btold\b|\btells?\b": "a message says, a request asks",
    r"\bwish(es|ed)?\b": "request",
    r"\btaught\b": "teacher_values",
    r"\bcarriers?\b|\bhardness\b": "salient samples, difficulty",
    r"\bMOST_|\bFEWEST_|\bfewest\b": "MAX_, MIN_, at least",
    r"\bhonestly?\b": "measure",
    r"\bturn(ed)? (it|about)\b|\bturned and zoomed\b": "view interactively",
    r"\bfog(gy)?\b": "low density",
    r"\bgo(es)? on\b|\bgoing on\b": "continue, resume",
    r"\blooks?\b(?=.{0,20}\bquality\b)": "evaluations",
    r"\blookouts?\b|\bsights\b": "visibility cameras",
    r"\bdear\b|\bspares?\b": "expensive, saves",
    r"\bhas no pull\b": "contributes no gradient",
    r"\bkeep their word\b|\bbend nothing\b": "calibrated, robust to outliers",
    r"\bwhat is occupied\b": "occupied voxels",
    r"\bpeers?\b": "other methods",
    r"\bbeside\b": "next to, in addition to",
    r"\bpictures?\b": "image",
    r"\bno word\b": "before returning a result",
}


def covered() -> list[Path]:
    found = []
    for name, endings in COVERED.items():
        place = ROOT / name
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        found += [f for f in files if f.suffix in endings and "node_modules" not in f.parts]
    return found


@pytest.mark.parametrize("file", covered(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_the_words_are_those_of_the_field(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [
        f"{file.name}:{number}: {match.group()!r}: write {instead}"
        for number, line in enumerate(lines, start=1)
        for pattern, instead in BANNED.items()
        if (match := re.search(pattern, line, re.IGNORECASE)) and f"`{match.group()}`" not in line
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["make a film", "from Photographs", "beside its teacher", "go on with --resume", "a picture"]
)
def test_a_word_that_was_given_up_is_found(text: str) -> None:
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in BANNED)
