"""The Markdown pages of the project and what stands in them: code blocks, commands, links."""

import re
from pathlib import Path

from helpers.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDERS = {"TEACHER", "STUDENT", "NAME", "MODEL"}  # of a command's shape, which is no command to run


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[str]:
    """Fenced blocks in these languages, in the order of the page."""
    return [body for language, body in FENCE.findall(text_of(name)) if language in languages]


def commands(name: str) -> list[str]:
    """Every command line of fieldmorph: in shell blocks, and in the text between backticks."""
    lines = [line.strip() for block in blocks(name, "sh", "bash") for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(name)))
    found = [re.sub(r"^\.venv/bin/", "", text) for text in [*lines, *spans]]
    found = [text for text in found if re.match(r"(python -m )?fieldmorph( |$)", text)]
    return [text for text in found if not PLACEHOLDERS & set(text.split())]


def links(name: str) -> list[tuple[Path, str]]:
    """Targets of links and images that are no addresses: files, and the section of them or nothing."""
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", FENCE.sub("", text_of(name)))
    pairs = [target.partition("#") for target in targets]
    folder = (ROOT / name).parent
    return [((folder / file).resolve() if file else ROOT / name, section) for file, _, section in pairs]


def sections(page: Path) -> set[str]:
    """Names by which GitHub links to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
