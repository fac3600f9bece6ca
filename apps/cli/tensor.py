"""The `fieldmorph tensor` commands: parsing, and handlers that import what they need when they are called."""

import argparse
import re
from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.handlers import Args, extra, prepare, set_threads, show
from fieldmorph.fields.errors import SettingError

THREADS_HELP = "cores to use (default: all there are)"
MODEL_HELP = "file of a fitted model"
RANGE_HELP = "of the {}: from:to:step, both ends included, or values with commas"
GRID_EPILOG = (
    "Modes that are not named take the coordinates the model was fitted at, or 50 from end to end where these are more "
    "than 500. The file has the mean and VALUE_sd, the standard deviation of a new measurement."
)

UPDATE_EPILOG = (
    "What it was fitted to is not read again: cost goes with the new rows. Coordinates may be new, as those of the "
    "next day are. Ranks, kernels and calibrated intervals stay those of the fit."
)


def add_commands(jobs: Any) -> None:
    """`tensor` with commands of its own."""
    tensor = jobs.add_parser(
        "tensor", help="functional Tucker models of scattered measurements: fit, predict, grid, plot",
        description="Functional Bayesian Tucker models of measurements at scattered places and times.",
    )  # fmt: skip
    own = tensor.add_subparsers(metavar="JOB", required=True)
    _add_fit(own)

    update = arg.command(own, "update", update_model, "teach a model new measurements", THREADS_HELP)
    update.epilog = UPDATE_EPILOG
    update.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    update.add_argument("data", metavar="NEW_ROWS", help="measurements: CSV, TSV (.gz), Parquet or NetCDF")
    update.add_argument("--sweeps", type=arg.count, default=50, metavar="N", help="at most (default 50)")
    arg.add_output(update, "file to write; MODEL itself with --force")

    predict = arg.command(own, "predict", predict_points, "predict at the rows of a table", THREADS_HELP)
    predict.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    predict.add_argument(
        "points", metavar="POINTS", help="CSV, TSV (.gz) or Parquet with a column for each mode"
    )
    predict.add_argument(
        "--level", type=_level, default=0.95, metavar="SHARE",
        help="of new measurements that the interval lower..upper shall hold (default 0.95)",
    )  # fmt: skip
    arg.add_output(
        predict, "table to write: POINTS with the columns mean, sd, lower, upper (.csv, .tsv, .parquet)"
    )

    evaluate = arg.command(
        own, "eval", evaluate_model, "measure a model on rows it has not seen", THREADS_HELP
    )
    evaluate.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    evaluate.add_argument("test", metavar="TEST", help="measurements: CSV, Parquet or NetCDF")

    grid = arg.command(own, "grid", predict_grid, "predict on a grid, as NetCDF", THREADS_HELP)
    grid.epilog = GRID_EPILOG
    grid.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    for name, kind, example in (
        ("lat", "latitude", "30:60:0.5"),
        ("lon", "longitude", "-10:30:0.5"),
        ("time", "time", "2020-01-01:2020-12-31:1D"),
    ):
        grid.add_argument(f"--{name}", dest=kind, metavar=example, help=RANGE_HELP.format(kind))
    grid.add_argument(
        "--axis", type=_range, action="append", default=[], metavar="MODE=0:30:1",
        help="the same for any mode by its name; may be repeated. Steps of times end in s, min, h, D, W, M or Y",
    )  # fmt: skip
    arg.add_output(grid, "NetCDF file to write")

    plot = arg.command(
        own, "plot", plot_model, "pictures of a model: factors, maps, calibration", THREADS_HELP
    )
    plot.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    plot.add_argument(
        "--data", metavar="TEST", help="measurements it has not seen, for the picture of its calibration"
    )
    arg.add_output(plot, "folder for the PNGs")

    scene = arg.command(
        own,
        "scene",
        make_scene,
        "a model of three modes as a field to render, view and convert",
        THREADS_HELP,
    )
    scene.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    scene.add_argument(
        "--of", choices=("mean", "sd"), default="mean", help="what is shown of the function (default mean)"
    )
    scene.add_argument("--low", type=float, metavar="X", help="value that is clear (default: the median)")
    scene.add_argument("--high", type=float, metavar="X", help="value that is opaque (default: the largest)")
    scene.add_argument(
        "--nodes", type=arg.count, default=96, metavar="N", help="along each side (default 96)"
    )
    arg.add_output(scene, "field to write, of voxels")

    demo = arg.command(
        own, "demo", demo_tensor, "sea-surface temperatures from scattered measurements", THREADS_HELP
    )
    demo.add_argument("--seed", type=arg.seed, default=0, help="of the draw and the fit (default 0)")
    arg.add_output(
        demo, "folder for model, grid and pictures (default demo_output/tensor)", "demo_output/tensor"
    )


def _add_fit(own: Any) -> None:
    fit = arg.command(own, "fit", fit_model, "fit a model to measurements", THREADS_HELP)
    fit.add_argument("data", metavar="DATA", help="CSV, TSV (.gz), Parquet or NetCDF")
    fit.add_argument(
        "--modes", type=arg.names, metavar="A,B,C",
        help="columns or variables that are coordinates (default: latitude, longitude and time; a grid's dimensions)",
    )  # fmt: skip
    fit.add_argument("--value", metavar="NAME", help="the measured column (default: the only other one)")
    fit.add_argument(
        "--rank",
        type=_counts,
        default=(3,),
        metavar="R|R,R,R",
        help="functions of each mode, or of all (default 3)",
    )
    fit.add_argument(
        "--prune", action="store_true", help="ranks are the most: functions that the data do not need go"
    )
    fit.add_argument(
        "--kernel", type=arg.names, default=("matern12",), metavar="K|K,K,K",
        help="how smooth each mode is, or all: matern12 (rough, the default), matern32, matern52",
    )  # fmt: skip
    fit.add_argument(
        "--cp", action="store_true", help="CP: functions are multiplied one by one, there is no core"
    )
    fit.add_argument(
        "--no-centre", action="store_true", help="leave the mean in the values: where effects multiply"
    )
    fit.add_argument(
        "--student", type=float, metavar="NU",
        help="Student-t noise of so many degrees of freedom (4, say): for data with wild values",
    )  # fmt: skip
    fit.add_argument(
        "--restarts", type=arg.count, default=3, metavar="N", help="beginnings tried (default 3)"
    )
    fit.add_argument("--sweeps", type=arg.count, default=100, metavar="N", help="at most (default 100)")
    fit.add_argument(
        "--tolerance", type=arg.positive, default=5e-4, metavar="X",
        help="the fit is done when sweeps gain less, in nats for each row (default 0.0005)",
    )  # fmt: skip
    fit.add_argument(
        "--calibrate", type=_level, metavar="SHARE",
        help="hold out this share of the rows once, to learn how wide intervals must be: 0.1, say; takes twice as long",
    )  # fmt: skip
    fit.add_argument(
        "--calibrate-by", type=_blocks, default={}, metavar="A,B=10",
        help="hold out whole blocks instead, for intervals that hold where these are new: lat,lon (each place), "
        "time=30D (s, min, h, D, W), lat,lon,year=10",
    )  # fmt: skip
    fit.add_argument(
        "--calibrate-rounds", type=arg.count, default=1, metavar="N",
        help="shares held out, one after the other, each with a fit of its own: for few rows or blocks (default 1)",
    )  # fmt: skip
    fit.add_argument(
        "--residual", type=arg.names, metavar="A,B",
        help="add a Gaussian process of these modes together: lat,lon where new places are expected",
    )  # fmt: skip
    fit.add_argument(
        "--residual-points", type=arg.count, metavar="N",
        help="places through which it knows the others (default 256): with as many as there are it is exact",
    )  # fmt: skip
    fit.add_argument("--sample", type=arg.count, metavar="N", help="draw so many of the rows")
    fit.add_argument("--seed", type=arg.seed, default=0, help="of everything random (default 0)")
    arg.add_output(fit, "file to write")


@extra()
def fit_model(args: Args) -> int:
    progress = prepare("fit", args)
    from fieldmorph.apps.tensor.calibration import Calibration
    from fieldmorph.apps.tensor.jobs import fit_file
    from fieldmorph.bayes.fitting import FitConfig
    from fieldmorph.bayes.residual_gp import ResidualConfig

    config = FitConfig(
        ranks=args.rank, kernels=args.kernel, cp=args.cp, prune=args.prune, centre=not args.no_centre,
        student=args.student, restarts=args.restarts, sweeps=args.sweeps, tolerance=args.tolerance, seed=args.seed,
    )  # fmt: skip
    calibrate = None
    if args.calibrate is not None:
        calibrate = Calibration(args.calibrate, args.calibrate_by, args.calibrate_rounds)
    elif args.calibrate_by or args.calibrate_rounds > 1:
        raise SettingError(
            "--calibrate-by and --calibrate-rounds need --calibrate SHARE, the share that is held out"
        )
    residual = None
    if args.residual:
        points = {"n_inducing": args.residual_points} if args.residual_points else {}
        residual = ResidualConfig(args.residual, **points)
    elif args.residual_points:
        raise SettingError("--residual-points needs --residual A,B, the modes of the process")
    with progress:
        result = fit_file(
            args.data, args.output, config, modes=args.modes, value=args.value, sample=args.sample,
            residual=residual, calibrate=calibrate, force=args.force, on_sweep=progress.sweep,
        )  # fmt: skip
    from fieldmorph.apps.tensor.summaries import fit_table

    return show(result, args, fit_table)


@extra()
def update_model(args: Args) -> int:
    progress = prepare("update", args)
    from fieldmorph.apps.tensor.jobs import update_file

    with progress:
        result = update_file(
            args.model, args.data, args.output, sweeps=args.sweeps, force=args.force, on_sweep=progress.sweep
        )
    from fieldmorph.apps.tensor.summaries import update_table

    return show(result, args, update_table)


@extra()
def predict_points(args: Args) -> int:
    progress = prepare("predict", args)
    from fieldmorph.apps.tensor.jobs import predict_file

    with progress:
        result = predict_file(
            args.model, args.points, args.output, level=args.level, force=args.force,
            on_rows=lambda done, total: progress.show(done / total, done, "row"),
        )  # fmt: skip
    from fieldmorph.apps.tensor.summaries import predict_table

    return show(result, args, predict_table)


@extra()
def evaluate_model(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.tensor.jobs import evaluate_file
    from fieldmorph.apps.tensor.summaries import scores_table

    return show(evaluate_file(args.model, args.test), args, scores_table)


@extra()
def predict_grid(args: Args) -> int:
    kinds = {kind: getattr(args, kind) for kind in ("latitude", "longitude", "time")}
    ranges = {kind: text for kind, text in kinds.items() if text is not None}
    for name, text in args.axis:
        if name in ranges:
            raise SettingError(f"{name} is given twice")
        ranges[name] = text
    progress = prepare("grid", args)
    from fieldmorph.apps.tensor.grid import grid_file

    with progress:
        result = grid_file(
            args.model, args.output, ranges, force=args.force,
            on_cells=lambda done, total: progress.show(done / total, done, "cell"),
        )  # fmt: skip
    from fieldmorph.apps.tensor.summaries import grid_table

    return show(result, args, grid_table)


@extra()
def plot_model(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.tensor.plots import plot_file

    result = plot_file(args.model, args.output, data=args.data, force=args.force)
    return show(result, args, lambda r: f"{r['output']}: {', '.join(r['files'])}")


@extra()
def make_scene(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.tensor.jobs import scene_file

    result = scene_file(
        args.model, args.output, quantity=args.of, low=args.low, high=args.high, nodes=args.nodes, force=args.force,
    )  # fmt: skip
    return show(result, args, lambda r: f"{r['output']}: {r['of']} from {r['low']:g} to {r['high']:g}")


@extra()
def demo_tensor(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.tensor.demo import run_demo
    from fieldmorph.apps.tensor.summaries import demo_table

    return show(run_demo(args.output, seed=args.seed, force=args.force, quiet=args.quiet), args, demo_table)


def _level(text: str) -> float:
    value = arg.positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1; got {text!r}")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(arg.count(part) for part in text.split(","))


def _blocks(text: str) -> dict[str, str]:
    """Modes, and after an equals sign how long a block of one is."""
    parts = [re.fullmatch(r"([^=]+)(?:=(.+))?", part) for part in text.split(",")]
    names = [match[1] for match in parts if match]
    if len({*names}) < len(parts):
        raise argparse.ArgumentTypeError(f"blocks look like lat,lon or lat,lon,year=10; got {text!r}")
    return {match[1]: match[2] or "" for match in parts if match}


def _range(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?)=(.+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a mode's range looks like temp=0:30:1; got {text!r}")
    return match[1], match[2]
