"""Functional Tucker models of several settings and other packages' methods on the same rows of the same folds."""

import logging
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from fieldmorph.apps.bench.runner import Bench, Row, failures, markdown
from fieldmorph.apps.bench.tensor_baselines import BASELINES, Blocks, Method
from fieldmorph.apps.bench.tensor_data import DataSet, find_sets, make_sets, read_sets, rows_of
from fieldmorph.apps.tensor.labels import percent
from fieldmorph.bayes.calibration import Predict, held_out_scores
from fieldmorph.bayes.conformal import calibrate_intervals
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.metrics import score
from fieldmorph.bayes.residual_gp import ResidualConfig, fit_with_residual
from fieldmorph.fields.budget import now
from fieldmorph.fields.errors import SettingError, known
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.runtime import peak_memory

log = logging.getLogger(__name__)

OURS = {
    "tucker3": FitConfig(ranks=(3,)),
    "tucker5": FitConfig(ranks=(5,)),
    "tucker7": FitConfig(ranks=(7,)),
    "cp5": FitConfig(ranks=(5,), cp=True),
    "tucker3-matern32": FitConfig(ranks=(3,), kernels=("matern32",)),
    "tucker7-places": FitConfig(ranks=(7,), kernels=("matern32", "matern32", "matern12")),
    "tucker3-student": FitConfig(ranks=(3,), student=4.0),
}
RESIDUAL = (
    "tucker3",
    "tucker7-places",
)  # again, with a residual process of the first two modes: of the place
HELD_OUT = 0.2  # fraction of the blocks that is held out at once to calibrate intervals
BLOCKS = 39  # to hold out, if there are so many: twice what a level of 95 % needs
FEW = 64  # rows on which every method runs first, so that compilation and imports are not measured
FIGURES = ("rmse", "mae", "nlpd", "crps", "cov95", "width", "calibrated_cov95", "calibrated_width")
COSTS = ("seconds", "core_seconds", "calibration_core_seconds", "peak_memory_bytes", "program_memory_bytes")


def bench_tensor(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    n_folds: int | None = None,
    scale: float = 1.0,
    only: Sequence[str] | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Row:
    """Run every method on every fold of every data set, each in a child process; return JSON values.

    Rows are resumed as `Bench` says.

    Args:
        data: folder of .npz files as `read_sets` takes them; by default those that `make_sets` makes. Other files are
            skipped, each with a warning.
        n_folds: of each data set, the first ones.
        scale: fraction of the training rows, at most 1.
        only: these methods and these data sets (`name`, or `name/split`); all methods, or all data sets, where none is
            named.

    Raises:
        SettingError, InputError: before anything is written.
    """
    if scale > 1:
        raise SettingError(f"the scale is a fraction of the rows, at most 1; got {scale:g}")
    methods = all_methods()
    with tempfile.TemporaryDirectory() as made:
        lacking = make_sets(Path(made)) if data is None else []
        unfit: list[str] = []
        found = find_sets(made if data is None else data, unfit.append)
        for line in unfit:
            log.warning("skipped: %s", line)
        sets, names = _chosen(only, found, list(methods))
        bench = Bench("tensor", output, {"share": scale}, {}, force, quiet)
        skipped = {name: why for name in names if (why := methods[name].missing())}
        for name, (path, each) in sets.items():
            for fold in range(len(each.folds[:n_folds])):
                for method in (name for name in names if name not in skipped):
                    bench.run(
                        {"data": name, "data_sha256": file_sha256(path), "fold": fold, "method": method},
                        measure,
                        path=path,
                        split=each.split,
                        fold=fold,
                        method=method,
                        fraction=scale,
                    )
    result = {
        "sets": {name: describe(each, n_folds) for name, (_, each) in sets.items()},
        "skipped": {**skipped, **dict(line.split(": ", 1) for line in lacking), **_reasons(unfit)},
        "summary": summarize(bench.rows),
    }
    return bench.finish(result, tensor_table)


def _reasons(unfit: Sequence[str]) -> dict[str, str]:
    """Return lines about files by the file's name, which they begin with."""
    return {line.split()[0].rstrip(":"): line for line in unfit}


def all_methods() -> dict[str, Method]:
    """Return our methods and the baselines, by name."""
    ours = {name: Method(partial(learn, config)) for name, config in OURS.items()}
    with_residual = {
        f"{name}-residual": Method(partial(learn_with_residual, OURS[name])) for name in RESIDUAL
    }
    return {**ours, **with_residual, **BASELINES}


def learn(config: FitConfig, rows: Observations, _: Blocks = None) -> Predict:
    """Fit a functional Tucker model."""
    return fit(rows, config)[0].predict


def learn_with_residual(config: FitConfig, rows: Observations, _: Blocks = None) -> Predict:
    """Fit a functional Tucker model and a residual process over the first two modes."""
    place = ResidualConfig(tuple(mode.name for mode in rows.modes[:2]))
    return fit_with_residual(rows, config, place)[0].predict


def measure(path: str | Path, split: str, fold: int, method: str, fraction: float) -> Row:
    """Fit a method to a fold as a job, predict its test rows, and calibrate it on rows held out.

    Figures of intervals are those of the method's own Gaussian and, `calibrated_...`, those of held-out residuals. A
    method that predicts only the mean gets their root mean square as its standard deviation.
    """
    threadpool_limits(torch.get_num_threads())
    chosen = all_methods()[method]
    data = read_sets(path)[split]
    rows, test = data.part(fold, fraction)
    few = torch.randperm(len(rows.values), generator=torch.Generator().manual_seed(0))[:FEW]
    chosen.learn(rows_of(rows, few), None)(test.coordinates[:1])
    blocks = data.blocks(rows)
    program, start = peak_memory(), now()
    found = chosen.learn(rows, blocks)(test.coordinates)
    spent, peak = now() - start, peak_memory()
    scores, block = held_out_scores(
        rows,
        lambda rest, _: chosen.learn(rest, data.blocks(rest)),
        fraction=HELD_OUT,
        rounds=_rounds(rows, blocks),
        blocks=blocks,
    )
    scores, block = scores[~scores.isnan()], block[~scores.isnan()]
    if not chosen.spread:
        sd = scores.square().mean().sqrt()
        scores, found = scores / sd, replace(found, sd=sd * found.sd)
    calibrated = score(replace(found, intervals=calibrate_intervals(scores, block)), test.values)
    whole = now() - start
    return {
        **score(found, test.values),
        **{f"calibrated_{name}": calibrated[name] for name in ("cov95", "width")},
        "seconds": spent.seconds,
        "core_seconds": spent.core_seconds,
        "calibration_core_seconds": (whole - spent).core_seconds,
        "peak_memory_bytes": peak,
        "program_memory_bytes": program,
    }


def describe(data: DataSet, n_folds: int | None = None) -> Row:
    """Describe a data set as JSON values: rows of the first fold, `folds` that are run."""
    rows, test = data.part(0)
    modes = zip(rows.modes, data.rows.coordinates.unbind(1), strict=True)
    return {
        "split": data.split,
        "unit": rows.value_unit,
        "modes": {mode.name: len(column.unique()) for mode, column in modes},
        "rows": len(rows.values),
        "test_rows": len(test.values),
        "folds": len(data.folds[:n_folds]),
        "repeated": data.repeated(),
    }


def summarize(rows: list[Row]) -> list[Row]:
    """Return means over folds for each data set and method; `rmse_sd` is the standard deviation."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault((row["data"], row["method"]), []).append(row)
    summary = []
    for (data, method), mine in groups.items():
        entry: Row = {"data": data, "method": method, "folds": len(mine)}
        for name in (*FIGURES, *COSTS):
            values = [row[name] for row in mine]
            entry[name] = None if None in values else statistics.fmean(values)
        entry["rmse_sd"] = statistics.stdev(row["rmse"] for row in mine) if len(mine) > 1 else None
        summary.append(entry)
    return summary


def tensor_table(result: Row) -> str:
    """Format what `bench_tensor` returned as Markdown tables, one for each data set."""
    head = [
        "method",
        "RMSE",
        "MAE",
        "NLPD",
        "CRPS",
        "inside 95 %",
        "width",
        "calibrated: inside",
        "width",
        "core-seconds",
        "to calibrate",
        "peak MB",
        "of it the program",
    ]
    lines = [
        f"Means over folds, {result['threads']} threads. Core-seconds: to fit and predict; to calibrate: to fit "
        f"again with {percent(HELD_OUT)} of the rows or blocks held out, once or more often. Methods without a "
        "standard deviation (kNN, HGB, LightGBM, parafac) have that of held-out residuals."
    ]
    if result["share"] < 1:
        lines.append(f"Only {percent(result['share'])} of the training rows were used.")
    lines += [f"- not run: {name}: {why}" for name, why in result["skipped"].items()]
    for name, about in result["sets"].items():
        rows = [_cells(entry) for entry in result["summary"] if entry["data"] == name]
        lines += ["", _heading(name, about), "", markdown(head, rows)]
    return "\n".join([*lines, *failures(result)])


def _heading(name: str, about: Row) -> str:
    modes = ", ".join(f"{mode} ({n})" for mode, n in about["modes"].items())
    unit = "in standard deviations" if about["unit"] == "sd" else "as measured"
    text = (
        f"**{name}**: {about['rows']:,} training rows, {about['test_rows']:,} test rows, new {about['split']}; "
        f"{about['folds']} {'fold' if about['folds'] == 1 else 'folds'}; {modes}; values {unit}."
    )
    if about["repeated"] > 0.01:
        text += f" {percent(about['repeated'])} of the test rows are also training rows, with their values."
    return text


def _cells(entry: Row) -> list[str]:
    spread = "" if entry["rmse_sd"] is None else f" ± {entry['rmse_sd']:.3f}"
    coverage = {name: f"{100 * entry[name]:.1f} %" for name in ("cov95", "calibrated_cov95")}
    return [
        entry["method"],
        f"{entry['rmse']:.4f}{spread}",
        *(f"{entry[name]:.4f}" for name in ("mae", "nlpd", "crps")),
        coverage["cov95"],
        f"{entry['width']:.3f}",
        coverage["calibrated_cov95"],
        f"{entry['calibrated_width']:.3f}",
        *(f"{entry[name]:.1f}" for name in ("core_seconds", "calibration_core_seconds")),
        *(
            "" if entry[name] is None else f"{entry[name] / 1e6:.0f}"
            for name in ("peak_memory_bytes", "program_memory_bytes")
        ),
    ]


def _chosen(
    only: Sequence[str] | None, sets: dict[str, tuple[Path, DataSet]], methods: list[str]
) -> tuple[dict[str, tuple[Path, DataSet]], list[str]]:
    """Return the data sets and the methods that are named; all where none is.

    Raises:
        SettingError: a name that is neither's.
    """
    words = set(only or ())
    stems = {name.rsplit("/", 1)[0] for name in sets}
    for word in words:
        if word not in {*sets, *stems, *methods}:
            raise known("data set or method", word, [*sets, *methods])
    some_sets = {name: each for name, each in sets.items() if {name, name.rsplit("/", 1)[0]} & words}
    some_methods = [name for name in methods if name in words]
    return some_sets or sets, some_methods or methods


def _rounds(rows: Observations, blocks: Blocks) -> int:
    """Return how many times a fraction is held out."""
    n = len(rows.values) if blocks is None else len(blocks.unique())
    size = max(1, round(HELD_OUT * n))
    return -(-min(BLOCKS, n) // size)
