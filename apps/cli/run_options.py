"""Common part of `train` and `convert`: options of a run and the summary of its result."""

import argparse
from typing import TYPE_CHECKING

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.console import values
from fieldmorph.fields.kinds import FIELDS, PRESETS

if TYPE_CHECKING:
    from fieldmorph.apps.jobs.lifecycle import SavedRun

RESUME_HELP = "resume from OUTPUT.state; settings must match, but the budget may be increased"


def field_choices(default: str) -> str:
    """Return the names of all fields, for `--help`."""
    return f"{', '.join(FIELDS)} (default {default})"


def add_run_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add preset, settings, length, seed, resuming and output; the default is a budget."""
    first = next(iter(PRESETS))
    parser.add_argument("--preset", default=first, help=f"{' or '.join(PRESETS)} (default {first})")
    parser.add_argument(
        "--set",
        type=values.setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one of the field's own settings, which overrides the preset's; may be repeated",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps",
        type=values.count,
        metavar="N",
        help="number of optimiser steps: equal seeds and --threads give equal bytes",
    )
    length.add_argument(
        "--budget", type=values.budget, default=default, help=f"{arg.BUDGET_HELP} (default {default})"
    )
    parser.add_argument("--seed", type=values.seed, default=0, help="random seed (default 0)")
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    arg.add_output(parser, "file to write")


def run_summary(result: "SavedRun") -> list[str]:
    """Return the summary lines that a training and a conversion have in common."""
    return [
        f"{result.output}: {result.field} {result.preset}, {result.params} parameters, {result.bytes} bytes",
        f"{result.steps} steps in {result.seconds:.1f} s ({result.core_seconds:.1f} core-seconds), "
        f"PSNR of the probe {result.psnr:.2f} dB",
    ]
