"""Arguments that several tensor commands have, and types of values."""

import argparse
from typing import TYPE_CHECKING

from fieldmorph.apps.console import values

if TYPE_CHECKING:
    from fieldmorph.apps.tensor.map_layers import MapSettings

ROWS_HELP = "measurements: CSV, TSV (.gz), Parquet or NetCDF"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the file of a fitted model."""
    parser.add_argument("model", metavar="MODEL", help="file of a fitted model")


def add_map_options(parser: argparse.ArgumentParser, points: str = "and to draw on the map") -> None:
    """Add `--mask` and `--points`.

    Args:
        points: what the measurements are for in addition to a mask, for the help.
    """
    parser.add_argument(
        "--mask",
        metavar="MASK",
        help="cells that have a value: land, sea, 300km (that near to --points), mask.nc or mask.nc:VARIABLE",
    )
    parser.add_argument(
        "--points",
        metavar="TABLE",
        help=f"measurements, such as those of the fit: for a mask by distance {points}".strip(),
    )


def map_settings(args: argparse.Namespace) -> "MapSettings | None":
    """Return the settings of `--mask` and `--points`; None where neither is given."""
    if args.mask is None and args.points is None:
        return None
    from fieldmorph.apps.tensor.map_layers import MapSettings

    return MapSettings(args.mask, args.points)


def fraction(text: str) -> float:
    """Parse a fraction between 0 and 1."""
    value = values.positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1; got {text!r}")
    return value
