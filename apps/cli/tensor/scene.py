"""`fieldmorph tensor scene`: a model of three modes as a field."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, set_threads, show
from fieldmorph.apps.cli.tensor.options import add_model
from fieldmorph.apps.console import values


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs,
        "scene",
        run,
        "make a model of three modes a field to render, view and convert",
        arg.THREADS_HELP,
    )
    add_model(parser)
    parser.add_argument(
        "--of", choices=("mean", "sd"), default="mean", help="which function is shown (default mean)"
    )
    parser.add_argument(
        "--low", type=float, metavar="X", help="value that is transparent (default: the median)"
    )
    parser.add_argument("--high", type=float, metavar="X", help="value that is opaque (default: the maximum)")
    parser.add_argument(
        "--nodes", type=values.count, default=96, metavar="N", help="nodes along each side (default 96)"
    )
    arg.add_output(parser, "voxel field to write")


def run(args: Args) -> int:
    """Make the field and print what it shows."""
    with extra("bayes"):
        set_threads(args)
        from fieldmorph.apps.tensor.jobs import scene_file

        result = scene_file(
            args.model,
            args.output,
            quantity=args.of,
            low=args.low,
            high=args.high,
            nodes=args.nodes,
            force=args.force,
        )
        return show(result, args, lambda r: f"{r.output}: {r.of} from {r.low:g} to {r.high:g}")
