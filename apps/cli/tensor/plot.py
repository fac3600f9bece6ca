"""`fieldmorph tensor plot`: plots of a model."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, set_threads, show
from fieldmorph.apps.cli.tensor.options import add_map_options, add_model, map_settings
from fieldmorph.apps.console import values


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(jobs, "plot", run, "plot a model: factors, maps, calibration", arg.THREADS_HELP)
    add_model(parser)
    parser.add_argument(
        "--data", metavar="TEST", help="held-out measurements, for the plot of the calibration"
    )
    add_map_options(parser)
    parser.add_argument(
        "--next",
        type=values.count,
        default=0,
        metavar="N",
        help="also plot the N places on the map whose measurement would reduce the standard deviation most (1 to 12)",
    )
    arg.add_output(parser, "folder for the PNGs")


def run(args: Args) -> int:
    """Plot and print what was written."""
    with extra("bayes"):
        set_threads(args)
        from fieldmorph.apps.tensor.plots import plot_file

        result = plot_file(
            args.model,
            args.output,
            data=args.data,
            maps=map_settings(args),
            n_next=args.next,
            force=args.force,
        )
        return show(result, args, lambda r: f"{r.output}: {', '.join(r.files)}")
