"""What every command's arguments are made of: the parser, options that several have, and types of values."""

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

JOINED = ("--aabb", "--lat", "--lon", "--time")  # options whose value may begin with a minus


class Parser(argparse.ArgumentParser):
    """One line for a mistake, and no abbreviations that a later option would change."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fieldmorph: {message} (see {self.prog} --help)\n")


def command(
    jobs: Any, name: str, handler: Callable[..., int], text: str, threads: str = "", device: bool = False
) -> argparse.ArgumentParser:
    """A sub-command with the options that all have."""
    parser = jobs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(handler=handler)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, nothing else"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    if threads:
        parser.add_argument("--threads", type=count, metavar="N", help=threads)
    if device:
        parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser


def add_output(parser: argparse.ArgumentParser, text: str, default: str | None = None) -> None:
    """`-o` and `--force`; without a default it must be given."""
    parser.add_argument("-o", "--output", required=default is None, default=default, help=text)
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def joined(argv: Sequence[str]) -> list[str]:
    """`--aabb -1,...` as `--aabb=-1,...`: argparse takes a value that begins with a minus for an option."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in JOINED and re.match(r"-[\d.]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return int(text)


def port(text: str) -> int:
    """A port; 0 is any."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535; got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 999999999; got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number; got {text!r}")
    return value


def box(text: str) -> tuple[float, ...]:
    """Six numbers."""
    try:
        corners = tuple(float(v) for v in text.replace(",", " ").split())
    except ValueError:
        corners = ()
    if len(corners) != 6:
        raise argparse.ArgumentTypeError(f"expected six numbers, min then max; got {text!r}")
    return corners


def levels(text: str) -> tuple[str, ...]:
    """Levels of active learning."""
    named = {"all": ("pose", "ray", "point"), "none": ()}
    return named[text] if text in named else tuple(text.split(","))


def names(text: str) -> tuple[str, ...]:
    """What commas separate."""
    return tuple(text.split(","))


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, which may be written as 1e4."""
    parts = [positive(part) for part in text.split(",")]
    if any(part % 1 for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers, as 1e4,1e5; got {text!r}")
    return tuple(map(int, parts))


def size(text: str) -> tuple[int, int]:
    """Width and height."""
    match = re.fullmatch("([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a size looks like 640x480; got {text!r}")
    return int(match[1]), int(match[2])


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value as JSON where it is JSON, else as text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"a setting looks like width=64; got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
