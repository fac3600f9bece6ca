"""What `train` and `convert` have in common: options of a run and the summary of its result."""

import argparse
from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args

FIELD_NAMES = ("hashgrid", "mlp", "vm", "cp", "voxels")
PRESETS = ("small", "paper")

RESUME_HELP = "resume from OUTPUT.state; settings must match, but the budget may be increased"


def field_choices(default: str) -> str:
    """Return the names of all fields, for `--help`."""
    return f"{', '.join(FIELD_NAMES)} (default {default})"


def add_run_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add preset, settings, length, seed, resuming and output; the default is a budget."""
    parser.add_argument("--preset", default=PRESETS[0], help=f"{' or '.join(PRESETS)} (default {PRESETS[0]})")
    parser.add_argument(
        "--set",
        type=arg.setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one of the field's own settings, which overrides the preset's; may be repeated",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps",
        type=arg.count,
        metavar="N",
        help="number of optimiser steps: equal seeds and --threads give equal bytes",
    )
    length.add_argument("--budget", default=default, help=f"{arg.BUDGET_HELP} (default {default})")
    parser.add_argument("--seed", type=arg.seed, default=0, help="random seed (default 0)")
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    arg.add_output(parser, "file to write")


def run_options(args: Args) -> dict[str, Any]:
    """Return the options of `add_run_options` as keyword arguments, without output and length."""
    names = ("preset", "seed", "device", "resume", "force")
    return {"overrides": dict(args.set), **{name: getattr(args, name) for name in names}}


def run_summary(result: dict[str, Any]) -> str:
    """Format the result of a training or a conversion."""
    lines = [
        f"{result['output']}: {result['field']} {result['preset']}, {result['params']} parameters, "
        f"{result['bytes']} bytes",
        f"{result['steps']} steps in {result['seconds']:.1f} s ({result['core_seconds']:.1f} core-seconds), "
        f"PSNR of the probe {result['psnr']:.2f} dB",
    ]
    if "stages" in result:
        lines.append(f"stages: {', '.join(result['stages'])}")
        lines += [f"dropped {name}: {why}" for name, why in result["dropped"].items()]
    if "quality" in result:
        held, beyond = result["quality"]["held_out"], result["quality"]["off_trajectory"]
        lines.append(
            f"PSNR to the teacher: {decibels(held['psnr_to_teacher'])} on held-out poses, "
            f"{decibels(beyond['psnr_to_teacher'])} off the cameras' path"
        )
        if "psnr_drop" in held:
            lines.append(f"PSNR on the test images: {decibels(held['psnr_drop'])} below the teacher's")
        lines.append(f"receipt: {result['receipt'][1]}")
    return "\n".join(lines)


def decibels(value: float | None) -> str:
    """Format a PSNR or a difference of two."""
    return "unknown" if value is None else f"{value:.2f} dB"
