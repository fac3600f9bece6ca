"""Types of the values of options: each parses a text or says in one line what it expects."""

import argparse
import json
import math
import re
from typing import Any, NewType

from fieldmorph.distill.levels import LEVELS
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError

# A setting of a part of something: its name after the part's and a dot.
DottedName = NewType("DottedName", str)


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


def budget(text: str) -> str:
    """Check that a text is a budget, and return it."""
    try:
        Budget.parse(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


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
    named = {"all": LEVELS, "none": ()}
    return named[text] if text in named else tuple(text.split(","))


def finish(text: str) -> float | None:
    """Parse the fraction of a conversion that trains on images: a number, `none` (0) or `auto` (None)."""
    if text in ("auto", "none"):
        return None if text == "auto" else 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected auto, none or a number from 0 to below 1; got {text!r}")
    return value


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


def dotted_setting(text: str) -> tuple[DottedName, Any]:
    """Parse PART.KEY=VALUE; the value as `setting` does."""
    key, value = setting(text)
    if not re.fullmatch(r"[^.]+(\.[^.]+)+", key):
        raise argparse.ArgumentTypeError(f"expected a setting such as volume.share=0.6; got {text!r}")
    return DottedName(key), value
