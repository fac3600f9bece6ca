"""Each numba kernel against its plain torch twin, interleaved in one process so that noise hits both alike."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from fieldmorph.apps.bench.runner import chosen
from fieldmorph.fields.kernels.example import Function, KernelExample
from fieldmorph.fields.kernels.table import KERNELS
from fieldmorph.fields.runtime import use_threads
from fieldmorph.fields.types import JsonObject

UNITS = {"samples": ("Msamples", 1e6), "nodes": ("Mnodes", 1e6), "rays": ("krays", 1e3)}


def bench_kernels(
    threads: int = 1, seconds: float = 3.0, seed: int = 0, only: Sequence[str] | None = None
) -> JsonObject:
    """Measure the throughput of kernels and twins, and the kernels' errors against the twins in float64.

    Rates are millions of samples per core-second, of active nodes for total variation, thousands of rays for marching:
    medians over rounds that take turns (kernel, twin, kernel, ...).

    Args:
        threads: for numba and torch alike.
        seconds: of each row, after one round that compiles.
        seed: of inputs and parameters.
        only: names of the kernels, as in their table; all by default.

    Raises:
        SettingError: a name that is not in the table.
    """
    names = chosen(only, list(KERNELS), "kernel")
    generator = torch.Generator().manual_seed(seed)
    with _threads(threads):
        rows = [
            row
            for name in names
            for size in KERNELS[name].BENCH_SIZES
            for row in _rows(KERNELS[name].example(generator, **size), seconds)
        ]
    return {"threads": threads, "seconds": seconds, "seed": seed, "rows": rows}


def kernels_table(result: JsonObject) -> str:
    """Format what `bench_kernels` returned as a Markdown table."""
    lines = [
        f"| kernel ({result['threads']} thread{'s' * (result['threads'] > 1)}) | per core-second | numba | torch | "
        "ratio | largest error | largest gradient error |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        gradient = "" if row["gradient_error"] is None else f"{row['gradient_error']:.1e}"
        lines.append(
            f"| {row['name']} | {row['unit']} | {row['numba']:.3g} | {row['torch']:.3g} | {row['ratio']:.1f} | "
            f"{row['error']:.1e} | {gradient} |"
        )
    return "\n".join(lines)


def _rows(example: KernelExample, seconds: float) -> list[JsonObject]:
    """Return a row for forward and, where there are gradients, one for forward and backward."""
    kernel, baseline = example.kernel, example.baseline or example.twin
    got, got_grads = example.run(kernel)
    exact, exact_grads = example.run(example.twin, torch.float64)
    error = max(
        float((a - b).abs().max()) if a.shape == b.shape else 1.0 for a, b in zip(got, exact, strict=True)
    )
    pairs = list(zip(got_grads, exact_grads, strict=True))
    gradient_error = max((float((a - b).abs().max() / b.abs().max()) for a, b in pairs), default=None)
    unit, scale = UNITS[example.items]
    rows = []
    for backward in (False, True) if pairs else (False,):
        race = _race(example, kernel, baseline, backward, example.n_items / scale, seconds)
        suffix = (", forward + backward" if backward else ", forward") if pairs else ""
        errors = {"error": error, "gradient_error": gradient_error if backward else None}
        rows.append({"name": example.title + suffix, "unit": unit, **race, **errors})
    return rows


def _race(
    example: KernelExample, kernel: Function, baseline: Function, backward: bool, work: float, seconds: float
) -> dict[str, float]:
    """Return the median work per core-second of both, taking turns for about the given time."""
    spent: tuple[list[float], list[float]] = ([], [])
    for function in (kernel, baseline):
        example.run(function, backward=backward)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent[0]) < 3:
        for function, times in zip((kernel, baseline), spent, strict=True):
            start = time.process_time()
            example.run(function, backward=backward)
            times.append(time.process_time() - start)
    rates = [work / statistics.median(times) for times in spent]
    return {"numba": rates[0], "torch": rates[1], "ratio": rates[0] / rates[1]}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(n)
    try:
        yield
    finally:
        use_threads(before)
