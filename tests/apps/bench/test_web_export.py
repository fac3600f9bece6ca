"""The benchmark of web exports: every degree at every resolution, judged by what stands in the page."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import LOOP

from fieldmorph.apps.bake.baked_field import baked_field
from fieldmorph.apps.bake.web_export import read_web
from fieldmorph.apps.bench import runner
from fieldmorph.apps.bench.web_export import bake_table, bench_bake
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Jobs run here, in small; the requests."""
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    monkeypatch.setattr(LOOP, "min_steps", 1)  # the budget is 3 core-seconds, on any machine
    monkeypatch.setitem(
        HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12, "finest_resolution": 32}
    )
    calls = []

    def inline(job: Any, *, threads: int, **settings: Any) -> Any:
        calls.append(settings)
        return json.loads(json.dumps(job(**json.loads(json.dumps(settings, default=str)))))

    monkeypatch.setattr(runner, "in_child", inline)
    return calls


def test_every_degree_is_baked_at_every_resolution(
    requested: list[dict[str, Any]], few_views: Path, tmp_path: Path
) -> None:
    result = bench_bake(few_views, tmp_path, scale=0.01, only=["hashgrid"], quiet=True, resolutions=(16, 32))
    assert result["failed"] == 0
    rows = {(row["resolution"], row["degree"]): row for row in result["rows"] if row["kind"] == "bake"}
    assert [*rows] == [(resolution, degree) for resolution in (16, 32) for degree in (0, 1, 2)]
    for (resolution, degree), row in rows.items():
        page = tmp_path / "bake_fields" / f"hashgrid_0_{resolution}_{degree}.html"
        baked = read_web(page)
        assert row["bytes"] == page.stat().st_size
        assert row["cells"] == list(baked.lattice.cells)
        assert max(row["cells"]) == resolution
        assert (baked.degree, baked.colour.shape[1]) == (degree, row["nodes"])
        assert 10 < row["worst_to_field"] <= row["psnr_to_field"]
        assert row["core_seconds"] > 0
    field = load_field(tmp_path / "bake_fields" / "hashgrid_0.fm")
    written = baked_field(read_web(tmp_path / "bake_fields" / "hashgrid_0_16_1.html"), field.cameras)
    cameras = load_scene(few_views, splits=["test"]).splits["test"].cameras
    scores = [float(psnr(written.render(view)["colors"], field.render(view)["colors"])) for view in cameras]
    assert rows[16, 1]["psnr_to_field"] == pytest.approx(sum(scores) / len(scores), abs=1e-3)
    assert rows[16, 1]["worst_to_field"] == pytest.approx(min(scores), abs=1e-3)
    assert rows[32, 0]["bytes"] < rows[32, 1]["bytes"] < rows[32, 2]["bytes"]
    assert (tmp_path / "bake.md").read_text() == bake_table(result) + "\n"
    done = len(requested)
    bench_bake(few_views, tmp_path, scale=0.01, only=["hashgrid"], quiet=True, resolutions=(16, 32))
    assert len(requested) == done


def test_unknown_fields_are_refused(few_views: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'clay'; known: cp, hashgrid, mlp, vm, voxels"):
        bench_bake(few_views, tmp_path / "out", only=["clay"])
    assert not (tmp_path / "out").exists()


def test_the_table_is_markdown() -> None:
    row = {
        "kind": "bake",
        "field": "mlp",
        "resolution": 256,
        "degree": 1,
        "seed": 0,
        "bytes": 9_324_000,
        "psnr_to_field": 37.851,
        "worst_to_field": 32.2,
        "core_seconds": 26.04,
        "peak_memory_bytes": None,
    }
    failed = {**{name: row[name] for name in ("kind", "field", "seed")}, "error": "no room"}
    result = {"scene": "tea", "downscale": 2, "threads": 1, "rows": [{"kind": "teacher"}, row, failed]}
    lines = bake_table(result).splitlines()
    assert lines[4] == "| mlp | 256 | 1 | 9.32 | 37.85 | 32.20 | 26.0 |  |"
    assert lines[-1] == "- failed: bake, mlp, 0: no room"
    assert len({line.count("|") for line in lines[2:5]}) == 1
