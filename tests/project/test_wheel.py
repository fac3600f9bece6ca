"""A wheel installs and runs from another folder, without the checkout."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from helpers.paths import ROOT, TESTS

import fieldmorph

if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
    pytest.skip(
        "a wheel is built without a network, with the setuptools and pip at hand", allow_module_level=True
    )

FIELD = TESTS / "data" / "v0_1" / "mlp.fm"
SOURCES = ("fields", "distill", "bayes", "apps", "pyproject.toml", "README.md", "LICENSE")


def run(*command: object, folder: Path) -> str:
    """Standard output of a command that sees nothing of this process's paths."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=clean, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    copy, output = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, copy)
    build = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    run(sys.executable, "-m", "pip", *build, "-w", output, ".", folder=copy)
    [found] = output.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of its own that borrows the dependencies of this one, but not its fieldmorph."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    )
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", python, *install, wheel, folder=folder)
    return folder


def test_the_wheel_holds_code_and_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {"fieldmorph/__init__.py", "fieldmorph/__main__.py", "fieldmorph/py.typed"} <= names
    served = [f for kind in ("js", "css", "html") for f in (ROOT / "apps" / "web").glob(f"*/*.{kind}")]
    web = {f.relative_to(ROOT / "apps" / "web").as_posix() for f in served if "node_modules" not in f.parts}
    assert web
    assert web <= {name.removeprefix("fieldmorph/apps/web/") for name in names}
    assert any(name.startswith("fieldmorph/apps/data/spot/") for name in names)
    assert not any("/package/" in name or "node_modules" in name or name.endswith(".pyc") for name in names)


def test_the_commands_run_from_another_folder(elsewhere: Path, tmp_path: Path) -> None:
    shutil.copy(FIELD, tmp_path / "field.fm")
    version = run(elsewhere / "bin" / "fieldmorph", "--version", folder=tmp_path)
    assert version == f"fieldmorph {fieldmorph.__version__}\n"
    reported = run(elsewhere / "bin" / "python", "-m", "fieldmorph", "info", "field.fm", folder=tmp_path)
    assert "mlp" in reported


def test_python_imports_it_from_another_folder(elsewhere: Path, tmp_path: Path) -> None:
    shutil.copy(FIELD, tmp_path / "field.fm")
    code = """
import fieldmorph.fields
from fieldmorph.fields import load_field
from fieldmorph.distill import convert
from fieldmorph.bayes import fit
print(fieldmorph.fields.__file__, load_field("field.fm").field.name, callable(convert), callable(fit))
"""
    where, name, *public = run(elsewhere / "bin" / "python", "-c", code, folder=tmp_path).split()
    assert Path(where).is_relative_to(elsewhere)
    assert (name, public) == ("mlp", ["True", "True"])
