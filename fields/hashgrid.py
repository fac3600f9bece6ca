"""Instant-NGP's field: a multiresolution hash grid and a small density network."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kernels.hash_levels import hash_levels
from fieldmorph.fields.kernels.ops import hash_encode
from fieldmorph.fields.perceptron import Perceptron
from fieldmorph.fields.types import FieldSettings, ParameterGroup

RANGES = {
    "n_levels": (1, 32),
    "n_features_per_level": (1, 8),
    "log2_hashmap_size": (4, 24),
    "base_resolution": (1, 1 << 16),
    "finest_resolution": (1, 1 << 16),
}


class HashGrid(VolumeField):
    """A hash grid, a 64-wide density network to 1 + 15 numbers, and the decoder (Müller et al. 2022).

    Args:
        aabb: the box in world units, min then max.
        n_levels, n_features_per_level, log2_hashmap_size, base_resolution: tiny-cuda-nn's names.
        finest_resolution: of the last level; `per_level_scale` follows from it.
    """

    decoder: RadianceDecoder
    name = "hashgrid"
    title = "Hash grid (Instant-NGP)"
    kernels = ("hash",)
    presets = {
        "small": {"log2_hashmap_size": 15, "finest_resolution": 512},
        "paper": {"log2_hashmap_size": 19, "finest_resolution": 2048},
    }
    sizes = [{"log2_hashmap_size": n} for n in range(8, 23)]

    def __init__(
        self,
        *,
        aabb: Sequence[float],
        n_levels: int = 16,
        n_features_per_level: int = 2,
        log2_hashmap_size: int = 15,
        base_resolution: int = 16,
        finest_resolution: int = 512,
    ):
        super().__init__(aabb)
        self._shape = {
            "n_levels": n_levels,
            "n_features_per_level": n_features_per_level,
            "log2_hashmap_size": log2_hashmap_size,
            "base_resolution": base_resolution,
            "finest_resolution": finest_resolution,
        }
        for key, value in self._shape.items():
            low, high = RANGES[key]
            if type(value) is not int or not low <= value <= high:  # a bool is no number here
                raise SettingError(f"hashgrid needs {key} to be a whole number {low}..{high}; got {value!r}")
        if finest_resolution < base_resolution:
            raise SettingError(
                f"finest_resolution {finest_resolution} is below base_resolution {base_resolution}"
            )
        per_level_scale = 2 ** (math.log2(finest_resolution / base_resolution) / max(n_levels - 1, 1))
        self.levels = hash_levels(n_levels, log2_hashmap_size, base_resolution, per_level_scale)
        self.table = nn.Parameter(torch.zeros(self.levels.n_entries, n_features_per_level))
        self.density_network = Perceptron(n_levels * n_features_per_level, 16, width=64, depth=1, bias=False)
        self.decoder = RadianceDecoder(n_features=15)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw table entries uniformly within 1e-4 as the paper's, networks He-uniform."""
        nn.init.uniform_(self.table, -1e-4, 1e-4, generator=generator)
        self.density_network.reset_parameters(generator)
        self.decoder.reset_parameters(generator)

    def config(self) -> FieldSettings:
        return {"aabb": self.box(), **self._shape}

    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch features"]]:
        unit = self.unit_positions(positions).clamp(0, 1)
        encoded = hash_encode(unit.reshape(-1, 3), self.table, self.levels)
        out = self.density_network(encoded).reshape(*positions.shape[:-1], 16)
        return out[..., 0] - math.log(self.extent), out[..., 1:]

    def param_groups(self, lr_grid: float = 2e-2, lr_network: float = 1e-2) -> list[ParameterGroup]:
        networks = [*self.density_network.parameters(), *self.decoder.parameters()]
        return [
            {"params": [self.table], "lr": lr_grid},
            {"params": networks, "lr": lr_network},
        ]
