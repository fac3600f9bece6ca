"""`fieldmorph tensor update`: add new measurements to a model."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, prepare, show
from fieldmorph.apps.cli.tensor.options import ROWS_HELP, add_model
from fieldmorph.apps.console import values

EPILOG = (
    "The rows of the fit are not read again: the cost depends on the new rows only. Coordinates may be new, as those "
    "of the next day are. Ranks, kernels and calibrated intervals stay those of the fit."
)


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(jobs, "update", run, "update a model with new measurements", arg.THREADS_HELP)
    parser.epilog = EPILOG
    add_model(parser)
    parser.add_argument("data", metavar="NEW_ROWS", help=ROWS_HELP)
    parser.add_argument(
        "--sweeps", type=values.count, default=50, metavar="N", help="maximum number of sweeps (default 50)"
    )
    arg.add_output(parser, "file to write; MODEL itself with --force")


def run(args: Args) -> int:
    """Update, save and print what changed."""
    with extra("bayes"):
        progress = prepare("update", args)
        from fieldmorph.apps.tensor.jobs import update_file
        from fieldmorph.apps.tensor.summaries import update_table

        with progress:
            result = update_file(
                args.model,
                args.data,
                args.output,
                sweeps=args.sweeps,
                force=args.force,
                on_sweep=progress.sweep,
            )
        return show(result, args, update_table)
