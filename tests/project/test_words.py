"""Words that the project has given up for those of its field, where users read.

A folder joins by one more line in `COVERED`; of Python files everything is read, comments and names included.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.paths import ROOT

# Folders and files that are covered, and the endings that are read there.
COVERED: dict[str, tuple[str, ...]] = {
    "README.md": (".md",),
    "CONTRIBUTING.md": (".md",),
    "CHANGELOG.md": (".md",),
    "docs": (".md", ".py", ".ipynb"),
    ".github": (".yml",),
    "fields": (".py",),
    "distill": (".py",),
    "bayes": (".py",),
    "apps": (".py", ".js", ".html", ".css"),
    "data_scripts": (".py",),
    "tests": (".py",),
}
# Files that are not read: this one, whose patterns would find themselves, and files of earlier versions.
SKIPPED = (Path(__file__).resolve(), ROOT / "tests" / "data")

# What is kept though a pattern has it, and why. It is taken out of a line before the line is searched.
KEPT: dict[str, str] = {
    '"hardness"': "key of saved states",
    '"photographs"': "key of receipts and of saved states",
    "other settings: photographs": "message about a saved state, which names the key",
    '"photographs?|test image"': "pattern that a page must not match",
    '"asked"': "key of receipts",
    "lr_share": "setting in saved states",
    "empty_share": "setting in saved states",
    "stage.share": "a stage's part of the budget, a setting in saved states",
    "share: float": "the same",
    "['photographs']": "key of receipts",
    "['pictures']": "key of the table of `fieldmorph bench view`",
    '"pictures"': "key of `fieldmorph render --json` and of the table of `fieldmorph bench view`",
    '"beside"': "kind of run in the table of `fieldmorph bench view`",
    "features.share": "a setting on the command line and in configuration files, as in saved states and receipts",
    "volume.share": "the same",
    "share = 0.6": "the same",
    "share=0.6": "the same",
    "LR_SHARE": "the default of `lr_share`",
    '"film": {': "a setting of mitsuba's",
    '"fog"': "a look of a mesh in data_scripts, which is what it says",
    "for look in dark fog mirror wire;": "the same, on a command line",
    ".tell()": "method of Python's files",
}

# A pattern that no text has, and what to write instead. Case counts only inside `(?-i:...)`.
BANNED: dict[str, str] = {
    r"photograph(s|ed)?\b": "training images, test images, ground truth",
    r"\bfilms?\b": "video",
    r"\btold\b|\btells?\b|\bteller\b|\bhears?\b|(?-i:\bMail\b)": "a message, requested, ResponseQueue",
    r"\bask(s|ed|ing)?\b": "requested, needed, queried",
    r"\bwish(es|ed)?\b|(?-i:\bDesk\b|\bEnded\b)": "request, ConversionSlot, Cancelled",
    r"\btaught\b": "teacher_values",
    r"\bcarriers?\b|\bhardness\b": "salient samples, difficulty",
    r"(?-i:\bMOST\b|\bFEWEST\b)|\bfewest\b|\b(most|least) =[^=]": "max, min, at least",
    r"\bshares? of\b|\bequal shares?\b|\bshares?( [=<>*/+-]|[)=\]]|\.\w|: float)": "fraction",
    r"\bhonest(ly)?\b": "measure",
    r"\bturn(ed)? (it|about)\b|\bturned and zoomed\b": "view interactively, rotate",
    r"\bfog(gy)?\b": "low density",
    r"\bgo(es)? on\b|\bgoing on\b|\bwent on\b": "continue, resume",
    r"\bcarried on\b|\bput aside\b|\btaken? up\b": "as_prior, offload, restore",
    r"\blooks?\b(?=.{0,20}\bquality\b)|(?-i:\bLooks\b)": "evaluations, snapshots",
    r"\blookouts?\b|\bsights\b|\bsurvey\b": "visibility cameras",
    r"\bshelf\b|\bexhibits?\b|\bpainter\b|(?-i:\bTruth\b|\bPace\b)": "SceneStore, ExampleView, RenderLoop, ...",
    r"(?<!\.)\bstopped\(|(?-i:\bTails\b|\bInformed\b|\bEarlier\()": "alpha_from_density, StudentT, ...",
    r"\bdear\b|\bspares?\b": "expensive, saves",
    r"\bhas no pull\b|\bheld against\b": "contributes no gradient, compared with",
    r"\bkeep their word\b|\bbends?\b": "calibrated, robust to outliers",
    r"\bwhat is occupied\b": "occupied voxels",
    r"\bpeers?\b": "other methods",
    r"\bbeside\b": "next to, in addition to",
    r"\bpictures?\b": "image",
    r"\bno word\b": "before returning a result",
    r"\bplease\b|\bshall\b|\bnot wanted\b": "required, disabled",
    r"\bmistake rather\b|\bby now\b|\bstraight fall\b": "plain words",
}


def covered() -> list[Path]:
    found = []
    for name, endings in COVERED.items():
        place = ROOT / name
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        found += [f for f in files if f.suffix in endings and "node_modules" not in f.parts]
    return [f for f in found if not any(f.is_relative_to(skipped) for skipped in SKIPPED)]


def words(line: str, kept: Iterable[str]) -> str:
    """Return a line with names split into their words, and without what is kept."""
    for text in kept:
        line = line.replace(text, "")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line.replace("_", " "))


def given_up(line: str, kept: Iterable[str] = KEPT) -> list[str]:
    """Return the words of a line that the project has given up; those in backticks are names that users hold."""
    text = words(line, kept)
    found = [(re.search(pattern, text, re.IGNORECASE), instead) for pattern, instead in BANNED.items()]
    return [
        f"{match.group()!r}: write {instead}"
        for match, instead in found
        if match and f"`{match.group()}`" not in text
    ]


@pytest.mark.parametrize("file", covered(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_the_words_are_those_of_the_field(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [
        f"{file.name}:{number}: {word}"
        for number, line in enumerate(lines, start=1)
        for word in given_up(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "make a film",
        "from Photographs",
        "beside its teacher",
        "go on with --resume",
        "a picture",
        "def on_picture(done: int) -> None:",
        "class TileShelf:",
        "share = 0.5",
        "MOST_NODES = 3",
        "alpha = stopped(sigma, step)",
    ],
)
def test_a_word_that_was_given_up_is_found(text: str) -> None:
    assert given_up(text)


@pytest.mark.parametrize(
    "text",
    [
        'receipt["photographs"]',
        "stages share the budget",
        "the `photographs` key",
        "server.stopped()",
        "ground truth",
        "outlook",
    ],
)
def test_a_word_that_is_kept_is_not_found(text: str) -> None:
    assert not given_up(text)


@pytest.mark.parametrize("text", KEPT)
def test_an_exception_is_needed(text: str) -> None:
    lines = (
        line for file in covered() for line in file.read_text(encoding="utf-8").splitlines() if text in line
    )
    assert any(given_up(line, set(KEPT) - {text}) for line in lines)
