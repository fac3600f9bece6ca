"""`fieldmorph export`: a field as a web page."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, prepare, show


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs, "export", run, "bake a field for the browser", threads=arg.THREADS_HELP, device=True
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--web",
        required=True,
        metavar="OUTPUT",
        help="a page that opens offline, where the name ends in .html, else a folder for a web server",
    )
    parser.add_argument(
        "--resolution",
        type=arg.count,
        default=256,
        metavar="N",
        help="cells along the longest side, a multiple of 8 (default 256)",
    )
    parser.add_argument(
        "--degree", type=int, default=1, choices=[0, 1, 2], help="of the spherical harmonics (default 1)"
    )
    parser.add_argument("--name", help="title of the page (default: the file's name)")
    arg.add_force(parser)


def run(args: Args) -> int:
    """Bake and print what was written."""
    progress = prepare("export", args)
    from fieldmorph.apps.bake.build import BakeConfig
    from fieldmorph.apps.jobs.export import export_table, export_web

    with progress:
        result = export_web(
            args.file,
            args.web,
            BakeConfig(args.resolution, args.degree),
            name=args.name,
            device=args.device,
            force=args.force,
            on_progress=lambda what, done, total: progress.show(done / total, done, "part", part=what),
        )
    return show(result, args, export_table)
