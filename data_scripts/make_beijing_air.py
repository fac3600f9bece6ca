"""The Beijing air-quality benchmark of FunBaT (Fang et al., ICLR 2024) from the hourly files of its twelve stations.

    python make_beijing_air.py beijing+multi+site+air+quality+data.zip -o beijing
    fieldmorph tensor fit beijing/PM2.5_train0.csv --modes temperature,pressure,time --value PM2.5 -o pm25.fm
    fieldmorph tensor eval pm25.fm beijing/PM2.5_test0.csv

Needs fieldmorph[bayes] or pandas alone. The data are Beijing Multi-Site Air Quality (S. Chen, 2017, doi
10.24432/C5RK5G, CC BY 4.0), which a browser gets from `HOME` below; nothing is downloaded here.

A row is a station's day: means over the hours at which all of `MEASURED` are there. Its indices are temperature and
pressure, rounded to a decimal, and the day. A value is a pollutant, less its mean and divided by its standard deviation
(n - 1) over all rows. Five folds keep 80 % of the rows to train. A file of arrays for each pollutant holds

    coords      (n, 3) indices in [0, 10]: 10 (x - min) / (max - min); x of a day is the standardised time, rounded to
                three decimals
    coords_raw  (n, 3) degC, hPa, seconds from 1970-01-01 to the day
    index       (n, 3) ranks of the coordinates; `dims` says how many there are
    bins        (n, 3) numbers of the bins, as many as ranks and equally wide
    y           (n,) standardised; y y_std + y_mean is in ug/m3
    train, test (5, ...) rows of the folds

The tables are a fold's rows with physical coordinates and values in ug/m3: divide errors by y_std for the benchmark's.

The recipe is that of the notebook which the authors released. Checked: from the rows of the released benchmark this
program makes its indices, bins and folds (of rows with the same bins and value the released folds do not say which is
which); two days of one station, from its raw hours, have the released means. Not checked: a run on all twelve raw
files. The program says in the end whether it made the published 16,965 rows on 428 x 501 x 1461 indices.
"""

import argparse
import io
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HOME = "https://archive.ics.uci.edu/dataset/501/beijing+multi+site+air+quality+data"
STATIONS = (
    "Aotizhongxin",
    "Changping",
    "Dingling",
    "Dongsi",
    "Guanyuan",
    "Gucheng",
    "Huairou",
    "Nongzhanguan",
    "Shunyi",
    "Tiantan",
    "Wanliu",
    "Wanshouxigong",
)
NUMBERS = ("TEMP", "PRES", "DEWP", "RAIN", "WSPM", "PM2.5", "PM10", "SO2", "NO2", "CO", "O3")
MEASURED = (*NUMBERS, "wd")
DAY = ["year", "month", "day"]
# The authors shuffled one generator, of seed 0, once for each fold of each data set that they made: how many times
# before those of a pollutant.
SHUFFLES = {"PM2.5": 40, "PM10": 60, "SO2": 80}
FOLDS = 5
TRAIN_FRACTION = 0.8
PUBLISHED = (16_965, (428, 501, 1461))  # rows, indices of each mode
MAX_BYTES = 100 << 20  # of one file; they have 3 MB


class InputError(ValueError):
    """Files that cannot be used (exit code 3)."""


def read_hours(source: Path) -> pd.DataFrame:
    """Return all stations' hours at which everything was measured.

    Args:
        source: the downloaded zip, or a folder with the stations' files or that zip somewhere within.

    Raises:
        InputError: a file cannot be read, or a station is missing or there twice.
    """
    hours = []
    for name, content in sorted(_station_files(source)):
        types = {**dict.fromkeys(NUMBERS, float), "wd": str, "station": str}
        try:
            table = pd.read_csv(io.BytesIO(content), usecols=[*DAY, "hour", *types], dtype=types)
        except ValueError as error:
            raise InputError(f"{name}: {' '.join(str(error).split())}") from error
        hours.append(table)
    frame = pd.concat(hours) if hours else pd.DataFrame({"station": []})
    if missing := sorted(set(STATIONS) - set(frame["station"])):
        raise InputError(f"{source} has no hours of {', '.join(missing)}; the files are at {HOME}")
    if frame.duplicated([*DAY, "hour", "station"]).any():
        raise InputError(f"{source} has an hour of a station twice: leave one copy of each file")
    return frame.dropna()


def daily_means(hours: pd.DataFrame) -> pd.DataFrame:
    """Return `NUMBERS` of each station's days, and in `time` their seconds, by day and then by station's name."""
    days = hours.groupby([*DAY, "station"])[list(NUMBERS)].mean().reset_index()
    try:
        dates = pd.to_datetime(days[DAY])
    except ValueError as error:
        raise InputError(f"a year, month and day are no date: {error}") from error
    return days.assign(time=(dates - pd.Timestamp(0)) // pd.Timedelta(seconds=1))


def benchmark(days: pd.DataFrame, pollutant: str) -> dict[str, Any]:
    """Return the arrays of one pollutant's file, as the head of this file lists them.

    Raises:
        InputError: there is nothing to standardise.
    """
    time, value = days["time"], days[pollutant]
    places = [days["TEMP"].round(1), days["PRES"].round(1), ((time - time.mean()) / time.std()).round(3)]
    for name, x in (("TEMP", places[0]), ("PRES", places[1]), ("time", time), (pollutant, value)):
        if x.nunique() < 2:
            raise InputError(f"{name} is the same on all days")
    coords = [10 * (x - x.min()) / (x.max() - x.min()) for x in places]
    ranks = [np.unique(x, return_inverse=True)[1] for x in coords]
    dims = [int(rank.max()) + 1 for rank in ranks]
    bins = [pd.cut(x, n).cat.codes for x, n in zip(coords, dims, strict=True)]
    train, test = folds(len(days), SHUFFLES[pollutant])
    return {
        "coords": np.stack(coords, axis=1),
        "coords_raw": np.stack([*places[:2], time.astype(float)], axis=1),
        "index": np.stack(ranks, axis=1).astype(np.int32),
        "bins": np.stack(bins, axis=1).astype(np.int32),
        "y": ((value - value.mean()) / value.std()).to_numpy(),
        "y_mean": value.mean(),
        "y_std": value.std(),
        "dims": np.array(dims),
        "train": train,
        "test": test,
        "mode_names": np.array(["temperature_degC_1dp", "pressure_hPa_1dp", "day"]),
    }


def folds(n: int, shuffles: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (5, ...) to train and to test, after so many shuffles of n rows; the first fold begins in order."""
    random, drawn = np.random.RandomState(0), []
    for done in range(shuffles + FOLDS):
        if done % FOLDS == 0:
            order = np.arange(n, dtype=np.int32)
        random.shuffle(order)
        drawn.append(order.copy())
    rows = np.stack(drawn[-FOLDS:])
    n_train = int(n * TRAIN_FRACTION)
    return rows[:, :n_train], rows[:, n_train:]


def table(days: pd.DataFrame, arrays: dict[str, Any], pollutant: str) -> pd.DataFrame:
    """Return rows as `fieldmorph tensor fit` reads them."""
    temperature, pressure, seconds = arrays["coords_raw"].T
    columns = {
        "temperature [degC]": temperature,
        "pressure [hPa]": pressure,
        "time": pd.to_datetime(seconds, unit="s").strftime("%Y-%m-%d"),
        "station": days["station"],
        f"{pollutant} [ug/m3]": days[pollutant],
    }
    return pd.DataFrame(columns)


def make(source: Path, output: Path, fold: int) -> None:
    """Write an array file and two tables for each pollutant, and print the number of rows."""
    files = [output / name for p in SHUFFLES for name in _names(p, fold)]
    if there := [file for file in files if file.exists()]:
        raise InputError(f"{there[0]} is there already")
    days = daily_means(read_hours(source))
    made = {pollutant: benchmark(days, pollutant) for pollutant in SHUFFLES}
    output.mkdir(parents=True, exist_ok=True)
    for pollutant, arrays in made.items():
        rows = table(days, arrays, pollutant)
        whole, *parts = _names(pollutant, fold)
        np.savez_compressed(output / whole, **arrays)
        for name, part in zip(parts, ("train", "test"), strict=True):
            rows.iloc[arrays[part][fold]].to_csv(output / name, index=False)
        print(f"{output / whole}: y_mean {arrays['y_mean']:.6g}, y_std {arrays['y_std']:.6g} ug/m3")
    shape = (len(days), tuple(int(n) for n in made["PM2.5"]["dims"]))
    shape_text = f"{shape[0]} rows on {' x '.join(map(str, shape[1]))} indices"
    print(
        shape_text
        if shape == PUBLISHED
        else f"{shape_text}: NOT the published ones, {PUBLISHED[0]} on {PUBLISHED[1]}"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    p = argparse.ArgumentParser(
        description=f"The Beijing air-quality benchmark of FunBaT. Get its data from {HOME} with a browser."
    )
    p.add_argument("source", type=Path, help="the zip from there, or a folder with PRSA_Data_<Station>_*.csv")
    p.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    p.add_argument(
        "--fold", type=int, choices=range(FOLDS), default=0, help="of the CSV tables (default %(default)s)"
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the script and return its exit code."""
    args = parser().parse_args(argv)
    try:
        make(args.source, args.output, args.fold)
    except (InputError, OSError) as error:
        print(f"make_beijing_air: {error}", file=sys.stderr)
        return 3
    return 0


def _names(pollutant: str, fold: int) -> tuple[str, str, str]:
    return f"beijing_{pollutant}.npz", f"{pollutant}_train{fold}.csv", f"{pollutant}_test{fold}.csv"


def _station_files(source: Path, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the stations' files; the download has them in a zip within a zip."""
    if source.is_dir():
        tables = sorted(source.rglob("PRSA_Data_*.csv"))
        for path in tables:
            yield path.name, path.read_bytes()
        for path in sorted(source.rglob("*.zip")) if not tables else ():
            yield from _station_files(path, max_bytes)
    elif not source.is_file():
        raise InputError(f"no such file or folder: {source}")
    else:
        yield from _of_zip(source, source.name, max_bytes)


def _of_zip(archive: Any, name: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(archive) as pack:
            for entry in pack.infolist():
                file = entry.filename.rsplit("/", 1)[-1]
                if not (file.endswith(".zip") or (file.startswith("PRSA_Data_") and file.endswith(".csv"))):
                    continue
                if entry.file_size > max_bytes:
                    raise InputError(f"{name}: {file} has {entry.file_size} bytes; allowed {max_bytes}")
                content = pack.read(entry)
                if file.endswith(".zip"):
                    yield from _of_zip(io.BytesIO(content), file, max_bytes)
                else:
                    yield file, content
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{name} is not a zip that can be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
