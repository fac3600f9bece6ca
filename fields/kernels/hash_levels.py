"""Shapes of the levels of a multiresolution hash grid (Müller et al. 2022, eq. 2 and 3), exactly tiny-cuda-nn's.

`scale = exp2(l log2(per_level_scale)) base - 1` in float32 and `resolution = ceil(scale) + 1`; a level is stored
densely where its vertices fit into the table, and hashed otherwise.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HashLevels:
    """The shape of every level of one table.

    Attributes:
        scales: float32, cells per unit length less the half-cell margins.
        resolutions: vertices per axis.
        sizes: table entries of each level.
        offsets: first entry of each level, and one past the last; length n_levels + 1.
        hashed: whether the level is hashed (else stored densely).
        settings: the four numbers they come from, by tiny-cuda-nn's names.
    """

    scales: np.ndarray
    resolutions: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    hashed: np.ndarray
    settings: dict[str, float]

    @property
    def n_entries(self) -> int:
        """Number of entries of all levels together."""
        return int(self.offsets[-1])


def hash_levels(
    n_levels: int, log2_hashmap_size: int, base_resolution: int, per_level_scale: float
) -> HashLevels:
    """Return level shapes from tiny-cuda-nn's four numbers, computed in float32 as it does.

    The rounding is part of the format: a finest resolution of 512 or 1024 gives one vertex more on some
    level than real arithmetic would.

    Args:
        n_levels: number of levels.
        log2_hashmap_size: logarithm of the largest number of entries of a level.
        base_resolution: of the coarsest level.
        per_level_scale: factor of the resolution from one level to the next.
    """
    # Every operation in double and rounded once: numpy's own float32 exp2 and log2 are off by some last bits,
    # and differently on different processors.
    growth = np.float32(math.log2(np.float32(per_level_scale)))
    powers = [np.float32(2.0 ** float(np.float32(level) * growth)) for level in range(n_levels)]
    scales = np.array(powers, np.float32) * np.float32(base_resolution) - np.float32(1)
    resolutions = np.ceil(scales).astype(np.int64) + 1
    dense = np.minimum(resolutions, 1 << 20) ** 3  # no table is that large, and the true cube may overflow
    sizes = np.minimum((dense + 7) // 8 * 8, 1 << log2_hashmap_size)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    settings = {
        "n_levels": n_levels,
        "log2_hashmap_size": log2_hashmap_size,
        "base_resolution": base_resolution,
        "per_level_scale": per_level_scale,
    }
    return HashLevels(scales, resolutions, sizes, offsets, dense > sizes, settings)
