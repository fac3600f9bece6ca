"""`fieldmorph view`: the viewer in a browser."""

import time
from typing import TYPE_CHECKING, Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra
from fieldmorph.apps.cli.tensor.options import add_map_options, map_settings
from fieldmorph.apps.console import values

if TYPE_CHECKING:
    from fieldmorph.apps.tensor.map_layers import MapSettings


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs,
        "view",
        run,
        "view a field, or compare two, in a browser",
        threads=arg.THREADS_HELP,
        device=True,
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="fields, any two of which are compared, or a tensor model"
    )
    parser.add_argument(
        "--data", metavar="TABLE", help="held-out rows of a tensor model, to check its intervals"
    )
    add_map_options(parser)
    parser.add_argument(
        "--port", type=values.port, default=7860, metavar="N", help="default 7860; 0: any that is free"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name under which the server is reached, such as that of a reverse proxy; may be repeated",
    )
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH|URL",
        help="where a reverse proxy serves the viewer, such as /viewer or https://HOST/viewer",
    )
    parser.add_argument(
        "--auth",
        metavar="USER:PASS|FILE",
        help="require a password on every route; a file has one USER:PASS per line",
    )
    parser.add_argument(
        "--max-pixels",
        type=values.count,
        metavar="N",
        help="largest image rendered for a screen at rest (default 2097152: 1920 x 1080 pixels)",
    )
    parser.add_argument(
        "--no-bake",
        action="store_true",
        help="bake no volumes to drag in the browser; images come from here while the camera moves, too",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")


def run(args: Args) -> int:
    """Serve the viewer until it is interrupted."""
    start = time.monotonic()

    def say(line: str) -> None:
        print(line, flush=True)

    def step(title: str) -> None:
        say(f"{time.monotonic() - start:5.1f} s  {title}")

    def maps() -> "MapSettings | None":
        with extra("bayes"):
            return map_settings(args)

    with extra("view"):
        from fieldmorph.apps.viewer.launch import Address, view_files

        if not args.quiet:
            say(f"Opening {', '.join(args.files) or 'the viewer without a file'}")
        view_files(
            args.files,
            address=Address(args.host, args.port, args.auth, args.allow_host, args.root_path),
            data=args.data,
            maps=maps,
            browser=not args.no_browser,
            device=args.device,
            threads=args.threads,
            max_pixels=args.max_pixels,
            bake=not args.no_bake,
            say=say,
            on_step=(lambda _: None) if args.quiet else step,
        )
    return 0
