"""Files that fieldmorph 0.1 wrote are opened and resumed by this version, with the values that they had."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.chromium import Tab, chromium
from helpers.defaults import FIDELITY
from helpers.paths import TESTS
from PIL import Image

from fieldmorph.apps.bake.web_export import read_web
from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.scenes import bundled_scene
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field

FILES = TESTS / "data" / "v0_1"
FIELDS = ("hashgrid", "mlp", "vm", "cp", "voxels")
TENSORS = ("plain", "student", "residual")
# Decoders run in bf16 where the processor has it: 8 bits of mantissa, in three layers one after the other.
BF16 = 3 * 2.0**-8


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_the_values_that_it_had(name: str) -> None:
    expected = json.loads((FILES / "expected.json").read_text())[name]
    field = load_field(FILES / f"{name}.fm").field
    with torch.no_grad():
        rgb, sigma = field(torch.tensor(expected["positions"]), torch.tensor(expected["directions"]))
    torch.testing.assert_close(rgb, torch.tensor(expected["rgb"]).float(), rtol=0, atol=4 * BF16)
    # The logarithm of density is rounded like a color; the exponential makes a relative error of that.
    torch.testing.assert_close(sigma, torch.tensor(expected["sigma"]).float(), rtol=20 * BF16, atol=1e-6)


@pytest.mark.parametrize("name", FIELDS)
def test_info_says_what_is_in_a_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(FILES / f"{name}.fm"), "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["kind"], reported["field"], reported["provenance"]["fieldmorph"]) == (
        "field",
        name,
        "0.1.0",
    )


def test_an_interrupted_training_is_resumed(tmp_path: Path) -> None:
    state = Path(shutil.copy(FILES / "training.state", tmp_path))
    scene = load_scene(bundled_scene(), downscale=16, splits=["train"])
    field = make_field("mlp", aabb=scene.aabb, width=16, depth=2, n_frequencies=4)
    config = FitConfig(occupancy_resolution=16, samples_per_step=1 << 12)
    steps = []
    _, report = fit_images(
        field,
        scene.splits["train"],
        Budget(steps=24),
        config,
        state_path=state,
        resume=True,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert (steps[0], report.steps) == (13, 24)


def test_an_interrupted_conversion_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "student_run.fm"
    shutil.copy(FILES / "student_run.fm.state", tmp_path)
    words = [
        "convert",
        str(FILES / "hashgrid.fm"),
        "--to",
        "mlp",
        "--steps",
        "40",
        "--no-receipt",
        "--resume",
    ]
    settings = ["--set", "width=16", "--set", "depth=2", "--set", "n_frequencies=4"]
    assert main([*words, *settings, "-o", str(output), "--threads", "1", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 40
    assert not Path(f"{output}.state").exists()


def test_a_conversion_of_which_only_the_receipt_is_missing_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its state is the field itself: nothing is learned again."""
    monkeypatch.setattr(FIDELITY, "n_held_out", 2)
    output = tmp_path / "student.fm"
    shutil.copy(FILES / "student_measured.fm.state", f"{output}.state")
    words = ["convert", str(FILES / "hashgrid.fm"), "--to", "mlp", "--steps", "24", "--resume"]
    settings = ["--set", "width=16", "--set", "depth=2", "--set", "n_frequencies=4"]
    assert main([*words, *settings, "-o", str(output), "--threads", "1", "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 24
    assert all(Path(name).exists() for name in found["receipt"])
    assert not Path(f"{output}.state").exists()


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_model_predicts_what_it_did(name: str, tmp_path: Path) -> None:
    output = tmp_path / "predicted.csv"
    words = ["tensor", "predict", str(FILES / f"tensor_{name}.fm"), str(FILES / "later.csv")]
    assert main([*words, "-o", str(output), "--quiet"]) == 0
    with open(output) as mine, open(FILES / f"tensor_{name}.csv") as theirs:
        rows, expected = list(csv.DictReader(mine)), list(csv.DictReader(theirs))
    assert len(rows) == len(expected) == 40
    for column in ("mean", "sd", "lower", "upper"):
        # float64 through filters of some hundred steps; the table has ten digits
        assert [float(row[column]) for row in rows] == pytest.approx(
            [float(row[column]) for row in expected], rel=1e-6, abs=1e-7
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.mark.browser
def test_a_page_shows_its_scene_in_a_browser(browser: Any) -> None:
    tab = Tab(browser).open((FILES / "page.html").as_uri())
    shot = Image.open(io.BytesIO(tab.page.locator("canvas").screenshot())).convert("RGB")
    seen = torch.from_numpy(np.asarray(shot).astype("int64"))
    background = (seen - seen[5, 5]).abs().amax(-1) <= 2
    assert 0.02 < (~background).float().mean() < 0.9
    assert len(seen[~background].unique(dim=0)) > 50  # a scene's colors, not a text's
    assert tab.complaints == []
    tab.page.context.close()


@pytest.mark.browser
def test_a_receipt_shows_its_images_and_its_curve_in_a_browser(browser: Any) -> None:
    tab = Tab(browser, width=1280)
    tab.page.goto((FILES / "student.fm.receipt.html").as_uri())
    tab.page.wait_for_function("[...document.images].every((image) => image.complete)")
    sizes = tab("[...document.images].map((image) => [image.naturalWidth, image.clientWidth])")
    assert len(sizes) == 9
    assert all(own == 16 and shown >= 16 for own, shown in sizes)
    curve = "document.querySelector('svg path.line')"  # in the receipt's own units
    assert tab(f"{curve}.getTotalLength()") > 50
    assert tab(f"{curve}.getBoundingClientRect().width") > 200
    assert "Conversion receipt" in tab("document.body.innerText").capitalize()
    assert tab.complaints == []
    tab.page.context.close()


def test_a_page_and_a_receipt_hold_what_they_did() -> None:
    page = (FILES / "page.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in page
    baked = read_web(FILES / "page.html")
    assert (baked.name, baked.lattice.cells, baked.degree) == ("hashgrid", (8, 16, 16), 1)
    assert baked.colour.shape == (12, int((baked.density > 0).sum()))
    receipt = json.loads((FILES / "student.fm.receipt.json").read_text())
    assert receipt["quality"]["held_out"]["mean"]["psnr_to_teacher"] > 20
