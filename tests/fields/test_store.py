"""A field's file gives back the same images, and nothing that does not fit is taken."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.checkpoint import read_checkpoint, read_header, write_checkpoint
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import render_image
from fieldmorph.fields.store import load_field, save_field

BOX = (-1.0, -0.5, 0.0, 1.0, 1.5, 1.0)
STEP = 0.04
SMALL: dict[str, dict[str, Any]] = {
    "hashgrid": {"n_levels": 2, "log2_hashmap_size": 6, "finest_resolution": 32},
    "mlp": {"width": 16, "depth": 2, "n_frequencies": 2},
}
Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


def lively(name: str = "hashgrid", **provenance: Any) -> RenderableField:
    """A field whose images vary, with an occupancy grid that leaves some of it out."""
    field = make_field(name, aabb=BOX, seed=1, **SMALL.get(name, {}))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.6 * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    occupancy = OccupancyGrid(8)
    occupancy.update(field, STEP, generator)
    occupancy.occupied &= torch.rand(8, 8, 8, generator=generator) < 0.7
    return RenderableField(field, occupancy, STEP, orbit_box(BOX, 3, width=12, height=8), provenance)


def images(stored: RenderableField) -> list[Tensor]:
    views = [render_image(stored.field, c, stored.occupancy, stored.render_step_size) for c in stored.cameras]
    return [image for view in views for image in view.values()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_field(tmp_path / "a.fm", lively())
    return tmp_path / "a.fm"


def rewritten(file: Path, change: Change) -> Path:
    header, arrays = read_checkpoint(file)
    change(header, arrays)
    write_checkpoint(file, header, arrays)
    return file


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_stored_field_comes_back_with_the_same_images(tmp_path: Path, name: str) -> None:
    stored = lively(name, source={"scene": "cow", "steps": 40})
    save_field(tmp_path / "a.fm", stored)
    again = load_field(tmp_path / "a.fm")
    before, after = images(stored), images(again)
    assert before[0].std() > 0.01
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert type(again.field) is type(stored.field)
    assert again.field.config() == stored.field.config()
    assert torch.equal(again.occupancy.occupied, stored.occupancy.occupied)
    assert torch.equal(again.cameras.camera_to_world, stored.cameras.camera_to_world)
    assert torch.equal(again.cameras.intrinsics, stored.cameras.intrinsics)
    assert (again.cameras.width, again.cameras.height) == (12, 8)
    assert again.render_step_size == STEP
    assert again.provenance == {"source": {"scene": "cow", "steps": 40}}


def test_header_says_what_the_file_holds(tmp_path: Path) -> None:
    stored = lively("mlp", note="x")
    sha256 = save_field(tmp_path / "a.fm", stored)
    meta = read_header(tmp_path / "a.fm")
    assert meta["kind"] == "field"
    assert meta["sha256"] == sha256
    assert meta["header"] == {
        "field": "mlp",
        "config": {"aabb": list(BOX), "width": 16, "depth": 2, "n_frequencies": 2, "skip": None},
        "render_step_size": STEP,
        "occupancy_resolution": 8,
        "image_size": [12, 8],  # width, then height
        "provenance": {"note": "x"},
    }
    names = {f"field.{key}" for key in stored.field.state_dict()}
    names |= {"occupancy.bits", "cameras.camera_to_world", "cameras.intrinsics"}
    assert set(meta["arrays"]) == names


def test_two_saves_are_equal_bytes_and_one_bit_more_is_not(tmp_path: Path) -> None:
    stored = lively()
    digests = []
    for name in ("a.fm", "b.fm", "c.fm"):
        if name == "c.fm":
            stored.occupancy.occupied[0, 0, 0] ^= True
        save_field(tmp_path / name, stored)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_loaded_and_saved_again_is_equal_bytes(file: Path, tmp_path: Path) -> None:
    save_field(tmp_path / "again.fm", load_field(file))
    assert (tmp_path / "again.fm").read_bytes() == file.read_bytes()


def test_stored_parameters_are_a_copy(file: Path, tmp_path: Path) -> None:
    stored = lively()
    save_field(tmp_path / "b.fm", stored)
    with torch.no_grad():
        stored.field.table.fill_(7)
    assert (load_field(tmp_path / "b.fm").field.table != 7).all()


HEADER = ["field", "config", "render_step_size", "occupancy_resolution", "image_size", "provenance"]
ARRAYS = [
    "field.table",
    "field.decoder.network.layers.0.weight",
    "occupancy.bits",
    "cameras.camera_to_world",
    "cameras.intrinsics",
]


@pytest.mark.parametrize("key", HEADER)
def test_a_missing_header_field_is_named(file: Path, key: str) -> None:
    with pytest.raises(InputError, match=rf"a\.fm does not hold a field that this version knows: '{key}'"):
        load_field(rewritten(file, lambda header, _: header.pop(key)))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array_is_refused(file: Path, name: str) -> None:
    with pytest.raises(InputError, match="does not hold a field that this version knows"):
        load_field(rewritten(file, lambda _, arrays: arrays.pop(name)))


@pytest.mark.parametrize(
    "change",
    [
        lambda header, _: header.update(field="nerf"),
        lambda header, _: header.update(field="mlp"),
        lambda header, _: header.update(field=["hashgrid"]),
        lambda header, _: header.update(config=[1]),
        lambda header, _: header["config"].pop("aabb"),
        lambda header, _: header["config"].update(colour=1),
        lambda header, _: header["config"].update(n_levels=3),
        lambda header, _: header["config"].update(n_levels=99),
        lambda header, _: header["config"].update(n_levels="two"),
        lambda header, _: header["config"].update(aabb=[1, 1, 1, 0, 0, 0]),
        lambda header, _: header.update(image_size=[12]),
        lambda header, _: header.update(image_size=None),
        lambda header, _: header.update(render_step_size="fine"),
        lambda header, _: header.update(render_step_size=[]),
        lambda _, arrays: arrays.update({"field.table": torch.zeros(3, 2)}),
        lambda _, arrays: arrays.update({"field.extra": torch.zeros(3)}),
    ],
)
def test_a_piece_that_does_not_fit_is_refused_in_one_line(file: Path, change: Change) -> None:
    with pytest.raises(InputError, match=r"does not hold a field that this version knows: .") as caught:
        load_field(rewritten(file, change))
    assert "\n" not in str(caught.value)


def test_the_state_of_a_run_is_no_field(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run.state", {}, {}, kind="state")
    with pytest.raises(InputError, match="expected a field checkpoint"):
        load_field(tmp_path / "run.state")


def test_unrelated_arrays_do_not_matter(file: Path) -> None:
    before = images(load_field(file))
    load = load_field(rewritten(file, lambda _, arrays: arrays.update(note=torch.zeros(1))))
    assert all(torch.equal(a, b) for a, b in zip(before, images(load), strict=True))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("render_step_size", 0.0, "a render step of 0.0 does not suit a box of"),
        ("render_step_size", 1e-30, "a render step of 1e-30 does not suit"),
        ("image_size", [-1, 8], "an image size of"),
        ("image_size", [12, True], "an image size of"),
    ],
)
def test_values_that_would_fail_later_are_refused(file: Path, key: str, value: object, message: str) -> None:
    def change(header: dict, _arrays: dict) -> None:
        header[key] = value

    with pytest.raises(InputError, match=message):
        load_field(rewritten(file, change))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cameras.intrinsics", torch.zeros(3, 4), "focal lengths|cameras are not"),
        ("cameras.camera_to_world", torch.full((3, 3, 4), torch.nan), "finite|cameras are not"),
        ("cameras.camera_to_world", torch.zeros(0, 3, 4), "cameras are not|Cameras"),
    ],
)
def test_cameras_that_cannot_be_are_refused(file: Path, name: str, value: torch.Tensor, message: str) -> None:
    def change(_header: dict, arrays: dict) -> None:
        arrays[name] = value

    with pytest.raises(InputError, match=message):
        load_field(rewritten(file, change))
