"""Diagnosis of an installation, line by line."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial

import numba
import torch

from fieldmorph.apps.jobs.exports.table import EXPORTS
from fieldmorph.bayes.covariances.table import COVARIANCES
from fieldmorph.fields.kernels.accelerators import accelerators
from fieldmorph.fields.kernels.launch import threading_layer
from fieldmorph.fields.kernels.table import KERNELS
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.runtime import bf16_on_cpu
from fieldmorph.fields.scenes.table import READERS

Line = tuple[
    str, str, str
]  # name; "ok", "slow" (works, not at its best), "absent" (optional) or "broken"; detail

TINYCUDANN_COMMAND = (
    "pip install --no-build-isolation ninja "
    '"git+https://github.com/NVlabs/tiny-cuda-nn.git@749dd70c5afc5a9dadb85e5652ed65d55e0ba187'
    '#subdirectory=bindings/torch"'
)  # a commit after v2.0, which does not know CUDA 13


def diagnose() -> list[Line]:
    """Return name, status and detail of everything that decides how fast fieldmorph runs; nothing raises.

    Kernels are compiled where they are not cached yet (seconds) and compared with their torch twins.
    """
    checks: list[Callable[[], Iterator[Line]]] = [
        _python,
        _torch,
        _kernels,
        _tables,
        _policy,
        _bf16,
        _cuda,
        _ffmpeg,
    ]
    lines: list[Line] = []
    for check in checks:
        try:
            lines += check()
        except Exception as error:  # a report on a broken machine is what this is for
            lines.append((check.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}"))
    return lines


def _python() -> Iterator[Line]:
    yield "fieldmorph", "ok", importlib.metadata.version("fieldmorph")
    yield "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> Iterator[Line]:
    yield "torch", "ok", f"{torch.__version__}, {_threads(torch.get_num_threads())}"


def _kernels() -> Iterator[Line]:
    errors = _kernel_errors()  # first: the threading layer starts with the first kernel
    layer = threading_layer()
    version = f"{numba.__version__}, {_threads(numba.get_num_threads())}, {layer} layer"
    if layer == "workqueue":
        yield "numba", "slow", f"{version}: kernels of different requests take turns (omp or tbb would not)"
    else:
        yield "numba", "ok", version
    wrong = [f"{name} is off by {error:.1e}" for name, error in errors.items() if not error < 1e-4]
    detail = "; ".join(wrong) or f"{', '.join(errors)} agree with torch"
    yield "kernels", "broken" if wrong else "ok", detail


def _kernel_errors() -> dict[str, float]:
    """Return the largest difference of every kernel from its twin, in units of the largest value or of 1."""
    errors = {}
    for name, module in KERNELS.items():
        example = module.example(torch.Generator().manual_seed(0))
        got, _ = example.run(example.kernel, backward=False)
        exact, _ = example.run(example.twin, backward=False)
        errors[name] = max(map(_difference, got, exact))
    return errors


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1)) if a.shape == b.shape else float("inf")


def _policy() -> Iterator[Line]:
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    passive = policy.upper() == "PASSIVE"
    hint = "" if passive else ": idle threads spin and take the cores from busy ones; set it to PASSIVE"
    yield "OMP_WAIT_POLICY", "ok" if passive else "slow", policy + hint


def _bf16() -> Iterator[Line]:
    if bf16_on_cpu():
        yield "bf16 on the CPU", "ok", "networks run in bf16 (FIELDMORPH_BF16=0 turns it off)"
    else:
        yield "bf16 on the CPU", "absent", "networks run in float32, at about a third of the speed"


def _cuda() -> Iterator[Line]:
    if torch.cuda.is_available():
        yield "cuda", "ok", torch.cuda.get_device_name()
    else:
        yield "cuda", "absent", "torch sees no CUDA device; everything runs on the CPU"
    parts = {
        "tinycudann": ("hash encoding", TINYCUDANN_COMMAND),
        "tinycudann-mlp": ("small networks, in half precision", TINYCUDANN_COMMAND),
        "nerfacc": ("compositing", "pip install 'fieldmorph[cuda]'"),
        "nerfacc-march": ("marching", "pip install 'fieldmorph[cuda]'"),
    }
    for name, accelerator in accelerators().items():
        status = "ok" if accelerator.passed else "slow" if accelerator.found else "absent"
        scope, command = parts[name]
        hint = f" ({command})" if torch.cuda.is_available() and not accelerator.found else ""
        yield name, status, f"{accelerator.reason}{hint}; optional, for {scope} on CUDA"


def _ffmpeg() -> Iterator[Line]:
    try:
        import imageio_ffmpeg

        yield "ffmpeg", "ok", f"{imageio_ffmpeg.get_ffmpeg_version()} of imageio-ffmpeg"
    except (ImportError, RuntimeError) as error:
        yield "ffmpeg", "absent", f"no MP4 without it: {error}"


def _tables() -> Iterator[Line]:
    """Import what the tables name; what lacks an optional package is absent. Numba kernels have a line of their own."""
    tables: dict[str, dict[str, Callable[[], object]]] = {
        "fields": {name: partial(FIELDS.__getitem__, name) for name in FIELDS},
        "scene readers": {name: partial(READERS.__getitem__, name) for name in READERS},
        "export formats": {name: entry.load for name, entry in EXPORTS.items()},
        "tensor kernels": {name: entry.load for name, entry in COVARIANCES.items()},
    }
    for title, loaders in tables.items():
        found, absent = [], {}
        for name, imported in loaders.items():
            try:
                imported()
                found.append(name)
            except ImportError as error:
                absent[name] = str(error)
        missing = "".join(f"; {name}: {reason}" for name, reason in absent.items())
        yield title, "absent" if absent else "ok", f"{', '.join(found)}{missing}"


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n != 1)}"
