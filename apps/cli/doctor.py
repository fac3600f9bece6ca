"""`fieldmorph doctor`: what this installation can do."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, show


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    arg.command(jobs, "doctor", run, "check what this installation can do")


def run(args: Args) -> int:
    """Print the diagnosis; return 1 where something needed is broken."""
    from fieldmorph.apps.jobs.doctor import diagnose

    lines = diagnose()
    result = {name: {"status": status, "detail": detail} for name, status, detail in lines}
    show(
        result,
        args,
        lambda _: "\n".join(f"{name:<16} {status:<7} {detail}" for name, status, detail in lines),
    )
    return int(any(status == "broken" for _, status, _ in lines))
