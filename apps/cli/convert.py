"""`fieldmorph convert`: distil a field into another representation."""

import argparse
import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, budget_of, prepare, show
from fieldmorph.apps.cli.run_options import add_run_options, field_choices, run_summary
from fieldmorph.apps.console import values
from fieldmorph.apps.console.exits import GATE_MISSED
from fieldmorph.distill.levels import LEVELS
from fieldmorph.distill.warm_start.registry import STARTS

if TYPE_CHECKING:
    from fieldmorph.apps.jobs.convert import ConvertResult


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs,
        "convert",
        run,
        "distil a field into another representation",
        threads=arg.THREADS_HELP,
        device=True,
    )
    parser.add_argument("teacher", metavar="TEACHER", help="file of a trained field")
    parser.add_argument("--to", default="mlp", help=f"representation of the student: {field_choices('mlp')}")
    parser.add_argument(
        "--max-bytes",
        metavar="SIZE",
        help="pick the student's size: the largest whose file fits into 2MB, 500kB, ...",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="scene of the teacher (optional): its training images finish the student, its test images measure it",
    )
    arg.add_downscale(parser)
    parser.add_argument(
        "--max-psnr-drop",
        type=values.positive,
        metavar="DB",
        help="maximum PSNR loss against the teacher on test images; trains for up to one extra budget, "
        "then exits with 5",
    )
    parser.add_argument(
        "--active",
        type=values.levels,
        default=LEVELS,
        metavar="LEVELS",
        help=f"levels of active learning: some of {','.join(LEVELS)}, all or none (default all)",
    )
    helped = [name for name, start in STARTS.items() if start.helps]
    parser.add_argument(
        "--start",
        action=argparse.BooleanOptionalAction,
        help=f"begin with the student's closed-form warm start, if it has one (default: {' and '.join(helped)} only)",
    )
    parser.add_argument(
        "--finish",
        type=values.finish,
        metavar="FRACTION",
        help="part of the budget, at its end, that trains the student on the training images of --data: auto, none or "
        "a number below 1 (default auto: where the budget suffices to distill it first)",
    )
    parser.add_argument(
        "--stage",
        type=values.dotted_setting,
        action="append",
        default=[],
        metavar="NAME.KEY=VALUE",
        help="one setting of a stage (features, volume or render), which overrides PVD's: share (part of the budget), "
        "source (of samples: points or rays), or losses.features, losses.density, losses.color or losses.pixel "
        "(weights), as render.losses.color=0.1; 0 removes; may be repeated",
    )
    parser.add_argument(
        "--learning",
        type=values.setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a learning rate (lr_share, lr_grid, lr_network, lr_decay, lr_final, warmup_steps, finish_lr_share) or a "
        "number of samples (samples_per_step, empty_share), which overrides the default; may be repeated",
    )
    parser.add_argument("--no-receipt", action="store_true", help="do not measure, write no receipt")
    add_run_options(parser, "180cs")


def run(args: Args) -> int:
    """Convert, print what was made and return 5 where the quality is missed."""
    budget = budget_of(args)
    progress = prepare("convert", args)
    from fieldmorph.apps.jobs.convert import convert_file
    from fieldmorph.apps.jobs.request import ConversionRequest, parse_bytes

    request = ConversionRequest(
        budget=budget,
        to=args.to,
        preset=args.preset,
        overrides=dict(args.set),
        stages=dict(args.stage),
        learning=dict(args.learning),
        active=args.active,
        start=args.start,
        max_bytes=None if args.max_bytes is None else parse_bytes(args.max_bytes),
        max_psnr_drop=args.max_psnr_drop,
        finish=args.finish,
        receipt=not args.no_receipt,
        seed=args.seed,
    )
    with progress:
        result = convert_file(
            args.teacher,
            args.output,
            request,
            data=args.data,
            downscale=args.downscale,
            device=args.device,
            resume=args.resume,
            force=args.force,
            on_progress=progress,
            on_image=progress.measured,
            on_expected=progress.expect,
        )
    lacks_images = args.data is None and request.uses_images
    show(result, args, partial(convert_summary, lacks_images=lacks_images))
    if result.gate is None or result.gate.met:
        return 0
    print(
        f"fieldmorph: the PSNR drop is {_decibels(result.gate.psnr_drop)}, more than the "
        f"{result.gate.max_psnr_drop:g} dB of --max-psnr-drop; {args.output} is the best student found",
        file=sys.stderr,
    )
    return GATE_MISSED


def convert_summary(result: "ConvertResult", lacks_images: bool = False) -> str:
    """Format the result of a conversion; where images are lacking, the last line says what they are good for."""
    lines = [*run_summary(result), f"stages: {', '.join(result.stages)}"]
    lines += [f"dropped {name}: {why}" for name, why in result.dropped.items()]
    if result.quality is not None and result.receipt is not None:
        held_out, beyond = result.quality["held_out"], result.quality["off_trajectory"]
        lines.append(
            f"PSNR to the teacher: {_decibels(held_out['psnr_to_teacher'])} on held-out poses, "
            f"{_decibels(beyond['psnr_to_teacher'])} off the cameras' path"
        )
        if "psnr_drop" in held_out:
            lines.append(f"PSNR on the test images: {_decibels(held_out['psnr_drop'])} below the teacher's")
        if result.images is not None:
            before, after = (_decibels(result.images[when].get("psnr")) for when in ("before", "after"))
            lines.append(
                f"PSNR on pixels of the test images: {before} before the training on images, {after} after it"
            )
        lines.append(f"receipt: {result.receipt[1]}")
    if lacks_images:
        lines.append(
            "Where the teacher's scene is at hand, --data DATA improves the student by its training images."
        )
    return "\n".join(lines)


def _decibels(value: float | None) -> str:
    return "unknown" if value is None or math.isinf(value) else f"{value:.2f} dB"
