"""Made-up measurements for tests: stations in a table, a globe in a grid, and what is refused of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from fieldmorph.apps.console.exits import BAD_INPUT, explain
from fieldmorph.bayes.data.observations import Observations, read_observations
from fieldmorph.fields.errors import InputError

SECONDS_2006_04_16 = 1145145600.0  # date -u -d 2006-04-16 +%s


def stations(**columns: Any) -> pd.DataFrame:
    """Four measurements; columns are replaced, or left out by None."""
    frame = {
        "lat": [10.0, 20.0, 30.0, 40.0],
        "lon": [5.0, 6.0, 7.0, 8.0],
        "time": ["2006-04-16", "2006-04-17T12:00", "2006-04-18 00:00:30", "2006-04-19T01:00+01:00"],
        "temp": [1.5, 2.5, 3.5, 2.5],
    } | columns
    return pd.DataFrame({name: column for name, column in frame.items() if column is not None})


def globe(**attributes: Any) -> xr.Dataset:
    """2 times, 3 latitudes, 4 longitudes; one cell is missing."""
    values = np.arange(24.0).reshape(2, 3, 4)
    values[1, 2, 3] = np.nan
    return xr.Dataset(
        {"sst": (("time", "latitude", "longitude"), values, {"units": "K"} | attributes)},
        {
            "time": np.array(["2006-04-16", "2006-05-16T12"], dtype="datetime64[us]"),
            "latitude": ("latitude", [-5.0, 0.0, 5.0], {"units": "degrees_north"}),
            "longitude": ("longitude", [0.0, 90.0, 180.0, 270.0], {"units": "degrees_east"}),
        },
    )


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def refused(source: Any, *expected: str, **options: Any) -> None:
    """The data are refused in one line, which has all that is expected, with the exit code of bad input."""
    with pytest.raises(InputError) as caught:
        read_observations(source, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert all(text in said for text in expected), said
    exit = explain(caught.value)
    assert exit is not None
    assert exit.code == BAD_INPUT


def same(a: Observations, b: Observations) -> bool:
    return torch.equal(a.coordinates, b.coordinates) and torch.equal(a.values, b.values)
