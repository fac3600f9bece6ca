"""`convert --data` trains the student on the scene's training images at the end, and says what that was worth."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIDELITY, FIT, LOOP, SAMPLING

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.convert import ConvertResult, convert_file
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.distill import finish
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.fit import FitConfig
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.mlp import MLP
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.store import load_field, save_field

STEPS = 24
NET = {"width": 16, "depth": 2, "n_frequencies": 4}


@pytest.fixture(autouse=True)
def _small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, value in (
        (SAMPLING, "block_rays", 64),
        (SAMPLING, "block_empty", 64),
        (CONVERT, "probe_rays", 64),
        (FIT, "probe_rays", 64),
        (FIT, "warmup_steps", 1),
        (FIDELITY, "n_held_out", 2),
        (FIDELITY, "longest_side", 11),
        (LOOP, "save_seconds", 0),
    ):
        monkeypatch.setattr(owner, name, value)


@pytest.fixture
def convert(teacher: Path, few_views: Path, tmp_path: Path) -> Callable[..., tuple[ConvertResult, Any]]:
    """A short conversion and its receipt."""

    def run(name: str = "s.fm", fraction: float | None = 0.25, **options: Any) -> tuple[ConvertResult, Any]:
        request = ConversionRequest(Budget(steps=STEPS), overrides=NET, finish=fraction)
        options = {"data": few_views, **options}
        result = convert_file(options.pop("teacher", teacher), tmp_path / name, request, **options)
        return result, json.loads(Path(f"{result.output}.receipt.json").read_text())

    return run


def test_receipt_states_figures_before_and_after(convert: Any, tmp_path: Path) -> None:
    result, receipt = convert()
    assert result.stages == ("features", "volume", "render", "images")
    assert {stage["name"]: stage["steps"] for stage in receipt["stages"]}["images"] == STEPS // 4
    assert receipt["settings"]["finish"] == 0.25
    before, after = (receipt["quality"]["training_images"][when] for when in ("before", "after"))
    assert set(before) == set(after) == {"pixels", "psnr", "psnr_to_teacher"}
    assert before != after
    assert after["psnr"] == pytest.approx(receipt["quality"]["held_out"]["mean"]["student_psnr"], abs=0.5)
    page = Path(f"{result.output}.receipt.html").read_text()
    for figures in (before, after):
        assert f"{figures['psnr']:.2f}" in page
    assert "PSNR to pixels of the training images" in page
    assert {path.name for path in tmp_path.iterdir()} == {"s.fm", "s.fm.receipt.json", "s.fm.receipt.html"}


def test_training_images_alone_are_used(
    convert: Any, few_views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other test images change nothing in the student; other training images do."""
    monkeypatch.setattr(LOOP, "n_probes", 1)  # keeps what the last step left
    other = Path(shutil.copytree(few_views, tmp_path / "other"))
    shutil.copy(other / "train" / "r_0.png", next((other / "test").glob("*.png")))
    students = [Path(convert(name, data=data)[0].output) for name, data in (("a", few_views), ("b", other))]
    assert students[0].read_bytes() == students[1].read_bytes()
    for image in (other / "train").glob("*.png"):
        shutil.copy(few_views / "train" / "r_0.png", image)
    assert Path(convert("c", data=other)[0].output).read_bytes() != students[0].read_bytes()


def test_none_is_as_without_data(convert: Any) -> None:
    with_images, alone = convert("a.fm", 0.0), convert("b.fm", None, data=None)
    assert load_field(with_images[0].output).provenance == load_field(alone[0].output).provenance
    assert with_images[0].sha256 == alone[0].sha256
    assert with_images[1]["quality"]["training_images"] is alone[1]["quality"]["training_images"] is None


def test_a_student_that_learned_little_learns_from_its_teacher_alone(convert: Any) -> None:
    result, receipt = convert(fraction=None)
    assert "images" not in result.stages
    assert result.dropped["images"] == "the budget is too short to distill the student first"
    assert receipt["quality"]["training_images"] is None


def test_images_of_another_scene_only_measure(
    convert: Any, teacher: Path, few_views: Path, tmp_path: Path
) -> None:
    stored = load_field(teacher)
    stored.provenance["cameras_sha256"] = {"train": "0" * 64}  # type: ignore[index]
    save_field(tmp_path / "other.fm", stored)
    with pytest.raises(SettingError, match="has no training images of the teacher's scene"):
        convert("s.fm", teacher=tmp_path / "other.fm")
    result, receipt = convert("s.fm", None, teacher=tmp_path / "other.fm")
    assert "images" not in result.stages
    assert "images" not in result.dropped
    assert receipt["photographs"]["same_scene"] is False


def test_a_scene_without_training_images_only_measures(convert: Any, few_views: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(few_views, tmp_path / "tests"))
    content = json.loads((folder / "transforms_test.json").read_text())
    for frame in content["frames"]:
        frame["file_path"] += ".png"
    content["test_filenames"] = [frame["file_path"] for frame in content["frames"]]
    (folder / "transforms.json").write_text(json.dumps(content))
    (folder / "transforms_train.json").unlink()
    assert "images" not in convert(fraction=None, data=folder)[0].stages


@pytest.fixture
def stop_at() -> Iterator[Callable[[int], Callable[[Progress], None]]]:
    """Interrupt a run after a step."""

    def at(step: int) -> Callable[[Progress], None]:
        def stop(progress: Progress) -> None:
            if progress.step == step:
                raise Interrupted(2, None)

        return stop

    return at


def test_a_run_that_was_measured_knows_the_student_before(convert: Any, tmp_path: Path) -> None:
    def stop(whose: str, done: int, total: int) -> None:
        raise Interrupted(2, None)

    _, expected = convert("whole.fm")
    with pytest.raises(Interrupted):
        convert("cut.fm", on_image=stop)
    assert (tmp_path / "cut.fm.state.distilled").exists()
    _, receipt = convert("cut.fm", resume=True)
    assert receipt["quality"]["training_images"] == expected["quality"]["training_images"]
    assert not list(tmp_path.glob("*.state*"))


def test_a_run_that_began_without_images_ends_without(convert: Any, stop_at: Any, few_views: Path) -> None:
    """So does one of version 0.1, which had no such stage."""
    with pytest.raises(Interrupted):
        convert("cut.fm", None, data=None, on_progress=stop_at(9))
    result, _ = convert("cut.fm", None, data=few_views, resume=True)
    assert result.sha256 == convert("whole.fm", None, data=None)[0].sha256


def test_a_run_that_began_with_images_does_not_end_without(convert: Any, stop_at: Any) -> None:
    with pytest.raises(Interrupted):
        convert("cut.fm", None, on_progress=stop_at(9))
    with pytest.raises(SettingError, match=r"images was '[0-9a-f]+', is None"):
        convert("cut.fm", None, data=None, resume=True)


def test_an_extension_trains_on_images_too(
    monkeypatch: pytest.MonkeyPatch, teacher: Path, few_views: Path, tmp_path: Path
) -> None:
    """On the same pixels of the probe, with a part of its learning rates, however few steps it has."""
    seen: list[FitConfig] = []
    made = finish.ImageLearner

    def learner(field: Any, views: Any, config: FitConfig, step: float) -> Any:
        seen.append(config)
        return made(field, views, config, step)

    monkeypatch.setattr(finish, "ImageLearner", learner)
    monkeypatch.setattr(MLP, "finish_after", 8)
    request = ConversionRequest(Budget(steps=STEPS), overrides=NET, max_psnr_drop=-100.0, extra_parts=2)
    result = convert_file(teacher, tmp_path / "s.fm", request, data=few_views)
    receipt = json.loads(Path(f"{result.output}.receipt.json").read_text())
    names = [stage["name"] for stage in receipt["stages"]]
    assert names == ["features", "volume", "render", "images", "longer 1", "images", "longer 2", "images"]
    assert {config.probe_seed if config.probe_seed is not None else config.seed for config in seen} == {0}
    assert {round(config.lr_share, 6) for config in seen} == {0.4, 0.08}
    assert not list(tmp_path.glob("*.state*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--finish", "0.3"], "--finish needs --data"),
        (["--finish", "most"], "expected auto, none or a number from 0 to below 1; got 'most'"),
        (["--finish", "1"], "expected auto, none or a number from 0 to below 1; got '1'"),
    ],
)
def test_a_share_that_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], teacher: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with contextlib.suppress(SystemExit):  # argparse ends so
        assert main(["convert", str(teacher), "-o", str(tmp_path / "s.fm"), *words]) == 2
    assert not list(tmp_path.iterdir())
    assert message in capsys.readouterr().err


def test_command_says_what_images_are_good_for(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    teacher: Path,
    few_views: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(MLP, "finish_after", 4)
    net = [f"--set={key}={value}" for key, value in NET.items()]
    line = [
        "convert",
        str(teacher),
        "-o",
        str(tmp_path / "s.fm"),
        *net,
        "--steps",
        "24",
        "--threads",
        "1",
        "--quiet",
    ]
    assert main(line) == 0
    assert "--data DATA improves the student" in capsys.readouterr().out
    assert main([*line, "--force", "--data", str(few_views)]) == 0
    out = capsys.readouterr().out
    assert "improves the student" not in out
    assert "before the training on images" in out
    assert "stages: features, volume, render, images\n" in out
    assert main([*line, "--force", "--data", str(few_views), "--finish", "none"]) == 0
    assert "images" not in capsys.readouterr().out.partition("stages:")[2].splitlines()[0]
