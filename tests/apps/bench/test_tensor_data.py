"""Data sets of the tensor benchmark: files are read as they say, folds hold out what they promise."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fieldmorph.apps.bench.tensor_data import SPLITS, draw_tucker, find_sets, make_sets, read_sets
from fieldmorph.fields.errors import InputError

pytestmark = pytest.mark.numerical

NAMES = ["lat", "lon", "year"]


def write(path: Path, **changes: Any) -> Path:
    """Twelve rows: three places in four years of two decades; the last row is the first once more."""
    years = np.array([1998.0, 1999.0, 2000.0, 2001.0])
    coords = np.array([(10.0 * p, -5.0 * p, year) for p in range(3) for year in years])
    coords[11] = coords[0]
    y = np.arange(12.0)
    y[11] = y[0]
    arrays: dict[str, Any] = {
        "y": y,
        "coords": coords / 7,
        "coords_raw": coords,
        "mode_names": np.array(NAMES),
        "train": np.array([[0, 1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9, 10, 11]]),
        "test": np.array([[8, 9, 10, 11], [0, 1, 2, 3]]),
        "place_train0": np.arange(8),
        "place_test0": np.arange(8, 11),
        "decade_train0": np.arange(10),
        "decade_test0": np.array([10]),
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def test_a_file_is_read_with_all_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "b.npz")
    write(tmp_path / "a.npz", place_train0=None, decade_train0=None, y_std=2.0, mode_names=None)
    found = find_sets(tmp_path)
    assert list(found) == ["a/rows", "b/rows", "b/places", "b/decades"]
    path, rows = found["b/rows"]
    assert path == tmp_path / "b.npz"
    assert [mode.name for mode in rows.rows.modes] == NAMES
    assert rows.rows.coordinates[1].tolist() == [0.0, 0.0, 1999.0]  # coords_raw, where there are both
    assert (rows.rows.value_unit, found["a/rows"][1].rows.value_unit) == (None, "sd")
    assert [mode.name for mode in found["a/rows"][1].rows.modes] == ["mode0", "mode1", "mode2"]
    train, test = rows.part(1)
    assert train.values.tolist() == [4, 5, 6, 7, 8, 9, 10, 0]
    assert test.values.tolist() == [0, 1, 2, 3]
    assert len(found["b/places"][1].folds) == 1


def test_a_share_is_drawn_from_what_is_learned_alone(tmp_path: Path) -> None:
    data = read_sets(write(tmp_path / "a.npz"))["rows"]
    (train, test), (again, _) = data.part(0, 0.5), data.part(0, 0.5)
    assert len(train.values) == 4
    assert torch.equal(train.values, again.values)
    assert set(train.values.tolist()) < set(data.part(0)[0].values.tolist())
    assert len(test.values) == 4


def test_blocks_are_what_a_split_holds_out(tmp_path: Path) -> None:
    data = read_sets(write(tmp_path / "a.npz"))
    assert data["rows"].blocks(data["rows"].part(0)[0]) is None
    places, decades = (data[name].blocks(data[name].part(0)[0]) for name in ("places", "decades"))
    assert places is not None
    assert decades is not None
    assert (places[:, None] == places).tolist() == [[i // 4 == j // 4 for j in range(8)] for i in range(8)]
    assert (decades[:, None] == decades).tolist() == [
        [i // 2 == j // 2 for j in range(10)] for i in range(10)
    ]


def test_rows_that_are_learned_and_tested_are_reported(tmp_path: Path) -> None:
    data = read_sets(write(tmp_path / "a.npz"))
    assert data["rows"].repeated() == 0.25
    assert data["places"].repeated() == 0


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"y": None}, "no array 'y'"),
        ({"coords": None, "coords_raw": None}, "no array 'coords'"),
        ({"y": np.zeros(5)}, r"expected y \(n\) and coords \(n, modes\); got \(5,\), \(12, 3\)"),
        ({"y": np.full(12, math.nan)}, "not finite"),
        ({"train": np.array([[12]]), "test": np.array([[0]])}, "numbers of rows below 12"),
        ({"train": np.array([[0.5]]), "test": np.array([[0]])}, "numbers of rows below 12"),
        ({"train": None, "place_test0": None, "decade_test0": None}, "no folds"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path: Path, changes: dict[str, Any], reported: str) -> None:
    path = write(tmp_path / "sea.npz", **changes)
    with pytest.raises(InputError, match=f"^sea.npz.*{reported}"):
        read_sets(path)


def test_a_file_of_another_kind_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.npz file"):
        find_sets(tmp_path)
    (tmp_path / "a.npz").write_text("lat,lon\n")
    with pytest.raises(InputError, match=r"a.npz cannot be read as .npz"):
        find_sets(tmp_path)


def test_a_file_that_does_not_fit_is_skipped_with_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.npz")
    write(tmp_path / "b.npz", y=None)
    (tmp_path / "c.npz").write_text("lat,lon\n")
    skipped: list[str] = []
    assert list(find_sets(tmp_path, skipped.append)) == ["a/rows", "a/places", "a/decades"]
    assert [line.split()[0] for line in skipped] == ["b.npz", "c.npz"]
    assert skipped[0].startswith("b.npz has no array 'y'; there are: coords, ")
    assert all(len(line.splitlines()) == 1 for line in skipped)


def test_cells_of_a_map_are_rows_with_one_fold(tmp_path: Path) -> None:
    """Values are given for cells: NaN in `train` is held out, NaN in `truth` was never measured."""
    lat, lon = np.repeat([34.0, 35.0], 3), np.tile([-95.0, -94.0, -93.0], 2)
    truth = np.array([1, 2, np.nan, 4, 5, 6], dtype=np.float32)
    train = np.where([True, False, True, True, False, True], truth, np.float32(np.nan))
    np.savez(tmp_path / "map.npz", lat=lat, lon=lon, truth=truth, train=train)
    data = read_sets(tmp_path / "map.npz")["rows"]
    known, held = data.part(0)
    assert [mode.name for mode in known.modes] == ["lat", "lon"]
    assert known.values.tolist() == [1, 4, 6]
    assert held.values.tolist() == [2, 5]
    assert held.coordinates.tolist() == [[34, -94], [35, -94]]
    np.savez(tmp_path / "bad.npz", lat=lat, lon=lon[:2], truth=truth, train=train)
    with pytest.raises(InputError, match=r"bad\.npz: expected numbers of one shape in lon, lat, train"):
        read_sets(tmp_path / "bad.npz")


def test_made_rows_are_a_function_of_their_coordinates_and_noise(generator: torch.Generator) -> None:
    coordinates, values = draw_tucker(512, 0, generator, noise=0.0, part=100)
    corner = (coordinates @ torch.tensor([4.0, 2.0, 1.0]).double()).long()
    assert len(corner.unique()) == 8
    levels = torch.stack([values[corner == k].mean() for k in range(8)])
    assert torch.allclose(values, levels[corner])
    assert len(levels.unique()) == 8
    assert float(values.std()) == pytest.approx(1)
    noisy = draw_tucker(512, 0, torch.Generator().manual_seed(0), noise=0.3)[1]
    assert float((noisy - values).std()) == pytest.approx(0.3, rel=0.1)
    assert len(draw_tucker(512, None, generator)[0].unique()) == 3 * 512


def test_the_package_makes_the_same_files_every_time(tmp_path: Path) -> None:
    pytest.importorskip("iris_sample_data")
    assert make_sets(tmp_path / "a") == make_sets(tmp_path / "b") == []
    for name in ("tucker.npz", "ostia.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    found = find_sets(tmp_path / "a")
    assert list(found) == ["ostia/rows", "ostia/times", "tucker/rows"]
    for name, (_, data) in found.items():
        n = len(data.rows.values)
        assert sorted(torch.cat([test for _, test in data.folds]).tolist()) == list(range(n)), name
        assert all(len({*a.tolist(), *b.tolist()}) == n for a, b in data.folds)
    months = found["ostia/times"][1]
    days = [months.part(0)[k].coordinates[:, 2].unique() for k in (0, 1)]
    assert len(torch.cat(days).unique()) == len(torch.cat(days)) == 54


def test_without_the_other_package_something_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "iris_sample_data", None)
    (reported,) = make_sets(tmp_path)
    assert reported.startswith("ostia: the demo's data are in another package")
    assert list(find_sets(tmp_path)) == ["tucker/rows"]


def test_splits_have_prefixes_of_their_own() -> None:
    assert len({split.prefix for split in SPLITS.values()}) == len(SPLITS)
