"""Launching of numba kernels: one threading layer for the process, safe under a server's threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numba
import torch

_LOCK = threading.Lock()
_GUARD: AbstractContextManager[Any] | None = None


def launch(kernel: Callable[..., Any], *args: Any) -> Any:
    """Call a numba kernel, one caller at a time where the threading layer demands it.

    The omp and tbb layers take concurrent callers; workqueue aborts the process on them.
    """
    global _GUARD
    if _GUARD is not None:
        with _GUARD:
            return kernel(*args)
    with _LOCK, _torch_threads_kept():  # the first call starts the layer
        result = kernel(*args)
        _GUARD = _LOCK if threading_layer() == "workqueue" else nullcontext()
    return result


def threading_layer() -> str:
    """Return the layer in use: 'omp', 'tbb' or 'workqueue'; 'not started' before the first parallel kernel."""
    try:
        result: str = numba.threading_layer()
        return result
    except ValueError:
        return "not started"


def set_threads(n: int) -> None:
    """Set the number of cores that kernels use, at most those that numba found at import."""
    with _torch_threads_kept():
        numba.set_num_threads(max(1, min(n, numba.config.NUMBA_NUM_THREADS)))


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    # As numba's omp layer starts, it sets the number of OpenMP threads of the whole process, torch's with it.
    n = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n)
