"""Readers of files and objects with measurements: a table is a pandas DataFrame, a grid an xarray Dataset."""

import gzip
import os
import warnings
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.data.tables import listed
from fieldmorph.fields.errors import InputError, SettingError

TABLES = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t", ".parquet": "", ".pq": ""}
GRIDS = (".nc", ".nc4", ".cdf", ".netcdf")


def open_source(source: Any) -> tuple[str, Any]:
    """Return a name for messages, and a context whose value is a DataFrame or an xarray Dataset.

    Raises:
        SettingError: neither a path nor an object of pandas or xarray.
        InputError: no such file, an unknown suffix, or a file that cannot be read.
        ImportError: a package for this kind of file is missing.
    """
    if isinstance(source, pd.Series | pd.DataFrame):
        frame = source.to_frame(source.name or "value") if isinstance(source, pd.Series) else source
        return type(source).__name__, nullcontext(_named(frame))
    if type(source).__module__.startswith("xarray."):
        return type(source).__name__, nullcontext(
            source if hasattr(source, "data_vars") else source.to_dataset(name=source.name or "value")
        )
    if not isinstance(source, str | os.PathLike):
        raise SettingError(
            f"data must be a path, a pandas or an xarray object; got a {type(source).__name__}"
        )
    path = Path(source)
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in (*TABLES, *GRIDS):
        raise InputError(f"{path.name}: unsupported suffix {suffix!r}; known: {listed([*TABLES, *GRIDS])}")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    if suffix in GRIDS:
        return path.name, closing(_guarded(path, lambda: _open_netcdf(path)))
    if separator := TABLES[suffix]:
        return path.name, nullcontext(_named(_guarded(path, lambda: _read_csv(path, separator))))
    return path.name, nullcontext(_named(_guarded(path, lambda: pd.read_parquet(path, engine="pyarrow"))))


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """Return what `read` returns; any error of a parser becomes one line."""
    try:
        return read()
    except MemoryError:
        raise
    except ImportError as error:
        raise ImportError(
            f"reading {path.suffix} files needs more: install fieldmorph[bayes] ({error})"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path.name} cannot be read: {reason}") from error


def _read_csv(path: Path, separator: str) -> "pd.DataFrame":
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with warnings.catch_warnings(), opener(path, "rt", encoding="utf-8", newline="") as file:
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        header = file.readline()
        if separator not in header and ";" in header:
            raise ValueError(f"columns are separated by ';'; expected {separator!r}")
        file.seek(0)
        return pd.read_csv(file, sep=separator, index_col=False, low_memory=False)


def _open_netcdf(path: Path) -> Any:
    import xarray

    with path.open("rb") as file:
        head = file.read(4)
    if head[:3] != b"CDF" and head != b"\x89HDF":
        raise ValueError("the file is empty" if not head else "it is not a NetCDF file")
    return xarray.open_dataset(path, engine="scipy" if head[:3] == b"CDF" else "h5netcdf")


def _named(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a frame whose columns have distinct text names; a named index becomes a column."""
    index = frame.index
    if isinstance(index, pd.DatetimeIndex) and index.name is None and "time" not in frame.columns:
        index = index.rename("time")
    if any(name is not None for name in index.names):
        frame = frame.set_axis(index, axis=0).reset_index()
    frame = frame.set_axis([str(name).strip() for name in frame.columns], axis=1)
    if not frame.columns.is_unique:
        raise InputError(f"two columns are named {frame.columns[frame.columns.duplicated()][0]!r}")
    return frame
