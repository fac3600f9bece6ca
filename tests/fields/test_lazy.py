"""Tables of implementations: names and titles without imports, and one more line for one more implementation."""

import subprocess
import sys
from pathlib import Path

import pytest

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.kernels.example import KernelExample
from fieldmorph.fields.kernels.table import KERNELS
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.lazy import LazyTable, Line, load


def test_names_and_titles_of_fields_need_no_torch() -> None:
    code = (
        "import sys; from fieldmorph.fields.kinds import FIELDS; print(*FIELDS, *FIELDS.titles.values(), sep='|');"
        "assert 'mlp' in FIELDS and 'nerf' not in FIELDS and len(FIELDS) == 5; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hashgrid|mlp|vm|cp|voxels|Hash grid (Instant-NGP)|MLP (NeRF)|")


def test_every_field_has_the_name_of_its_line() -> None:
    assert {name: field.name for name, field in FIELDS.items()} == {name: name for name in FIELDS}
    assert {name: field.title for name, field in FIELDS.items()} == FIELDS.titles
    assert all(issubclass(field, VolumeField) for field in FIELDS.values())


def test_every_kernel_has_a_small_example_and_sizes_to_be_timed_at() -> None:
    import torch

    for module in KERNELS.values():
        example = module.example(torch.Generator().manual_seed(0))
        assert isinstance(example, KernelExample)
        assert len(example.leaves) == len(example.run(example.twin)[1])
        assert example.run(example.twin, backward=False)[1] == []
        assert module.BENCH_SIZES


def test_a_line_is_imported_when_it_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_of_table.py").write_text("class Toy:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    table: LazyTable[type] = LazyTable([Line("path", "A path", "pathlib:Path")])
    table.add(Line("toy", "A toy", "toy_of_table:Toy"))
    assert [*table] == ["path", "toy"]
    assert table.titles == {"path": "A path", "toy": "A toy"}
    assert "toy" in table
    assert "toy_of_table" not in sys.modules
    assert table["toy"].__name__ == "Toy"
    assert table["path"] is Path
    assert "toy_of_table" in sys.modules
    with pytest.raises(KeyError, match="train"):
        table["train"]
    with pytest.raises(ValueError, match=r"'toy' is in the table already: toy_of_table:Toy"):
        table.add(Line("toy", "Another", "pathlib:Path"))


def test_a_path_without_an_attribute_is_a_module() -> None:
    assert load("pathlib").Path is Path
