"""`fieldmorph bench`: the measurements behind the tables."""

from contextlib import nullcontext
from typing import Any

from fieldmorph.apps.bench.registry import BENCHES, TENSOR_SIZES, Benchmark
from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, extra, set_threads, show
from fieldmorph.apps.console import values
from fieldmorph.fields.errors import SettingError

FAILED = 1  # exit code of a benchmark that finished with rows that have no figures
NOT_KERNELS, SCENES = "all but kernels", "scene benchmarks"
DEFAULTS = {
    "data": None,
    "downscale": 1,
    "seeds": None,
    "scale": 1.0,
    "only": None,
    "folds": None,
    "sizes": None,
}
KEYWORDS = {"n_seeds": "seeds", "n_folds": "folds"}  # of the functions, where the option has another name


def add_parser(jobs: Any) -> None:
    """Add the command and its options."""
    parser = arg.command(
        jobs,
        "bench",
        run,
        "run a benchmark",
        threads="number of CPU threads (default: all available; kernels: 1)",
    )
    titles = "; ".join(f"{name}: {bench.title}" for name, bench in BENCHES.items())
    parser.add_argument("what", choices=list(BENCHES), help=titles)
    parser.add_argument(
        "--data",
        metavar="DATA",
        help=f"{SCENES}: scene (default: the bundled one), for robust a folder of scenes, too; "
        "tensor: folder of .npz files (default: generated)",
    )
    arg.add_downscale(parser, f"{SCENES}: ")
    parser.add_argument(
        "--seeds",
        type=values.count,
        metavar="N",
        help=f"{SCENES}: runs of each kind (default {_defaults_of_seeds()})",
    )
    parser.add_argument(
        "--scale",
        type=values.positive,
        default=1.0,
        help=f"{SCENES}: multiplies all budgets; tensor: fraction of the training rows (default 1)",
    )
    parser.add_argument(
        "--only",
        type=values.names,
        metavar="A,B",
        help=f"run these alone (default all): {_named()}",
    )
    parser.add_argument(
        "--folds",
        type=values.count,
        metavar="N",
        help="tensor: number of folds of each data set (default all)",
    )
    parser.add_argument(
        "--sizes",
        type=values.sizes,
        metavar="N,N",
        help="tensor: measure instead how time and memory grow with the number of rows: 1e4,1e5,1e6",
    )
    arg.add_output(
        parser,
        f"{NOT_KERNELS}: folder for rows, table and fields (default bench_output); continues an earlier run",
        "bench_output",
    )


def _refuse_others(args: Args, bench: Benchmark) -> None:
    """Check that no option was given that the benchmark does not have.

    Raises:
        SettingError: one was.
    """
    for name, default in DEFAULTS.items():
        if getattr(args, name) != default and name not in [KEYWORDS.get(o, o) for o in bench.options]:
            raise SettingError(f"--{name} is not an option of `fieldmorph bench {args.what}`")


def _named() -> str:
    """Return the names that `--only` takes, benchmark by benchmark."""
    named = [f"{name}: {', '.join(bench.only)}" for name, bench in BENCHES.items() if bench.only]
    return f"{'; '.join(named)}, and data sets"


def _defaults_of_seeds() -> str:
    by_number: dict[int, list[str]] = {}
    for name, bench in BENCHES.items():
        if "n_seeds" in bench.options:
            by_number.setdefault(bench.seeds, []).append(name)
    return "; ".join(f"{number} for {', '.join(names)}" for number, names in by_number.items())


def run(args: Args) -> int:
    """Run one benchmark and print its table; return 1 where rows failed."""
    bench = TENSOR_SIZES if args.what == "tensor" and args.sizes else BENCHES[args.what]
    _refuse_others(args, bench)
    if "output" not in bench.options:
        args.output = None
    if "threads" not in bench.options:
        set_threads(args)
    given = {name: getattr(args, KEYWORDS.get(name, name)) for name in bench.options}
    with extra(bench.extra) if bench.extra else nullcontext():
        function, table = bench.load()
        result = function(**{name: value for name, value in given.items() if value is not None})
    show(result, args, table)
    return FAILED if result.get("failed") else 0
