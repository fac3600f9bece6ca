"""A model's modes among the columns of a user's table, and the table written with added predictions."""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.data.coordinates import Mode, kind_of
from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.data.readers import TABLES, open_source
from fieldmorph.bayes.data.tables import bare_name, listed, unit_of
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.files import replaced

WRITTEN = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq")
FORMAT = "%.10g"


def table_suffix(path: str | Path) -> str:
    """Return the suffix of a table's path in lower case: `.csv`, `.tsv.gz`, ..."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def columns_of(data: Any, modes: Sequence[Mode], label: str) -> list[str]:
    """Return the column, or a grid's variable, of each mode: that of its name, or the only one of its kind.

    Raises:
        InputError: a mode has no column, or one in another unit.
    """
    if isinstance(data, pd.DataFrame):
        kinds = {str(c): kind_of(bare_name(str(c))) for c in data.columns}
        units = {c: unit_of(data, c) for c in kinds}
    else:
        kinds = {str(n): kind_of(str(n), v.attrs) for n, v in data.variables.items()}
        units = {str(n): v.attrs.get("units") for n, v in data.variables.items()}
    columns, missing = [], []
    for mode in modes:
        named = [c for c in kinds if c == mode.name] or [c for c in kinds if bare_name(c) == mode.name]
        alike = [c for c, kind in kinds.items() if kind == mode.kind != "number"]
        found = named or alike
        if len(found) == 1:
            columns += found
        else:
            missing.append(mode.name)
    if missing:
        raise InputError(
            f"{label} has no column {', '.join(missing)}; the model has the modes "
            f"{', '.join(m.name for m in modes)}; there are: {listed(kinds)}"
        )
    for mode, column in zip(modes, columns, strict=True):
        if mode.kind == "number" and None not in (mode.unit, units[column]) and mode.unit != units[column]:
            raise InputError(f"{label} has {mode.name} in {units[column]}; the model has it in {mode.unit}")
    return columns


def read_places(source: str | Path, modes: Sequence[Mode]) -> tuple[Float[Tensor, "n modes"], list[str]]:
    """Read the coordinates of a table's rows, NaN where one is missing, and the names of all columns.

    Raises:
        InputError: not a table, a mode without a column, or text where numbers are expected.
    """
    label, opened = open_source(source)
    with opened as frame:
        if not isinstance(frame, pd.DataFrame):
            raise InputError(
                f"{label} is a grid, not a table of points: fieldmorph tensor grid predicts on grids"
            )
        if not len(frame):
            raise InputError(f"{label} has no rows")
        columns = columns_of(frame, modes, label)
        parsed = [mode.parse(frame[c]) for mode, c in zip(modes, columns, strict=True)]
        return torch.stack(parsed, dim=1), [str(c) for c in frame.columns]


def write_with_columns(
    source: str | Path, output: str | Path, added: "pd.DataFrame", rows_at_once: int = 1 << 16
) -> None:
    """Write the table of `source` with more columns, atomically; texts of a CSV are not changed.

    Args:
        rows_at_once: that are read and written at a time.

    Raises:
        InputError: the source has changed since it was read.
    """
    suffix, done = table_suffix(output), 0
    with replaced(Path(output)) as part:
        if suffix in (".parquet", ".pq"):
            _, opened = open_source(source)
            with opened as frame:
                pd.concat([frame, added], axis=1).to_parquet(part, engine="pyarrow", index=False)
            return
        digits = FORMAT if TABLES[table_suffix(source)] else None  # there all other columns are text
        opener = gzip.open if suffix.endswith(".gz") else open
        with opener(part, "wt", encoding="utf-8", newline="") as file:
            for chunk in _as_text(source, rows_at_once):
                new = added.iloc[done : done + len(chunk)].set_axis(chunk.index)
                pd.concat([chunk, new], axis=1).to_csv(
                    file,
                    sep=TABLES[suffix],
                    index=False,
                    header=done == 0,
                    lineterminator="\n",
                    float_format=digits,
                )
                done += len(chunk)
        if done != len(added):
            raise InputError(f"{source} changed while it was read: {done} rows, {len(added)} before")


def check_table_name(path: str | Path) -> None:
    """Check that a path has a suffix of a table that can be written.

    Raises:
        SettingError: it has another.
    """
    if table_suffix(path) not in WRITTEN:
        raise SettingError(f"{path} must end in {', '.join(WRITTEN)}")


def _as_text(source: str | Path, n: int) -> Iterator["pd.DataFrame"]:
    """Yield a table in chunks of n rows, the columns of a CSV as text."""
    suffix = table_suffix(source)
    if not TABLES[suffix]:
        _, opened = open_source(source)
        with opened as frame:
            yield from (frame.iloc[i : i + n] for i in range(0, len(frame), n))
        return
    opener = gzip.open if suffix.endswith(".gz") else open
    with opener(source, "rt", encoding="utf-8-sig", newline="") as file:
        yield from pd.read_csv(
            file,
            sep=TABLES[suffix],
            index_col=False,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            chunksize=n,
        )
