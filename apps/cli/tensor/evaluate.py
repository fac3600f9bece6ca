"""`fieldmorph tensor eval`: measure a model on held-out rows."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, set_threads, show
from fieldmorph.apps.cli.tensor.options import ROWS_HELP, add_model


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(jobs, "eval", run, "measure a model on held-out rows", arg.THREADS_HELP)
    add_model(parser)
    parser.add_argument("test", metavar="TEST", help=ROWS_HELP)


def run(args: Args) -> int:
    """Print errors, coverage and scores."""
    with extra("bayes"):
        set_threads(args)
        from fieldmorph.apps.tensor.jobs import evaluate_file
        from fieldmorph.apps.tensor.summaries import scores_table

        return show(evaluate_file(args.model, args.test), args, scores_table)
