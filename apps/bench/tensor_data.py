"""Data sets of `bench tensor`: measurements with folds in .npz files, some of which it makes itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.bayes.calibration import blocks_of
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.fields.errors import InputError

FOLDS = 5
MAP_ARRAYS = frozenset({"lon", "lat", "train", "truth"})
RANK = 3  # of the synthetic rows
NOISE = 0.1  # of the synthetic rows, standard deviation in units of the function's
DIGITS = 3  # to which their coordinates are rounded, as measured ones are
DRAWN, SEA_CELLS = 6250, 12_500  # rows
ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Split:
    """Way to split rows: what is new about the test rows of a fold.

    Attributes:
        prefix: of its arrays' names in a file.
        widths: by mode's number, the length of a block of rows that stay together; 0: each coordinate.
    """

    prefix: str
    widths: Mapping[int, float]


SPLITS = {
    "rows": Split("", {}),
    "places": Split("place_", {0: 0.0, 1: 0.0}),
    "decades": Split("decade_", {0: 0.0, 1: 0.0, 2: 10.0}),
    "times": Split("time_", {2: 0.0}),
}


@dataclass(frozen=True)
class DataSet:
    """Measurements, and pairs of row numbers for training and test."""

    rows: Observations
    split: str
    folds: tuple[tuple[Int[Tensor, "_"], Int[Tensor, "_"]], ...]

    def part(self, fold: int, fraction: float = 1.0) -> tuple[Observations, Observations]:
        """Return training rows, or a fraction of them drawn with seed 0, and test rows of a fold."""
        train, test = self.folds[fold]
        kept = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        kept = kept[: round(fraction * len(train))].sort().values
        return rows_of(self.rows, train[kept]), rows_of(self.rows, test)

    def blocks(self, rows: Observations) -> Int[Tensor, "n"] | None:
        """Return labels of the blocks of rows; None where each row is by itself."""
        widths = SPLITS[self.split].widths
        return blocks_of(rows, {rows.modes[k].name: width for k, width in widths.items()}) if widths else None

    def repeated(self) -> float:
        """Return the fraction of the first fold's test rows that are also training rows, with their values."""
        whole = torch.cat([self.rows.coordinates, self.rows.values[:, None]], dim=1)
        label = whole.unique(dim=0, return_inverse=True)[1]
        train, test = self.folds[0]
        return float(torch.isin(label[test], label[train]).double().mean())


def rows_of(rows: Observations, chosen: Tensor) -> Observations:
    """Return some of the rows, by a mask or by their numbers."""
    return replace(rows, coordinates=rows.coordinates[chosen], values=rows.values[chosen])


def read_sets(path: str | Path) -> dict[str, DataSet]:
    """Read a file's measurements under each split that it has folds of, by the split's name.

    The file holds `y` (n), `coords_raw` or `coords` (n, modes), optionally `mode_names`, and row numbers
    `train` and `test` (folds, m), or `train0`, `test0`, `train1`, ..., each optionally with the prefix of one of
    `SPLITS`; with `y_std`, values have been divided by it. Or it holds the cells of a map: `lon`, `lat`, `train` and
    `truth` (n), where `train` is NaN at held-out cells and `truth` at those that nobody measured.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    label = Path(path).name
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{label} cannot be read as .npz: {error}") from None
    if arrays.keys() >= MAP_ARRAYS and "y" not in arrays:
        arrays = _rows_of_map(arrays, label)
    where = "coords_raw" if "coords_raw" in arrays else "coords"
    for name in ("y", where):
        if name not in arrays:
            raise InputError(f"{label} has no array {name!r}; there are: {', '.join(sorted(arrays))}")
    coordinates, values = arrays[where], arrays["y"]
    if coordinates.ndim != 2 or values.shape != coordinates.shape[:1]:
        raise InputError(
            f"{label}: expected y (n) and coords (n, modes); got {values.shape}, {coordinates.shape}"
        )
    if not (np.isfinite(coordinates).all() and np.isfinite(values).all()):
        raise InputError(f"{label}: a coordinate or a value is not finite")
    names = arrays.get("mode_names", [f"mode{k}" for k in range(coordinates.shape[1])])
    rows = Observations(
        torch.tensor(coordinates, dtype=torch.float64),
        torch.tensor(values, dtype=torch.float64),
        tuple(Mode(str(name)) for name in names),
        "y",
        "sd" if "y_std" in arrays else None,
        0,
        0,
        label,
    )
    found = {}
    for name, split in SPLITS.items():
        if folds := _folds(arrays, split.prefix, len(values), label):
            found[name] = DataSet(rows, name, folds)
    if not found:
        raise InputError(f"{label} has no folds: arrays train and test, or train0, test0, ...")
    return found


def find_sets(
    folder: str | Path, on_skip: Callable[[str], None] = lambda _why: None
) -> dict[str, tuple[Path, DataSet]]:
    """Return the data sets of every file that can be used, with the file, as `name/split`.

    Args:
        on_skip: called with a line for each file that cannot be used: its name and why.

    Raises:
        InputError: no such folder, or no file in it that can be used.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise InputError(f"{folder} has no .npz file with measurements")
    found: dict[str, tuple[Path, DataSet]] = {}
    errors: list[InputError] = []
    for path in paths:
        try:
            found |= {f"{path.stem}/{split}": (path, data) for split, data in read_sets(path).items()}
        except InputError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for unfit in errors:
        on_skip(str(unfit))
    return found


def make_sets(folder: Path) -> list[str]:
    """Write files of measurements that need no download; return what is missing, and why.

    `tucker.npz` is made by `draw_tucker`; `ostia.npz` holds sea-surface temperatures of the package iris-sample-data,
    with whole months held out as a second split.
    """
    from fieldmorph.apps.tensor.demo import (
        VALUE,
        open_cells,
    )  # it plots: the jobs do without that package

    folder.mkdir(parents=True, exist_ok=True)
    coordinates, values = draw_tucker(DRAWN, DIGITS, torch.Generator().manual_seed(0))
    np.savez(
        folder / "tucker.npz", coords=coordinates.numpy(), y=values.numpy(), **_cut("", np.arange(DRAWN))
    )
    try:
        cells = open_cells()
    except InputError as error:
        return [f"ostia: {error}"]
    cells = cells.iloc[np.random.default_rng(0).permutation(len(cells))[:SEA_CELLS]]
    days = cells["time"].to_numpy().astype("datetime64[D]").astype("float64")
    np.savez(
        folder / "ostia.npz",
        y=cells[VALUE].to_numpy(),
        mode_names=["latitude", "longitude", "day"],
        coords=np.stack([cells["latitude"].to_numpy(), cells["longitude"].to_numpy(), days], axis=1),
        **_cut("", np.arange(len(cells))),
        **_cut("time_", np.unique(days, return_inverse=True)[1]),
    )
    return []


def draw_tucker(
    n: int, digits: int | None, generator: torch.Generator, noise: float = NOISE, part: int = ROWS_AT_ONCE
) -> tuple[Float[Tensor, "n modes"], Float[Tensor, "n"]]:
    """Draw coordinates and values of three modes of `RANK` waves each over [0, 1], a normal core, and noise.

    The function minus its mean has the standard deviation 1.

    Args:
        digits: to which coordinates are rounded; None: nearly all differ.
        noise: its standard deviation.
        part: rows that are computed at a time.
    """
    coordinates = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    if digits is not None:
        coordinates = coordinates.round(decimals=digits)
    speed, phase = torch.randn(2, 3, RANK, generator=generator, dtype=torch.float64)
    core = torch.randn(RANK, RANK, RANK, generator=generator, dtype=torch.float64)
    value = torch.cat(
        [
            torch.einsum("na,nb,nc,abc->n", *(8 * rows[:, :, None] * speed + 3 * phase).sin().unbind(1), core)
            for rows in coordinates.split(part)
        ]
    )
    errors = noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return coordinates, (value - value.mean()) / value.std() + errors


def _rows_of_map(arrays: dict[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
    """Return a map's cells with a value as rows, with one fold: those with a training value, and the others."""
    shapes = {name: arrays[name].shape for name in sorted(MAP_ARRAYS)}
    if len({*shapes.values()}) > 1 or any(arrays[name].dtype.kind != "f" for name in MAP_ARRAYS):
        raise InputError(f"{label}: expected numbers of one shape in lon, lat, train and truth; got {shapes}")
    measured = np.isfinite(arrays["truth"])
    rows = {name: arrays[name][measured].astype(np.float64) for name in MAP_ARRAYS}
    trained = np.isfinite(rows["train"])
    return {
        "y": rows["truth"],
        "coords": np.stack([rows["lat"], rows["lon"]], axis=1),
        "mode_names": np.array(["lat", "lon"]),
        "train0": np.flatnonzero(trained),
        "test0": np.flatnonzero(~trained),
    }


def _folds(
    arrays: dict[str, np.ndarray], prefix: str, n: int, label: str
) -> tuple[tuple[Tensor, Tensor], ...]:
    whole = [arrays.get(f"{prefix}{part}") for part in ("train", "test")]
    parts = list(zip(*whole, strict=True)) if whole[0] is not None and whole[1] is not None else []
    while {f"{prefix}train{len(parts)}", f"{prefix}test{len(parts)}"} <= arrays.keys():
        parts.append((arrays[f"{prefix}train{len(parts)}"], arrays[f"{prefix}test{len(parts)}"]))
    for rows in (rows for pair in parts for rows in pair):
        if rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= n:
            raise InputError(
                f"{label}: folds of {prefix}train and {prefix}test must be numbers of rows below {n}"
            )
    return tuple((torch.tensor(a).long(), torch.tensor(b).long()) for a, b in parts)


def _cut(prefix: str, block: np.ndarray) -> dict[str, Any]:
    """Return folds that each leave out a fifth of the blocks."""
    group = np.random.default_rng(0).permutation(block.max() + 1) % FOLDS
    parts = {"train": lambda fold: group[block] != fold, "test": lambda fold: group[block] == fold}
    return {
        f"{prefix}{part}{fold}": np.flatnonzero(chosen(fold))
        for fold in range(FOLDS)
        for part, chosen in parts.items()
    }
