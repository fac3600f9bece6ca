"""Text for the results of tensor jobs."""

from collections.abc import Mapping
from typing import Any

from fieldmorph.apps.tensor.labels import coordinate, kernel_words, label, length, percent, with_unit
from fieldmorph.apps.tensor.results import (
    DemoSummary,
    EvalResult,
    FitResult,
    FitSummary,
    GridResult,
    PredictResult,
    ResidualSummary,
    UpdateResult,
)


def fit_table(result: FitResult) -> str:
    """Return the result of `fit_file` as text."""
    return f"{result.output}: {fitted(result)}"


def fitted(result: FitResult) -> str:
    """Return rows, ranks, lengthscales, noise, bound and time as text, and a note if the fit did not converge."""
    fit, unit = result.fit, result.fit.value.unit
    ranks = [str(mode.rank) for mode in fit.modes]
    core = f"Tucker {' x '.join(ranks)}" if fit.core == "tucker" else f"CP {ranks[0]}"
    kernels = [f"{mode.name} {kernel_words(mode.kernel, mode.kind, mode.unit)}" for mode in fit.modes]
    kinds = {mode.name: (mode.kind, mode.unit) for mode in fit.modes}
    processes = "; ".join([*kernels, *_residual_words(fit.residual, kinds, unit)])
    text = (
        f"{fit.rows} rows{_left_out(fit)}; {core}; {processes}; "
        f"noise {with_unit(format(fit.noise_sd, '.3g'), unit)}; "
        f"bound {fit.bound_per_row:.4f} nats/row after {fit.sweeps} sweeps, {result.seconds:.1f} s"
    )
    if calibration := fit.calibration:
        what = f"blocks of {' x '.join(calibration['by'])}" if calibration["by"] else "rows"
        text += (
            f"; intervals calibrated on held-out {what}, guaranteed up to {percent(fit.intervals.guaranteed)}"
        )
    return text + _cut_off(fit.converged)


def update_table(result: UpdateResult) -> str:
    """Return the result of `update_file` as text."""
    new = ", ".join(f"{n} of {name}" for name, n in result.new_points.items() if n)
    noise = with_unit(format(result.noise_sd, ".3g"), result.value.unit)
    text = (
        f"{result.output}: {result.rows} new rows, {result.rows_in_all} in total; "
        f"new coordinates: {new or 'none'}; noise {noise}; "
        f"bound {result.bound_per_row:.4f} nats/row after {result.sweeps} sweeps, {result.seconds:.1f} s"
    )
    if result.intervals.levels:
        text += "; calibrated intervals unchanged"
    return text + _cut_off(result.converged)


def predict_table(result: PredictResult) -> str:
    """Return the result of `predict_file` as text."""
    empty = result.without_coordinates
    missing = f", {empty} of them without coordinates and predictions" if empty else ""
    value = label(result.value.name, result.value.unit)
    return (
        f"{result.output}: {result.rows} rows{missing}; {value}: mean, sd of a new measurement, and its "
        f"{percent(result.level)} interval; {result.seconds:.1f} s"
    )


def scores_table(result: EvalResult) -> str:
    """Return the result of `evaluate_file` as text."""

    def shown(metric: float) -> str:
        return with_unit(format(metric, ".4g"), result.value.unit)

    lines = {
        "RMSE": shown(result.rmse),
        "MAE": shown(result.mae),
        "CRPS": shown(result.crps),
        "NLPD": f"{result.nlpd:.4g} nats",
        "inside the 95 % interval": percent(result.cov95),
        "mean width of it": shown(result.width),
    }
    head = f"{result.rows} rows of {result.test}"
    return "\n".join([head, *(f"{name:<25} {text}" for name, text in lines.items())])


def grid_table(result: GridResult) -> str:
    """Return the result of `grid_file` as text."""
    sizes = " x ".join(f"{size} {name}" for name, size in result.sizes.items())
    return (
        f"{result.output}: {' and '.join(result.variables)} on {sizes}; {result.bytes / 1e6:.1f} MB, "
        f"{result.seconds:.1f} s"
    )


def info_words(described: Mapping[str, Any]) -> list[str]:
    """Return lines of text for a model that `describe_file` described."""
    value, unit = described["value"], described["value"]["unit"]
    lines = [
        f"value: {label(value['name'], unit)}",
        f"rows: {described['rows']}",
        f"core: {described['core']}, {' x '.join(str(m['rank']) for m in described['modes'])}",
        f"noise: {with_unit(format(described['noise_sd'], '.4g'), unit)}",
    ]
    for mode in described["modes"]:
        first, last = (coordinate(x, mode["kind"], mode["calendar"]) for x in mode["range"])
        name = label(mode["name"], None if mode["kind"] == "time" else mode["unit"])
        kernel = kernel_words(mode["kernel"], mode["kind"], mode["unit"])
        lines.append(
            f"mode {name}: {mode['points']} points from {first} to {last}, rank {mode['rank']}, {kernel}"
        )
    residual = described["residual"] and ResidualSummary(**described["residual"])
    kinds = {mode["name"]: (mode["kind"], mode["unit"]) for mode in described["modes"]}
    return lines + _residual_words(residual, kinds, unit)


def _residual_words(
    residual: ResidualSummary | None, kinds: Mapping[str, tuple[str, str | None]], unit: str | None
) -> list[str]:
    """Return text for the residual process, if there is one.

    Args:
        kinds: kind and unit of each mode.
        unit: of the value.
    """
    if residual is None:
        return []
    along = [
        f"{length(value, *kinds[name])} in {name}"
        for name, value in zip(residual.modes, residual.lengthscale, strict=True)
    ]
    sd = with_unit(format(residual.amplitude, ".3g"), unit)
    return [
        f"plus a residual process of {' x '.join(residual.modes)}, sd {sd}, lengthscales {', '.join(along)}"
    ]


def _left_out(fit: FitSummary) -> str:
    counts = [f"{n} {what}" for n, what in ((fit.dropped, "incomplete"), (fit.merged, "repeated")) if n]
    return f" (left out: {', '.join(counts)})" if counts else ""


def _cut_off(converged: bool) -> str:
    if converged:
        return ""
    return "\nnote: the maximum number of sweeps was reached before convergence; increase --sweeps"


def demo_table(summary: DemoSummary) -> str:
    """Return the result of `run_demo` as text."""
    month = summary.month[:7]
    lines = [
        f"Monthly sea-surface temperature (OSTIA), 5°S to 5°N, {summary.months} months; {summary.fit.fit.rows:,} of "
        f"{summary.cells:,} sea cells used, none of {month}",
        fitted(summary.fit),
        f"{'RMSE in °C on':<32} {'model':>7} {'nearest':>8} {'constant':>9} {'inside 95 %':>12}",
    ]
    for key, name in (("test", "other cells"), ("month", f"{month}, held out")):
        found = summary.scores[key]
        lines.append(
            f"{name + ', ' + format(found.rows, ','):<32} {found.rmse:7.3f} {found.rmse_nearest:8.3f} "
            f"{found.rmse_mean:9.3f} {percent(found.cov95):>12}"
        )
    lines.append(
        "intervals were calibrated on cells of other months; they need not hold for the held-out month"
    )
    peak = summary.peak_memory_bytes
    memory = "" if peak is None else f", {peak / 1e9:.2f} GB peak memory"
    lines.append(f"{summary.seconds:.0f} s in total{memory}; see {summary.output}/month.png")
    return "\n".join(lines)
