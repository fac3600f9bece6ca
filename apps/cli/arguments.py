"""The parser of a command, and options that several commands have."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from fieldmorph.apps.console import values
from fieldmorph.fields.errors import did_you_mean

BUDGET_HELP = "90s, 2m or 1h of wall-clock time, or 150cs of core-seconds (CPU time of all threads)"
THREADS_HELP = "number of CPU threads (default: all available)"

JOINED = ("--aabb", "--lat", "--lon", "--time")  # options whose value may begin with a minus


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line and takes no abbreviated options."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is reported before what is missing, and no words at all show the help."""
        words = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:
            self._check_options(words)
        elif not words:
            self.print_help(sys.stderr)
            self.exit(2)
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message in one line, with the choice that was meant where one is like it."""
        choice = re.search(r"invalid choice: '?([^' ]*)'? \(choose from (.*)\)", message)
        if choice:
            names = re.findall(
                r"[^\s',]+", choice[2]
            )  # with quotes or without: versions of Python differ in that
            message = f"{message[: choice.start(2)]}{', '.join(names)}){did_you_mean(choice[1], names)}"
        self.exit(2, f"fieldmorph: {message} (see {self.prog} --help)\n")

    def _check_options(self, words: Sequence[str]) -> None:
        known = self._option_string_actions
        before = takewhile(lambda word: word != "--", words)
        for option in (word.partition("=")[0] for word in before if word.startswith("--")):
            if option not in known:
                self.error(f"unrecognized option {option}{did_you_mean(option, known)}")


def command(
    jobs: Any, name: str, handler: Callable[..., int], text: str, threads: str = "", device: bool = False
) -> argparse.ArgumentParser:
    """Add a sub-command with the options that all have.

    Args:
        jobs: sub-parsers to add it to.
        handler: function of the parsed arguments that returns the exit code.
        text: one line for `--help`, which also begins the command's own.
        threads: help of `--threads`; none leaves the option out.
        device: whether it has `--device`.
    """
    parser = jobs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(handler=handler)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, nothing else"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file with settings in a table [{parser.prog.partition(' ')[2].replace(' ', '.')}]; "
        "the command line overrides them",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "-q", "--quiet", action="store_true", help="only results and errors: no progress, no warnings"
    )
    amount.add_argument(
        "-v", "--verbose", action="store_true", help="also what is done and how long it takes (the debug log)"
    )
    if threads:
        parser.add_argument("--threads", type=values.count, metavar="N", help=threads)
    if device:
        parser.add_argument(
            "--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto takes CUDA where it works"
        )
    return parser


def add_output(parser: argparse.ArgumentParser, text: str, default: str | None = None) -> None:
    """Add `-o` and `--force`; without a default `-o` is required."""
    parser.add_argument("-o", "--output", required=default is None, default=default, help=text)
    add_force(parser)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add `--force`."""
    parser.add_argument("--force", action="store_true", help="overwrite existing files")


def add_downscale(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add `--downscale`; the prefix begins its help."""
    parser.add_argument(
        "--downscale",
        type=values.count,
        default=1,
        metavar="N",
        help=f"{prefix}shrink the scene's images by the factor N (default 1)",
    )


def add_views(parser: argparse.ArgumentParser, group: Any, required: bool = False) -> None:
    """Add `--data` to a group and `--split` and `--downscale` to the parser."""
    required_too = {"required": True} if required else {}
    group.add_argument("--data", metavar="DATA", help="scene with the views", **required_too)
    parser.add_argument("--split", default="test", help="train, val or test (default test)")
    add_downscale(parser)


def joined(argv: Sequence[str]) -> list[str]:
    """Write `--aabb -1,...` as `--aabb=-1,...`, since argparse takes a value with a minus for an option."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in JOINED and re.match(r"-[\d.]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words
