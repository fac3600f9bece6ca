"""`fieldmorph tensor grid`: predict on a grid."""

import argparse
import re
from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, prepare, show
from fieldmorph.apps.cli.tensor.options import add_map_options, add_model, map_settings
from fieldmorph.fields.errors import SettingError

EPILOG = (
    "Modes that are not named take the coordinates the model was fitted at, or 50 equally spaced ones where these are "
    "more than 500. The file has the mean, VALUE_sd, the standard deviation of a new measurement, and marks of the "
    "cells that are extrapolated: outside the range of the data."
)
AXES = (  # option, kind of mode, example
    ("lat", "latitude", "30:60:0.5"),
    ("lon", "longitude", "-10:30:0.5"),
    ("time", "time", "2020-01-01:2020-12-31:1D"),
)


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(jobs, "grid", run, "predict on a grid, as NetCDF or GeoTIFF", arg.THREADS_HELP)
    parser.epilog = EPILOG
    add_model(parser)
    for name, kind, example in AXES:
        parser.add_argument(
            f"--{name}",
            dest=kind,
            metavar=example,
            help=f"of the {kind}: from:to:step, both ends included, or values with commas",
        )
    parser.add_argument(
        "--axis",
        type=_range,
        action="append",
        default=[],
        metavar="MODE=0:30:1",
        help="the same for any mode by its name; may be repeated. Steps of times end in s, min, h, D, W, M or Y",
    )
    add_map_options(parser, points="")
    arg.add_output(parser, "file to write: .nc (NetCDF) or .tif (GeoTIFF; needs the extra geotiff)")


def run(args: Args) -> int:
    """Predict and print what was written."""
    named = {kind: getattr(args, kind) for _, kind, _ in AXES}
    ranges = {kind: text for kind, text in named.items() if text is not None}
    for name, text in args.axis:
        if name in ranges:
            raise SettingError(f"{name} is given twice")
        ranges[name] = text
    with extra("bayes"):
        progress = prepare("grid", args)
        from fieldmorph.apps.tensor.grid import grid_file
        from fieldmorph.apps.tensor.summaries import grid_table

        with progress:
            result = grid_file(
                args.model,
                args.output,
                ranges,
                maps=map_settings(args),
                force=args.force,
                on_cells=lambda done, total: progress.show(done / total, done, "cell", total=total),
            )
        return show(result, args, grid_table)


def _range(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?)=(.+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a mode's range looks like temp=0:30:1; got {text!r}")
    return match[1], match[2]
