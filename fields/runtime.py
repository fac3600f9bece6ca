"""The machine, probed once: bf16 on the CPU, threads, memory, the device."""

import ctypes
import functools
import logging
import os
import platform
import sys
import threading
from contextlib import suppress
from pathlib import Path

import torch

from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kernels.launch import set_threads

STATUS = Path("/proc/self/status")

log = logging.getLogger(__name__)


@functools.cache
def bf16_on_cpu() -> bool:
    """Return whether the CPU multiplies bf16 natively (AVX512-BF16, AMX, Arm BF16).

    `FIELDMORPH_BF16=0` or `1` overrides the probe.
    """
    override = os.environ.get("FIELDMORPH_BF16")
    if override is not None:
        return override not in ("", "0", "off", "false")
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def network_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the precision in which networks run on this tensor's device; float64 is left alone."""
    kind = tensor.device.type
    in_bf16 = tensor.dtype == torch.float32 and (kind == "cuda" or (kind == "cpu" and bf16_on_cpu()))
    return torch.bfloat16 if in_bf16 else tensor.dtype


def use_threads(n: int | None = None) -> int:
    """Give torch and the kernels n threads (default: the cores this process may use) and keep freed memory.

    Returns:
        The number of threads.
    """
    n = n or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n or os.cpu_count() or 1
    log.debug("%d threads", n)
    torch.set_num_threads(n)
    set_threads(n)
    _keep_freed_memory()
    return n


def choose_device(name: str = "auto") -> torch.device:
    """Return a device by name; `auto` takes CUDA where it works.

    Raises:
        SettingError: for `cuda` on a machine without it, or an unknown name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"device must be auto, cpu or cuda; got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was requested, but torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def peak_memory(status: Path = STATUS) -> int | None:
    """Return the most memory that this process has held, in bytes, or None where the system does not count it.

    On Linux this is the peak of this program: `getrusage` there begins with that of the process that started it.

    Args:
        status: the file in which Linux states it.
    """
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def lower_priority(nice: int) -> None:
    """Add to the nice value of this thread; only Linux has one per thread, elsewhere threads take turns."""
    with suppress(AttributeError, OSError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + nice)


def release_freed_memory() -> None:
    """Give memory that is free back to the system, which `use_threads` keeps: after a large piece of work."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


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
