"""The command that exports for the browser: pages and folders of every field, and one clear line for what is bad."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.defaults import PROGRESS
from helpers.voxel_fields import CUBE, ball

from fieldmorph.apps.bake.web_export import read_web
from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs.exports.web import MAX_NAME
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import save_field

SMALL: dict[str, dict[str, Any]] = {
    "cp": {"resolution": 16, "density_components": 8, "app_components": 8},
    "hashgrid": {"n_levels": 4, "log2_hashmap_size": 10, "finest_resolution": 16},
    "mlp": {"width": 16, "depth": 2, "n_frequencies": 3},
    "vm": {"resolution": 16, "density_components": 4, "app_components": 4},
    "voxels": {"resolution": 16},
}
PARTS = ("density", "visibility", "colour", "comparison with the field")
BRIEF = ("--resolution", "16", "--threads", "1")


def save(path: Path, field: Any, render_step_size: float = 0.1) -> Path:
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(field, render_step_size, torch.Generator().manual_seed(0))
    cameras = orbit_box(CUBE, 6, width=32, height=24)
    save_field(path, RenderableField(field, occupancy, render_step_size, cameras, {"job": "test"}))
    return path


def varied_field(name: str) -> Any:
    """A field that is neither constant nor trained: its values vary from place to place."""
    field = make_field(name, aabb=CUBE, seed=1, **SMALL[name])
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return field


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(tmp_path / "ball.fm", ball(16))


def export(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict[str, Any], str]:
    """What the command says with --json, and its standard error."""
    capsys.readouterr()
    assert main(["export", *map(str, words), *BRIEF, "--json"]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    return json.loads(said.out), said.err


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    capsys.readouterr()
    try:
        code = main(["export", *map(str, words)])
    except SystemExit as error:
        code = int(error.code or 0)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fieldmorph: ")
    assert said.err.count("\n") == 1
    return code, said.err


def test_a_page_is_written_and_described(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(PROGRESS, "line_seconds", 0.0)
    page = tmp_path / "ball.html"
    result, reported = export(capsys, file, "--web", page)
    baked = read_web(page)
    assert result["output"] == str(page)
    assert result["bytes"] == page.stat().st_size
    assert (result["name"], result["degree"], result["cells"]) == ("ball", 1, [16, 16, 16])
    assert result["nodes"] == baked.colour.shape[1]
    assert result["bricks"] == int(baked.occupied.sum())
    assert result["psnr_to_field"] > 25
    facts = dict(baked.facts)
    assert facts["Field"] == "voxels"
    assert facts["Likeness"] == f"{result['psnr_to_field']:.1f} dB PSNR to the field"
    assert facts["Size"].endswith(f"parameters, {file.stat().st_size / 1e6:.1f} MB")
    assert all(f"export, {part} " in reported for part in PARTS)
    assert export(capsys, file, "--web", page, "--force", "--quiet")[1] == ""


def test_a_folder_is_written_and_the_table_is_for_people(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "scene"
    words = ("export", str(file), "--web", str(folder), "--degree", "0", "--name", "A <ball>", *BRIEF)
    assert main([*words]) == 0
    baked, said = read_web(folder), capsys.readouterr().out.splitlines()
    assert (baked.name, baked.degree) == ("A <ball>", 0)
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert said[0].startswith(f"{folder}: {total / 1e6:.1f} MB, {baked.colour.shape[1]:,} nodes in ")
    assert said[0].endswith("of 16 x 16 x 16 cells")
    assert said[1].startswith("PSNR to the field: ")
    assert main([*words, "--force", "--quiet"]) == 0


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_is_exported(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    file = save(tmp_path / "a.fm", varied_field(name))
    result, _ = export(capsys, file, "--web", tmp_path / "a.html", "--degree", "2")
    assert dict(read_web(tmp_path / "a.html").facts)["Field"] == name
    assert result["psnr_to_field"] > 30


def test_a_tensor_model_is_exported_as_a_scene(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tmp_path: Path
) -> None:
    scene = tmp_path / "scene.fm"
    assert main(["tensor", "scene", str(tensor_model), "-o", str(scene), "--nodes", "16", "--quiet"]) == 0
    result, _ = export(capsys, scene, "--web", tmp_path / "scene.html")
    assert result["psnr_to_field"] > 25
    code, reported = refused(capsys, tensor_model, "--web", tmp_path / "model.html")
    assert code == 3
    assert "is a tensor model, not a field" in reported


def test_a_name_is_the_file_s_or_as_given_and_not_endless(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "a.html"
    assert export(capsys, file, "--web", page, "--name", "x" * 1000)[0]["name"] == "x" * MAX_NAME
    assert export(capsys, file, "--web", page, "--name", "", "--force")[0]["name"] == "ball"


def bad_input(tmp_path: Path, how: str) -> Path:
    path = tmp_path / "bad.fm"
    match how:
        case "none":
            pass
        case "a folder":
            path.mkdir()
        case "text":
            path.write_text("tea\n")
        case "a pickle":
            torch.save({"a": 1}, path)
        case "damaged":
            content = bytearray(save(path, ball(16)).read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        case "empty":
            stored = RenderableField(ball(16), OccupancyGrid(16), 0.1, orbit_box(CUBE, 4), {"job": "test"})
            stored.occupancy.occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
            save_field(path, stored)
        case "not a number":
            field = ball(16)
            with torch.no_grad():
                field.density_values[5] = float("nan")
            save(path, field)
    return path


@pytest.mark.parametrize(
    ("how", "code", "reported"),
    [
        ("none", 3, "bad.fm"),
        ("a folder", 3, "bad.fm"),
        ("text", 3, "bad.fm"),
        ("a pickle", 4, "pickle"),
        ("damaged", 3, "damaged"),
        ("empty", 3, "this field is invisible"),
        ("not a number", 3, "finite"),
    ],
)
@pytest.mark.parametrize("output", ["a.html", "folder"])
def test_a_bad_field_is_refused_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, how: str, code: int, reported: str, output: str
) -> None:
    path = bad_input(tmp_path, how)
    before = sorted(tmp_path.rglob("*"))
    got, line = refused(capsys, path, "--web", tmp_path / output, *BRIEF, "--quiet")
    assert got == code
    assert reported in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "code", "reported"),
    [
        (("--web", "there.html"), 2, "--force"),
        (("--web", "full"), 2, "not empty; use --force"),
        (("--web", "no/such.html"), 3, "no/such.html"),
        (("--web", "folder.html"), 3, "folder.html"),
        (("--web", "ball.fm"), 3, "not a folder"),
        (("--web", "ball.fm/inside"), 3, "not a folder"),
        (("--web", "a.html", "--resolution", "100"), 2, "a multiple of 8 from 16 to 512; got 100"),
        (("--web", "a.html", "--resolution", "8"), 2, "got 8"),
        (("--web", "a.html", "--resolution", "0"), 2, "--resolution"),
        (("--web", "a.html", "--resolution", "many"), 2, "--resolution"),
        (("--web", "a.html", "--degree", "3"), 2, "--degree"),
        (("--web", "a.html", "--device", "abacus"), 2, "abacus"),
        ((), 2, "--web"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    reported: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.html").write_text("mine")
    Path("full").mkdir()
    Path("full", "mine").write_text("mine")
    Path("folder.html").mkdir()
    before = {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}
    got, line = refused(capsys, file.name, *words, "--quiet")
    assert (got, reported in line) == (code, True), line
    assert {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")} == before
