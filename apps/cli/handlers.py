"""One handler per command: imports what it needs, calls one function, prints what came out."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fieldmorph.apps.console.exits import GATE_MISSED
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError

Args = argparse.Namespace

FAILED = 1  # exit code of a benchmark that came to its end with rows that have no figures


def train(args: Args) -> int:
    budget = _budget(args)
    progress = prepare("train", args)
    from fieldmorph.apps.jobs.train import train_scene

    with progress:
        result = train_scene(
            args.data, args.output, budget, field=args.field, downscale=args.downscale, aabb=args.aabb,
            **_run_options(args), on_progress=progress,
        )  # fmt: skip
    return show(result, args, _run_summary)


def convert(args: Args) -> int:
    budget = _budget(args)
    progress = prepare("convert", args)
    from fieldmorph.apps.jobs.convert import ConvertOptions, convert_file, parse_bytes

    options = ConvertOptions(
        active=args.active,
        start=args.start,
        max_bytes=None if args.max_bytes is None else parse_bytes(args.max_bytes),
        max_psnr_drop=args.max_psnr_drop,
        receipt=not args.no_receipt,
    )
    with progress:
        result = convert_file(
            args.teacher, args.output, budget, to=args.to, options=options, data=args.data, downscale=args.downscale,
            **_run_options(args), on_progress=progress, on_picture=progress.measured,
        )  # fmt: skip
    show(result, args, _run_summary)
    gate = result.get("gate")
    if gate is None or gate["met"]:
        return 0
    drop = result["quality"]["held_out"]["psnr_drop"]
    print(
        f"fieldmorph: the PSNR drop is {_decibels(drop)}, more than the "
        f"{gate['max_psnr_drop']:g} dB asked for; {args.output} is the best there was",
        file=sys.stderr,
    )
    return GATE_MISSED


def evaluate(args: Args) -> int:
    progress = prepare("eval", args)
    from fieldmorph.apps.jobs.evaluate import evaluate_file, evaluation_table

    with progress:
        result = evaluate_file(
            args.file, args.data, split=args.split, downscale=args.downscale, teacher=args.teacher,
            device=args.device, on_picture=progress.count,
        )  # fmt: skip
    return show(result, args, evaluation_table)


def render(args: Args) -> int:
    progress = prepare("render", args)
    from fieldmorph.apps.jobs.render import render_file

    with progress:
        result = render_file(
            args.file, args.output, data=args.data, split=args.split, downscale=args.downscale, orbit=args.orbit,
            size=args.size, depth=args.depth, opacity=args.opacity, fps=args.fps, background=args.background,
            device=args.device, force=args.force, on_picture=progress.count,
        )  # fmt: skip
    return show(result, args, lambda r: f"{r['output']}: {r['pictures']} pictures ({', '.join(r['kinds'])})")


def export(args: Args) -> int:
    progress = prepare("export", args)
    from fieldmorph.apps.bake.build import BakeConfig
    from fieldmorph.apps.jobs.export import export_table, export_web

    with progress:
        result = export_web(
            args.file, args.web, BakeConfig(args.resolution, args.degree), name=args.name, device=args.device,
            force=args.force, on_progress=lambda what, done, all: progress.show(done / all, done, "part", part=what),
        )  # fmt: skip
    return show(result, args, export_table)


def view(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.viewer.app import view_files

    view_files(
        args.files, host=args.host, port=args.port, auth=args.auth, data=args.data, browser=not args.no_browser,
        device=args.device, threads=args.threads, say=lambda line: print(line, flush=True),
    )  # fmt: skip
    return 0


def info(args: Args) -> int:
    from fieldmorph.apps.jobs.info import describe_file, info_table

    return show(describe_file(args.file), args, info_table)


def demo(args: Args) -> int:
    budget = Budget.parse(args.budget)
    set_threads(args)
    from fieldmorph.apps.jobs.demo import demo_table, run_demo

    return show(run_demo(args.output, budget, force=args.force, quiet=args.quiet), args, demo_table)


def doctor(args: Args) -> int:
    from fieldmorph.apps.jobs.doctor import doctor

    return doctor(as_json=args.json)


def bench(args: Args) -> int:
    return BENCHES[args.what](args)


def _bench_kernels(args: Args) -> int:
    from fieldmorph.apps.bench.kernels import bench_kernels, kernels_table

    return show(bench_kernels(threads=args.threads or 1), args, kernels_table)


def _bench_convert(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.bench.convert import bench_convert, convert_table

    return _show_bench(bench_convert(**_bench_options(args)), args, convert_table)


def _bench_matrix(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.bench.matrix import bench_matrix, matrix_table

    return _show_bench(bench_matrix(**_bench_options(args), only=args.only), args, matrix_table)


def _bench_active(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.bench.active import active_table, bench_active

    return _show_bench(bench_active(**_bench_options(args)), args, active_table)


def _bench_starts(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.bench.warm_starts import bench_starts, starts_table

    return _show_bench(bench_starts(**_bench_options(args), only=args.only), args, starts_table)


def _bench_bake(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.bench.web_export import bake_table, bench_bake

    return _show_bench(bench_bake(**_bench_options(args), only=args.only), args, bake_table)


def _bench_tensor(args: Args) -> int:
    set_threads(args)
    into = {name: getattr(args, name) for name in ("output", "force", "quiet")}
    with extra():
        if args.sizes:
            from fieldmorph.apps.bench.tensor_scaling import bench_tensor_sizes, sizes_table

            return _show_bench(bench_tensor_sizes(args.sizes, **into), args, sizes_table)
        from fieldmorph.apps.bench.tensor import bench_tensor, tensor_table

        options = {"data": args.data, "n_folds": args.folds, "scale": args.scale, "only": args.only}
        return _show_bench(bench_tensor(**options, **into), args, tensor_table)


def _bench_view(args: Args) -> int:
    set_threads(args)
    from fieldmorph.apps.viewer.app import NEEDED

    try:
        from fieldmorph.apps.bench.viewer import bench_view, view_table
    except ModuleNotFoundError as error:
        raise ImportError(NEEDED) from error
    options = _bench_options(args)
    options.pop("n_seeds", None)  # nothing of it is random
    return _show_bench(bench_view(**options), args, view_table)


BENCHES: dict[str, Callable[[Args], int]] = {
    "kernels": _bench_kernels,
    "convert": _bench_convert,
    "matrix": _bench_matrix,
    "active": _bench_active,
    "starts": _bench_starts,
    "bake": _bench_bake,
    "tensor": _bench_tensor,
    "view": _bench_view,
}


def _bench_options(args: Args) -> dict[str, Any]:
    names = ("data", "output", "downscale", "scale", "force", "quiet")
    seeds = {} if args.seeds is None else {"n_seeds": args.seeds}  # each has a default of its own
    return {**{name: getattr(args, name) for name in names}, **seeds}


def _show_bench(result: dict[str, Any], args: Args, table: Callable[[dict[str, Any]], str]) -> int:
    show(result, args, table)
    return FAILED if result.get("failed") else 0


def _budget(args: Args) -> Budget:
    return Budget(steps=args.steps) if args.steps is not None else Budget.parse(args.budget)


def _run_options(args: Args) -> dict[str, Any]:
    names = ("preset", "seed", "device", "resume", "force")
    return {"overrides": dict(args.set), **{name: getattr(args, name) for name in names}}


def prepare(label: str, args: Args) -> Any:
    """Threads set, and the job's progress line."""
    set_threads(args)
    from fieldmorph.apps.console.progress import ProgressLine

    return ProgressLine(label, args.quiet)


def set_threads(args: Args) -> None:
    from fieldmorph.fields.runtime import use_threads

    use_threads(args.threads)


@contextmanager
def extra() -> Iterator[None]:
    """One line where packages of the extra are missing."""
    try:
        yield
    except ImportError as error:
        raise SettingError(
            f"tensor commands need packages: pip install 'fieldmorph[bayes]' ({error})"
        ) from None


def show(result: dict[str, Any], args: Args, table: Callable[[dict[str, Any]], str]) -> int:
    print(json.dumps(result, allow_nan=False) if args.json else table(result))
    return 0


def _run_summary(result: dict[str, Any]) -> str:
    lines = [
        f"{result['output']}: {result['field']} {result['preset']}, {result['params']} parameters, "
        f"{result['bytes']} bytes",
        f"{result['steps']} steps in {result['seconds']:.1f} s ({result['core_seconds']:.1f} core-seconds), "
        f"PSNR of the probe {result['psnr']:.2f} dB",
    ]
    if "stages" in result:
        lines.append(f"stages: {', '.join(result['stages'])}")
        lines += [f"dropped {name}: {why}" for name, why in result["dropped"].items()]
    if "quality" in result:
        held, beyond = result["quality"]["held_out"], result["quality"]["off_trajectory"]
        lines.append(
            f"PSNR to the teacher: {_decibels(held['psnr_to_teacher'])} on held-out poses, "
            f"{_decibels(beyond['psnr_to_teacher'])} off the cameras' path"
        )
        if "psnr_drop" in held:
            lines.append(f"PSNR against photographs: {_decibels(held['psnr_drop'])} below the teacher's")
        lines.append(f"receipt: {result['receipt'][1]}")
    return "\n".join(lines)


def _decibels(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} dB"
