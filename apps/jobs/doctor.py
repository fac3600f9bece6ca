"""What this installation can do, line by line."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator

import numba
import torch

from fieldmorph.fields.encodings import spherical_harmonics, spherical_harmonics_torch
from fieldmorph.fields.kernels.accelerators import accelerators
from fieldmorph.fields.kernels.composite import composite_torch
from fieldmorph.fields.kernels.cp import cp_products, cp_products_torch
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import hash_levels
from fieldmorph.fields.kernels.launch import threading_layer
from fieldmorph.fields.kernels.march import march_torch
from fieldmorph.fields.kernels.normal_equations import normal_equations, normal_equations_torch
from fieldmorph.fields.kernels.ops import composite, hash_encode, march
from fieldmorph.fields.kernels.total_variation import total_variation, total_variation_torch
from fieldmorph.fields.kernels.vm import vm_products, vm_products_torch
from fieldmorph.fields.kernels.voxels import (
    NodeGrid,
    pack_mask,
    rank_words,
    sparse_trilinear,
    sparse_trilinear_torch,
)
from fieldmorph.fields.runtime import bf16_on_cpu

Line = tuple[
    str, str, str
]  # name; "ok", "slow" (works, not at its best), "absent" (optional) or "broken"; detail

TINYCUDANN_COMMAND = (
    "pip install --no-build-isolation ninja "
    '"git+https://github.com/NVlabs/tiny-cuda-nn.git@749dd70c5afc5a9dadb85e5652ed65d55e0ba187'
    '#subdirectory=bindings/torch"'
)  # a commit after v2.0, which does not know CUDA 13


def diagnose() -> list[Line]:
    """Name, status and detail of everything that decides how well we run; nothing raises.

    Kernels are compiled where they are not cached yet (seconds) and held against their torch twins.
    """
    checks: list[Callable[[], Iterator[Line]]] = [_python, _torch, _kernels, _policy, _bf16, _cuda, _ffmpeg]
    lines: list[Line] = []
    for check in checks:
        try:
            lines += check()
        except Exception as error:  # a report on a broken machine is what this is for
            lines.append((check.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}"))
    return lines


def doctor(as_json: bool = False) -> int:
    """Print the diagnosis and return the exit code: 0, or 1 where something needed is broken."""
    lines = diagnose()
    if as_json:
        print(json.dumps({name: {"status": status, "detail": detail} for name, status, detail in lines}))
    else:
        for name, status, detail in lines:
            print(f"{name:<16} {status:<7} {detail}")
    return int(any(status == "broken" for _, status, _ in lines))


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
    """Largest difference of every kernel from its twin."""
    generator = torch.Generator().manual_seed(0)
    rays_o = torch.nn.functional.normalize(torch.randn(256, 3, generator=generator), dim=-1)
    box, occupied = torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.rand(16, 16, 16, generator=generator) < 0.3
    rays = (2 * rays_o, -rays_o, box, occupied, 0.02, torch.rand(256, generator=generator))
    samples, exact_samples = march(*rays), march_torch(*rays)
    _, t_starts, t_ends, offsets = exact_samples
    positions = torch.rand(len(t_starts), 3, generator=generator)
    levels = hash_levels(16, 12, 16, 1.3)
    table = torch.rand(levels.n_entries, 2, generator=generator)
    volume = (10 * positions[:, 0], positions, t_starts, t_ends, offsets)
    grids = torch.rand(3, 9, 9, 4, generator=generator), torch.rand(3, 9, 4, generator=generator)
    voxels = NodeGrid(*rank_words(pack_mask(occupied.flatten())), 16, 15.0)
    values = torch.rand(voxels.n_active, 5, generator=generator)
    rows = torch.randint(27, (len(positions),), generator=generator)
    starts = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=27).cumsum(0)])
    tables, indices = (grids[1].reshape(27, 4),) * 3, (rows, rows.roll(1), rows.roll(2))
    normal = (tables, indices, torch.ones(len(rows), 4), rows.argsort(), starts)
    pairs = {
        "hash": ([hash_encode(positions, table, levels)], [hash_encode_torch(positions, table, levels)]),
        "march": (samples, exact_samples),
        "composite": (composite(*volume), composite_torch(*volume)),
        "harmonics": ([spherical_harmonics(rays_o)], [spherical_harmonics_torch(rays_o)]),
        "vm": ([vm_products(positions, *grids)], [vm_products_torch(positions, *grids)]),
        "cp": ([cp_products(positions, grids[1])], [cp_products_torch(positions, grids[1])]),
        "voxels": (
            [sparse_trilinear(positions, values, voxels, -1.0)],
            [sparse_trilinear_torch(positions, values, voxels, -1.0)],
        ),
        "variation": (
            [total_variation(values, voxels, 0, len(values)) / len(values)],
            [total_variation_torch(values, voxels, 0, len(values)) / len(values)],
        ),
        "normal": (normal_equations(*normal), normal_equations_torch(*normal)),
    }
    return {name: max(map(_difference, got, exact)) for name, (got, exact) in pairs.items()}


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max()) if a.shape == b.shape else float("inf")


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


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n != 1)}"
