"""Places to predict are read by the rules by which the data of the model were read."""

from pathlib import Path

import pytest
from helpers.measurements import SECONDS_2006_04_16, globe, stations, written

from fieldmorph.apps.tensor.prediction_table import read_places
from fieldmorph.bayes.data.observations import read_observations
from fieldmorph.fields.errors import InputError


def test_places_to_predict_follow_the_rules_of_the_data(tmp_path: Path) -> None:
    rows = read_observations(
        stations(lon=[350.0, 355.0, 0.0, 5.0], temp=None, **{"temp [K]": [1.0, 2, 3, 4]})
    )
    path = written(tmp_path / "p.csv", "time,lon,lat\n2006-04-16,358,1\n17.04.2006,-3,2\n")
    places, columns = read_places(path, rows.modes)
    assert places.tolist() == [[1, -2, SECONDS_2006_04_16], [2, -3, SECONDS_2006_04_16 + 86400]]
    assert columns == ["time", "lon", "lat"]
    with pytest.raises(InputError, match=r"p.csv has no column lat; .* there are: lon, time"):
        read_places(written(tmp_path / "p.csv", "lon,time\n1,2006-04-16\n"), rows.modes)
    missing = written(tmp_path / "p.csv", "lat,lon,time\n1,1,2006-04-16\n1,,2006-04-16\n")
    assert read_places(missing, rows.modes)[0].isnan().tolist() == [[False] * 3, [False, True, False]]
    globe().to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="is a grid, not a table of points"):
        read_places(tmp_path / "p.nc", rows.modes)
