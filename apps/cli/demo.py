"""`fieldmorph demo`: train, convert and compare on the bundled scene."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, set_threads, show
from fieldmorph.apps.console import values
from fieldmorph.fields.budget import Budget


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "demo", run, "train, convert and compare on the bundled scene", threads=arg.THREADS_HELP
    )
    arg.add_output(parser, "folder for fields, pages and images (default demo_output)", "demo_output")
    parser.add_argument(
        "--budget",
        type=values.budget,
        default="280cs",
        help=f"{arg.BUDGET_HELP}; about a quarter of it trains (default 280cs)",
    )


def run(args: Args) -> int:
    """Run the demo and print its table."""
    budget = Budget.parse(args.budget)
    set_threads(args)
    from fieldmorph.apps.jobs.demo import demo_table, run_demo

    return show(run_demo(args.output, budget, force=args.force, quiet=args.quiet), args, demo_table)
