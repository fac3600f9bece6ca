"""`fieldmorph tensor demo`: sea-surface temperatures from scattered measurements."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, set_threads, show
from fieldmorph.apps.console import values


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "demo", run, "model sea-surface temperatures from scattered measurements", arg.THREADS_HELP
    )
    parser.add_argument("--seed", type=values.seed, default=0, help="of the sample and the fit (default 0)")
    arg.add_output(
        parser, "folder for model, grid and plots (default demo_output/tensor)", "demo_output/tensor"
    )


def run(args: Args) -> int:
    """Run the demo and print its table."""
    with extra("bayes"):
        set_threads(args)
        from fieldmorph.apps.tensor.demo import run_demo
        from fieldmorph.apps.tensor.summaries import demo_table

        result = run_demo(args.output, seed=args.seed, force=args.force, quiet=args.quiet)
        return show(result, args, demo_table)
