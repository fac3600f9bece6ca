"""The command line: parsing here, the work in functions that a handler imports when it is called."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli import handlers as commands
from fieldmorph.apps.cli import tensor as tensor_cli
from fieldmorph.apps.console.exits import PIPE_CLOSED, explain

BUDGET_HELP = "time to take: 90s, 2m or 1h of wall clock, or 150cs of core-seconds (CPU time of all threads)"
THREADS_HELP = "cores to use (default: all there are)"
RESUME_HELP = (
    "go on with OUTPUT.state of an interrupted run; settings must be the same, but a time may be raised "
    "while there is learning left"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. 0 done, 2 usage, 3 bad input, 4 unsafe, 5 quality missed, 6 no room."""
    args = build_parser().parse_args(arg.joined(sys.argv[1:] if argv is None else argv))
    try:
        code = args.handler(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: no second complaint
        return PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        known = explain(error)
        if known is None or os.environ.get("FIELDMORPH_DEBUG") == "1":
            raise
        print(f"fieldmorph: {known.message}", file=sys.stderr)
        return known.code


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"fieldmorph {version('fieldmorph')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = arg.Parser(
        prog="fieldmorph",
        description="Convert neural fields between architectures, on a plain CPU.",
        epilog="FIELDMORPH_DEBUG=1 in the environment shows the traceback of every error.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    jobs = parser.add_subparsers(metavar="COMMAND", required=True)

    train = arg.command(
        jobs, "train", commands.train, "fit a field to posed photographs", threads=THREADS_HELP, device=True
    )
    train.add_argument("data", metavar="DATA", help="folder with transforms_train.json or transforms.json")
    train.add_argument("--field", default="hashgrid", help="representation (default hashgrid)")
    train.add_argument(
        "--downscale", type=arg.count, default=1, metavar="N", help="shrink the images N times"
    )
    train.add_argument(
        "--aabb", type=arg.box, metavar="X0,Y0,Z0,X1,Y1,Z1", help="the scene's box (default: estimated)"
    )
    _add_run_options(train, "120cs")

    convert = arg.command(
        jobs, "convert", commands.convert, "turn a field into another", threads=THREADS_HELP, device=True
    )
    convert.add_argument("teacher", metavar="TEACHER", help="file of a trained field")
    convert.add_argument("--to", default="mlp", help="representation of the student (default mlp)")
    convert.add_argument(
        "--max-bytes",
        metavar="SIZE",
        help="pick the student's size: the largest whose file fits into 2MB, 500kB, ...",
    )
    convert.add_argument(
        "--data",
        metavar="DATA",
        help="scene whose test photographs the receipt measures against (not needed)",
    )
    convert.add_argument("--downscale", type=arg.count, default=1, metavar="N", help="shrink these N times")
    convert.add_argument(
        "--max-psnr-drop", type=arg.positive, metavar="DB",
        help="against the photographs: go on for up to the budget's length again, exit with 5 if still missed",
    )  # fmt: skip
    convert.add_argument(
        "--active", type=arg.levels, default=("pose", "ray", "point"), metavar="LEVELS",
        help="levels of active learning: some of pose,ray,point, all or none (default all)",
    )  # fmt: skip
    convert.add_argument(
        "--start", action=argparse.BooleanOptionalAction,
        help="begin with the student's closed form, if it has one (default: where that helps: voxels and cp)",
    )  # fmt: skip
    convert.add_argument("--no-receipt", action="store_true", help="do not measure, write no receipt")
    _add_run_options(convert, "180cs")

    evaluate = arg.command(
        jobs,
        "eval",
        commands.evaluate,
        "measure a field against photographs",
        threads=THREADS_HELP,
        device=True,
    )
    evaluate.add_argument("file", metavar="FILE")
    evaluate.add_argument("--teacher", metavar="TEACHER", help="compare with this field's pictures, too")
    _add_views(evaluate, evaluate, required=True)

    render = arg.command(
        jobs, "render", commands.render, "pictures or a film of a field", threads=THREADS_HELP, device=True
    )
    render.add_argument("file", metavar="FILE")
    which = render.add_mutually_exclusive_group(required=True)
    _add_views(render, which)
    which.add_argument("--orbit", type=arg.count, metavar="N", help="N frames of a full turn")
    arg.add_output(render, "folder for PNGs, or a name that ends in .mp4")
    render.add_argument("--size", type=arg.size, metavar="WxH", help="image size (default: the views' own)")
    render.add_argument(
        "--depth", action="store_true", help="depth, too: 16-bit PNG, its scale in depth.json"
    )
    render.add_argument("--opacity", action="store_true", help="opacity, too")
    render.add_argument(
        "--fps", type=arg.count, default=30, metavar="N", help="frames a second of a film (default 30)"
    )
    render.add_argument("--background", choices=["white", "black"], default="white")

    export = arg.command(
        jobs, "export", commands.export, "bake a field for the browser", threads=THREADS_HELP, device=True
    )
    export.add_argument("file", metavar="FILE")
    export.add_argument(
        "--web", required=True, metavar="OUTPUT",
        help="a page that opens offline, where the name ends in .html, else a folder for a web server",
    )  # fmt: skip
    export.add_argument(
        "--resolution", type=arg.count, default=256, metavar="N",
        help="cells along the longest side, a multiple of 8 (default 256)",
    )  # fmt: skip
    export.add_argument(
        "--degree", type=int, default=1, choices=[0, 1, 2], help="of the spherical harmonics (default 1)"
    )
    export.add_argument("--name", help="shown on the page (default: the file's)")
    export.add_argument("--force", action="store_true", help="overwrite what is there")

    view = arg.command(
        jobs,
        "view",
        commands.view,
        "look at a field, or compare two, in a browser",
        threads=THREADS_HELP,
        device=True,
    )
    view.add_argument("files", metavar="FILE", nargs="*", help="a field, two to compare, or a tensor model")
    view.add_argument(
        "--data", metavar="TABLE", help="rows that the tensor model has not seen: are its intervals right?"
    )
    view.add_argument(
        "--port", type=arg.port, default=7860, metavar="N", help="default 7860; 0: any that is free"
    )
    view.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)"
    )
    view.add_argument(
        "--auth",
        metavar="USER:PASS|FILE",
        help="ask for a password on every route; a file has one USER:PASS a line",
    )
    view.add_argument("--no-browser", action="store_true", help="only say where the page is")

    info = arg.command(jobs, "info", commands.info, "say what is in a file, without running anything from it")
    info.add_argument("file", metavar="FILE")

    demo = arg.command(
        jobs, "demo", commands.demo, "the whole job on the bundled scene", threads=THREADS_HELP
    )
    arg.add_output(demo, "folder for fields, pictures and films (default demo_output)", "demo_output")
    demo.add_argument("--budget", default="320cs", help=f"{BUDGET_HELP}; a quarter trains (default 320cs)")

    arg.command(jobs, "doctor", commands.doctor, "say what this installation can do")

    bench = arg.command(
        jobs, "bench", commands.bench, "measure", threads="cores to use (default: all there are; kernels: 1)"
    )
    bench.add_argument(
        "what", choices=list(commands.BENCHES),
        help="kernels: against torch; convert: distilled or trained; matrix: every field into every other; active: "
        "levels of active learning; starts: closed-form starts; bake: web exports; view: the viewer, with one visitor "
        "and with many; tensor: functional Tucker models and other methods",
    )  # fmt: skip
    others, scenes = "all but kernels", "all of scenes"
    bench.add_argument(
        "--data", metavar="DATA",
        help=f"{scenes}: scene (default: the bundled one); tensor: folder of .npz files (default: made)",
    )  # fmt: skip
    bench.add_argument(
        "--downscale", type=arg.count, default=1, metavar="N", help=f"{scenes}: shrink the images N times"
    )
    bench.add_argument(
        "--seeds", type=arg.count, metavar="N",
        help=f"{scenes}: runs of each kind (default 3 for convert and active, 1 for matrix, starts and bake)",
    )  # fmt: skip
    bench.add_argument(
        "--scale", type=arg.positive, default=1.0,
        help=f"{scenes}: multiplies all budgets; tensor: share of the rows that is learned from (default 1)",
    )  # fmt: skip
    bench.add_argument(
        "--only",
        type=arg.names,
        metavar="A,B",
        help="matrix and bake: these fields; starts: these students; tensor: these data sets and methods (default all)",
    )
    bench.add_argument("--folds", type=arg.count, metavar="N", help="tensor: of each data set (default all)")
    bench.add_argument(
        "--sizes", type=arg.sizes, metavar="N,N",
        help="tensor: measure instead how time and memory grow with so many rows: 1e4,1e5,1e6",
    )  # fmt: skip
    arg.add_output(
        bench, f"{others}: folder for rows, table and fields (default bench_output); goes on with an earlier run",
        "bench_output",
    )  # fmt: skip
    tensor_cli.add_commands(jobs)
    return parser


def _add_run_options(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--preset", default="small", help="small (default) or paper")
    parser.add_argument(
        "--set", type=arg.setting, action="append", default=[], metavar="KEY=VALUE",
        help="one of the field's own settings, over the preset's; may be repeated",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps",
        type=arg.count,
        metavar="N",
        help="steps to take: equal seeds and --threads give equal bytes",
    )
    length.add_argument("--budget", default=default, help=f"{BUDGET_HELP} (default {default})")
    parser.add_argument("--seed", type=arg.seed, default=0, help="of everything random (default 0)")
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    arg.add_output(parser, "file to write")


def _add_views(parser: argparse.ArgumentParser, group: Any, required: bool = False) -> None:
    group.add_argument(
        "--data", metavar="DATA", help="scene with the views", **({"required": True} if required else {})
    )
    parser.add_argument("--split", default="test", help="train, val or test (default test)")
    parser.add_argument(
        "--downscale", type=arg.count, default=1, metavar="N", help="shrink the images N times"
    )
