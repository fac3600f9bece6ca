"""`--json` has the keys that it had in 0.1, whatever the results are made of."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.small_conversions import shrink_conversions

from fieldmorph.apps.cli.main import main

SAVED = "output field preset params bytes sha256 steps seconds core_seconds psnr seed"
CONVERTED = f"{SAVED} stages dropped teacher teacher_sha256"
FIGURES = "psnr ssim psnr_per_view ssim_per_view"
TO_TEACHER = "psnr_to_teacher ssim_to_teacher psnr_to_teacher_per_view ssim_to_teacher_per_view"
EVALUATED = (
    f"file bytes sha256 {FIGURES} views image_size field params seconds_per_image core_seconds_per_image"
)
GATE = {"max_psnr_drop", "psnr_drop", "met", "kept", "picked_by", "extensions", "stopped"}
PART = {"stage", "steps", "seed", "lr_share", "psnr_drop", "kept"}
TINY_MLP = ("--set=width=16", "--set=depth=1", "--steps", "4", "--threads", "1")


@pytest.fixture(autouse=True, scope="module")
def _small_conversions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_conversions(patch)
        yield


@pytest.fixture
def values(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The values that a command prints with `--json`."""

    def call(*words: Any, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, words), "--json", "--quiet"]) == code
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return call


def test_train(values: Any, few_views: Path, tmp_path: Path) -> None:
    line = ("train", few_views, "-o", tmp_path / "t.fm", "--set=n_levels=2", "--set=log2_hashmap_size=8")
    assert set(values(*line, "--steps", 3, "--threads", 1)) == set(SAVED.split())


def test_convert(values: Any, teacher: Path, few_views: Path, tmp_path: Path) -> None:
    line = ("convert", teacher, "-o", tmp_path / "s.fm", "--force", *TINY_MLP)
    bare = values(*line, "--no-receipt")
    assert set(bare) == set(CONVERTED.split())
    assert isinstance(bare["stages"], list)
    measured = values(*line)
    assert set(measured) == {*CONVERTED.split(), "quality", "gate", "receipt"}
    assert set(measured["quality"]) == {"held_out", "off_trajectory"}
    assert measured["gate"] is None
    assert measured["receipt"] == [f"{tmp_path}/s.fm.receipt.json", f"{tmp_path}/s.fm.receipt.html"]
    missed = values(*line, "--data", few_views, "--max-psnr-drop", "0.001", code=5)
    assert set(missed["gate"]) == GATE
    assert {key for part in missed["gate"]["extensions"] for key in part} == PART
    assert missed["gate"] == json.loads(Path(missed["receipt"][0]).read_text())["gate"]


def test_eval(values: Any, teacher: Path, few_views: Path) -> None:
    line = ("eval", teacher, "--data", few_views, "--threads", 1)
    assert set(values(*line)) == set(EVALUATED.split())
    assert set(values(*line, "--teacher", teacher)) == {*EVALUATED.split(), *TO_TEACHER.split()}


def test_render_and_export(values: Any, teacher: Path, tmp_path: Path) -> None:
    line = ("render", teacher, "--orbit", 1, "--size", "8x8", "--threads", 1, "-o")
    assert set(values(*line, tmp_path / "a")) == {"output", "pictures", "image_size", "kinds"}
    assert "depth_scale" in values(*line, tmp_path / "b", "--depth")
    exported = values(
        "export", teacher, "--web", tmp_path / "p.html", "--resolution", 16, "--degree", 0, "--threads", 1
    )
    assert set(exported) == {"output", "name", "bytes", "cells", "bricks", "nodes", "degree", "psnr_to_field"}
