"""`fieldmorph tensor fit`: fit a model to measurements."""

import argparse
import re
from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, prepare, show
from fieldmorph.apps.cli.tensor.options import ROWS_HELP, fraction
from fieldmorph.apps.console import values
from fieldmorph.bayes.covariances.table import describe_choices
from fieldmorph.fields.errors import SettingError


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(jobs, "fit", run, "fit a model to measurements", arg.THREADS_HELP)
    parser.add_argument("data", metavar="DATA", help=ROWS_HELP)
    _add_columns(parser)
    _add_model_options(parser)
    _add_optimiser_options(parser)
    _add_interval_options(parser)
    parser.add_argument("--seed", type=values.seed, default=0, help="random seed (default 0)")
    arg.add_output(parser, "file to write")


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modes",
        type=values.names,
        metavar="A,B,C",
        help="columns or variables that are coordinates (default: latitude, longitude and time; a grid's dimensions)",
    )
    parser.add_argument("--value", metavar="NAME", help="the measured column (default: the only other one)")
    parser.add_argument("--sample", type=values.count, metavar="N", help="fit to N rows drawn at random")


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rank",
        type=_counts,
        default=(3,),
        metavar="R|R,R,R",
        help="number of functions of all modes, or of each (default 3)",
    )
    parser.add_argument(
        "--prune", action="store_true", help="take ranks as maxima and remove functions the data do not need"
    )
    parser.add_argument(
        "--kernel",
        type=values.names,
        default=("matern12",),
        metavar="K|K,K,K",
        help=f"kernel of all modes, or of each: {describe_choices()}; default matern12",
    )
    parser.add_argument(
        "--cp", action="store_true", help="CP model: one rank for all modes and no Tucker core"
    )
    parser.add_argument(
        "--no-centre", action="store_true", help="do not subtract the mean, for effects that multiply"
    )
    parser.add_argument(
        "--student",
        type=float,
        metavar="NU",
        help="Student-t noise with NU degrees of freedom (4, say), for data with outliers",
    )
    parser.add_argument(
        "--residual",
        type=values.names,
        metavar="A,B",
        help="add a Gaussian process over these modes jointly: lat,lon where predictions at new places are needed",
    )
    parser.add_argument(
        "--residual-points",
        type=values.count,
        metavar="N",
        help="inducing points of that process (default 256); exact with as many as there are places",
    )


def _add_optimiser_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--restarts", type=values.count, default=3, metavar="N", help="random initialisations (default 3)"
    )
    parser.add_argument(
        "--sweeps", type=values.count, default=100, metavar="N", help="maximum number of sweeps (default 100)"
    )
    parser.add_argument(
        "--tolerance",
        type=values.positive,
        default=5e-4,
        metavar="X",
        help="stop when a sweep gains less, in nats per row (default 0.0005)",
    )


def _add_interval_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibrate",
        type=fraction,
        metavar="FRACTION",
        help="hold out this fraction of the rows once to calibrate the intervals (0.1, say); doubles the time",
    )
    parser.add_argument(
        "--calibrate-by",
        type=_blocks,
        default={},
        metavar="A,B=10",
        help="hold out whole blocks instead, for intervals that hold where these are new: lat,lon (each place), "
        "time=30D (s, min, h, D, W), lat,lon,year=10",
    )
    parser.add_argument(
        "--calibrate-rounds",
        type=values.count,
        default=1,
        metavar="N",
        help="fractions held out one after another, each with its own fit: for few rows or blocks (default 1)",
    )


def run(args: Args) -> int:
    """Fit, save and print what was found."""
    with extra("bayes"):
        progress = prepare("fit", args)
        from fieldmorph.apps.tensor.calibration import Calibration
        from fieldmorph.apps.tensor.jobs import fit_file
        from fieldmorph.apps.tensor.summaries import fit_table
        from fieldmorph.bayes.fitting import FitConfig
        from fieldmorph.bayes.residual_gp import ResidualConfig

        config = FitConfig(
            ranks=args.rank,
            kernels=args.kernel,
            cp=args.cp,
            prune=args.prune,
            centre=not args.no_centre,
            student=args.student,
            restarts=args.restarts,
            sweeps=args.sweeps,
            tolerance=args.tolerance,
            seed=args.seed,
        )
        calibrate = None
        if args.calibrate is not None:
            calibrate = Calibration(args.calibrate, args.calibrate_by, args.calibrate_rounds)
        elif args.calibrate_by or args.calibrate_rounds > 1:
            raise SettingError(
                "--calibrate-by and --calibrate-rounds need --calibrate FRACTION, the fraction that is held out"
            )
        residual = None
        if args.residual:
            points = {"n_inducing": args.residual_points} if args.residual_points else {}
            residual = ResidualConfig(args.residual, **points)
        elif args.residual_points:
            raise SettingError("--residual-points needs --residual A,B, the modes of the process")
        with progress:
            result = fit_file(
                args.data,
                args.output,
                config,
                modes=args.modes,
                value=args.value,
                sample=args.sample,
                residual=residual,
                calibrate=calibrate,
                force=args.force,
                on_sweep=progress.sweep,
            )
        return show(result, args, fit_table)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(values.count(part) for part in text.split(","))


def _blocks(text: str) -> dict[str, str]:
    """Parse modes, each with the length of its blocks after an equals sign where it has one."""
    parts = [re.fullmatch(r"([^=]+)(?:=(.+))?", part) for part in text.split(",")]
    names = [match[1] for match in parts if match]
    if len({*names}) < len(parts):
        raise argparse.ArgumentTypeError(f"blocks look like lat,lon or lat,lon,year=10; got {text!r}")
    return {match[1]: match[2] or "" for match in parts if match}
