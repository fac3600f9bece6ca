"""The command line: one module per command, which imports what it needs when it runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fieldmorph import __version__
from fieldmorph.apps.cli import (
    bench,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    info,
    render,
    tensor,
    train,
    view,
)
from fieldmorph.apps.cli.arguments import Parser, joined
from fieldmorph.apps.cli.completion import SHELLS, PrintCompletion
from fieldmorph.apps.console.exits import PIPE_CLOSED, explain

# Each has `add_parser(jobs)`, which names the function to run. Shown in this order.
COMMANDS = (train, convert, evaluate, render, export, view, info, demo, doctor, bench, tensor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 success, 1 a benchmark or a check failed, 2 usage, 3 bad input, 4 unsafe input, 5 quality missed, 6 no room.
    """
    parser, words = build_parser(), joined(sys.argv[1:] if argv is None else argv)
    try:
        if any(word.partition("=")[0] == "--config" for word in words):
            from fieldmorph.apps.cli.config import with_config  # not for `--help`, which must be light

            words = with_config(parser, words)
        return _run(parser, words, parser.parse_args(words))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit has nowhere to go
        return PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        known = explain(error)
        if known is None or os.environ.get("FIELDMORPH_DEBUG") == "1":
            raise
        print(f"fieldmorph: {known.message}", file=sys.stderr)
        return known.code


def _run(parser: argparse.ArgumentParser, words: Sequence[str], args: argparse.Namespace) -> int:
    """Run a command that was parsed, and write its settings; return its exit code."""
    import logging
    import platform
    import shlex

    from fieldmorph.apps.cli.config import check_config_output, write_config
    from fieldmorph.apps.console.messages import NORMAL, QUIET, VERBOSE, shown_messages

    with shown_messages(QUIET if args.quiet else VERBOSE if args.verbose else NORMAL):
        logging.getLogger(__name__).debug(
            "fieldmorph %s, Python %s: %s", __version__, platform.python_version(), shlex.join(words)
        )
        check_config_output(args)
        code: int = args.handler(args)
        write_config(parser, words, args)
        sys.stdout.flush()
        return code


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands and their options."""
    parser = Parser(
        prog="fieldmorph",
        description="Convert neural fields between architectures, on a plain CPU.",
        epilog="FIELDMORPH_DEBUG=1 in the environment shows the traceback of every error.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a script for the shell to complete command lines with, and exit",
    )
    jobs = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(jobs)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"fieldmorph {version('fieldmorph')}")
        parser.exit()
