"""Read the browser's files, and link the modules of a page into one script.

Scripts are ES modules, so that editors, eslint and tsc understand them. A page that opens from a file cannot load
modules, and one script needs one hash in its policy; so `script` follows the imports of an entry and returns all
modules as one strict script, dependencies first. It understands what these files use: `import { a, b } from "./x.js";`
and `export` before a declaration, each at the start of a line.
"""

import base64
import functools
import hashlib
import importlib.resources
import posixpath
import re
from collections.abc import Mapping

COMMENT = re.compile(r"^[ \t]*/\*\*(?:(?!\*/).)*\*/\n", re.MULTILINE | re.DOTALL)  # types, for tsc
IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function|class|const|let)", re.MULTILINE)
DECLARATION = re.compile(
    r"^(export )?(?:(?:async )?function ?\*? ?(?P<function>[\w$]+)\(|class (?P<class>[\w$]+) "
    r"|(?:const|let) (?P<variable>[\w$]+)(?= ?[=;]))",
    re.MULTILINE,
)
UNKNOWN = re.compile(r"^(?:import\b(?!\.)|export\b|(?:const|let) [\[{]|var ).*", re.MULTILINE)


POLICY = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"


class LinkError(Exception):
    """Modules that cannot become one script."""


def text(path: str) -> str:
    """Return a file by its path below this folder, such as `page/page.html`."""
    return importlib.resources.files(__package__).joinpath(path).read_text(encoding="utf-8")


def style(*paths: str) -> str:
    """Return style sheets as one."""
    return "".join(map(text, paths))


def inline_page(page: str, sheet: str, entry: str) -> tuple[str, str]:
    """Return a page with its style sheet and script in it, and the content security policy that allows just these.

    Args:
        page: file with one empty element `style` and one empty element `script`.
        sheet, entry: files, the latter as for `script`.
    """
    css, js = style(sheet), script(entry)
    html = text(page).replace("<style></style>", f"<style>{css}</style>", 1)
    html = html.replace("<script></script>", f"<script>{js}</script>", 1)
    return html, f"{POLICY}; style-src {policy_hash(css)}; script-src {policy_hash(js)}"


def policy_hash(content: str) -> str:
    """Return the source by which a content security policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@functools.cache
def script(entry: str) -> str:
    """Return an entry module and all that it imports as one script, which defines no global names.

    Raises:
        LinkError: the modules import each other in a circle, define a name twice, import what is not exported, or use
            syntax that is not understood.
    """
    modules: dict[str, str] = {}
    _collect(entry, (), modules)
    _check_names(modules)
    linked = "".join(EXPORT.sub("", IMPORT.sub("", COMMENT.sub("", module))) for module in modules.values())
    return f'(() => {{\n"use strict";\n{linked}}})();\n'


def _collect(path: str, importers: tuple[str, ...], modules: dict[str, str]) -> None:
    """Add a module to `modules`, after all that it imports."""
    if path in importers:
        raise LinkError(f"modules import each other in a circle: {' -> '.join((*importers, path))}")
    if path in modules:
        return
    module = text(path)
    for _, target in IMPORT.findall(module):
        _collect(_resolve(path, target), (*importers, path), modules)
    left = UNKNOWN.search(EXPORT.sub("", IMPORT.sub("", module)))
    if left:
        raise LinkError(f"{path}: this syntax is not understood: {left.group()}")
    modules[path] = module


def _resolve(path: str, target: str) -> str:
    """Return the path of what a module imports."""
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if not target.startswith(".") or resolved.startswith(".."):
        raise LinkError(f"{path} imports {target}, which is not one of these files")
    return resolved


def _check_names(modules: Mapping[str, str]) -> None:
    """Reject a name that two modules define, and an import of what is not exported."""
    owners: dict[str, str] = {}
    exported: dict[str, set[str]] = {}
    for path, module in modules.items():
        exported[path] = set()
        for found in DECLARATION.finditer(module):
            name = found["function"] or found["class"] or found["variable"]
            if name in owners:
                raise LinkError(f"{name} is defined in {owners[name]} and in {path}")
            owners[name] = path
            if found[1]:
                exported[path].add(name)
    for path, module in modules.items():
        for names, target in IMPORT.findall(module):
            for name in filter(None, (part.strip() for part in names.split(","))):
                if name not in exported[_resolve(path, target)]:
                    raise LinkError(f"{path} imports {name}, which {_resolve(path, target)} does not export")
