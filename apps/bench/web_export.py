"""Quality of web exports by size: degrees and resolutions, seen by cameras they were not made for."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from fieldmorph.apps.bake.baked_field import baked_field
from fieldmorph.apps.bake.build import DEGREES, BakeConfig, bake
from fieldmorph.apps.bake.web_export import read_web, write_web
from fieldmorph.apps.bench.runner import Bench, Row, chosen, failures, markdown
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.runtime import peak_memory
from fieldmorph.fields.store import load_field

DEFAULT_FIELDS = ("hashgrid", "mlp")
TRAINING_CORE_SECONDS = 300.0  # of each field


def bench_bake(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 1,
    scale: float = 1.0,
    only: Sequence[str] | None = None,
    force: bool = False,
    quiet: bool = False,
    resolutions: Sequence[int] = (128, 192, 256),
) -> Row:
    """Train fields from images and export each with every degree at every resolution; return JSON values.

    Rows are resumed as `Bench` says, and pages stay next to the fields.

    Args:
        scale: multiplies the budgets of training.
        only: names of the fields; those of `DEFAULT_FIELDS` by default.
        resolutions: cells along the longest side.

    Raises:
        SettingError, InputError: before anything is written.
    """
    names = chosen(only or DEFAULT_FIELDS, list(FIELDS))
    bench = Bench.of_scene("bake", data, output, downscale, force, quiet)
    for seed, name in itertools.product(range(n_seeds), names):
        trained = bench.train_teacher(name, scale * TRAINING_CORE_SECONDS, seed)
        for resolution, degree in itertools.product(resolutions, DEGREES):
            what = {"kind": "bake", "field": name, "resolution": resolution, "degree": degree, "seed": seed}
            if "error" in trained:
                bench.fail(what, f"no field: {trained['error']}")
                continue
            bench.run(
                {**what, "teacher_sha256": trained["sha256"]},
                export_page,
                **bench.settings,
                file=trained["path"],
                page=bench.fields() / f"{name}_{seed}_{resolution}_{degree}.html",
                resolution=resolution,
                degree=degree,
            )
    return bench.finish({"scale": scale, "seeds": n_seeds}, bake_table)


def export_page(
    data: str, downscale: int, file: str, page: str, resolution: int, degree: int, quiet: bool
) -> Row:
    """Export one page as a job; return its cost and its PSNR against the field over all test cameras.

    Time and memory are those of the bake and the page only; what is evaluated is read back from the page.
    """
    compile_kernels()
    stored = load_field(file)
    views = open_scene(data, "test", downscale=downscale, aabb=stored.field.box()).splits["test"].cameras
    start = time.perf_counter(), time.process_time()
    baked = bake(stored, BakeConfig(resolution, degree))
    n_bytes = write_web(page, baked)
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    peak = peak_memory()
    written, scores = baked_field(read_web(page), views), []
    with ProgressLine(f"{Path(page).stem} against its field", quiet) as line, torch.no_grad():
        for i, view in enumerate(views):
            scores.append(capped_psnr(written.render(view)["colors"], stored.render(view)["colors"]))
            line.count(i + 1, len(views))
    return {
        "bytes": n_bytes,
        "cells": list(baked.lattice.cells),
        "nodes": baked.colour.shape[1],
        "psnr_to_field": sum(scores) / len(scores),
        "worst_to_field": min(scores),
        "seconds": spent[0],
        "core_seconds": spent[1],
        "peak_memory_bytes": peak,
    }


def bake_table(result: Row) -> str:
    """Format what `bench_bake` returned as a Markdown table."""
    rows = [
        [
            row["field"],
            str(row["resolution"]),
            str(row["degree"]),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['psnr_to_field']:.2f}",
            f"{row['worst_to_field']:.2f}",
            f"{row['core_seconds']:.1f}",
            "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e9:.2f}",
        ]
        for row in result["rows"]
        if row["kind"] == "bake" and "error" not in row
    ]
    head = ["field", "cells", "degree", "page, MB", "to the field", "worst view", "core-seconds", "peak GB"]
    about = (
        f"Scene {result['scene']}, images shrunk {result['downscale']} times, {result['threads']} threads. PSNR in dB "
        "of the page against its own field on the test views; core-seconds and memory of the export."
    )
    return "\n".join([about, "", markdown(head, rows), *failures(result)])
