"""Sizes that the sources keep: lines of a file and of a function, arguments of a public function.

A public function may have more than ten arguments if its docstring, or that of its class, gives the reason in a
sentence with the words "more than ten". `self` and `cls` do not count, as they are not given.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import ROOT

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
MAX_ARGUMENTS = 10
LIMIT = 40  # of `dict[str, Any]` in all of the code
CODE = ("fields", "distill", "bayes", "apps", "data_scripts")
FOLDERS = (*CODE, "tests", "docs", ".github")
SUFFIXES = {".py", ".js", ".css"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files_of(*folders: str, suffixes: set[str] = SUFFIXES) -> list[Path]:
    """Return the files of these folders, without those of the linters' packages."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    return [path for path in found if path.suffix in suffixes and "node_modules" not in path.parts]


def too_long(source: str) -> list[str]:
    """Return the functions of a source that have too many lines."""
    return [
        f"{function.name} has {n_lines} lines"
        for function, _ in functions(ast.parse(source))
        if (n_lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]


def too_wide(source: str) -> list[str]:
    """Return the public functions of a source that have too many arguments and no reason for it."""
    found = []
    for function, parents in functions(ast.parse(source)):
        names = [parent.name for parent in parents] + [function.name]
        public = not any(name.startswith("_") for name in names if name != "__init__")
        inside_function = any(isinstance(parent, Function) for parent in parents)
        documented = [ast.get_docstring(node) or "" for node in (function, *parents[-1:])]
        reason = any(re.search(r"more\s+than\s+ten\b", text) for text in documented)
        n_arguments = len(arguments(function, in_class=bool(parents)))
        if public and not inside_function and not reason and n_arguments > MAX_ARGUMENTS:
            found.append(f"{'.'.join(names)} has {n_arguments} arguments")
    return found


def arguments(function: Function, in_class: bool) -> list[ast.arg]:
    """Return the arguments that a caller gives."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
    return [*positional[1 if in_class and not static else 0 :], *given.kwonlyargs]


Parents = tuple[ast.ClassDef | Function, ...]


def functions(node: ast.AST, parents: Parents = ()) -> Iterator[tuple[Function, Parents]]:
    """Yield every function below a node, with the classes and functions around it from the outermost in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child, parents
        around = (*parents, child) if isinstance(child, ast.ClassDef | Function) else parents
        yield from functions(child, around)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_are_found() -> None:
    """The other tests look at something."""
    paths = set(map(named, files_of(*FOLDERS)))
    expected = {"fields/base.py", "apps/web/scene/camera.js", "apps/web/page/page.css", "tests/conftest.py"}
    assert expected <= paths


def test_no_file_is_too_long() -> None:
    lengths = {
        named(path): path.read_text(encoding="utf-8").count("\n")
        for path in files_of(*FOLDERS, suffixes={*SUFFIXES, ".md"})
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = {
        named(path): too_long(path.read_text(encoding="utf-8"))
        for path in files_of(*FOLDERS, suffixes={".py"})
    }
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_public_functions_have_few_arguments_or_a_reason() -> None:
    found = {
        named(path): too_wide(path.read_text(encoding="utf-8")) for path in files_of(*CODE, suffixes={".py"})
    }
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_untyped_dicts_are_few() -> None:
    """JSON as it is read or written has no other type; settings and results have dataclasses."""
    paths = files_of(*CODE, suffixes={".py"})
    counts = {named(path): path.read_text(encoding="utf-8").count("dict[str, Any]") for path in paths}
    assert sum(counts.values()) <= LIMIT, {name: n for name, n in counts.items() if n}


ELEVEN = ", ".join(f"a{i}" for i in range(11))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"def f({ELEVEN}): pass", ["f has 11 arguments"]),
        (f"def f(a, *, {ELEVEN}): pass", ["f has 12 arguments"]),
        (f"class A:\n def __init__(self, {ELEVEN}): pass", ["A.__init__ has 11 arguments"]),
        (f"class A:\n @staticmethod\n def f({ELEVEN}): pass", ["A.f has 11 arguments"]),
        (f"class A:\n def f({ELEVEN}): pass", []),  # ten and itself
        (f"def _f({ELEVEN}): pass", []),
        (f"class _A:\n def __init__(self, {ELEVEN}): pass", []),
        (f"def f({ELEVEN}):\n '''One for each option, so more\n than ten.'''", []),
        (f"class A:\n '''More than a few: more than ten.'''\n def __init__(self, {ELEVEN}): pass", []),
    ],
)
def test_arguments_are_counted(source: str, expected: list[str]) -> None:
    assert too_wide(source) == expected


def test_lines_of_functions_are_counted() -> None:
    body = "\n".join(["  pass"] * MAX_FUNCTION_LINES)
    assert too_long(f"class A:\n def f(self):\n{body}") == [f"f has {MAX_FUNCTION_LINES + 1} lines"]
    assert too_long(f"def f(): pass\n{body.replace('  ', '')}") == []
