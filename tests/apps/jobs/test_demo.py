"""The demo in small: every file is there and says the same as the summary."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from helpers.defaults import CONVERT, FIT, SAMPLING
from PIL import Image

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.demo import demo_table, run_demo
from fieldmorph.apps.jobs.scenes import bundled_scene
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field


@pytest.fixture(autouse=True)
def _small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setitem(MLP.presets, "small", {"width": 16, "depth": 1})
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})


def test_bundled_scene_is_complete() -> None:
    scene = load_scene(bundled_scene())
    assert {name: len(split) for name, split in scene.splits.items()} == {"train": 60, "test": 20}
    assert bundled_scene().joinpath("LICENSE.md").is_file()


@pytest.mark.slow
def test_demo_leaves_its_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = run_demo(out, Budget(steps=80), downscale=4, quiet=True, orbit_frames=2, orbit_size=31)
    summary = result.as_json()
    assert capsys.readouterr() == ("", "")
    assert sorted(p.name for p in out.iterdir()) == sorted([*summary["files"], "summary.json"])
    assert json.loads(out.joinpath("summary.json").read_text()) == summary
    assert (summary["teacher"]["train"]["steps"], summary["student"]["convert"]["steps"]) == (20, 60)
    assert load_field(out / "teacher.fm").field.name == "hashgrid"
    student = load_field(out / "student.fm")
    assert student.field.name == "mlp"
    assert student.provenance["teacher"]["sha256"] == summary["teacher"]["train"]["sha256"]
    with imageio.get_reader(out / "side_by_side.mp4") as video:
        frames = [np.asarray(frame) for frame in video]
    assert len(frames) == 2
    image = np.asarray(Image.open(out / "comparison.png"))
    assert image.shape[1] == 4 * (256 + 12) + 12
    assert (image[..., 0] < 200).mean() > 0.02  # the cow is on it
    table = demo_table(result).splitlines()
    assert table[1].split()[:3] == ["teacher", "hashgrid", f"{summary['teacher']['eval']['psnr']:.2f}"]
    assert f"{summary['student']['eval']['psnr_to_teacher']:.2f}" in table[2]
    assert summary["peak_memory_bytes"] > 0
    assert "GB at most" in table[3]
    assert "GB" not in demo_table(replace(result, peak_memory_bytes=None))


def test_demo_that_comes_to_nothing_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in (tmp_path / "new", mine):
        assert main(["demo", "--budget", "0.001s", "--quiet", "-o", str(folder)]) == 2
        message = capsys.readouterr().err
        assert "the budget of 0.001s ended" in message  # not that of the part that trains
        assert "too short to do anything; about " in message
    assert list(tmp_path.iterdir()) == [mine]
