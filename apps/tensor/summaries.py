"""Text for the results of tensor jobs."""

from collections.abc import Mapping
from typing import Any

from fieldmorph.apps.tensor.labels import coordinate, kernel_words, label, length, percent, with_unit


def fit_table(result: dict[str, Any]) -> str:
    """Return the result of `fit_file` as text."""
    return f"{result['output']}: {fitted(result)}"


def fitted(result: dict[str, Any]) -> str:
    """Return rows, ranks, lengthscales, noise, bound and time as text, and a note if the fit did not converge."""
    unit, modes = result["value"]["unit"], result["modes"]
    ranks = (
        " x ".join(str(mode["rank"]) for mode in modes) if result["core"] == "tucker" else modes[0]["rank"]
    )
    noise = with_unit(format(result["noise_sd"], ".3g"), unit)
    kernels = [f"{m['name']} {kernel_words(m['kernel'], m['kind'], m['unit'])}" for m in modes]
    text = (
        f"{result['rows']} rows{_left_out(result)}; {'Tucker' if result['core'] == 'tucker' else 'CP'} {ranks}; "
        f"{'; '.join([*kernels, *_residual_words(result)])}; noise {noise}; "
        f"bound {result['bound_per_row']:.4f} nats/row after {result['sweeps']} sweeps, {result['seconds']:.1f} s"
    )
    if calibration := result["calibration"]:
        what = f"blocks of {' x '.join(calibration['by'])}" if calibration["by"] else "rows"
        level = percent(result["intervals"]["guaranteed"])
        text += f"; intervals calibrated on held-out {what}, guaranteed up to {level}"
    return text + _cut_off(result)


def update_table(result: dict[str, Any]) -> str:
    """Return the result of `update_file` as text."""
    new = ", ".join(f"{n} of {name}" for name, n in result["new_points"].items() if n)
    noise = with_unit(format(result["noise_sd"], ".3g"), result["value"]["unit"])
    text = (
        f"{result['output']}: {result['rows']} new rows, {result['rows_in_all']} in total; "
        f"new coordinates: {new or 'none'}; noise {noise}; "
        f"bound {result['bound_per_row']:.4f} nats/row after {result['sweeps']} sweeps, {result['seconds']:.1f} s"
    )
    if result["intervals"]["levels"]:
        text += "; calibrated intervals unchanged"
    return text + _cut_off(result)


def predict_table(result: dict[str, Any]) -> str:
    """Return the result of `predict_file` as text."""
    empty = result["without_coordinates"]
    missing = f", {empty} of them without coordinates and predictions" if empty else ""
    value = label(result["value"]["name"], result["value"]["unit"])
    return (
        f"{result['output']}: {result['rows']} rows{missing}; {value}: mean, sd of a new measurement, and its "
        f"{percent(result['level'])} interval; {result['seconds']:.1f} s"
    )


def scores_table(result: dict[str, Any]) -> str:
    """Return the result of `evaluate_file` as text."""
    unit = result["value"]["unit"]
    shown = {name: with_unit(format(result[name], ".4g"), unit) for name in ("rmse", "mae", "crps", "width")}
    lines = {
        "RMSE": shown["rmse"],
        "MAE": shown["mae"],
        "CRPS": shown["crps"],
        "NLPD": f"{result['nlpd']:.4g} nats",
        "inside the 95 % interval": percent(result["cov95"]),
        "mean width of it": shown["width"],
    }
    head = f"{result['rows']} rows of {result['test']}"
    return "\n".join([head, *(f"{name:<25} {text}" for name, text in lines.items())])


def grid_table(result: dict[str, Any]) -> str:
    """Return the result of `grid_file` as text."""
    sizes = " x ".join(f"{size} {name}" for name, size in result["sizes"].items())
    return (
        f"{result['output']}: {' and '.join(result['variables'])} on {sizes}; {result['bytes'] / 1e6:.1f} MB, "
        f"{result['seconds']:.1f} s"
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
    return lines + _residual_words(described)


def _residual_words(described: Mapping[str, Any]) -> list[str]:
    """Return text for the residual process, if there is one."""
    if (residual := described["residual"]) is None:
        return []
    kinds = {mode["name"]: mode for mode in described["modes"]}
    along = [
        f"{length(value, kinds[name]['kind'], kinds[name]['unit'])} in {name}"
        for name, value in zip(residual["modes"], residual["lengthscale"], strict=True)
    ]
    sd = with_unit(format(residual["amplitude"], ".3g"), described["value"]["unit"])
    return [
        f"plus a residual process of {' x '.join(residual['modes'])}, sd {sd}, lengthscales {', '.join(along)}"
    ]


def _left_out(result: dict[str, Any]) -> str:
    counts = [
        f"{result[key]} {what}"
        for key, what in (("dropped", "incomplete"), ("merged", "repeated"))
        if result[key]
    ]
    return f" (left out: {', '.join(counts)})" if counts else ""


def _cut_off(result: dict[str, Any]) -> str:
    if result["converged"]:
        return ""
    return "\nnote: the maximum number of sweeps was reached before convergence; increase --sweeps"


def demo_table(summary: dict[str, Any]) -> str:
    """Return the result of `run_demo` as text."""
    fitted_to, scores = summary["fit"], summary["scores"]
    lines = [
        f"Monthly sea-surface temperature (OSTIA), 5°S to 5°N, {summary['months']} months; {fitted_to['rows']:,} of "
        f"{summary['cells']:,} sea cells used, none of {summary['month'][:7]}",
        fitted(fitted_to),
        f"{'RMSE in °C on':<32} {'model':>7} {'nearest':>8} {'constant':>9} {'inside 95 %':>12}",
    ]
    for key, name in (("test", "other cells"), ("month", f"{summary['month'][:7]}, held out")):
        found = scores[key]
        lines.append(
            f"{name + ', ' + format(found['rows'], ','):<32} {found['rmse']:7.3f} {found['rmse_nearest']:8.3f} "
            f"{found['rmse_mean']:9.3f} {percent(found['cov95']):>12}"
        )
    lines.append(
        "intervals were calibrated on cells of other months; they need not hold for the held-out month"
    )
    peak = summary["peak_memory_bytes"]
    memory = "" if peak is None else f", {peak / 1e9:.2f} GB peak memory"
    lines.append(f"{summary['seconds']:.0f} s in total{memory}; see {summary['output']}/month.png")
    return "\n".join(lines)
