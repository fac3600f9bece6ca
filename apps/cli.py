"""The command line: parsing here, the work in functions that a handler imports when it is called."""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fieldmorph.apps import commands
from fieldmorph.apps.exits import PIPE_CLOSED, explain

BUDGET_HELP = "time to take: 90s, 2m or 1h of wall clock, or 150cs of core-seconds (CPU time of all threads)"
THREADS_HELP = "cores to use (default: all there are)"
RESUME_HELP = (
    "go on with OUTPUT.state of an interrupted run; settings must be the same, but a time may be raised"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. 0 done, 2 usage, 3 bad input, 4 unsafe, 5 quality missed, 6 no room."""
    args = build_parser().parse_args(_joined_box(sys.argv[1:] if argv is None else argv))
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


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, and no abbreviations that a later option would change."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fieldmorph: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"fieldmorph {version('fieldmorph')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(
        prog="fieldmorph",
        description="Convert neural fields between architectures, on a plain CPU.",
        epilog="FIELDMORPH_DEBUG=1 in the environment shows the traceback of every error.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    jobs = parser.add_subparsers(metavar="COMMAND", required=True)

    train = _command(
        jobs, "train", commands.train, "fit a field to posed photographs", threads=THREADS_HELP, device=True
    )
    train.add_argument("data", metavar="DATA", help="folder with transforms_train.json or transforms.json")
    train.add_argument("--field", default="hashgrid", help="representation (default hashgrid)")
    train.add_argument("--downscale", type=_count, default=1, metavar="N", help="shrink the images N times")
    train.add_argument(
        "--aabb", type=_box, metavar="X0,Y0,Z0,X1,Y1,Z1", help="the scene's box (default: estimated)"
    )
    _add_run_options(train, "120cs")

    convert = _command(
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
    convert.add_argument("--downscale", type=_count, default=1, metavar="N", help="shrink these N times")
    convert.add_argument(
        "--max-psnr-drop", type=_positive, metavar="DB",
        help="against the photographs: go on for up to the budget's length again, exit with 5 if still missed",
    )  # fmt: skip
    convert.add_argument(
        "--active", type=_levels, default=("pose", "ray", "point"), metavar="LEVELS",
        help="levels of active learning: some of pose,ray,point, all or none (default all)",
    )  # fmt: skip
    convert.add_argument(
        "--start", action=argparse.BooleanOptionalAction,
        help="begin with the student's closed form, if it has one (default: where that helps: voxels and cp)",
    )  # fmt: skip
    convert.add_argument("--no-receipt", action="store_true", help="do not measure, write no receipt")
    _add_run_options(convert, "180cs")

    evaluate = _command(
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

    render = _command(
        jobs, "render", commands.render, "pictures or a film of a field", threads=THREADS_HELP, device=True
    )
    render.add_argument("file", metavar="FILE")
    which = render.add_mutually_exclusive_group(required=True)
    _add_views(render, which)
    which.add_argument("--orbit", type=_count, metavar="N", help="N frames of a full turn")
    _add_output(render, "folder for PNGs, or a name that ends in .mp4")
    render.add_argument("--size", type=_size, metavar="WxH", help="image size (default: the views' own)")
    render.add_argument(
        "--depth", action="store_true", help="depth, too: 16-bit PNG, its scale in depth.json"
    )
    render.add_argument("--opacity", action="store_true", help="opacity, too")
    render.add_argument(
        "--fps", type=_count, default=30, metavar="N", help="frames a second of a film (default 30)"
    )
    render.add_argument("--background", choices=["white", "black"], default="white")

    info = _command(jobs, "info", commands.info, "say what is in a file, without running anything from it")
    info.add_argument("file", metavar="FILE")

    demo = _command(jobs, "demo", commands.demo, "the whole job on the bundled scene", threads=THREADS_HELP)
    _add_output(demo, "folder for fields, pictures and films (default demo_output)", "demo_output")
    demo.add_argument("--budget", default="320cs", help=f"{BUDGET_HELP}; a quarter trains (default 320cs)")

    _command(jobs, "doctor", commands.doctor, "say what this installation can do")

    bench = _command(
        jobs, "bench", commands.bench, "measure", threads="cores to use (default: all there are; kernels: 1)"
    )
    bench.add_argument(
        "what", choices=list(commands.BENCHES),
        help="kernels: against torch; convert: distilled or trained; matrix: every field into every other; active: "
        "levels of active learning; starts: closed-form starts",
    )  # fmt: skip
    others = "all but kernels"
    bench.add_argument("--data", metavar="DATA", help=f"{others}: scene (default: the bundled one)")
    bench.add_argument(
        "--downscale", type=_count, default=1, metavar="N", help=f"{others}: shrink the images N times"
    )
    bench.add_argument(
        "--seeds", type=_count, metavar="N",
        help=f"{others}: runs of each kind (default 3 for convert and active, 1 for matrix and starts)",
    )  # fmt: skip
    bench.add_argument(
        "--scale", type=_positive, default=1.0, help=f"{others}: multiplies all budgets (default 1)"
    )
    bench.add_argument(
        "--only",
        type=_names,
        metavar="A,B",
        help="matrix: these fields; starts: these students (default all)",
    )
    _add_output(
        bench, f"{others}: folder for rows, table and fields (default bench_output); goes on with an earlier run",
        "bench_output",
    )  # fmt: skip
    return parser


def _command(
    jobs: Any, name: str, handler: Callable[..., int], text: str, threads: str = "", device: bool = False
) -> argparse.ArgumentParser:
    parser = jobs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(handler=handler)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, nothing else"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    if threads:
        parser.add_argument("--threads", type=_count, metavar="N", help=threads)
    if device:
        parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser


def _add_run_options(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--preset", default="small", help="small (default) or paper")
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="KEY=VALUE",
        help="one of the field's own settings, over the preset's; may be repeated",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps", type=_count, metavar="N", help="steps to take: equal seeds and --threads give equal bytes"
    )
    length.add_argument("--budget", default=default, help=f"{BUDGET_HELP} (default {default})")
    parser.add_argument("--seed", type=_seed, default=0, help="of everything random (default 0)")
    parser.add_argument("--resume", action="store_true", help=RESUME_HELP)
    _add_output(parser, "file to write")


def _add_output(parser: argparse.ArgumentParser, text: str, default: str | None = None) -> None:
    parser.add_argument("-o", "--output", required=default is None, default=default, help=text)
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def _add_views(parser: argparse.ArgumentParser, group: Any, required: bool = False) -> None:
    group.add_argument(
        "--data", metavar="DATA", help="scene with the views", **({"required": True} if required else {})
    )
    parser.add_argument("--split", default="test", help="train, val or test (default test)")
    parser.add_argument("--downscale", type=_count, default=1, metavar="N", help="shrink the images N times")


def _joined_box(argv: Sequence[str]) -> list[str]:
    """`--aabb -1,...` as `--aabb=-1,...`: argparse takes a value that begins with a minus for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--aabb":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 999999999; got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number; got {text!r}")
    return value


def _box(text: str) -> tuple[float, ...]:
    try:
        box = tuple(float(v) for v in text.replace(",", " ").split())
    except ValueError:
        box = ()
    if len(box) != 6:
        raise argparse.ArgumentTypeError(f"expected six numbers, min then max; got {text!r}")
    return box


def _levels(text: str) -> tuple[str, ...]:
    named = {"all": ("pose", "ray", "point"), "none": ()}
    return named[text] if text in named else tuple(text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch("([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"a size looks like 640x480; got {text!r}")
    return int(match[1]), int(match[2])


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"a setting looks like width=64; got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
