"""`fieldmorph train`: fit a field to posed images."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, budget_of, prepare, show
from fieldmorph.apps.cli.run_options import add_run_options, field_choices, run_summary
from fieldmorph.apps.console import values
from fieldmorph.fields.scenes.table import READERS


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "train", run, "fit a field to posed images", threads=arg.THREADS_HELP, device=True
    )
    parser.add_argument("data", metavar="DATA", help=f"scene: {', '.join(READERS.titles.values())}")
    parser.add_argument("--field", default="hashgrid", help=f"representation: {field_choices('hashgrid')}")
    arg.add_downscale(parser)
    parser.add_argument(
        "--aabb", type=values.box, metavar="X0,Y0,Z0,X1,Y1,Z1", help="the scene's box (default: estimated)"
    )
    add_run_options(parser, "120cs")


def run(args: Args) -> int:
    """Train and print what was made."""
    budget = budget_of(args)
    progress = prepare("train", args)
    from fieldmorph.apps.jobs.train import train_scene

    with progress:
        result = train_scene(
            args.data,
            args.output,
            budget,
            field=args.field,
            downscale=args.downscale,
            aabb=args.aabb,
            preset=args.preset,
            overrides=dict(args.set),
            seed=args.seed,
            device=args.device,
            resume=args.resume,
            force=args.force,
            on_progress=progress,
        )
    return show(result, args, lambda r: "\n".join(run_summary(r)))
