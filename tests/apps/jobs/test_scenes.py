"""The scene that a field was trained on is known again, whatever became of the field, and another one is noticed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import TESTS
from helpers.small_conversions import shrink_conversions

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.scenes import same_scene
from fieldmorph.fields.scene import camera_digests
from fieldmorph.fields.store import load_field

SMALL = ["--threads", "1", "--steps", "24", "--json", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def _small_conversions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_conversions(patch)
        yield


@pytest.fixture(scope="module")
def trained(few_views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A field that the command line has trained."""
    path = tmp_path_factory.mktemp("trained") / "a.fm"
    settings = ["--field", "mlp", "--set", "width=16", "--set", "depth=2", "--set", "n_frequencies=4"]
    assert main(["train", str(few_views), *settings, *SMALL, "-o", str(path)]) == 0
    return path


@pytest.fixture
def copy(few_views: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few_views, tmp_path / "copy"))


def change(folder: Path, split: str, frame: int, **values: Any) -> None:
    file = folder / f"transforms_{split}.json"
    content = json.loads(file.read_text())
    content["frames"][frame].update(values)
    file.write_text(json.dumps(content, indent=1))


def move(folder: Path, split: str) -> None:
    """Turn the first camera upside down."""
    file = folder / f"transforms_{split}.json"
    matrix = json.loads(file.read_text())["frames"][0]["transform_matrix"]
    change(folder, split, 0, transform_matrix=[[-row[0], -row[1], *row[2:]] for row in matrix])


def evaluated(
    capsys: pytest.CaptureFixture[str], file: Path, data: Path, *words: str
) -> tuple[dict[str, Any], str]:
    """What `eval` returns, and the lines on standard error that are no progress."""
    capsys.readouterr()
    assert main(["eval", str(file), "--data", str(data), "--json", "--threads", "1", *words]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("fieldmorph: ")]
    return json.loads(captured.out), "\n".join(lines)


def test_digests_are_those_of_cameras_and_names(few_views: Path, copy: Path) -> None:
    before = camera_digests(few_views)
    assert set(before) == {"train", "test"}
    change(copy, "train", 0)  # the same in another layout of the file
    assert camera_digests(copy) == before
    move(copy, "train")
    after = camera_digests(copy)
    assert (after["train"] != before["train"], after["test"]) == (True, before["test"])
    name = next((copy / "test").glob("*.png"))
    change(copy, "test", 0, file_path="test/other")
    name.with_name("other.png").write_bytes(name.read_bytes())
    assert camera_digests(copy)["test"] != before["test"]
    (copy / "transforms_train.json").write_text("{")
    assert set(camera_digests(copy)) <= {"test"}


def test_another_scene_is_warned_of(
    capsys: pytest.CaptureFixture[str], trained: Path, few_views: Path, copy: Path
) -> None:
    values, lines = evaluated(capsys, trained, few_views)
    assert (values["same_scene"], lines) == (True, "")
    move(copy, "test")  # the training views are the same
    assert evaluated(capsys, trained, copy)[0]["same_scene"] is True
    move(copy, "train")
    shutil.copy(few_views / "transforms_test.json", copy)  # as of another scene on the same path
    values, lines = evaluated(capsys, trained, copy)
    assert values["same_scene"] is False
    assert lines == (
        f"fieldmorph: warning: {copy} is not the scene that {trained} was trained on: "
        "its cameras or image names differ"
    )
    assert evaluated(capsys, trained, copy, "-q")[1] == ""


def test_a_student_knows_its_teachers_scene(
    capsys: pytest.CaptureFixture[str], trained: Path, few_views: Path, copy: Path, tmp_path: Path
) -> None:
    student = tmp_path / "s.fm"
    for data, same in ((few_views, True), (copy, False)):
        if not same:
            move(copy, "train")
            move(copy, "test")
        settings = [
            "--to",
            "mlp",
            "--set",
            "width=16",
            "--set",
            "depth=2",
            "--set",
            "n_frequencies=4",
            "--force",
        ]
        assert (
            main(["convert", str(trained), *settings, "--data", str(data), *SMALL, "-o", str(student)]) == 0
        )
        receipt = json.loads(Path(f"{student}.receipt.json").read_text())
        assert receipt["photographs"]["same_scene"] is same
        assert same_scene(load_field(student).provenance, data) is same
    assert same_scene({"teacher": {"provenance": load_field(student).provenance}}, copy) is False


@pytest.mark.parametrize("name", ["hashgrid", "mlp"])
def test_files_of_0_1_say_nothing(capsys: pytest.CaptureFixture[str], few_views: Path, name: str) -> None:
    file = TESTS / "data" / "v0_1" / f"{name}.fm"
    values, lines = evaluated(capsys, file, few_views)
    assert lines == ""
    assert "same_scene" not in values


@pytest.mark.parametrize(
    "provenance", [{}, {"teacher": None}, {"teacher": {"provenance": 3}}, {"cameras_sha256": 3}]
)
def test_what_is_unknown_is_none(few_views: Path, provenance: dict[str, Any]) -> None:
    assert same_scene(provenance, few_views) is None
