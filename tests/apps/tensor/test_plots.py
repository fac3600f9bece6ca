"""Images show the model: what is drawn is what the posterior says, and axes are named in degrees, dates and units."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor.explorer import Explorer
from fieldmorph.apps.tensor.jobs import read_measurements
from fieldmorph.apps.tensor.map_layers import MapLayers
from fieldmorph.apps.tensor.maps import map_modes, map_ratio, plot_maps, slices
from fieldmorph.apps.tensor.masks import GridMask
from fieldmorph.apps.tensor.next_map import plot_next
from fieldmorph.apps.tensor.plot_style import degrees, place, positions, styled
from fieldmorph.apps.tensor.plots import (
    importance,
    plot_calibration,
    plot_curve,
    plot_factors,
    plot_intervals,
)
from fieldmorph.bayes.conformal import Intervals
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.store import load_posterior

pytestmark = pytest.mark.numerical

LAT, LON = Mode("lat", "latitude"), Mode("lon", "longitude")
TIME, TEMP, DEPTH = Mode("time", "time", "s"), Mode("temp", unit="degC"), Mode("depth", unit="m")


@pytest.fixture
def posterior(tensor_model: Path) -> Posterior:
    return load_posterior(tensor_model)


def drawn(figure: Figure) -> None:
    """Draw it, as a file would be."""
    with styled():
        figure.draw_without_rendering()


def test_command_writes_images(
    capsys: pytest.CaptureFixture[str], tensor_model: Path, tensor_csv: Path, tmp_path: Path
) -> None:
    assert (
        main(["tensor", "plot", str(tensor_model), "--data", str(tensor_csv), "-o", str(tmp_path / "p")]) == 0
    )
    assert "calibration.png, factors.png, maps.png" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [
        "calibration.png",
        "factors.png",
        "maps.png",
    ]
    for path in (tmp_path / "p").iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 150
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_factors_are_drawn_with_their_bands(posterior: Posterior) -> None:
    with styled():
        figure = plot_factors(posterior)
    drawn(figure)
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == 6
    first = int(importance(posterior)[2].argmax())
    process = posterior.processes[2]
    mean, covariance = process.at(process.points)
    curve = panels[2].lines[-1].get_xydata()
    at = np.interp(process.points.numpy() / 86400, curve[:, 0], curve[:, 1])
    np.testing.assert_allclose(at, mean[:, first].numpy(), atol=1e-6)
    band = panels[2].collections[0].get_paths()[0].vertices
    half = 1.959964 * covariance[:, first, first].sqrt()
    for edge in (mean[:, first] - half, mean[:, first] + half):
        assert np.isclose(band[:, 1], edge.numpy()[:, None], atol=1e-6).any(axis=1).all()
    assert panels[-1].get_xlabel() == ""  # dates say what they are
    assert [panel.get_title("left") for panel in panels[:3]] == ["lat", "lon", "time"]


def test_importance_finds_what_carries_the_values(posterior: Posterior) -> None:
    for fractions in importance(posterior):
        assert float(fractions.sum()) == pytest.approx(1)
        assert float(fractions.max()) > 0.5  # the data have one function a mode


def test_maps_show_the_posterior_at_four_times(posterior: Posterior) -> None:
    with styled():
        figure = plot_maps(posterior)
    drawn(figure)
    panels = [panel for panel in figure.axes if panel.images]
    assert len(panels) == 8
    images = [panel.images[0] for panel in panels]
    assert {image.origin for image in images} == {"lower"}
    assert len({image.cmap.name for image in images}) == 2
    assert len({image.get_clim() for image in images}) == 2  # one scale for means, one for deviations
    times = slices(posterior.processes[2].points)
    titles = [panel.get_title("left") for panel in panels if panel.get_title("left")]
    assert titles == [place(TIME, float(t)) for t in times]
    image = np.asarray(images[0].get_array())
    left, right, bottom, top = images[0].get_extent()
    row, column = 60, 200
    lon = left + (column + 0.5) * (right - left) / image.shape[1]
    lat = bottom + (row + 0.5) * (top - bottom) / image.shape[0]
    expected = posterior.predict(torch.tensor([[lat, lon, float(times[0])]], dtype=torch.float64))
    assert image[row, column] == pytest.approx(float(expected.mean[0]), rel=1e-6)


def test_masks_coasts_and_dots_are_drawn_on_maps(posterior: Posterior) -> None:
    """The color scale is that of the cells that are left, which are those of the south."""
    kept = np.array([[True, True], [False, False]])
    mask = GridMask("south", kept, np.array([-15.0, 15.0]), np.array([-10.0, 10.0]))
    coast = np.array([[-30.0, 0.0], [30.0, 5.0]])
    layers = MapLayers(mask, (np.array([1.0, 2.0]), np.array([3.0, 40.0])))
    layers.__dict__["coasts"] = [coast]
    with styled():
        figure, whole = plot_maps(posterior, layers), plot_maps(posterior)
    drawn(figure)
    panel, *_ = [panel for panel in figure.axes if panel.images]
    shown = np.ma.filled(panel.images[0].get_array(), np.nan)
    assert np.isfinite(shown).mean() == pytest.approx(0.5, abs=0.01)
    assert np.isnan(shown[130:]).all()
    limits, all_limits = (f.axes[0].images[0].get_clim() for f in (figure, whole))
    assert all_limits[0] <= limits[0] < limits[1] <= all_limits[1]
    assert limits != all_limits
    (lines,) = [c for c in panel.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(lines.get_segments()[0], coast)
    (dots,) = [c for c in panel.collections if c.get_gid() == "measured"]
    assert dots.get_offsets().tolist() == [[1, 3], [2, 40]]
    assert panel.get_ylim()[1] == pytest.approx(30, abs=0.3)  # neither of them widens the map


def test_next_places_are_drawn_where_they_are(posterior: Posterior) -> None:
    with styled():
        figure = plot_next(posterior, 3)
    drawn(figure)
    panel = figure.axes[0]
    explorer = Explorer(posterior)
    picks = explorer.where_next(explorer.middle(), 3)
    expected = [[float(explorer.stops[k][place[k]]) for k in (1, 0)] for place in picks.places]
    pins = [line.get_xydata()[0].tolist() for line in panel.lines if line.get_marker() == "o"]
    assert pins == expected
    assert [text.get_text() for text in panel.texts] == ["1", "2", "3"]
    title = panel.get_title("left")
    assert title.startswith(f"Next 3 places to measure, {explorer.words(2)[explorer.middle()[2]]}: ")
    assert title.endswith(f"from {picks.sd[0]:.3g} to {picks.sd[-1]:.3g} K")


@pytest.mark.parametrize(("degrees", "name"), [(None, "Gaussian"), (3.0, "Student's t")])
def test_calibration_counts_what_lies_inside(
    posterior: Posterior, tensor_csv: Path, degrees: float | None, name: str
) -> None:
    posterior = replace(posterior, noise=replace(posterior.noise, degrees=degrees))
    coordinates, values = read_measurements(tensor_csv, posterior)
    with styled():
        figure = plot_calibration(posterior, coordinates, values)
    drawn(figure)
    found = posterior.predict(coordinates)
    inside = [
        float(((low <= values) & (values <= high)).double().mean())
        for low, high in map(found.interval, (0.5, 0.95))
    ]
    (text,) = figure.axes[0].texts
    assert text.get_text() == f"{name}: {round(100 * inside[1], 1):g} % in 95 %"
    levels, covered = figure.axes[0].lines[0].get_data()
    assert np.interp(0.5, levels, covered) == pytest.approx(inside[0])
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert np.mean(heights) == pytest.approx(1)


def test_intervals_and_curves_are_drawn(posterior: Posterior) -> None:
    with styled():
        drawn(plot_intervals(Intervals((0.5, 0.95), (0.8, 2.3), 0.99)))
        alone = Posterior(
            (TEMP,),
            "y",
            "m",
            posterior.kernels[:1],
            posterior.processes[:1],
            posterior.core,
            posterior.noise,
            0.0,
            1.0,
        )
        alone.core.ranks, alone.core.mean = (2,), torch.tensor([1.0, 0.5]).double()
        alone.core.covariance = torch.eye(2).double() / 100
        figure = plot_curve(alone)
    drawn(figure)
    assert figure.axes[0].get_xlabel() == "temp (degC)"
    assert figure.axes[0].get_ylabel() == "y (m)"


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((LAT, LON, TIME), (1, 0, 2)),
        ((TIME, LON, LAT), (1, 2, 0)),
        ((LON, DEPTH, LAT, TIME), (0, 2, 3)),
        ((LON, DEPTH, LAT), (0, 2, 1)),
        ((LAT, LON), (1, 0, None)),
        ((TEMP, DEPTH, TIME), (0, 1, 2)),
        ((TEMP, TIME), (1, 0, None)),
    ],
)
def test_modes_of_a_map(modes: tuple[Mode, ...], expected: tuple[int, int, int | None]) -> None:
    assert map_modes(modes) == expected


def test_maps_are_as_wide_as_the_places(posterior: Posterior) -> None:
    points = [torch.tensor([55.0, 65.0]).double(), torch.tensor([0.0, 40.0]).double()]
    assert map_ratio((LAT, LON), 1, 0, points) == pytest.approx(2, rel=1e-3)  # cos 60° = 1/2


def test_degrees_have_sides() -> None:
    assert [degrees(x, "longitude") for x in (0, 30, -30, 190, 180, 360)] == [
        "0°",
        "30°E",
        "30°W",
        "170°W",
        "180°",
        "0°",
    ]
    assert [degrees(x, "latitude") for x in (np.float64(-4.5), 0, 60)] == ["4.5°S", "0°", "60°N"]
    assert place(DEPTH, 12.0) == "depth 12 m"
    assert positions(TIME, torch.tensor([86400.0])).tolist() == [1.0]


def test_slices_are_points_of_the_data() -> None:
    points = torch.arange(100.0).double() ** 2
    chosen = slices(points)
    assert len(chosen) == 4
    assert all(point in points for point in chosen)
    assert slices(points[:1]).tolist() == [0]
