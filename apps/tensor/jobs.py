"""Jobs on files of tensor models: fit and update them from measurements, predict a table, evaluate on test rows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.apps.tensor.calibration import Calibration
from fieldmorph.apps.tensor.extrapolation import warn_outside
from fieldmorph.apps.tensor.prediction_table import (
    check_table_name,
    columns_of,
    read_places,
    write_with_columns,
)
from fieldmorph.apps.tensor.results import (
    EvalResult,
    FitResult,
    FitSummary,
    FittedMode,
    PredictResult,
    ResidualSummary,
    SceneResult,
    UpdateResult,
    Value,
)
from fieldmorph.bayes.as_field import as_field
from fieldmorph.bayes.calibration import fit_calibrated
from fieldmorph.bayes.data.dates import pd
from fieldmorph.bayes.data.observations import Observations, read_observations
from fieldmorph.bayes.data.readers import open_source
from fieldmorph.bayes.fitting import FitConfig, FitReport, fit
from fieldmorph.bayes.metrics import scores_of
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.residual_gp import ResidualConfig, fit_with_residual
from fieldmorph.bayes.store import describe_kernel, load_posterior, save_posterior
from fieldmorph.bayes.streaming import update
from fieldmorph.fields.budget import now
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.progress import OnCount, OnFit
from fieldmorph.fields.store import save_field

PREDICTED = ("mean", "sd", "lower", "upper")
EXTRAPOLATED = "extrapolated"
ADDED = (*PREDICTED, EXTRAPOLATED)  # columns of predictions


def fit_file(
    data: str | Path,
    output: str | Path,
    config: FitConfig | None = None,
    *,
    modes: Sequence[str] | None = None,
    value: str | None = None,
    sample: int | None = None,
    residual: ResidualConfig | None = None,
    calibrate: Calibration | None = None,
    force: bool = False,
    on_sweep: OnFit = lambda _done, _most, _bound: None,
) -> FitResult:
    """Fit a model to the measurements of a CSV, Parquet or NetCDF file, and save it.

    Args:
        modes, value, sample: as in `read_observations`.
        residual: settings of a residual process that is added to the model; None for none.
        calibrate: rows that are held out to calibrate intervals; None for the model's own intervals.
        force: overwrite the output.
        on_sweep: called with the number of sweeps done, their maximum, and the bound in nats per row.

    Raises:
        SettingError, InputError: before anything is written.
    """
    start, config = now(), config or FitConfig()
    check_output(output, force)
    not_itself(output, data)
    generator = torch.Generator().manual_seed(config.seed)
    observations = read_observations(data, modes, value, sample=sample, generator=generator)
    posterior, report = fit_observations(observations, config, residual, calibrate, on_sweep)
    source = {"data": Path(data).name, "data_sha256": file_sha256(data)}
    posterior = replace(posterior, provenance={**posterior.provenance, **source})
    save_posterior(output, posterior)
    spent = now() - start
    return FitResult(
        output=str(output),
        fit=summarize_fit(observations, posterior, report),
        bytes=Path(output).stat().st_size,
        sha256=file_sha256(output),
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
    )


def update_file(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    sweeps: int = 50,
    force: bool = False,
    on_sweep: OnFit = lambda _done, _most, _bound: None,
) -> UpdateResult:
    """Update a model with the measurements of a file, and save it.

    With `force` the output may be the model's own file.

    Args:
        sweeps: maximum number of sweeps.
        on_sweep: called with the number of sweeps done, their maximum, and the bound in nats per new row.

    Raises:
        SettingError, InputError: before anything is written; also if the model was fitted to this file, or updated
            with it before.
    """
    start = now()
    check_output(output, force)
    not_itself(output, data)
    before, source = load_posterior(model), {"data": Path(data).name, "data_sha256": file_sha256(data)}
    sources = [before.provenance, *before.provenance.get("updates", [])]
    if source["data_sha256"] in [used.get("data_sha256") for used in sources]:
        was_fitted = source["data_sha256"] == before.provenance.get("data_sha256")
        done = "was fitted to" if was_fitted else "was already updated with"
        raise InputError(f"{model} {done} {source['data']}; its rows would count twice")
    coordinates, values = read_measurements(data, before)
    posterior, report = update(
        before,
        coordinates,
        values,
        sweeps=sweeps,
        on_sweep=lambda done, bound: on_sweep(done, sweeps, bound / len(values)),
    )
    *earlier, latest = posterior.provenance["updates"]
    updates = [*earlier, {**latest, **source}]
    posterior = replace(posterior, provenance={**posterior.provenance, "updates": updates})
    save_posterior(output, posterior)
    spent = now() - start
    return UpdateResult(
        output=str(output),
        value=Value(posterior.value_name, posterior.value_unit),
        rows=len(values),
        rows_in_all=posterior.provenance["rows"],
        new_points={
            mode.name: len(new.points) - len(old.points)
            for mode, new, old in zip(posterior.modes, posterior.processes, before.processes, strict=True)
        },
        noise_sd=noise_sd(posterior),
        intervals=posterior.intervals,
        bound_per_row=report.bounds[-1] / len(values),
        sweeps=len(report.bounds),
        converged=report.converged,
        bytes=Path(output).stat().st_size,
        sha256=file_sha256(output),
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
    )


def fit_observations(
    observations: Observations,
    config: FitConfig,
    residual: ResidualConfig | None = None,
    calibrate: Calibration | None = None,
    on_sweep: OnFit = lambda _done, _most, _bound: None,
) -> tuple[Posterior, FitReport]:
    """Fit a model with `fit`, `fit_with_residual` or `fit_calibrated`, with progress over all restarts and fits.

    Args:
        on_sweep: called with the number of sweeps done, their maximum, and the bound in nats per row.

    Raises:
        SettingError: an unknown mode of the residual process, rows that cannot be held out, and what `fit` raises.
    """
    warm = min(config.warm_sweeps, config.sweeps)
    maximum = config.sweeps + (warm * (config.restarts - 1) if config.restarts > 1 else 0)
    done, fits = 0, 1 if calibrate is None else 1 + calibrate.rounds

    def report_sweep(_sweep: int, bound: float) -> None:
        nonlocal done
        done += 1
        on_sweep(done, fits * maximum, bound / len(observations.values))

    if calibrate is None:
        if residual is None:
            return fit(observations, config, on_sweep=report_sweep)
        return fit_with_residual(observations, config, residual, on_sweep=report_sweep)
    posterior, report = fit_calibrated(
        observations,
        config,
        fraction=calibrate.fraction,
        rounds=calibrate.rounds,
        blocks=calibrate.blocks(observations),
        residual=residual,
        on_sweep=report_sweep,
    )
    calibration = {**posterior.provenance["calibration"], "by": dict(calibrate.by)}
    return replace(posterior, provenance={**posterior.provenance, "calibration": calibration}), report


def summarize_fit(observations: Observations, posterior: Posterior, report: FitReport) -> FitSummary:
    """Return what a fit found."""
    modes = [
        FittedMode(mode.name, mode.kind, mode.unit, len(process.points), rank, describe_kernel(kernel))
        for mode, process, rank, kernel in zip(
            posterior.modes, posterior.processes, posterior.ranks, posterior.kernels, strict=True
        )
    ]
    return FitSummary(
        value=Value(posterior.value_name, posterior.value_unit),
        modes=modes,
        residual=summarize_residual(posterior),
        core="cp" if posterior.provenance.get("cp") else "tucker",
        rows=len(observations.values),
        dropped=observations.dropped,
        merged=observations.merged,
        noise_sd=noise_sd(posterior),
        intervals=posterior.intervals,
        calibration=posterior.provenance.get("calibration"),
        bound_per_row=report.bounds[-1] / len(observations.values),
        sweeps=len(report.bounds),
        converged=report.converged,
    )


def summarize_residual(posterior: Posterior) -> ResidualSummary | None:
    """Return the residual process of a model; None if there is none."""
    if (process := posterior.residual) is None:
        return None
    return ResidualSummary(
        modes=[posterior.modes[k].name for k in process.columns],
        kernel=process.kernel,
        amplitude=process.amplitude,
        lengthscale=process.lengthscale.tolist(),
        points=len(process.inducing),
    )


def noise_sd(posterior: Posterior) -> float:
    """Return the standard deviation of the noise, in the value's unit."""
    return posterior.scale * math.sqrt(posterior.noise.variance)


def predict_file(
    model: str | Path,
    points: str | Path,
    output: str | Path,
    *,
    level: float = 0.95,
    force: bool = False,
    on_rows: OnCount = lambda _done, _total: None,
    rows_at_once: int = 1 << 16,
) -> PredictResult:
    """Write the table of `points` with mean, standard deviation and interval of a new measurement in each row.

    The column `extrapolated` says whether a row lies outside the range of the data. Rows with a missing coordinate are
    kept, with empty predictions.

    Args:
        level: of the interval, in [0, 1).
        on_rows: called with the number of rows done and their total.
        rows_at_once: that are predicted, read and written at a time.

    Raises:
        SettingError, InputError: before anything is written.
    """
    start = now()
    check_output(output, force)
    check_table_name(output)
    not_itself(output, points, model)
    posterior = load_posterior(model)
    coordinates, columns = read_places(points, posterior.modes)
    if taken := [name for name in ADDED if name in columns]:
        raise InputError(f"{Path(points).name} already has a column {taken[0]}; rename it")
    known = ~coordinates.isnan().any(dim=1)
    found = pd.DataFrame(index=range(len(known)), columns=list(PREDICTED), dtype="float64")
    for rows in known.nonzero()[:, 0].split(rows_at_once):
        prediction = posterior.predict(coordinates[rows])
        added = torch.stack([prediction.mean, prediction.sd, *prediction.interval(level)], dim=1)
        found.iloc[rows.numpy()] = added.numpy()
        on_rows(int(rows[-1]) + 1, len(known))
    outside = posterior.extrapolates(coordinates)
    found[EXTRAPOLATED] = pd.Series(outside.numpy(), dtype="boolean").where(known.numpy())
    write_with_columns(points, output, found, rows_at_once)
    n_outside = int((outside & known).sum())
    warn_outside(posterior, coordinates[known].unbind(1), n_outside, len(known), "rows")
    spent = now() - start
    return PredictResult(
        output=str(output),
        rows=len(known),
        without_coordinates=int((~known).sum()),
        extrapolated=n_outside,
        level=level,
        value=Value(posterior.value_name, posterior.value_unit),
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
    )


def evaluate_file(model: str | Path, test: str | Path) -> EvalResult:
    """Return metrics (`scores_of`) of a model on test measurements."""
    start, posterior = now(), load_posterior(model)
    coordinates, values = read_measurements(test, posterior)
    found = scores_of(posterior, coordinates, values)
    spent = now() - start
    return EvalResult(
        file=str(model),
        test=str(test),
        rows=len(values),
        **found,
        value=Value(posterior.value_name, posterior.value_unit),
        seconds=spent.seconds,
        core_seconds=spent.core_seconds,
    )


def scene_file(
    model: str | Path,
    output: str | Path,
    *,
    quantity: str = "mean",
    low: float | None = None,
    high: float | None = None,
    nodes: int = 96,
    force: bool = False,
) -> SceneResult:
    """Save a model as a voxel field; see `as_field` for settings and errors."""
    not_itself(output, model)
    check_output(output, force)
    stored = as_field(load_posterior(model), quantity, low=low, high=high, nodes=nodes)
    save_field(output, stored)
    shown = {name: stored.provenance[name] for name in ("low", "high", "colours", "ranges", "modes")}
    return SceneResult(output=str(output), of=quantity, **shown, nodes=nodes, sha256=file_sha256(output))


def read_measurements(
    source: str | Path, posterior: Posterior
) -> tuple[Float[Tensor, "n modes"], Float[Tensor, "n"]]:
    """Read test or new measurements: coordinates in the model's units, and values.

    Raises:
        InputError: a mode or the value is missing, or in another unit.
    """
    label, opened = open_source(source)
    with opened as data:
        columns = columns_of(data, posterior.modes, label)
    rows = read_observations(source, columns, posterior.value_name, to_fit=False)
    units = (rows.value_unit, posterior.value_unit)
    if None not in units and units[0] != units[1]:
        raise InputError(f"{label} has {posterior.value_name} in {units[0]}; the model has it in {units[1]}")
    coordinates = [
        mode.parse(read.format(column))
        for mode, read, column in zip(posterior.modes, rows.modes, rows.coordinates.unbind(1), strict=True)
    ]
    return torch.stack(coordinates, dim=1), rows.values


def not_itself(output: str | Path, *sources: str | Path) -> None:
    """Check that the output is none of the inputs.

    Raises:
        SettingError: the output is one of the inputs.
    """
    for source in sources:
        if Path(output).resolve() == Path(source).resolve():
            raise SettingError(f"{output}: input and output are the same file")
