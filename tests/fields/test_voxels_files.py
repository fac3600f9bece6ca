"""States and files of the voxel field: what comes back, and what is refused."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.voxel_fields import BOX, ball, fresh, points, raw, sparse

from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field, rebuild_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import load_field, save_field
from fieldmorph.fields.voxels import Voxels

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("make", [ball, sparse])
@pytest.mark.parametrize("into", [fresh, lambda r: sparse(r, 0.5), ball])
def test_a_state_brings_its_own_resolution(make: Callable[..., Voxels], into: Callable[..., Voxels]) -> None:
    source, target = make(50), into(50)
    for field in (source, target):
        field.aabb.copy_(torch.tensor(BOX))
    target.load_state_dict(source.state_dict())
    assert target.config() == source.config()
    assert torch.equal(raw(target, target.node_positions()), raw(source, source.node_positions()))
    clone = copy.deepcopy(target)
    clone.load_state_dict(into(50).state_dict())  # a copy's own words follow
    assert torch.equal(raw(target, target.node_positions()), raw(source, source.node_positions()))


@pytest.mark.parametrize("make", [ball, sparse])
def test_a_file_gives_back_field_and_sparsity(tmp_path: Path, make: Callable[..., Voxels]) -> None:
    field = make(50)
    stored = RenderableField(field, OccupancyGrid(4), 0.04, orbit_box(BOX, 2, width=8, height=8))
    save_field(tmp_path / "a.fm", stored)
    again = load_field(tmp_path / "a.fm").field
    assert isinstance(again, Voxels)
    assert again.config() == json.loads(json.dumps(field.config()))
    assert torch.equal(raw(again, points()), raw(field, points()))
    rows = field.n_active * 28 * 4
    assert rows < (tmp_path / "a.fm").stat().st_size < rows + 50**3 / 8 + 4000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda h, a: a["field.mask"].bitwise_xor_(a["field.mask"].new_tensor([1] + [0] * 999)),
            "active nodes have",
        ),
        (lambda h, a: a["field.mask"].zero_(), "active nodes have"),
        (lambda h, a: a["field.mask"].fill_(255), "active nodes have"),
        (lambda h, a: a.update({"field.mask": a["field.mask"][:-1].clone()}), "size mismatch for mask"),
        (
            lambda h, a: a.update({"field.density_values": a["field.density_values"][1:]}),
            "size mismatch for density",
        ),
        (
            lambda h, a: h["config"].update(n_nodes=h["config"]["n_nodes"] + 1),
            "size mismatch for density_values",
        ),
        (lambda h, a: h["config"].update(n_nodes=10**15), "n_nodes to be a whole number 1..8000"),
        (lambda h, a: h["config"].update(n_nodes=None), "go together"),
        (lambda h, a: h["config"].update(n_nodes=5.0), "n_nodes"),
        (lambda h, a: h["config"].update(resolution=21), "size mismatch for mask"),
        (lambda h, a: h["config"].update(resolution=10**9), "resolution to be a whole number 2..1024"),
        (lambda h, a: h["config"].update(divisor=3), "divisor"),
        (lambda h, a: h["config"].update(divisor=0), "divisor"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_damaged_file_is_refused(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    stored = RenderableField(sparse(20), OccupancyGrid(4), 0.04, orbit_box(BOX, 2, width=8, height=8))
    save_field(tmp_path / "a.fm", stored)
    header, arrays = read_checkpoint(tmp_path / "a.fm")
    change(header, arrays)
    write_checkpoint(tmp_path / "a.fm", header, arrays)
    with pytest.raises(InputError, match=message):
        load_field(tmp_path / "a.fm")


def test_bits_beyond_the_grid_are_refused_and_nothing_is_read_after() -> None:
    field, other = sparse(21), sparse(21)  # 9261 nodes leave 3 bits of the last byte
    state = other.state_dict()
    first = int(state["mask"].nonzero()[0, 0])
    state["mask"][first] &= state["mask"][first] - 1  # one less inside, one more outside: the count is right
    state["mask"][-1] |= 128
    with pytest.raises(ValueError, match="outside its grid"):
        field.load_state_dict(state)
    with pytest.raises(ValueError, match="0 active nodes need as many rows"):
        field.query_density(points())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"resolution": 1}, r"whole number 2\.\.1024; got 1"),
        ({"resolution": 1025}, "got 1025"),
        ({"resolution": True}, "got True"),
        ({"resolution": 64.0}, r"got 64\.0"),
        ({"tv_weight": -1.0}, r"tv_weight to be a finite number >= 0; got -1\.0"),
        ({"tv_weight": math.nan}, "tv_weight"),
        ({"tv_weight": True}, "got True"),
        ({"n_nodes": 5}, "go together"),
        ({"divisor": 1}, "go together"),
        ({"n_nodes": 0, "divisor": 1}, "n_nodes"),
        ({"n_nodes": 5, "divisor": 8}, r"divisor of \[1, 2, 4\]; got 8"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_sizes_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_field("voxels", aabb=BOX, **{"resolution": 128, **overrides})


def test_rows_that_are_only_claimed_cost_no_memory() -> None:
    field = rebuild_field("voxels", {"aabb": list(BOX), "resolution": 256, "n_nodes": 10**7, "divisor": 1})
    assert field.n_parameters() == 28 * 10**7  # 1.1 GB that is never touched
    with pytest.raises(ValueError, match="0 active nodes"):
        field.query_density(points(3))


def test_a_file_without_the_weight_is_one_of_weight_zero(tmp_path: Path) -> None:
    stored = RenderableField(sparse(20), OccupancyGrid(4), 0.04, orbit_box(BOX, 2, width=8, height=8))
    save_field(tmp_path / "a.fm", stored)
    header, arrays = read_checkpoint(tmp_path / "a.fm")
    # the keys of a file, and of a run to continue, from before there was a weight
    assert set(header["config"]) == {"aabb", "resolution", "n_nodes", "divisor"}
    header["config"]["tv_weight"] = 0.25
    write_checkpoint(tmp_path / "b.fm", header, arrays)
    for name, weight in (("a.fm", 0.0), ("b.fm", 0.25)):
        field = load_field(tmp_path / name).field
        assert isinstance(field, Voxels)
        assert field.tv_weight == weight
        assert field.config().get("tv_weight", 0.0) == weight
