"""The demo in small: every file is there and says the same as the summary."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.chromium import Tab, artefact, chromium, until
from helpers.defaults import CONVERT, FIT, SAMPLING
from PIL import Image

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.demo import DemoResult, demo_table, run_demo
from fieldmorph.apps.jobs.scenes import bundled_scene
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field


@pytest.fixture(autouse=True)
def _small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    _make_small(monkeypatch)


def _make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"block_rays": 256, "block_empty": 256, "n_blocks": 2}.items():
        monkeypatch.setattr(SAMPLING, name, value)
    monkeypatch.setattr(FIT, "probe_rays", 256)
    monkeypatch.setattr(CONVERT, "probe_rays", 256)
    monkeypatch.setitem(MLP.presets, "small", {"width": 16, "depth": 1})
    monkeypatch.setitem(HashGrid.presets, "small", {"n_levels": 4, "log2_hashmap_size": 12})


def test_bundled_scene_is_complete() -> None:
    scene = load_scene(bundled_scene())
    assert {name: len(split) for name, split in scene.splits.items()} == {"train": 60, "test": 20}
    assert {split.cameras.width for split in scene.splits.values()} == {256}
    assert bundled_scene().joinpath("LICENSE.md").is_file()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """The demo in small; its files are in the result's `output`."""
    with pytest.MonkeyPatch.context() as patch:
        _make_small(patch)
        return run_demo(
            tmp_path_factory.mktemp("demo") / "out",
            Budget(steps=80),
            downscale=8,
            quiet=True,
            web_resolution=32,
        )


@pytest.mark.slow
def test_demo_leaves_its_files(made: DemoResult) -> None:
    out, summary = Path(made.output), made.as_json()
    assert sorted(p.name for p in out.iterdir()) == sorted([*summary["files"], "summary.json"])
    assert json.loads(out.joinpath("summary.json").read_text()) == summary
    assert (summary["teacher"]["train"]["steps"], summary["student"]["convert"]["steps"]) == (18, 62)
    assert load_field(out / "teacher.fm").field.name == "hashgrid"
    student = load_field(out / "student.fm")
    assert student.field.name == "mlp"
    assert student.provenance["teacher"]["sha256"] == summary["teacher"]["train"]["sha256"]
    image = np.asarray(Image.open(out / "comparison.png"))
    assert image.shape[1] == 4 * (256 + 12) + 12
    assert (image[..., 0] < 200).mean() > 0.02  # the cow is on it
    assert summary["core_seconds"] == pytest.approx(sum(summary["core_seconds_by_part"].values()))


def test_demo_figures_are_those_of_its_receipt(made: DemoResult) -> None:
    receipt = json.loads((Path(made.output) / "student.fm.receipt.json").read_text())
    means = receipt["quality"]["held_out"]["mean"]
    teacher, student = (made.as_json()[role]["eval"] for role in ("teacher", "student"))
    assert (teacher["psnr"], student["psnr"]) == (means["teacher_psnr"], means["student_psnr"])
    assert student["psnr_to_teacher"] == means["psnr_to_teacher"]
    assert teacher["image_size"] == [32, 32]
    table = demo_table(made).splitlines()
    assert table[1].split()[:3] == ["teacher", "hashgrid", f"{means['teacher_psnr']:.2f}"]
    assert f"{means['psnr_to_teacher']:.2f}" in table[2]
    assert "GB at most" in table[3]
    assert table[-1] == f"Open {Path(made.output) / 'index.html'} in a browser."
    assert "GB" not in demo_table(replace(made, peak_memory_bytes=None))


@pytest.mark.browser
def test_demo_page_shows_both_fields_from_a_disk(made: DemoResult) -> None:
    with chromium() as browser:
        tab = Tab(browser, 1280, 800)
        tab.page.goto((Path(made.output) / "index.html").as_uri())
        frames = [frame for frame in tab.page.frames if frame != tab.page.main_frame]
        assert len(frames) == 2
        for frame in frames:
            until(frame, "window.fieldmorph?.root?.dataset.state === 'ready'")
        titles = [frame.evaluate("document.querySelector('h1').textContent") for frame in frames]
        assert titles == ["Teacher", "Student"]
        assert tab("[...document.images].every((image) => image.naturalWidth > 0)")
        assert tab("document.documentElement.scrollWidth <= innerWidth")
        assert tab.complaints == []
        assert [
            url for url in tab.requests if not url.startswith(("file:", "data:", "blob:", "about:"))
        ] == []
        tab.page.screenshot(path=artefact("demo.png"), full_page=True)


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
