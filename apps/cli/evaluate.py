"""`fieldmorph eval`: measure a field against images of a scene."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, prepare, show


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "eval", run, "measure a field against test images", threads=arg.THREADS_HELP, device=True
    )
    parser.add_argument("file", metavar="FILE", help="file of the field to measure")
    parser.add_argument("--teacher", metavar="TEACHER", help="also compare with this field's renderings")
    arg.add_views(parser, parser, required=True)


def run(args: Args) -> int:
    """Render every view and print PSNR and SSIM."""
    progress = prepare("eval", args)
    from fieldmorph.apps.jobs.evaluate import evaluate_file, evaluation_table

    with progress:
        result = evaluate_file(
            args.file,
            args.data,
            split=args.split,
            downscale=args.downscale,
            teacher=args.teacher,
            device=args.device,
            on_image=progress.count,
        )
    return show(result, args, evaluation_table)
