"""Tables of kinds: pages name every line, and no module keeps a second list of the names."""

import ast
from pathlib import Path

import pytest
from helpers.pages import text_of
from helpers.paths import ROOT

from fieldmorph.apps.bench.registry import BENCHES
from fieldmorph.apps.jobs.exports.table import EXPORTS
from fieldmorph.bayes.covariances.table import choices
from fieldmorph.distill.config import LEARNING
from fieldmorph.distill.losses import LOSSES
from fieldmorph.distill.samplers import SOLVE, SOURCES
from fieldmorph.distill.stages import PVD_STAGES
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.kernels.table import KERNELS
from fieldmorph.fields.kinds import FIELDS, PRESETS
from fieldmorph.fields.scenes.table import READERS

CONVERSION = "docs/how-conversion-works.md"
TABLES = [
    ROOT / path for path in ("fields/kinds.py", "fields/kernels/table.py", "distill/warm_start/registry.py")
]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (CONVERSION, [f"| `{name}` |" for name in FIELDS]),
        (CONVERSION, [f"`{name}`" for name in (*LOSSES, *SOURCES, SOLVE, *STARTS, *PRESETS)]),
        (CONVERSION, [f"**{stage.name}**" for stage in PVD_STAGES]),
        (CONVERSION, [f"`{name}`" for name in LEARNING]),
        ("docs/data-formats.md", [f"`{reader.file_name}`" for reader in READERS.values()]),
        ("docs/tensors.md", [f"`{name}`" for name in choices()]),
        ("docs/viewer.md", [f" --{name} " for name in EXPORTS]),
        ("docs/benchmarks.md", [f"fieldmorph bench {name}" for name in BENCHES]),
    ],
)
def test_a_page_names_every_line(page: str, names: list[str]) -> None:
    text = text_of(page)
    assert [name for name in names if name not in text] == []


def test_titles_are_those_of_the_classes() -> None:
    assert FIELDS.titles == {name: field.title for name, field in FIELDS.items()}
    assert [field.name for field in FIELDS.values()] == list(FIELDS)


def names_in(node: ast.AST) -> set[str]:
    """The texts that a literal collection holds, keys of a dict among them."""
    if isinstance(node, ast.Dict):
        parts = [key for key in node.keys if key is not None]
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        parts = node.elts
    else:
        return set()
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_no_module_keeps_a_second_list_of_names() -> None:
    found = []
    for file in (
        path for top in ("fields", "distill", "bayes", "apps") for path in (ROOT / top).rglob("*.py")
    ):
        if file in TABLES:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            for table in (FIELDS, KERNELS, choices()):
                if len(names_in(node) & set(table)) >= 3:
                    found.append(f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert [
        line for line in found if Path(line.split(":")[0]).as_posix() != "bayes/covariances/table.py"
    ] == []
