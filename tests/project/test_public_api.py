"""Public names are what the packages promise, whatever was imported before them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

import fieldmorph.fields

PUBLIC = {
    "fields": "load_scene make_field fit_images load_field save_field render_image callable_teacher Budget psnr",
    "distill": "convert",
    "bayes": "FunBaTRegressor fit load_model read_observations",
}
ROOT = Path(fieldmorph.fields.__path__[0]).resolve().parent
LOAD_ALL = """
import importlib, pkgutil
for package in list(packages):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith(("nerfacc_backend", "tcnn_backend")):
            importlib.import_module(found.name)
"""


@pytest.mark.parametrize("before", ["", LOAD_ALL], ids=["alone", "after all modules"])
@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_callable_in_a_fresh_process(package: str, before: str) -> None:
    code = f"import fieldmorph.{package} as package; packages = [package]\n{before}\n"
    code += f"from fieldmorph.{package} import {', '.join(PUBLIC[package].split())}\n"
    code += f"assert all(map(callable, [{', '.join(PUBLIC[package].split())}]))\n"
    code += f"assert set({PUBLIC[package].split()}) == set(dir(package))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PUBLIC)
def test_packages_stay_light(package: str) -> None:
    code = f"import sys, fieldmorph.{package}; assert not {{'torch', 'numpy', 'gpytorch'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PUBLIC)
def test_no_module_bears_the_name_of_a_public_function(package: str) -> None:
    modules = {path.stem for path in (ROOT / package).iterdir()}
    assert not modules & set(PUBLIC[package].split())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'fieldmorph\.fields' has no attribute 'fit_nothing'"):
        fieldmorph.fields.fit_nothing  # noqa: B018


def imports() -> nx.DiGraph:
    """Who imports whom among all modules, imports inside functions included."""
    paths = {}
    for package in ("fields", "distill", "bayes", "apps"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            paths[".".join(("fieldmorph", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    graph = nx.DiGraph()
    for module, path in paths.items():
        tree = ast.parse(path.read_text())
        blocks = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
        for node in (inner for block in blocks for inner in ast.walk(block)):
            for name in imported(node):
                target = name if name in paths else name.rpartition(".")[0]
                if target in paths and target != module:
                    graph.add_edge(module, target)
    return graph


def imported(node: ast.AST) -> list[str]:
    """The dotted names that a statement imports: modules, or names in modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def test_every_form_of_import_is_seen() -> None:
    statements = ast.parse("import a.b, c\nimport d.e as f\nfrom g.h import i, j\nfrom os import path\n").body
    assert [name for node in statements for name in imported(node)] == [
        "a.b",
        "c",
        "d.e",
        "g.h.i",
        "g.h.j",
        "os.path",
    ]
    assert ("fieldmorph.distill", "fieldmorph.fields") in imports().edges  # written as `import ...`


def test_no_imports_run_in_a_circle() -> None:
    graph = imports()
    assert graph.number_of_edges() > 500
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def test_the_policy_of_threads_is_set_once_a_package() -> None:
    """`import fieldmorph.fields` for its effect stands in the packages, which every module of theirs imports first."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("fields", "distill", "bayes", "apps")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^import fieldmorph\.fields\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {f"{package}/__init__.py" for package in ("distill", "bayes", "apps")}
