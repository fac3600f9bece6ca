"""`fieldmorph train`: fit a field to posed images."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, budget_of, extra, prepare, show
from fieldmorph.apps.cli.run_options import add_run_options, field_choices, run_summary
from fieldmorph.apps.console import values
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.scenes.table import READERS

if TYPE_CHECKING:
    from fieldmorph.apps.viewer.live import LiveView


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
    parser.add_argument(
        "--view",
        type=values.port,
        nargs="?",
        const=7860,
        metavar="PORT",
        help="show the field in a browser while it trains, on this machine alone (default port 7860)",
    )
    add_run_options(parser, "120cs")


def run(args: Args) -> int:
    """Train and print what was made."""
    budget = budget_of(args)
    progress = prepare("train", args)
    from fieldmorph.apps.jobs.train import train_scene

    with progress, _live_view(args) as view:

        def on_progress(now: Progress) -> None:
            progress(now)
            if view is not None:
                view.update(now)

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
            on_progress=on_progress,
            on_start=(lambda _: None) if view is None else view.open,
        )
    return show(result, args, lambda r: "\n".join(run_summary(r)))


def _live_view(args: Args) -> "AbstractContextManager[LiveView | None]":
    """Return the view of the field that trains, or nothing where none is wanted."""
    if args.view is None:
        return nullcontext()
    with extra("view"):
        from fieldmorph.apps.viewer.live import LiveView

    name = Path(args.output).stem
    return LiveView(args.view, name, lambda line: print(line, file=sys.stderr, flush=True), args.device)
