"""Results of the tensor jobs; `as_json` gives the values of `--json`, by the same names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fieldmorph.bayes.conformal import Intervals
from fieldmorph.fields.types import JsonObject


@dataclass(frozen=True)
class JsonResult:
    """A dataclass whose fields are the values of `--json`."""

    def as_json(self) -> JsonObject:
        """Return the fields as JSON values, in their order."""
        return asdict(self)


@dataclass(frozen=True)
class Value:
    """Name and unit of the measured value; the unit is None if unknown."""

    name: str
    unit: str | None


@dataclass(frozen=True)
class FittedMode:
    """A mode after a fit.

    Attributes:
        points: number of distinct coordinates.
        rank: number of functions.
        kernel: as `describe_kernel` describes it.
    """

    name: str
    kind: str
    unit: str | None
    points: int
    rank: int
    kernel: Mapping[str, Any]


@dataclass(frozen=True)
class ResidualSummary:
    """A residual process.

    Attributes:
        modes: names of the modes that it is a function of.
        kernel: its name in the table of covariances.
        amplitude: prior standard deviation, in the value's unit.
        lengthscale: along each of the modes, in their units.
        points: number of inducing points.
    """

    modes: list[str]
    kernel: str
    amplitude: float
    lengthscale: list[float]
    points: int


@dataclass(frozen=True)
class FitSummary:
    """Result of a fit, without its file.

    Attributes:
        core: `tucker` or `cp`.
        rows, dropped, merged: rows that were used, and left out as incomplete or as repetitions.
        noise_sd: standard deviation of the noise, in the value's unit.
        calibration: settings of the calibration; None without one.
        bound_per_row: evidence lower bound in nats per row, for standardized values.
        sweeps: number of sweeps.
        converged: whether the fit ended before the maximum number of sweeps.
    """

    value: Value
    modes: list[FittedMode]
    residual: ResidualSummary | None
    core: str
    rows: int
    dropped: int
    merged: int
    noise_sd: float
    intervals: Intervals
    calibration: Mapping[str, Any] | None
    bound_per_row: float
    sweeps: int
    converged: bool


@dataclass(frozen=True)
class FitResult(JsonResult):
    """Result of `fit_file`: the fit, the file's size and digest, wall-clock and CPU time."""

    output: str
    fit: FitSummary
    bytes: int
    sha256: str
    seconds: float
    core_seconds: float

    def as_json(self) -> JsonObject:
        """Return the values of `--json`: those of the fit between output and size."""
        values = asdict(self)
        fit = values.pop("fit")
        return {"output": values.pop("output"), **fit, **values}


@dataclass(frozen=True)
class UpdateResult(JsonResult):
    """Result of `update_file`.

    Attributes:
        rows, rows_in_all: new rows, and all rows that the model has been fitted to.
        new_points: number of new coordinates of each mode.
        noise_sd, bound_per_row, sweeps, converged: as in `FitSummary`, of the new rows.
    """

    output: str
    value: Value
    rows: int
    rows_in_all: int
    new_points: dict[str, int]
    noise_sd: float
    intervals: Intervals
    bound_per_row: float
    sweeps: int
    converged: bool
    bytes: int
    sha256: str
    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class PredictResult(JsonResult):
    """Result of `predict_file`; rows without coordinates have no prediction.

    Attributes:
        extrapolated: number of rows outside the range of the data.
    """

    output: str
    rows: int
    without_coordinates: int
    extrapolated: int
    level: float
    value: Value
    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class EvalResult(JsonResult):
    """Result of `evaluate_file`: the metrics of `scores_of` on the rows of a test file."""

    file: str
    test: str
    rows: int
    rmse: float
    mae: float
    nlpd: float
    crps: float
    cov95: float
    width: float
    value: Value
    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class GridResult(JsonResult):
    """Result of `grid_file`: the file's variables, length of each dimension, number of cells, size and times.

    Attributes:
        masked: cells without a value because of a mask.
        extrapolated: other cells outside the range of the data.
    """

    output: str
    variables: list[str]
    sizes: dict[str, int]
    cells: int
    masked: int
    extrapolated: int
    bytes: int
    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class PlotResult(JsonResult):
    """Result of `plot_file`: the names of the images in the folder."""

    output: str
    files: list[str]


@dataclass(frozen=True)
class SceneResult(JsonResult):
    """Result of `scene_file`.

    Attributes:
        of: `mean` or `sd`.
        low, high: values that are transparent and opaque.
        colours: name of the colormap.
        ranges, modes: of the coordinates along x, y and z, and their names.
        nodes: along each side.
    """

    output: str
    of: str
    low: float
    high: float
    colours: str
    ranges: list[list[float]]
    modes: list[str]
    nodes: int
    sha256: str


@dataclass(frozen=True)
class DemoScores:
    """Metrics of the demo's model on one set of test cells, in °C, next to those of two baselines."""

    rows: int
    rmse: float
    mae: float
    crps: float
    nlpd: float
    cov95: float
    width: float
    rmse_mean: float
    rmse_nearest: float


@dataclass(frozen=True)
class DemoSummary(JsonResult):
    """Result of `run_demo`, also in `summary.json`.

    Attributes:
        cells, months, month: of the data; `month` is held out.
        scores: on other cells (`test`) and on the held-out month (`month`).
        peak_memory_bytes: of the process; None where it is not known.
        files: in the folder.
    """

    output: str
    cells: int
    months: int
    month: str
    fit: FitResult
    scores: dict[str, DemoScores]
    grid: GridResult
    seconds: float
    core_seconds: float
    peak_memory_bytes: int | None
    files: list[str]

    def as_json(self) -> JsonObject:
        """Return the values of `--json` and of `summary.json`."""
        return {**asdict(self), "fit": self.fit.as_json()}
