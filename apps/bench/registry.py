"""The table of benchmarks: a new one takes a module and a line here."""

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.kernels.table import KERNELS
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.types import JsonObject

RUN = ("output", "force", "quiet")
SCENE = ("data", "downscale", "scale", *RUN)
SEEDED = (*SCENE, "n_seeds")

CONVERT_STUDENTS = ("mlp-small", "mlp-paper", "vm-small")
STAGES_STUDENTS = ("mlp", "vm")

TENSOR_METHODS = (
    "tucker3",
    "tucker5",
    "tucker7",
    "cp5",
    "tucker3-matern32",
    "tucker7-places",
    "tucker3-student",
    "tucker3-residual",
    "tucker7-places-residual",
    "kNN",
    "kNN-tuned",
    "HGB",
    "LightGBM",
    "SVGP",
    "parafac",
)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that is imported when it is used.

    Attributes:
        title: what it measures, for `--help`.
        function: `module:name` in this package; returns JSON values.
        table: name in the same module; formats them as Markdown.
        options: keyword arguments that the function takes from the command line where they are given.
        only: names that `--only` chooses from, for `--help`; empty where the benchmark has no such option.
        extra: optional packages that it needs, as pyproject.toml names them.
        seeds: runs of each kind without `--seeds`, for `--help`, where there is that option.
    """

    title: str
    function: str
    table: str
    options: tuple[str, ...] = SEEDED
    only: Collection[str] = ()
    extra: str | None = None
    seeds: int = 1

    def load(self) -> tuple[Callable[..., JsonObject], Callable[[JsonObject], str]]:
        """Import the module and return function and table.

        Raises:
            ImportError: an optional package is missing.
        """
        name, function = self.function.split(":")
        module = importlib.import_module(f"fieldmorph.apps.bench.{name}")
        return getattr(module, function), getattr(module, self.table)


BENCHES: dict[str, Benchmark] = {
    "kernels": Benchmark(
        "numba kernels against torch", "kernels:bench_kernels", "kernels_table", ("threads", "only"), KERNELS
    ),
    "convert": Benchmark(
        "distilled against trained students",
        "convert:bench_convert",
        "convert_table",
        (*SEEDED, "only"),
        CONVERT_STUDENTS,
        seeds=3,
    ),
    "stages": Benchmark(
        "stages of a conversion, each on and off",
        "stages:bench_stages",
        "stages_table",
        (*SEEDED, "only"),
        STAGES_STUDENTS,
        seeds=3,
    ),
    "paper": Benchmark("PVD's own pair and sizes", "paper:bench_paper", "paper_table", SCENE),
    "matrix": Benchmark(
        "every field into every other",
        "matrix:bench_matrix",
        "matrix_table",
        (*SEEDED, "only"),
        FIELDS,
    ),
    "active": Benchmark("levels of active learning", "active:bench_active", "active_table", seeds=3),
    "starts": Benchmark(
        "closed-form warm starts",
        "warm_starts:bench_starts",
        "starts_table",
        (*SEEDED, "only"),
        STARTS,
    ),
    "bake": Benchmark("web exports", "web_export:bench_bake", "bake_table", (*SEEDED, "only"), FIELDS),
    "robust": Benchmark("thin, hazy, glossy and dark teachers", "robust:bench_robust", "robust_table"),
    "tensor": Benchmark(
        "functional Tucker models and other methods",
        "tensor:bench_tensor",
        "tensor_table",
        ("data", "n_folds", "scale", "only", *RUN),
        TENSOR_METHODS,
        extra="bayes",
    ),
    "view": Benchmark(
        "the viewer with one visitor and with many", "viewer:bench_view", "view_table", SCENE, extra="view"
    ),
}

# `bench tensor --sizes`: the same command measures growth instead of quality.
TENSOR_SIZES = Benchmark(
    "time and memory of tensor models by rows",
    "tensor_scaling:bench_tensor_sizes",
    "sizes_table",
    ("sizes", *RUN),
    extra="bayes",
)
