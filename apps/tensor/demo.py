"""Demo: a month of sea-surface temperatures predicted from a few thousand scattered cells of other months."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.spatial import KDTree
from torch import Tensor

from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.tensor.calibration import Calibration
from fieldmorph.apps.tensor.globe import has_land
from fieldmorph.apps.tensor.grid import grid_file
from fieldmorph.apps.tensor.jobs import evaluate_file, fit_file, read_measurements
from fieldmorph.apps.tensor.map_layers import MapSettings, open_layers
from fieldmorph.apps.tensor.maps import draw_layers
from fieldmorph.apps.tensor.plot_style import (
    DIFFERENCE_MAP,
    MEAN_MAP,
    SD_MAP,
    color_bar,
    name_axis,
    save_figures,
    styled,
)
from fieldmorph.apps.tensor.plots import plot_calibration, plot_factors
from fieldmorph.apps.tensor.results import DemoScores, DemoSummary
from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.fitting import FitConfig
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.budget import now
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.files import check_folder, write_json
from fieldmorph.fields.runtime import peak_memory

PACKAGE, FILE, VARIABLE = "iris_sample_data", "sample_data/ostia_monthly.nc", "surface_temperature"
VALUE = "temperature [degC]"
ZERO = 273.15  # degrees Celsius in kelvin
TEST_MONTH = 33  # January 2009, a La Niña; no cell of it is used for the fit
HELD_OUT = 0.1  # fraction of the training cells on which intervals are calibrated
KERNELS = ("matern52", "matern32", "matern32")


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """Sizes of the demo.

    Attributes:
        n_train, n_test: numbers of cells.
        ranks: of latitude, longitude and time.
        latitude, longitude: axes of the predicted grid.
        dpi: pixels per inch of the plots.
    """

    n_train: int = 5000
    n_test: int = 10_000
    ranks: tuple[int, ...] = (5, 10, 8)
    latitude: str = "-5:4.25:0.25"
    longitude: str = "0:359.5:0.5"
    dpi: int = 160


def run_demo(
    output: str | Path,
    *,
    seed: int = 0,
    force: bool = False,
    quiet: bool = False,
    plan: DemoPlan | None = None,
) -> DemoSummary:
    """Draw cells, fit a model, evaluate it, predict and plot the test month; the result is also in `summary.json`.

    Args:
        seed: of the sample and the fit.
        plan: sizes.

    Raises:
        SettingError, InputError: before anything is written.
    """
    start, folder, plan = now(), Path(output), plan or DemoPlan()
    check_folder(folder, force)
    cells = open_cells()
    months = np.sort(cells["time"].unique())
    month = months[TEST_MONTH]
    tables = _draw_tables(cells, month, plan, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.round({VALUE: 4}).to_csv(folder / name, index=False, lineterminator="\n")
    config = FitConfig(ranks=plan.ranks, kernels=KERNELS, seed=seed)
    with ProgressLine("fit", quiet) as progress:
        fitted = fit_file(
            folder / "measurements.csv",
            folder / "model.fm",
            config,
            calibrate=Calibration(HELD_OUT),
            force=True,
            on_sweep=progress.sweep,
        )
    posterior = load_posterior(folder / "model.fm")
    scores = {}
    for name in ("test", "month"):
        found = evaluate_file(folder / "model.fm", folder / f"{name}.csv")
        baselines = without_model(posterior, folder / "measurements.csv", folder / f"{name}.csv")
        scores[name] = DemoScores(
            rows=found.rows,
            rmse=found.rmse,
            mae=found.mae,
            crps=found.crps,
            nlpd=found.nlpd,
            cov95=found.cov95,
            width=found.width,
            **baselines,
        )
    date = pd.Timestamp(month).isoformat(timespec="minutes")
    axes = {"latitude": plan.latitude, "longitude": plan.longitude, "time": date}
    sea = MapSettings("sea") if has_land() else None
    grid = grid_file(folder / "model.fm", folder / "month.nc", axes, maps=sea, force=True)
    with styled():
        figures = {
            "month.png": plot_month(posterior, tables["month.csv"], f"{pd.Timestamp(month):%B %Y}"),
            "factors.png": plot_factors(posterior),
            "calibration.png": plot_calibration(
                posterior, *read_measurements(folder / "test.csv", posterior)
            ),
        }
    save_figures(folder, figures, plan.dpi)
    spent = now() - start
    summary = DemoSummary(
        output=str(folder),
        cells=len(cells),
        months=len(months),
        month=date[:10],
        fit=fitted,
        scores=scores,
        grid=grid,
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
        peak_memory_bytes=peak_memory(),
        files=sorted(["model.fm", "month.nc", *tables, *figures]),
    )
    write_json(folder / "summary.json", summary.as_json())
    return summary


def open_cells() -> "pd.DataFrame":
    """Return a row for every sea cell of the monthly means, in degrees Celsius.

    Raises:
        InputError: the package with the data is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin).parent / FILE if found and found.origin else None
    if path is None or not path.is_file():
        raise InputError("the demo's data are in another package: pip install 'fieldmorph[demo-data]'")
    import xarray

    with xarray.open_dataset(path, engine="scipy" if path.read_bytes()[:3] == b"CDF" else "h5netcdf") as data:
        frame = data[VARIABLE].to_dataframe().reset_index()
    frame[VALUE] = frame[VARIABLE].astype("float64") - ZERO
    return frame[["latitude", "longitude", "time", VALUE]].dropna().reset_index(drop=True)


def _draw_tables(
    cells: "pd.DataFrame", month: np.datetime64, plan: DemoPlan, seed: int
) -> dict[str, "pd.DataFrame"]:
    """Return tables by file name: random cells of the other months to fit and to test, and all of the test month."""
    unseen, others = cells[cells["time"] == month], cells[cells["time"] != month]
    chosen = np.random.default_rng(seed).permutation(len(others))[: plan.n_train + plan.n_test]
    return {
        "measurements.csv": others.iloc[chosen[: plan.n_train]],
        "test.csv": others.iloc[chosen[plan.n_train :]],
        "month.csv": unseen,
    }


def without_model(posterior: Posterior, drawn: Path, test: Path) -> dict[str, float]:
    """Return RMSEs of two baselines: the mean of all measurements, and the nearest in units of lengthscales."""
    at, values = read_measurements(drawn, posterior)
    there, truth = read_measurements(test, posterior)
    scale = torch.tensor([float(kernel.lengthscale.detach()) for kernel in posterior.kernels])
    nearest = KDTree((at / scale).numpy()).query((there / scale).numpy())[1]
    guesses = {"rmse_mean": values.mean(), "rmse_nearest": values[torch.from_numpy(nearest)]}
    return {name: float((guess - truth).square().mean().sqrt()) for name, guess in guesses.items()}


def plot_month(posterior: Posterior, cells: "pd.DataFrame", month: str) -> Figure:
    """Plot the truth of the test month, the model's mean, their difference, and its standard deviation."""
    names = [mode.name for mode in posterior.modes]
    axes = [even(mode.parse(cells[name])) for mode, name in zip(posterior.modes, names, strict=True)]
    found = posterior.predict_grid(posterior.factors(axes))
    truth = np.full([len(axis) for axis in axes], np.nan)
    where = [
        (mode.parse(cells[name])[:, None] - axis).abs().argmin(dim=1).numpy()
        for axis, mode, name in zip(axes, posterior.modes, names, strict=True)
    ]
    truth[tuple(where)] = cells[VALUE]
    order = [names.index(name) for name in ("time", "latitude", "longitude")]
    sea, mean, sd = (part.transpose(order)[0] for part in (truth, found.mean.numpy(), found.sd.numpy()))
    land = np.isnan(sea)
    mean, sd = np.where(land, np.nan, mean), np.where(land, np.nan, sd)
    limit = float(np.nanquantile(np.abs(mean - sea), 0.998))
    low, high = float(np.nanmin(sea)), float(np.nanmax(sea))
    rows = [
        (f"Ground truth, {month}, not used for the fit", sea, MEAN_MAP, (low, high)),
        (f"Model, {month}: mean", mean, MEAN_MAP, (low, high)),
        (f"Model minus truth, {month}", mean - sea, DIFFERENCE_MAP, (-limit, limit)),
        (f"Model, {month}: standard deviation", sd, SD_MAP, (float(np.nanmin(sd)), float(np.nanmax(sd)))),
    ]
    figure = Figure(figsize=(9.6, 5.4))
    panels = figure.subplots(len(rows), 1, sharex=True, sharey=True)
    x, y = axes[order[2]], axes[order[1]]
    layers = open_layers(posterior, MapSettings())
    for panel, (title, values, colormap, limits) in zip(panels, rows, strict=True):
        image = panel.pcolormesh(
            x.numpy(), y.numpy(), values, cmap=colormap, vmin=limits[0], vmax=limits[1], rasterized=True
        )
        across, up = posterior.modes[order[2]], posterior.modes[order[1]]
        draw_layers(panel, layers, across, up, (*panel.get_xlim(), *panel.get_ylim()))
        panel.set_title(title)
        name_axis(panel.xaxis, across, bare=panel is not panels[-1])
        name_axis(panel.yaxis, up)
        color_bar(figure, image, [panel], "°C", below=False)
    return figure


def even(coordinates: Float[Tensor, "n"]) -> Float[Tensor, "_"]:
    """Return all coordinates of a regular grid, of which some may be missing."""
    points = coordinates.unique()
    if len(points) < 2:
        return points
    step = float(points.diff().median())
    n = round(float(points[-1] - points[0]) / step) + 1
    return torch.linspace(float(points[0]), float(points[-1]), n, dtype=torch.float64)
