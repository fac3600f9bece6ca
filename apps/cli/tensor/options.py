"""Arguments that several tensor commands have, and types of values."""

import argparse

from fieldmorph.apps.console import values

ROWS_HELP = "measurements: CSV, TSV (.gz), Parquet or NetCDF"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the file of a fitted model."""
    parser.add_argument("model", metavar="MODEL", help="file of a fitted model")


def fraction(text: str) -> float:
    """Parse a fraction between 0 and 1."""
    value = values.positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1; got {text!r}")
    return value
