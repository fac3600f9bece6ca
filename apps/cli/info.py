"""`fieldmorph info`: the contents of a file."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, show


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "info", run, "describe the contents of a file, without running anything from it"
    )
    parser.add_argument("file", metavar="FILE", help="file of a field, of a run's state or of a tensor model")


def run(args: Args) -> int:
    """Read the file and print its description."""
    from fieldmorph.apps.jobs.info import describe_file, info_table

    return show(describe_file(args.file), args, info_table)
