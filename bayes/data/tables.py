"""Measurements in tables: CSV and Parquet files, pandas objects."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.data.coordinates import Mode, kind_of, mode_of
from fieldmorph.bayes.data.dates import pd
from fieldmorph.fields.errors import InputError, SettingError


@dataclass(frozen=True)
class Rows:
    """Rows that were read, without the `dropped` ones that have missing values."""

    modes: tuple[Mode, ...]
    coordinates: Float[Tensor, "n modes"]
    values: Float[Tensor, "n"]
    value_name: str
    value_unit: str | None
    dropped: int
    standard_name: str | None = None


def read_table(frame: "pd.DataFrame", modes: Sequence[str] | None, value: str | None, label: str) -> Rows:
    """Read the rows of a table whose columns have distinct names.

    Args:
        frame: the table.
        modes, value, label: as in `read_observations`; `label` is the table's name in messages.

    Raises:
        InputError, SettingError: columns that are missing, ambiguous or named twice, and bad values.
    """
    if not len(frame):
        raise InputError(f"{label} has no rows")
    columns = _recognized(frame, value, label) if modes is None else {}
    for name in modes or ():
        columns[name] = find_column(frame.columns, name, label)
    if value is None:
        others = [c for c in frame.columns if c not in columns.values() and not c.startswith("Unnamed: ")]
        measured = only([c for c in others if _is_number(frame[c])] or others, "column", label)
        value = bare_name(measured)
    else:
        measured = find_column(frame.columns, value, label)
    if len({*columns.values(), measured}) <= len(columns):
        raise SettingError(f"{label}: a column is named twice: {listed([*columns, value])}")

    read = tuple(
        mode_of(name, frame[c], kind_of(bare_name(c)), unit_of(frame, c)) for name, c in columns.items()
    )
    coordinates = [mode.parse(frame[c]) for mode, c in zip(read, columns.values(), strict=True)]
    table = torch.stack([*coordinates, Mode(value).parse(frame[measured])], dim=1)
    whole = ~table.isnan().any(dim=1)
    return Rows(
        read,
        table[whole, :-1],
        table[whole, -1],
        value,
        unit_of(frame, measured),
        int((~whole).sum()),
    )


def find_column(columns: Iterable[str], wanted: str, label: str) -> str:
    """Return the header with this name, which may leave out the unit.

    Args:
        columns: all headers of the table.
        wanted: the name, with or without a unit.
        label: name of the table in messages.

    Raises:
        InputError: there is none, or several.
    """
    found = [c for c in columns if c == wanted] or [c for c in columns if bare_name(c) == wanted]
    if len(found) != 1:
        raise InputError(
            f"{label} has {'several columns' if found else 'no column'} {wanted!r}; there are: {listed(columns)}"
        )
    return found[0]


def only(names: Sequence[str], what: str, label: str) -> str:
    """Return the only name.

    Args:
        names: the candidates.
        what: kind of the candidates in messages, such as `column`.
        label: name of the table in messages.

    Raises:
        InputError: there is none, or several, which the message lists.
    """
    if len(names) != 1:
        found = (
            f"several {what}s may be the value: {listed(names)}; name one" if names else f"no {what} is left"
        )
        raise InputError(f"{label}: {found}" + ("" if names else " for the value"))
    return names[0]


def listed(names: Iterable[str]) -> str:
    """Return names separated by commas, at most 20 of them."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def _recognized(frame: "pd.DataFrame", value: str | None, label: str) -> dict[str, str]:
    columns = [
        c for c in frame.columns if kind_of(bare_name(c)) != "number" and value not in (c, bare_name(c))
    ]
    kinds = {kind_of(bare_name(c)) for c in columns}
    if not columns or len(kinds) < len(columns):
        found = (
            f"several columns of one kind: {listed(columns)}" if columns else "no latitude, longitude or time"
        )
        raise InputError(f"{label} has {found}; name the modes among: {listed(frame.columns)}")
    return {bare_name(c): c for c in columns}


def _is_number(column: "pd.Series") -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def bare_name(header: str) -> str:
    """Return a header such as `temperature [K]` without its unit."""
    return re.sub(r"\s*[\[(][^\[\]()]*[\])]$", "", header) or header


def unit_of(frame: "pd.DataFrame", column: str) -> str | None:
    """Return a column's unit from the table's attributes or its own header; None if neither has it."""
    unit: str | None = frame.attrs.get("units", {}).get(column, _unit(column))
    return unit


def _unit(header: str) -> str | None:
    match = re.search(r"[\[(]([^\[\]()]*)[\])]$", header)
    return match[1].strip() or None if match and bare_name(header) != header else None
