"""Compilation of CPU kernels ahead of the work that a budget pays for."""

import functools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.kernels.table import KERNELS, RENDERING

LOAD_SECONDS = 2.0  # in which kernels come from the disk's cache

log = logging.getLogger(__name__)


@contextmanager
def announced_compilation() -> Iterator[None]:
    """Log a line of level INFO where kernels used in the block are not in the disk's cache: some silence follows."""
    announcement = threading.Timer(LOAD_SECONDS, log.info, ("compiling kernels (once, about 40 s)",))
    announcement.daemon = True
    announcement.start()
    try:
        yield
    finally:
        announcement.cancel()


def compile_kernels(*fields: VolumeField | type[VolumeField]) -> None:
    """Compile CPU kernels, or load them from the disk's cache, so that no budget pays for it.

    Args:
        fields: those that will be trained or rendered; every kernel is compiled where none is given.
    """
    needed = {name for field in fields for name in field.kernels}.union(RENDERING) if fields else KERNELS
    start = time.monotonic()
    with announced_compilation():
        for name in KERNELS:
            if name in needed:
                _compile(name)
    log.debug("kernels were ready after %.1f s", time.monotonic() - start)


@functools.cache
def _compile(name: str) -> None:
    example = KERNELS[name].example(torch.Generator().manual_seed(0))
    example.run(example.kernel)
