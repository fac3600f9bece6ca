"""`fieldmorph view`: the viewer in a browser."""

from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, set_threads
from fieldmorph.apps.cli.tensor.options import add_map_options, map_settings
from fieldmorph.apps.console import values


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
    parser.add_argument("files", metavar="FILE", nargs="*", help="a field, two to compare, or a tensor model")
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
    parser.add_argument("--no-browser", action="store_true", help="only print the page's address")


def run(args: Args) -> int:
    """Serve the viewer until it is interrupted."""
    set_threads(args)
    from fieldmorph.apps.viewer.app import view_files

    with extra("bayes"):
        maps = map_settings(args)
    view_files(
        args.files,
        host=args.host,
        port=args.port,
        auth=args.auth,
        data=args.data,
        maps=maps,
        browser=not args.no_browser,
        device=args.device,
        threads=args.threads,
        names=args.allow_host,
        root_path=args.root_path,
        say=lambda line: print(line, flush=True),
    )
    return 0
