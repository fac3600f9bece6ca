"""`fieldmorph render`: images or a video of a field."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, prepare, show
from fieldmorph.apps.console import values


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "render", run, "render images or a video of a field", threads=arg.THREADS_HELP, device=True
    )
    parser.add_argument("file", metavar="FILE", help="file of the field")
    cameras = parser.add_mutually_exclusive_group(required=True)
    arg.add_views(parser, cameras)
    cameras.add_argument("--orbit", type=values.count, metavar="N", help="N frames of a full orbit")
    arg.add_output(parser, "folder for PNGs, or a video: a name that ends in .mp4, .webp or .gif")
    parser.add_argument(
        "--size", type=values.size, metavar="WxH", help="image size (default: the views' own)"
    )
    parser.add_argument(
        "--depth", action="store_true", help="also depth: 16-bit PNG, its scale in depth.json"
    )
    parser.add_argument("--opacity", action="store_true", help="also opacity")
    parser.add_argument(
        "--fps", type=values.count, default=30, metavar="N", help="frames per second of a video (default 30)"
    )
    parser.add_argument(
        "--background", choices=["white", "black"], default="white", help="white or black (default white)"
    )


def run(args: Args) -> int:
    """Render and print what was written."""
    progress = prepare("render", args)
    from fieldmorph.apps.jobs.render import render_file

    with progress:
        result = render_file(
            args.file,
            args.output,
            data=args.data,
            split=args.split,
            downscale=args.downscale,
            orbit=args.orbit,
            size=args.size,
            depth=args.depth,
            opacity=args.opacity,
            fps=args.fps,
            background=args.background,
            device=args.device,
            force=args.force,
            on_image=progress.count,
        )
    return show(result, args, lambda r: f"{r.output}: {r.images} images ({', '.join(r.kinds)})")
