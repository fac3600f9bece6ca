"""A file of another kind gets an answer that names the command for it."""

from pathlib import Path

import pytest
from helpers.paths import TESTS

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.inputs import MEASUREMENTS

FILES = TESTS / "data" / "v0_1"


@pytest.mark.parametrize(
    "command", ["convert", "train", "render --orbit 2", "eval --data D", "export --web p.html"]
)
@pytest.mark.parametrize("name", ["measurements.csv", "tensor_plain.fm"])
def test_a_file_of_measurements_names_the_command(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if command == "train" and name.endswith(".fm"):
        pytest.skip("no scene is a checkpoint")
    name_of, *options = command.split()
    output = [] if name_of in ("eval", "export") else ["-o", str(tmp_path / "out")]
    assert main([name_of, str(FILES / name), *options, *output]) == 3
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    model = "MODEL.fm" if name.endswith(".csv") else str(FILES / name)
    expected = "a scene" if command == "train" else "a field"
    assert f"not {expected}; `fieldmorph tensor " in message
    assert f"`fieldmorph tensor scene {model} -o FIELD.fm` makes a field of" in message
    assert list(tmp_path.iterdir()) == []


def test_endings_are_those_that_tensor_fit_reads() -> None:
    readers = pytest.importorskip("fieldmorph.bayes.data.readers")
    assert set(MEASUREMENTS) == {*readers.TABLES, *readers.GRIDS}


def test_a_folder_or_nothing_of_that_name_is_no_file_of_measurements(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "scene.nc").mkdir()
    assert main(["train", str(tmp_path / "scene.nc"), "-o", str(tmp_path / "t.fm")]) == 3
    assert "transforms.json expected" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "none.csv"), "-o", str(tmp_path / "t.fm")]) == 3
    assert "No such file" in capsys.readouterr().err
