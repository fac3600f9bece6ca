"""`fieldmorph tensor predict`: predict at the rows of a table."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, prepare, show
from fieldmorph.apps.cli.tensor.options import add_model, fraction


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(jobs, "predict", run, "predict at the rows of a table", arg.THREADS_HELP)
    add_model(parser)
    parser.add_argument(
        "points", metavar="POINTS", help="CSV, TSV (.gz) or Parquet with a column for each mode"
    )
    parser.add_argument(
        "--level",
        type=fraction,
        default=0.95,
        metavar="FRACTION",
        help="coverage of the interval lower..upper for new measurements (default 0.95)",
    )
    arg.add_output(
        parser, "table to write: POINTS with the columns mean, sd, lower, upper (.csv, .tsv, .parquet)"
    )


def run(args: Args) -> int:
    """Predict and print what was written."""
    with extra("bayes"):
        progress = prepare("predict", args)
        from fieldmorph.apps.tensor.jobs import predict_file
        from fieldmorph.apps.tensor.summaries import predict_table

        with progress:
            result = predict_file(
                args.model,
                args.points,
                args.output,
                level=args.level,
                force=args.force,
                on_rows=lambda done, total: progress.show(done / total, done, "row", total=total),
            )
        return show(result, args, predict_table)
