"""Docstrings of public names: there is one, and its first line is a sentence of its own."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.paths import ROOT

FOLDERS = ("fields", "distill", "bayes", "apps", "data_scripts")

# First words of a fragment that needs the name of what it describes.
FRAGMENTS = frozenset(
    [
        "What",
        "How",
        "Where",
        "When",
        "Which",
        "Whether",
        "Why",
        "Of",
        "In",
        "With",
        "Without",
        "From",
        "To",
        "At",
        "On",
        "For",
        "By",
        "If",
        "Is",
        "Has",
        "As",
    ]
)
# First words of a noun phrase; a function's docstring begins with a verb.
ARTICLES = frozenset(
    [
        "A",
        "An",
        "The",
        "This",
        "That",
        "These",
        "Those",
        "Each",
        "Every",
        "All",
        "Any",
        "Some",
        "One",
        "Its",
        "Same",
        "Like",
    ]
)
# Imperatives that end as the third person does.
IMPERATIVES_IN_S = frozenset({"Compress", "Discuss", "Pass", "Process"})


@dataclass(frozen=True)
class Documented:
    """A public module, class, function or property, and the first line of its docstring; None without one."""

    name: str
    kind: str
    first: str | None
    inherits: bool = False

    def fault(self) -> str | None:
        """Return what is wrong with it; None if nothing is."""
        if self.first is None:
            return None if self.inherits else "has no docstring"
        word = self.first.split()[0].rstrip(",:")
        if not self.first.endswith("."):
            return "does not end with a period"
        if self.kind != "module" and not (word[0].isupper() or word[0] == "`"):
            return "does not begin with a capital letter"
        if word in FRAGMENTS:
            return f"begins with {word!r}, as a fragment does"
        if self.kind == "function" and word in ARTICLES:
            return f"begins with {word!r}: a verb in the imperative expected"
        if self.kind == "function" and word.endswith("s") and word not in IMPERATIVES_IN_S:
            return f"begins with {word!r}: an imperative expected, as in 'Return'"
        return None


def of_tree(tree: ast.Module, name: str, inherited: frozenset[str] = frozenset()) -> Iterator[Documented]:
    """Yield the module and its public names; methods of `inherited` names are documented by another class."""
    yield Documented(name, "module", first_line(tree))
    yield from _of_body(tree.body, name, inherited, in_class=False)


def _of_body(
    body: list[ast.stmt], path: str, inherited: frozenset[str], in_class: bool
) -> Iterator[Documented]:
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
            continue
        name = f"{path}:{node.lineno} {node.name}"
        if isinstance(node, ast.ClassDef):
            yield Documented(name, "class", first_line(node))
            yield from _of_body(node.body, path, inherited, in_class=True)
        else:
            kind = "property" if _is_property(node) else "function"
            yield Documented(name, kind, first_line(node), in_class and node.name in inherited)


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(line) in {"property", "cached_property"} for line in node.decorator_list)


def first_line(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    text = ast.get_docstring(node)
    return text.splitlines()[0] if text else None


def documented_methods(trees: list[ast.Module]) -> frozenset[str]:
    """Return the names of methods that some class documents; those that implement them may leave it out."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = [node for one in classes for node in one.body if isinstance(node, ast.FunctionDef)]
    return frozenset(node.name for node in methods if first_line(node))


FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
TREES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
METHODS = documented_methods(list(TREES.values()))


@pytest.mark.parametrize("file", TREES)
def test_public_docstrings_begin_with_a_whole_sentence(file: str) -> None:
    faults = [(entry, entry.fault()) for entry in of_tree(TREES[file], file, METHODS)]
    assert not [f"{entry.name}: {fault}: {entry.first}" for entry, fault in faults if fault]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""Fields."""\ndef f(): pass', "no docstring"),
        ('"""Fields."""\ndef f():\n    """Return it"""', "period"),
        ('"""Fields."""\ndef f():\n    """return it."""', "capital"),
        ('"""Fields."""\ndef f():\n    """How far it sees."""', "fragment"),
        ('"""Fields."""\nclass A:\n    """What a command made."""', "fragment"),
        ('"""Fields."""\ndef f():\n    """The sum of both."""', "verb"),
        ('"""Fields."""\ndef f():\n    """Writes a file."""', "imperative"),
        ('"""In short."""', "fragment"),
    ],
)
def test_a_faulty_docstring_is_found(source: str, fault: str) -> None:
    found = [entry.fault() for entry in of_tree(ast.parse(source), "module")]
    assert [text for text in found if text and fault in text]


def test_private_names_and_implementations_need_none() -> None:
    source = '"""Fields."""\ndef _f(): pass\nclass A:\n    """A leaf."""\n    def query(self): pass'
    entries = of_tree(ast.parse(source), "module", frozenset({"query"}))
    assert not [entry for entry in entries if entry.fault()]


def test_the_folders_are_read() -> None:
    assert {Path(file).parts[0] for file in TREES} == set(FOLDERS)
    assert "geometry" in METHODS
