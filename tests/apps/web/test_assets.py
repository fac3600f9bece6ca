"""The browser's files: modules become one script, what cannot is refused, and what is installed is what is needed."""

import json
import re
import tomllib
from collections.abc import Callable

import pytest
from helpers.paths import ROOT

from fieldmorph.apps.web import assets

WEB = ROOT / "apps" / "web"
ENTRIES = ("page/main.js", "viewport/main.js", "tensor/main.js", "loading/main.js")
DIAMOND = {
    "page/main.js": 'import { left } from "./left.js";\n'
    'import {\n  right,\n} from "../scene/right.js";\nleft(right);\n',
    "page/left.js": 'import { base } from "../scene/base.js";\nexport function left() {}\n',
    "scene/right.js": 'import { base } from "./base.js";\nexport const right = base + 1;\n',
    "scene/base.js": "/**\n * A number.\n * @type {number}\n */\nexport const base = 1;\nlet count = 0;\n",
}


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Link `page/main.js` of files that are given as texts by path."""

    def link(files: dict[str, str]) -> str:
        monkeypatch.setattr(assets, "text", lambda path: files[path])
        return assets.script.__wrapped__("page/main.js")

    return link


def test_modules_become_one_strict_script_dependencies_first(linked: Callable[..., str]) -> None:
    assert linked(DIAMOND).splitlines() == [
        "(() => {",
        '"use strict";',
        "const base = 1;",
        "let count = 0;",
        "function left() {}",
        "const right = base + 1;",
        "left(right);",
        "})();",
    ]


def test_a_circle_is_refused_with_its_path(linked: Callable[..., str]) -> None:
    circle = {
        **DIAMOND,
        "scene/base.js": 'import { left } from "../page/left.js";\nexport const base = left;\n',
    }
    with pytest.raises(
        assets.LinkError, match=r"circle: page/main.js -> page/left.js -> scene/base.js -> page/left"
    ):
        linked(circle)


@pytest.mark.parametrize(
    "definition",
    ["const base = 2;", "let base;", "function base() {}", "async function* base() {}", "class base {\n}"],
)
def test_a_name_defined_twice_is_refused(linked: Callable[..., str], definition: str) -> None:
    with pytest.raises(assets.LinkError, match=r"base is defined in scene/base.js and in page/left.js"):
        linked({**DIAMOND, "page/left.js": f"{DIAMOND['page/left.js']}{definition}\n"})


def test_an_inner_name_may_be_used_twice(linked: Callable[..., str]) -> None:
    linked({**DIAMOND, "page/left.js": "export function left() {\n  const base = 2;\n  return base;\n}\n"})


def test_an_import_of_what_is_not_exported_is_refused(linked: Callable[..., str]) -> None:
    with pytest.raises(
        assets.LinkError, match=r"page/main.js imports right, which scene/right.js does not export"
    ):
        linked({**DIAMOND, "scene/right.js": "const right = 1;\n"})


@pytest.mark.parametrize(
    "line",
    [
        "export default class Left {}",
        "export { left };",
        'export * from "../scene/base.js";',
        'import * as base from "../scene/base.js";',
        'import "../scene/base.js";',
        'import base from "../scene/base.js";',
        'import { base } from "../scene/base.js"',
        "const { a, b } = left;",
        "var old = 1;",
    ],
)
def test_other_syntax_of_modules_is_refused(linked: Callable[..., str], line: str) -> None:
    with pytest.raises(
        assets.LinkError, match=re.escape(f"page/left.js: this syntax is not understood: {line}")
    ):
        linked({**DIAMOND, "page/left.js": f"{DIAMOND['page/left.js']}{line}\n"})


@pytest.mark.parametrize("target", ["../../secrets.js", "left.js", "https://example.org/left.js"])
def test_only_our_own_files_are_imported(linked: Callable[..., str], target: str) -> None:
    with pytest.raises(assets.LinkError, match="which is not one of these files"):
        linked({**DIAMOND, "page/main.js": f'import {{ left }} from "{target}";\n'})


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_page_s_script_is_linked(entry: str) -> None:
    script = assets.script(entry)
    assert script.startswith('(() => {\n"use strict";\n')
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert "@param" not in script
    assert "</script" not in script


def test_every_module_is_of_use() -> None:
    def reached(path: str) -> set[str]:
        imports = [assets._resolve(path, target) for _, target in assets.IMPORT.findall(assets.text(path))]
        return {path}.union(*map(reached, imports))

    there = {path.relative_to(WEB).as_posix() for path in WEB.glob("*/*.js")}
    assert set().union(*map(reached, ENTRIES)) == there


def test_what_is_read_is_installed_and_the_linters_files_are_not() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in data["fieldmorph.apps.web"] for path in WEB.glob(pattern)}
    folders = [folder for folder in WEB.iterdir() if folder.is_dir() and folder.name[0] not in "_n"]
    needed = {path for folder in folders for path in folder.iterdir() if not path.name.endswith(".d.ts")}
    assert installed == needed


def test_the_lock_file_names_no_host() -> None:
    lock = (WEB / "package-lock.json").read_text()
    packages = json.loads(lock)["packages"]
    assert len(packages) > 5
    assert not any("resolved" in package for package in packages.values())
    assert all("integrity" in package for name, package in packages.items() if name)
    assert "://" not in lock
