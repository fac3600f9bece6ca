"""The container holds what it was given, or says in one line why not, whatever happens to file or process."""

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.checkpoint import (
    pack_state,
    read_checkpoint,
    read_header,
    unpack_state,
    write_checkpoint,
)
from fieldmorph.fields.errors import InputError, SettingError, UnsafeError

HEADER = {"field": "hashgrid", "config": {"aabb": [-1.5, 0, 1e-30], "name": 'é "\n\x07'}, "none": None}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def arrays() -> dict[str, Tensor]:
    return {
        "grid": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "mask": torch.tensor([True, False, True]),
        "half": torch.tensor(-2.5, dtype=torch.bfloat16),
        "none": torch.empty(0, 4, dtype=torch.int64),
    }


def same(first: Tensor, second: Tensor) -> bool:
    """Equal in dtype, shape and every bit, NaNs included."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    bits = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (first, second)]
    return torch.equal(*bits)


def refusal(path: Path, read: Any = read_checkpoint, **kwargs: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


tensors = st.builds(
    lambda dtype, shape, seed: (
        torch.randint(0, 256, (*shape, dtype.itemsize), generator=seed, dtype=torch.uint8)
        .view(dtype)
        .reshape(shape)
        if dtype != torch.bool
        else torch.randint(0, 2, shape, generator=seed).bool()
    ),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed)),
)
texts = st.text(max_size=8)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: name != "__metadata__"
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
trees = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | texts | st.booleans(), inner, max_size=3)
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(
    header=st.dictionaries(texts, json_values, max_size=3),
    content=st.dictionaries(names, tensors, max_size=4),
)
def test_round_trip_keeps_header_names_dtypes_shapes_and_bits(tmp_path, header, content) -> None:
    digest = write_checkpoint(tmp_path / "a.fm", header, content)
    header_back, back = read_checkpoint(tmp_path / "a.fm")
    assert header_back == header
    assert back.keys() == content.keys()
    assert all(same(back[name], content[name]) for name in content)
    described = read_header(tmp_path / "a.fm")
    assert (described["header"], described["kind"], described["sha256"]) == (header, "field", digest)
    sizes = {name: (tuple(a["shape"]), a["bytes"]) for name, a in described["arrays"].items()}
    assert sizes == {name: (tuple(t.shape), t.nbytes) for name, t in content.items()}


def same_tree(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return same(first, second)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same_tree, first, second))
    if isinstance(first, dict):
        return same_tree(list(first.items()), list(second.items()))
    if isinstance(first, float):
        both_nan = math.isnan(first) and math.isnan(second)
        return both_nan or (first == second and math.copysign(1, first) == math.copysign(1, second))
    return first == second


@quick
@given(tree=trees)
def test_round_trip_of_a_state_keeps_types_keys_order_and_every_float(tmp_path, tree) -> None:
    json_tree, content = pack_state(tree)
    write_checkpoint(tmp_path / "a.fm", {"state": json_tree}, content, kind="state")
    header, back = read_checkpoint(tmp_path / "a.fm", kind="state")
    assert same_tree(unpack_state(header["state"], back), tree)


def test_optimiser_and_generator_continue_where_they_ended(tmp_path) -> None:
    def start() -> tuple[torch.nn.Parameter, torch.optim.Optimizer, torch.Generator]:
        weight = torch.nn.Parameter(torch.ones(5, 3))
        return weight, torch.optim.Adam([weight], lr=0.1), torch.Generator().manual_seed(3)

    def steps(weight: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        for _ in range(4):
            optimizer.zero_grad()
            (weight * torch.randn(5, 3, generator=generator)).square().sum().backward()
            optimizer.step()

    weight, optimizer, generator = start()
    steps(weight, optimizer, generator)
    state = {"optimizer": optimizer.state_dict(), "weight": weight, "generator": generator.get_state()}
    json_tree, content = pack_state(state)
    write_checkpoint(tmp_path / "run.fm", {"state": json_tree}, content, kind="state")
    steps(weight, optimizer, generator)

    header, content = read_checkpoint(tmp_path / "run.fm", kind="state")
    state = unpack_state(header["state"], content)
    resumed, optimizer, generator = start()
    resumed.data.copy_(state["weight"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    steps(resumed, optimizer, generator)
    assert torch.equal(resumed, weight)


def test_pack_state_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="got set"):
        pack_state({"a": [1, {2}]})


@pytest.mark.parametrize(
    "tree",
    [{"tensor": "9"}, {"float": "x"}, {"other": 1}, {}, {"dict": [[1]]}, {"dict": [[[], 1]]}, {"dict": 3}],
)
def test_unpack_state_refuses_what_pack_state_does_not_make(tree) -> None:
    assert "saved state is damaged" in str(refusal(tree, unpack_state, arrays={}))


def test_arrays_that_are_views_transposed_shared_or_trained_are_kept(tmp_path) -> None:
    base = torch.nn.Parameter(torch.arange(24.0).reshape(4, 6))
    content = {
        "all": base,
        "t": base.t(),
        "columns": base[:, 1::2],
        "row": base[1],
        "one": base[0, :1].expand(3),
    }
    write_checkpoint(tmp_path / "a.fm", {}, content)
    _, back = read_checkpoint(tmp_path / "a.fm")
    assert all(same(back[name], content[name]) for name in content)
    back["all"].zero_()
    assert torch.equal(back["row"], base[1])


def test_same_content_gives_the_same_bytes_and_any_change_another_digest(tmp_path) -> None:
    first, second = tmp_path / "a.fm", tmp_path / "b.fm"
    digest = write_checkpoint(first, HEADER, arrays())
    reordered = {name: arrays()[name] for name in reversed(arrays())}
    assert write_checkpoint(second, dict(reversed(HEADER.items())), reordered) == digest
    assert first.read_bytes() == second.read_bytes()
    others = [write_checkpoint(second, HEADER, arrays(), kind="state")]
    others += [write_checkpoint(second, HEADER | {"none": 0}, arrays())]
    others += [write_checkpoint(second, HEADER, arrays() | {"half": torch.tensor(-2.0).bfloat16()})]
    assert len({digest, *others}) == 4


def test_file_is_plain_safetensors_with_one_metadata_key(tmp_path) -> None:
    write_checkpoint(tmp_path / "a.fm", HEADER, arrays())
    with safetensors.safe_open(tmp_path / "a.fm", "pt") as file:
        assert list(file.metadata()) == ["fieldmorph"]
        assert same(file.get_tensor("grid"), arrays()["grid"])


def test_every_flipped_bit_is_found(tmp_path) -> None:
    path = tmp_path / "a.fm"
    write_checkpoint(path, {"name": "é"}, {"x": torch.arange(3.0), "y": torch.tensor([True])})
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        refusal(path)


def test_every_truncation_and_any_addition_is_found_by_both_readers(tmp_path) -> None:
    path = tmp_path / "a.fm"
    for content in (arrays(), {}):
        write_checkpoint(path, HEADER, content)
        data = path.read_bytes()
        for changed in (*(data[:length] for length in range(len(data))), data + b"\0"):
            path.write_bytes(changed)
            refusal(path)
            refusal(path, read_header)


def write_raw(path: Path, table: Any, payload: bytes = b"") -> None:
    text = json.dumps(table).encode() if not isinstance(table, bytes) else table
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)


def test_newer_format_names_both_versions(tmp_path) -> None:
    meta = json.dumps({"format": 7, "something": "else"})
    write_raw(tmp_path / "a.fm", {"__metadata__": {"fieldmorph": meta}})
    for read in (read_checkpoint, read_header):
        assert "format 7; this fieldmorph reads up to 1" in str(refusal(tmp_path / "a.fm", read))


def test_wrong_kind_names_both_kinds(tmp_path) -> None:
    write_checkpoint(tmp_path / "a.fm", {}, {}, kind="state")
    assert "is a state checkpoint; expected a field" in str(refusal(tmp_path / "a.fm"))
    assert read_header(tmp_path / "a.fm")["kind"] == "state"
    write_checkpoint(tmp_path / "a.fm", {}, {})
    assert "is a field checkpoint; expected a state" in str(refusal(tmp_path / "a.fm", kind="state"))


def test_safetensors_of_another_tool_is_named(tmp_path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "a.fm", {"format": "pt"})
    assert "another tool's safetensors" in str(refusal(tmp_path / "a.fm"))


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('the file ran code')",)


@pytest.mark.parametrize("form", [2, 3, 4, 5, "zip", "legacy"])
def test_pickles_are_refused_as_unsafe_and_never_run(tmp_path, form) -> None:
    path = tmp_path / "a.fm"
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(Bomb(), protocol=form))
    else:
        torch.save({"x": Bomb()}, path, _use_new_zipfile_serialization=form == "zip")
    for read in (read_checkpoint, read_header):
        error = refusal(path, read)
        assert isinstance(error, UnsafeError)
        assert "never unpickle" in str(error)


def test_missing_file_folder_and_other_files_are_input_errors(tmp_path) -> None:
    assert "No such file" in str(refusal(tmp_path / "none.fm"))
    assert "not a file" in str(refusal(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in str(refusal(tmp_path / "pipe"))
    (tmp_path / "a.fm").write_text("a,b,c\n1,2,3\n")
    assert "not a fieldmorph checkpoint" in str(refusal(tmp_path / "a.fm"))


@pytest.mark.parametrize(
    "shape", [None, [], "x", {"format": "x"}, {"format": 0}, {"format": 1e999}, {"format": 1}]
)
def test_strange_metadata_is_an_input_error(tmp_path, shape) -> None:
    write_raw(tmp_path / "a.fm", {"__metadata__": {"fieldmorph": json.dumps(shape)}})
    refusal(tmp_path / "a.fm", read_header)


@pytest.mark.parametrize(
    "table",
    [
        {"__metadata__": 3},
        b'{"a":' + b"[" * 200_000,
        b'{"\xff":1}',
        {"__metadata__": {"fieldmorph": 3}},
    ],
)
def test_strange_tables_are_input_errors(tmp_path, table) -> None:
    write_raw(tmp_path / "a.fm", table)
    refusal(tmp_path / "a.fm", read_header)


@pytest.mark.parametrize("entry", [3, {}, {"dtype": "F32", "shape": [1], "data_offsets": ["a", None]}])
def test_strange_array_entries_are_input_errors(tmp_path, entry) -> None:
    write_checkpoint(tmp_path / "a.fm", {}, {})
    table = json.loads((tmp_path / "a.fm").read_bytes()[8:])
    write_raw(tmp_path / "a.fm", table | {"x": entry})
    refusal(tmp_path / "a.fm", read_header)


def test_header_length_is_capped(tmp_path) -> None:
    with open(tmp_path / "a.fm", "wb") as file:
        file.write((2**33).to_bytes(8, "little") + b"{")
        file.truncate(2**33 + 8)  # sparse: reading it all would take 8 GiB
    assert "not a fieldmorph checkpoint" in str(refusal(tmp_path / "a.fm", read_header))
    with pytest.raises(SettingError, match="the header has"):
        write_checkpoint(tmp_path / "b.fm", {"long": "x" * 2**25}, {})


def test_read_header_does_not_read_the_arrays(tmp_path) -> None:
    write_checkpoint(tmp_path / "a.fm", HEADER, {"x": torch.zeros(4)})
    data = bytearray((tmp_path / "a.fm").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.fm").write_bytes(data)
    described = read_header(tmp_path / "a.fm")
    assert described["arrays"] == {"x": {"dtype": "F32", "shape": [4], "bytes": 16}}
    assert "damaged" in str(refusal(tmp_path / "a.fm"))
