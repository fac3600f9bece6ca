"""Dates in columns as seconds since 1970-01-01, in UTC or in the calendar of a climate model."""

import importlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fieldmorph.fields.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
else:

    class _Pandas:
        """pandas, imported when data are read, since its import takes two seconds and 60 MB."""

        def __getattr__(self, name: str) -> Any:
            try:
                return getattr(importlib.import_module("pandas"), name)
            except ImportError as error:
                raise ImportError("reading data needs pandas: install fieldmorph[bayes]") from error

    pd = _Pandas()

__all__ = ["calendars_of", "first_row", "from_seconds", "pd", "shown", "to_seconds"]

STANDARD = ("standard", "gregorian", "proleptic_gregorian")  # equal from 1582 on
EPOCH = "microseconds since 1970-01-01"
DATE_FORMATS = (
    "ISO8601",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %I:%M %p",
    "%Y-%m-%d %I:%M:%S %p",
    "%d %b %Y",
    "%d-%b-%Y",
)
UTC = r"(:\d\d(?:\.\d+)?) ?(?:UTC|GMT)$"  # other abbreviations of time zones are ambiguous
ISO = r"(\d{1,4})-(\d\d?)-(\d\d?)(?:[T ](\d\d?):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?Z?"


def calendars_of(series: "pd.Series") -> set[str]:
    """Return the calendars of a column's cftime objects."""
    held = series.dropna() if series.dtype == object else ()
    return {calendar for calendar in (getattr(date, "calendar", None) for date in held) if calendar}


def to_seconds(series: "pd.Series", name: str, calendar: str | None) -> NDArray[np.float64]:
    """Return seconds since 1970-01-01 of dates as text or objects, NaN for missing ones.

    Args:
        series: the column as pandas has it.
        name: of the column, for messages.
        calendar: as cftime names it; None for the standard one.

    Raises:
        InputError: naming the first bad row, counted from 1.
    """
    if pd.api.types.is_numeric_dtype(series) and series.notna().any():
        raise InputError(f"{name} holds dates: expected dates such as 2006-04-16T12:00, not numbers")
    if pd.api.types.is_datetime64_any_dtype(series):
        if calendar is not None:
            raise InputError(f"{name} has the {calendar} calendar: expected its dates as text")
        dates = series
    else:
        codes, unique = pd.factorize(series.map(lambda x: str(x).strip(), na_action="ignore"))
        others = calendars_of(series) - {calendar}
        if others and not (calendar is None and others <= set(STANDARD)):
            raise InputError(
                f"{name} has the {calendar or 'usual'} calendar, not {', '.join(sorted(others))}"
            )
        texts = pd.Series(unique, dtype=object)
        found = _usual_dates(texts, name) if calendar is None else _calendar_dates(texts, calendar)
        if found.isna().any():
            row = first_row(np.isin(codes, np.flatnonzero(found.isna())))
            raise InputError(f"{name}, row {row + 1}: expected a date, got {shown(series[row])}")
        if calendar is not None:
            micros = found.to_numpy(np.int64)[codes] if len(found) else np.zeros(len(codes), np.int64)
            return _whole_seconds(micros, codes < 0)
        dates = found.reindex(codes)  # the code of what is missing, -1, is no index
    if dates.dt.tz is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    exact = dates.to_numpy("datetime64[us]")
    return _whole_seconds(exact.astype(np.int64), np.isnat(exact))


def from_seconds(seconds: NDArray[np.float64], calendar: str | None) -> NDArray[Any]:
    """Return datetime64 in microseconds, NaT for NaN; in another than the standard calendar, ISO text.

    Args:
        seconds: since 1970-01-01.
        calendar: as cftime names it; None for the standard one.
    """
    missing, known = np.isnan(seconds), np.nan_to_num(seconds)
    whole = np.floor(known)
    micros = whole.astype(np.int64) * 1_000_000 + np.rint((known - whole) * 1e6).astype(np.int64)
    if calendar is None:
        return np.where(missing, np.datetime64("NaT"), micros.astype("datetime64[us]"))
    import cftime

    dates = cftime.num2date(micros, EPOCH, calendar, only_use_cftime_datetimes=True)
    return np.array(["" if bad else date.isoformat() for date, bad in zip(dates, missing, strict=True)])


def _whole_seconds(micros: NDArray[np.int64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    seconds, rest = np.divmod(micros, 1_000_000)
    return np.where(missing, np.nan, seconds + rest / 1e6)


def _usual_dates(texts: "pd.Series", name: str) -> "pd.Series":
    """Return dates in UTC, NaT for texts that are not unambiguous dates (no "now", no time without a day)."""
    if len(texts):
        texts = texts.where(texts.str.contains(r"\d", regex=True)).str.replace(UTC, r"\1Z", regex=True)
    texts = _years_first(texts, name)
    found = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us, UTC]")
    for style in DATE_FORMATS:
        rest = found.isna() & texts.notna()
        if rest.any():
            parsed = pd.to_datetime(texts[rest], format=style, utc=True, errors="coerce")
            found[rest] = parsed.dt.as_unit("us")
    return found


def _years_first(texts: "pd.Series", name: str) -> "pd.Series":
    """Return texts such as 13/2/2006 as 2006-02-13; the column must show whether days or months come first."""
    if texts.empty or not texts.notna().any():
        return texts
    parts = texts.str.extract(r"^(\d{1,2})([/.-])(\d{1,2})[/.-](\d{4})(?!\d)(.*)$").dropna()
    if parts.empty:
        return texts
    first, second = parts[0].astype(int), parts[2].astype(int)
    days_first = bool(((first > 12) | (parts[1] == ".")).any())
    if days_first == bool((second > 12).any()) and (first != second).any():
        example = texts[parts.index[(first != second).to_numpy().argmax()]]
        raise InputError(f"{name}: {example!r} may be day/month or month/day; write dates as 2006-04-16")
    day, month = (parts[0], parts[2]) if days_first else (parts[2], parts[0])
    rewritten = parts[3] + "-" + month.str.zfill(2) + "-" + day.str.zfill(2) + parts[4]
    return texts.mask(texts.index.isin(parts.index), rewritten.reindex(texts.index))


def _calendar_dates(texts: "pd.Series", calendar: str) -> "pd.Series":
    """Return microseconds since 1970 in that calendar; NaN for texts that are not dates of it."""
    import cftime

    def micros(text: str) -> int | None:
        if not (match := re.fullmatch(ISO, text)):
            return None
        *parts, fraction = match.groups()
        try:
            date = cftime.datetime(
                *map(int, (p or 0 for p in parts)), int((fraction or "0").ljust(6, "0")), calendar=calendar
            )
        except ValueError:
            return None
        return int(cftime.date2num(date, EPOCH, calendar))

    return pd.Series([micros(text) for text in texts], dtype="Int64")


def first_row(mask: NDArray[np.bool_]) -> int:
    """Return the index of the first row where the mask holds."""
    return int(mask.argmax())


def shown(value: Any) -> str:
    """Return the text of a cell, quoted, with at most 40 characters."""
    text = repr(str(value))
    return text if len(text) <= 40 else text[:37] + "...'"
