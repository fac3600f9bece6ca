"""Time and memory of a fit by number of rows, on synthetic functional Tucker data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fieldmorph.apps.bench.runner import Bench, Row, failures, markdown
from fieldmorph.apps.bench.tensor_data import DIGITS, NOISE, draw_tucker, rows_of
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.metrics import scores_of
from fieldmorph.fields.budget import Spent, now
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.runtime import peak_memory

COORDINATES = {f"{10**DIGITS + 1:,} a mode": DIGITS, "all different": None}
MIN_ROWS = 1000
FEW = 64  # rows on which the kernels are compiled first


@dataclass(frozen=True, kw_only=True)
class ScalingPlan:
    """Settings of every fit.

    Attributes:
        restarts, sweeps: as `FitConfig` has them.
        n_tested: new rows on which the fit is evaluated.
    """

    restarts: int = FitConfig.restarts
    sweeps: int = FitConfig.sweeps
    n_tested: int = 10_000


def bench_tensor_sizes(
    sizes: Sequence[int],
    output: str | Path = "bench_output",
    *,
    force: bool = False,
    quiet: bool = False,
    plan: ScalingPlan | None = None,
) -> Row:
    """Fit a model of rank 3 to each number of rows, each in a child process; return JSON values.

    Coordinates are rounded, as measured ones are, or all different. Rows are resumed as `Bench` says.

    Args:
        sizes: numbers of rows.
        plan: settings of every fit.

    Raises:
        SettingError, InputError: before anything is written.
    """
    if min(sizes) < MIN_ROWS:
        raise SettingError(f"sizes are numbers of rows, {MIN_ROWS} or more; got {min(sizes)}")
    settings = asdict(plan or ScalingPlan())
    bench = Bench("tensor_sizes", output, {}, {}, force, quiet)
    for coordinates, digits in COORDINATES.items():
        for rows in sizes:
            bench.run({"coordinates": coordinates, "rows": rows}, grow, rows=rows, digits=digits, **settings)
    return bench.finish({"noise": NOISE, "restarts": settings["restarts"]}, sizes_table)


def grow(rows: int, digits: int | None, restarts: int, sweeps: int, n_tested: int) -> Row:
    """Fit once as a job; return sweeps, time per sweep, memory, and the RMSE on new rows."""
    config = FitConfig(ranks=(3,), kernels=("matern32",), restarts=restarts, sweeps=sweeps)
    drawn = draw_tucker(rows + n_tested, digits, torch.Generator().manual_seed(0))
    data = Observations(*drawn, tuple(Mode(name) for name in "xyz"), "y", None, 0, 0, "made")
    train, test = rows_of(data, torch.arange(rows)), rows_of(data, torch.arange(rows, rows + n_tested))
    del data, drawn
    fit(rows_of(train, torch.arange(FEW)), config)
    program, start = peak_memory(), now()
    times: list[Spent] = []
    posterior, report = fit(train, config, on_sweep=lambda _sweep, _bound: times.append(now()))
    spent, peak = now() - start, peak_memory()
    between = times[-1] - times[0]
    return {
        "sweeps": len(times),
        "converged": report.converged,
        "sweep_seconds": between.seconds / (len(times) - 1),
        "sweep_core_seconds": between.core_seconds / (len(times) - 1),
        "seconds": spent.seconds,
        "core_seconds": spent.core_seconds,
        "peak_memory_bytes": peak,
        "program_memory_bytes": program,
        "rmse": scores_of(posterior, test.coordinates, test.values)["rmse"],
    }


def sizes_table(result: Row) -> str:
    """Format what `bench_tensor_sizes` returned as a Markdown table."""
    rows = [
        [
            f"{row['rows']:,}",
            row["coordinates"],
            f"{row['sweep_core_seconds']:.3f}",
            f"{1e6 * row['sweep_core_seconds'] / row['rows']:.2f}",
            str(row["sweeps"]),
            f"{row['core_seconds']:.1f}",
            "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e6:.0f}",
            "" if row["program_memory_bytes"] is None else f"{row['program_memory_bytes'] / 1e6:.0f}",
            f"{row['rmse']:.4f}",
        ]
        for row in result["rows"]
        if "error" not in row
    ]
    head = [
        "rows",
        "coordinates",
        "core-seconds per sweep",
        "core-µs per row and sweep",
        "sweeps",
        "core-seconds in all",
        "peak MB",
        "of it before the fit",
        "RMSE on new rows",
    ]
    about = (
        f"Three modes, rank 3, Matern-3/2, {result['restarts']} restarts, {result['threads']} threads; kernels are "
        f"learned during the fit. Values have the standard deviation 1 and noise of {result['noise']:g}, which is the "
        "smallest RMSE to expect. Memory is that of the fit."
    )
    return "\n".join([about, "", markdown(head, rows), *failures(result)])
