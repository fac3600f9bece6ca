"""What is listed by hand in pyproject.toml, constraints.txt and the Makefile agrees with what there is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_INSTALLED = {"tests", "data_scripts", "docs"}
PACKAGE = Path("apps", "package")  # the package `fieldmorph` itself
TEXT = {
    "",
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".json",
    ".cfg",
    ".ini",
    ".yml",
    ".yaml",
    ".html",
    ".js",
    ".css",
    ".sh",
}


def folders_with_code(root: Path) -> set[Path]:
    """Folders below `root`, relative to it, that hold a python file of ours."""
    rooms = [p for p in root.iterdir() if p.is_dir() and p.name[0] not in "._" and p.name != "build"]
    return {file.parent.relative_to(root) for room in rooms for file in room.rglob("*.py")}


def folder_of(package: str) -> Path:
    """Folder of a listed package, by the longest prefix that package-dir maps."""
    where = PROJECT["tool"]["setuptools"]["package-dir"]
    mapped = max((name for name in where if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT.joinpath(where[mapped], *package.removeprefix(mapped).strip(".").split("."))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    split = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(parts) == 2 for parts in split)
    return {canonicalize_name(name): version for name, version in split}


def requirements() -> list[Requirement]:
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    listed = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in listed if requirement.name != PROJECT["project"]["name"]]


def machine_paths(text: str) -> list[str]:
    """Absolute paths that exist on somebody's machine only."""
    return re.findall(r"(?<![\w.:/])/(?:work|tmp|root|home|mnt)/[\w.-]+", text)


def test_every_folder_with_code_is_a_listed_package() -> None:
    folders = {f for f in folders_with_code(ROOT) if f.parts[0] not in NOT_INSTALLED}
    assert PACKAGE in folders
    expected = {"fieldmorph." + ".".join(folder.parts) for folder in folders - {PACKAGE}} | {"fieldmorph"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected
    assert {"fieldmorph.fields", "fieldmorph.fields.kernels", "fieldmorph.distill"} <= expected


def test_every_package_says_where_it_lies() -> None:
    where = PROJECT["tool"]["setuptools"]["package-dir"]
    rooms = {f.parts[0] for f in folders_with_code(ROOT)} - NOT_INSTALLED
    assert where == {f"fieldmorph.{room}": room for room in rooms} | {"fieldmorph": PACKAGE.as_posix()}


def test_every_listed_package_has_an_init_file() -> None:
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        assert (folder_of(name) / "__init__.py").is_file(), name
    assert folder_of("fieldmorph") == ROOT / PACKAGE
    assert not (ROOT / "__init__.py").exists()


def test_data_files_are_there_and_installed() -> None:
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert any(path.is_file() for path in folder_of(package).glob(pattern)), pattern


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fieldmorph.__version__"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys, fieldmorph; print(fieldmorph.__version__, len(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    version, modules = done.stdout.split()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert int(modules) < 200  # nothing heavy is imported for it


def test_the_command_exists() -> None:
    module, _, function = PROJECT["project"]["scripts"]["fieldmorph"].partition(":")
    file = ROOT.joinpath(*module.removeprefix("fieldmorph.").split(".")).with_suffix(".py")
    assert f"def {function}(" in file.read_text()


def test_torch_is_pinned_first_and_as_in_the_makefile() -> None:
    lines = [v for v in (ROOT / "constraints.txt").read_text().splitlines() if not v.startswith("#")]
    assert lines[0] == "torch==2.13.0"
    assert re.findall(r"torch==[\d.]+", (ROOT / "Makefile").read_text()) == ["torch==2.13.0"]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_dependency_is_pinned_to_a_version_that_it_allows(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert name in pins()
    assert requirement.specifier.contains(pins()[name])


def test_make_install_has_no_tools_of_developers() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    rules = dict(re.findall(r"^\$\(VENV\)/\.(\w+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    assert re.findall(r"-e '\.\[(.*)\]'", rules["installed"]) == ["view,bayes,maps"]
    assert re.findall(r"-e '\.\[(.*)\]'", rules["developed"]) == ["dev"]
    users = " ".join(
        [*PROJECT["project"]["dependencies"], *extras["view"], *extras["bayes"], *extras["maps"]]
    )
    assert not re.search(r"pytest|mypy|ruff|hypothesis|playwright|import-linter|beartype|mkdocs", users)


def test_no_dependency_is_pinned_twice() -> None:
    lines = [v for v in (ROOT / "constraints.txt").read_text().splitlines() if "==" in v]
    assert len(pins()) == len(lines)


def test_machine_paths_are_recognised() -> None:
    inside = "/".join(["", "work", "main"])
    assert machine_paths(f"see {inside}/fields") == [inside]
    assert machine_paths(f"('{inside}')") == [inside]
    assert machine_paths("https://example.org" + inside + " a/work/b framework/tmp/x") == []


def test_no_text_names_a_path_of_one_machine() -> None:
    rooms = [p for p in ROOT.iterdir() if p.is_dir() and (any(p.glob("*.py")) or p.name == "docs")]
    files = [f for room in rooms for f in room.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    files += [f for f in ROOT.iterdir() if f.is_file() and f.name != ".git"]  # a file in a git worktree
    texts = [f for f in files if f.suffix in TEXT and f.stat().st_size < 1 << 20]
    assert len(texts) > 50
    found = {str(f.relative_to(ROOT)): machine_paths(f.read_text(errors="replace")) for f in texts}
    assert {name: paths for name, paths in found.items() if paths} == {}
