"""The parser of a command, options that several commands have, and types of values."""

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

BUDGET_HELP = "90s, 2m or 1h of wall-clock time, or 150cs of core-seconds (CPU time of all threads)"
THREADS_HELP = "number of CPU threads (default: all available)"

JOINED = ("--aabb", "--lat", "--lon", "--time")  # options whose value may begin with a minus


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line and takes no abbreviated options."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fieldmorph: {message} (see {self.prog} --help)\n")


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
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    if threads:
        parser.add_argument("--threads", type=count, metavar="N", help=threads)
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
        type=count,
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


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return int(text)


def port(text: str) -> int:
    """Parse a port; 0 stands for any free one."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535; got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Parse a whole number of at least 0."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 999999999; got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Parse a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number; got {text!r}")
    return value


def box(text: str) -> tuple[float, ...]:
    """Parse the six numbers of a box."""
    try:
        corners = tuple(float(v) for v in text.replace(",", " ").split())
    except ValueError:
        corners = ()
    if len(corners) != 6:
        raise argparse.ArgumentTypeError(f"expected six numbers, min then max; got {text!r}")
    return corners


def levels(text: str) -> tuple[str, ...]:
    """Parse levels of active learning: names with commas, `all` or `none`."""
    named = {"all": ("pose", "ray", "point"), "none": ()}
    return named[text] if text in named else tuple(text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Split a list at its commas."""
    return tuple(text.split(","))


def sizes(text: str) -> tuple[int, ...]:
    """Parse whole numbers of at least 1, which may be written as 1e4."""
    parts = [positive(part) for part in text.split(",")]
    if any(part % 1 for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers, as 1e4,1e5; got {text!r}")
    return tuple(map(int, parts))


def size(text: str) -> tuple[int, int]:
    """Parse width and height in pixels."""
    match = re.fullmatch("([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a size looks like 640x480; got {text!r}")
    return int(match[1]), int(match[2])


def setting(text: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; the value as JSON where it is JSON, else as text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"a setting looks like width=64; got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
