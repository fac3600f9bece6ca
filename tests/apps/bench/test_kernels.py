"""The kernel benchmark: its rows, its table, and that it notices wrong numbers."""

import json

import pytest
import torch

from fieldmorph.apps.bench import kernels as module
from fieldmorph.apps.bench.kernels import bench_kernels, kernels_table
from fieldmorph.apps.cli.main import main
from fieldmorph.fields.kernels import composite
from fieldmorph.fields.kernels.table import KERNELS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, tuple[dict[str, float], ...]] = {
        "hash": (
            {"n_samples": 1 << 12, "log2_hashmap_size": 12, "finest_resolution": 64},
            {"n_samples": 1 << 12, "log2_hashmap_size": 15, "finest_resolution": 512},
        ),
        "march": ({"n_rays": 128, "resolution": 16}, {"n_rays": 128, "resolution": 32}),
        "composite": ({"n_samples": 1 << 12},),
        "harmonics": ({"n_samples": 1 << 12},),
        "layers": ({"n_rows": 1 << 10, "width": 32, "depth": 2},),
        "positional": ({"n_samples": 1 << 12},),
        "vm": ({"n_samples": 1 << 12, "resolution": 16, "n_components": 5},),
        "cp": ({"n_samples": 1 << 12, "resolution": 20, "n_components": 6},),
        "voxels": ({"n_samples": 1 << 12, "resolution": 12, "fraction": 0.3},),
        "variation": ({"resolution": 12, "fraction": 0.3},),
        "normal": ({"n_samples": 1 << 12, "n_rows": 256, "n_components": 4},),
    }
    assert set(sizes) == set(KERNELS)
    for name, small in sizes.items():
        monkeypatch.setattr(KERNELS[name], "BENCH_SIZES", small)


def test_every_kernel_has_its_rows_and_small_errors() -> None:
    threads = torch.get_num_threads()
    result = bench_kernels(seconds=0.01)
    assert torch.get_num_threads() == threads
    assert json.loads(json.dumps(result)) == result
    names = [row["name"] for row in result["rows"]]
    assert names == [
        "hash grid 2^12, finest 64, forward",
        "hash grid 2^12, finest 64, forward + backward",
        "hash grid 2^15, finest 512, forward",
        "hash grid 2^15, finest 512, forward + backward",
        "marching an occupancy grid of 16^3",
        "marching an occupancy grid of 32^3",
        "compositing, 32 samples a ray, forward",
        "compositing, 32 samples a ray, forward + backward",
        "spherical harmonics of degree below 4",
        "3 layers, 32 wide, forward",
        "3 layers, 32 wide, forward + backward",
        "positional encoding, 10 frequencies",
        "vector-matrix 16^3, 3 x 5 (torch: grid_sample), forward",
        "vector-matrix 16^3, 3 x 5 (torch: grid_sample), forward + backward",
        "three lines of 20, 6 components, forward",
        "three lines of 20, 6 components, forward + backward",
        "sparse voxels 12^3, 30% active, 27 numbers each, forward",
        "sparse voxels 12^3, 30% active, 27 numbers each, forward + backward",
        "total variation of voxels 12^3, 30% active, 27 numbers each, forward",
        "total variation of voxels 12^3, 30% active, 27 numbers each, forward + backward",
        "normal equations of 256 rows, 4 components",
    ]
    for row in result["rows"]:
        assert row["ratio"] == row["numba"] / row["torch"] > 0
        assert row["error"] < 1e-5
        assert row["gradient_error"] is None or 0 < row["gradient_error"] < 1e-4


def test_a_wrong_kernel_shows_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    right = composite.composite_numba
    monkeypatch.setattr(composite, "composite_numba", lambda *a: tuple(1.01 * x for x in right(*a)))
    rows = module._rows(composite.example(torch.Generator().manual_seed(0)), 0.01)
    assert all(row["error"] > 1e-3 for row in rows)
    assert rows[1]["gradient_error"] == pytest.approx(0.01, rel=0.01)


def test_the_table_is_markdown() -> None:
    row = {"name": "a", "unit": "krays", "numba": 12.345, "torch": 1.5, "ratio": 8.23, "error": 1e-7}
    result = {"threads": 2, "rows": [{**row, "gradient_error": None}, {**row, "gradient_error": 2e-6}]}
    lines = kernels_table(result).splitlines()
    assert "2 threads" in lines[0]
    assert lines[2] == "| a | krays | 12.3 | 1.5 | 8.2 | 1.0e-07 |  |"
    assert lines[3].endswith("| 1.0e-07 | 2.0e-06 |")
    assert len({line.count("|") for line in lines}) == 1


def test_only_what_was_named_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench_kernels(seconds=0.01, only=("vm", "harmonics"))
    kinds = [row["name"].split()[0] for row in result["rows"]]
    assert kinds == ["spherical", "vector-matrix", "vector-matrix"]
    assert main(["bench", "kernels", "--only", "cp,vmm"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fieldmorph: unknown kernel 'vmm'; known: composite, cp, harmonics, hash")
    assert captured.err.endswith("; did you mean vm?\n")


@pytest.mark.parametrize(
    "line",
    ["kernels --data D", "kernels --seeds 2", "active --only mlp", "view --seeds 2", "active --folds 3"],
)
def test_an_option_of_another_benchmark_is_refused(capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert main(["bench", *line.split()]) == 2
    name, option = line.split()[:2]
    expected = f"fieldmorph: {option} is not an option of `fieldmorph bench {name}`\n"
    assert capsys.readouterr().err == expected
