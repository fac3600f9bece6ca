"""What the machine can do, probed once: bf16 on the CPU, threads, memory that is kept, the device."""

import ctypes
import functools
import os
import platform
import time

import torch

from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kernels.launch import set_threads


@functools.cache
def bf16_on_cpu() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX512-BF16, AMX, Arm BF16).

    `FIELDMORPH_BF16=0` or `1` overrides the probe.
    """
    override = os.environ.get("FIELDMORPH_BF16")
    if override is not None:
        return override not in ("", "0", "off", "false")
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def network_autocast(tensor: torch.Tensor) -> torch.autocast:
    """The precision in which networks run on this tensor's device; float64 is left alone."""
    kind = tensor.device.type
    enabled = tensor.dtype == torch.float32 and (kind == "cuda" or (kind == "cpu" and bf16_on_cpu()))
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


def use_threads(n: int | None = None) -> int:
    """Give torch and the kernels n threads (default: the cores this process may use) and keep freed memory.

    Returns:
        The number of threads.
    """
    n = n or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n or os.cpu_count() or 1
    torch.set_num_threads(n)
    set_threads(n)
    _keep_freed_memory()
    return n


def compile_kernels() -> float:
    """Compile every CPU kernel, or load it from the disk's cache, so that no budget pays for it.

    Returns:
        Seconds it took: some forty the first time after an installation, half a one later.
    """
    from fieldmorph.fields.encodings import spherical_harmonics
    from fieldmorph.fields.kernels.cp import cp_products
    from fieldmorph.fields.kernels.hash_levels import hash_levels
    from fieldmorph.fields.kernels.normal_equations import normal_equations, table_products
    from fieldmorph.fields.kernels.ops import composite, hash_encode, march
    from fieldmorph.fields.kernels.total_variation import total_variation
    from fieldmorph.fields.kernels.vm import vm_products
    from fieldmorph.fields.kernels.voxels import NodeGrid, pack_mask, rank_words, sparse_trilinear

    start = time.monotonic()
    levels = hash_levels(2, 4, 2, 1.5)
    table = torch.zeros(levels.n_entries, 2, requires_grad=True)
    positions = torch.full((4, 3), 0.5)
    hash_encode(positions, table, levels).sum().backward()
    lines, planes = torch.ones(3, 2, 2, requires_grad=True), torch.ones(3, 2, 2, 2, requires_grad=True)
    cp_products(positions, lines).sum().backward()
    vm_products(positions, planes, lines).sum().backward()
    grid = NodeGrid(*rank_words(pack_mask(torch.ones(8, dtype=torch.bool))), 2, 1.0)
    sparse_trilinear(positions, rows := torch.ones(8, 3, requires_grad=True), grid, 0.0).sum().backward()
    total_variation(rows, grid, 0, 8).backward()
    some, nothing = (torch.ones(1, 2),) * 3, torch.zeros(4, dtype=torch.long)
    table_products(some, (nothing,) * 3, torch.ones(1, 2))
    normal_equations(some, (nothing,) * 3, torch.ones(4, 2), torch.arange(4), torch.tensor([0, 4]))
    rays_o, rays_d = torch.tensor([[-1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    box, occupied = torch.tensor([0.0, 0, 0, 1, 1, 1]), torch.ones(2, 2, 2, dtype=torch.bool)
    _, t_starts, t_ends, offsets = march(rays_o, rays_d, box, occupied, 0.5, torch.full((1,), 0.5))
    sigma = torch.ones(len(t_starts), requires_grad=True)
    rgb = torch.ones(len(t_starts), 3, requires_grad=True)
    composite(sigma, rgb, t_starts, t_ends, offsets)[1].sum().backward()
    spherical_harmonics(rays_d)
    return time.monotonic() - start


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA where it works.

    Raises:
        SettingError: for `cuda` on a machine without it, or an unknown name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"device must be auto, cpu or cuda; got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was asked for, but torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@functools.cache
def _keep_freed_memory() -> None:
    # glibc hands every array above 128 KiB back to the kernel when it is freed and faults its pages in again at
    # the next step: a third of the time of a hash encoding. Keep up to 32 MiB blocks (the most it accepts).
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 32 << 20)
    libc.mallopt(trim_threshold, 1 << 30)
