"""Commands on files: what is bad about data, settings, checkpoints or outputs is one line, and nothing is written."""

import inspect
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.console.exits import explain
from fieldmorph.fields.checkpoint import write_checkpoint
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import save_field

POSE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]


def write_scene(folder: Path, n: int = 3, alpha: int = 255, size: int = 16) -> Path:
    """Equal frames with a square in the middle, as Blender's data sets have them."""
    pixels = np.zeros((size, size, 4), dtype=np.uint8)
    pixels[4:12, 4:12] = (200, 100, 50, alpha)
    folder.mkdir(parents=True)
    frames = []
    for i in range(n):
        Image.fromarray(pixels).save(folder / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": POSE})
    for split in ("train", "test"):
        write_transforms(folder, {"fl_x": 20.0, "frames": frames}, split)
    return folder


def write_transforms(folder: Path, content: Any, split: str = "train") -> None:
    folder.joinpath(f"transforms_{split}.json").write_text(json.dumps(content))


def change_frame(folder: Path, **values: Any) -> None:
    content = json.loads(folder.joinpath("transforms_train.json").read_text())
    content["frames"][1].update(values)
    write_transforms(folder, content)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene")


@pytest.fixture
def file(tmp_path: Path, scene: Path) -> Path:
    """An untrained field on disk."""
    field = make_field("mlp", aabb=(-1, -1, -1, 1, 1, 1), width=16, depth=2)
    cameras = load_scene(scene).splits["train"].cameras
    save_field(tmp_path / "a.fm", RenderableField(field, OccupancyGrid(8), 0.1, cameras))
    return tmp_path / "a.fm"


def refused(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in argv])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fieldmorph: ")
    assert captured.err.count("\n") == 1
    return code, captured.err


def spoil(scene: Path, how: str) -> None:
    """One of the ways in which data can be bad."""
    match how:
        case "no folder":
            scene.rename(scene.with_name("elsewhere"))
        case "no transforms":
            scene.joinpath("transforms_train.json").unlink()
            scene.joinpath("transforms_test.json").unlink()
        case "malformed JSON":
            scene.joinpath("transforms_train.json").write_text('{"frames": [')
        case "missing image":
            scene.joinpath("1.png").unlink()
        case "unreadable image":
            scene.joinpath("1.png").write_bytes(b"not an image")
        case "cut image":
            scene.joinpath("1.png").write_bytes(scene.joinpath("1.png").read_bytes()[:60])
        case "other size":
            Image.new("RGBA", (8, 16), (1, 2, 3, 255)).save(scene / "1.png")
        case "NaN pose":
            change_frame(scene, transform_matrix=[[float("nan"), 0, 0, 0], *POSE[1:]])
        case "stretched pose":
            change_frame(scene, transform_matrix=[[2, 0, 0, 0], *POSE[1:]])
        case "zero focal length":
            change_frame(scene, fl_x=0.0)
        case "path that leaves":
            Image.new("RGBA", (16, 16), (1, 2, 3, 255)).save(scene.parent / "secret.png")
            change_frame(scene, file_path="../secret.png")
        case "all empty":
            for image in scene.glob("*.png"):
                Image.new("RGBA", (16, 16)).save(image)


@pytest.mark.parametrize(
    ("how", "reported"),
    [
        ("no folder", "scene: no such folder"),
        ("no transforms", "transforms_train.json or transforms.json expected"),
        ("malformed JSON", "not valid JSON, line 1"),
        ("missing image", "'1.png'): image not found"),
        ("unreadable image", "'1.png'): not a readable PNG or JPEG"),
        ("cut image", "1.png"),
        ("other size", "1.png: 8 x 16 pixels"),
        ("NaN pose", "'1.png')"),
        ("stretched pose", "'1.png')"),
        ("zero focal length", "fl_x must be positive; got 0"),
        ("path that leaves", "leaves the data folder"),
        ("all empty", "every pixel of every image is transparent"),
    ],
)
def test_bad_data_is_one_line_and_3(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path, how: str, reported: str
) -> None:
    spoil(scene, how)
    out = tmp_path / "out"
    out.mkdir()
    code, message = refused(capsys, "train", scene, "--steps", 5, "-o", out / "t.fm")
    assert code == 3
    assert reported in message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (["--field", "hash"], "unknown field 'hash'; known: cp, hashgrid, mlp, vm"),
        (["--preset", "tiny"], "unknown preset of hashgrid 'tiny'; known: paper, small"),
        (["--set", "levels=4"], "unknown setting of hashgrid 'levels'; known: base_resolution"),
        (["--set", "n_levels=99"], "n_levels to be a whole number 1..32; got 99"),
        (["--field", "mlp", "--set", "width=1.5"], "mlp cannot be built"),
        (["--set", "n_levels=many"], "hashgrid cannot be built"),
        (["--aabb", "1,0,0,0,1,1"], "min then max"),
        (["--downscale", "99"], "larger than the 16 x 16 images"),
        (["--budget", "0.001s"], "too short to do anything"),
    ],
)
def test_bad_setting_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path, options: list[str], reported: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    code, message = refused(capsys, "train", scene, "-o", out / "t.fm", "--quiet", *options)
    assert code == 2
    assert reported in message
    assert list(out.iterdir()) == []


def test_a_path_that_leaves_the_folder_is_3_for_the_benchmark(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    spoil(scene, "path that leaves")
    code, message = refused(capsys, "bench", "convert", "--data", scene, "-o", tmp_path / "b")
    assert code == 3
    assert "leaves the data folder" in message
    assert not (tmp_path / "b").exists()


def test_broken_numbers_are_one_line_and_2(scene: Path) -> None:
    # In a process of its own: here, the shape checks would refuse them before the field does.
    cases = ["mlp width=1.5", "mlp depth=2.0", "mlp n_frequencies=2.5"]
    cases += [f"hashgrid {key}=16.0" for key in inspect.signature(HashGrid).parameters if key != "aabb"]
    script = f"""
from fieldmorph.apps.cli.main import main
for case in {cases}:
    field, setting = case.split()
    print(main(["train", "--field", field, "--set", setting, {str(scene)!r}, "-o", {str(scene / "t.fm")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * len(cases)
    lines = done.stderr.splitlines()
    assert len(lines) == len(cases)
    assert all(line.startswith("fieldmorph: ") for line in lines)
    assert all("to be a whole number" in line for line in lines if "hashgrid" in line)


def test_convert_refuses_unknown_names_before_reading(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for options in (["--to", "tree"], ["--preset", "x"], ["--set", "y=1"], ["--budget", "x"]):
        code, message = refused(capsys, "convert", tmp_path / "none.fm", "-o", tmp_path / "s.fm", *options)
        assert code == 2
        assert "known: " in message or "90s" in message
    assert refused(capsys, "convert", tmp_path / "none.fm", "-o", tmp_path / "s.fm")[0] == 3
    assert list(tmp_path.iterdir()) == []


def test_convert_refuses_too_short_a_budget(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    output = file.with_name("s.fm")
    code, message = refused(capsys, "convert", file, "-o", output, "--budget", "0.001s", "--quiet")
    assert code == 2
    assert "too short to do anything" in message
    assert not output.exists()


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    match how:
        case "truncated":
            data = data[:-100]
        case "flipped":
            data[-1000] ^= 4
        case "newer":
            write_checkpoint(file, {}, {})
            text = file.read_bytes()
            length = struct.unpack("<Q", text[:8])[0]
            head = text[8 : 8 + length].replace(b'\\"format\\":1', b'\\"format\\":9')
            data = bytearray(text[:8] + head)
        case "pickle":
            torch.save({"a": 1}, file)
            return
        case "text":
            data = bytearray(b"hello")
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "code", "reported"),
    [
        ("truncated", 3, "truncated or damaged"),
        ("flipped", 3, "does not match its sha256|do not match its sha256"),
        ("newer", 3, "format 9"),
        ("pickle", 4, "never unpickle"),
        ("text", 3, "not a fieldmorph checkpoint"),
    ],
)
def test_bad_checkpoint_is_one_line_everywhere(
    capsys: pytest.CaptureFixture[str],
    scene: Path,
    file: Path,
    tmp_path: Path,
    how: str,
    code: int,
    reported: str,
) -> None:
    damage(file, how)
    out = tmp_path / "out"
    out.mkdir()
    lines = [
        ["info", file],
        ["eval", file, "--data", scene, "--json"],
        ["render", file, "--orbit", 2, "-o", out / "o.mp4"],
        ["render", file, "--data", scene, "-o", out / "new"],
        ["convert", file, "-o", out / "s.fm", "--steps", 1],
    ]
    for line in lines:
        got, message = refused(capsys, *line)
        assert got == code, line
        assert any(part in message for part in reported.split("|"))
    assert list(out.iterdir()) == []


def test_existing_output_needs_force(
    capsys: pytest.CaptureFixture[str], scene: Path, file: Path, tmp_path: Path
) -> None:
    taken, folder = tmp_path / "taken.mp4", tmp_path / "folder"
    folder.mkdir()
    for path in (taken, folder / "x"):
        path.write_text("mine")
    lines = [
        ["train", scene, "--steps", 5, "-o", taken],
        ["convert", file, "--steps", 5, "-o", taken],
        ["render", file, "--orbit", 2, "-o", taken],
        ["render", file, "--orbit", 2, "-o", folder],
        ["demo", "-o", folder],
        ["bench", "convert", "-o", folder],
    ]
    for line in lines:
        code, message = refused(capsys, *line)
        assert code == 2
        assert "--force" in message
    assert taken.read_text() == folder.joinpath("x").read_text() == "mine"
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("command", "known"),
    [("render --orbit 2 -o", ".mp4, .webp or .gif"), ("export --web", ".html or .htm")],
)
def test_an_unknown_ending_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path, command: str, known: str
) -> None:
    name, *options = command.split()
    code, message = refused(capsys, name, file, *options, tmp_path / "orbit.avi")
    assert code == 2
    assert f"expected a name that ends in {known}, or a folder, as" in message
    assert message.endswith("; got " + str(tmp_path / "orbit.avi") + "\n")
    assert not (tmp_path / "orbit.avi").exists()


def test_eval_refuses_small_views_before_it_renders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scene: Path, file: Path
) -> None:
    monkeypatch.setattr(RenderableField, "render", lambda *_: pytest.fail("rendered"))
    code, message = refused(capsys, "eval", file, "--data", scene, "--downscale", 2)
    assert code == 2
    assert "11 x 11 pixels; the views have 8 x 8" in message


def test_output_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], scene: Path, file: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "a file" / "t.fm"
    blocked.parent.write_text("no folder")
    for line in (
        ["train", scene, "--steps", 5, "-o", tmp_path / "missing" / "t.fm"],
        ["train", scene, "--steps", 5, "-o", blocked],
        ["convert", file, "--steps", 5, "-o", tmp_path],
        ["render", file, "--orbit", 2, "-o", blocked.with_suffix("")],
        ["demo", "-o", blocked],
    ):
        code, message = refused(capsys, *line)
        assert code == 3
        assert "cannot write" in message
    assert not (tmp_path / "missing").exists()


def test_student_does_not_replace_its_teacher(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    before = file.read_bytes()
    code, message = refused(capsys, "convert", file, "-o", file, "--force")
    assert code == 2
    assert "the teacher itself" in message
    assert file.read_bytes() == before


def test_unknown_split_lists_the_known(capsys: pytest.CaptureFixture[str], scene: Path, file: Path) -> None:
    code, message = refused(capsys, "eval", file, "--data", scene, "--split", "best")
    assert code == 2
    assert "known: test, train" in message


def test_info_says_what_is_in_a_file(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert main(["info", str(file), "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["field"], reported["kind"], reported["cameras"]) == ("mlp", "field", 3)
    assert reported["aabb"] == [-1, -1, -1, 1, 1, 1]
    assert reported["params"] == make_field("mlp", aabb=reported["aabb"], width=16, depth=2).n_parameters()
    assert reported["bytes"] == file.stat().st_size
    assert main(["info", str(file)]) == 0
    assert f"sha256: {reported['sha256']}" in capsys.readouterr().out


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert explain(KeyError("x")) is None
    monkeypatch.setenv("FIELDMORPH_DEBUG", "1")
    with pytest.raises(InputError):
        main(["info", str(file) + ".none"])


def test_closed_pipe_is_no_complaint(file: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from fieldmorph.apps.cli.main import main; sys.exit(main())",
    ]
    process = subprocess.Popen([*command, "info", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141
