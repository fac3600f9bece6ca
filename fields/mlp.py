"""NeRF's field: a positional encoding and one perceptron for everything."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.encodings import positional_encoding
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.perceptron import Perceptron
from fieldmorph.fields.types import FieldSettings, ParameterGroup


class MLP(VolumeField):
    """A perceptron on encoded positions to 1 + 15 numbers, and the decoder (Mildenhall et al. 2020, fig. 7).

    Args:
        aabb: the box in world units, min then max; the encoding sees it as [-1, 1]^3.
        width, depth: of the hidden layers.
        n_frequencies: of the positional encoding.
        skip: index of the layer that sees the encoding again, or None.
    """

    decoder: RadianceDecoder
    name = "mlp"
    title = "MLP (NeRF)"
    presets = {
        "small": {"width": 128, "depth": 4, "skip": None},
        "paper": {"width": 256, "depth": 8, "skip": 5},
    }
    sizes = [{"width": n} for n in (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)]
    conversion_samples = 1 << 11  # a teacher's samples have no noise: many small steps beat few large ones
    conversion_lr_decay = 0.1
    kernels = ("positional",)
    finish_fraction = 0.5
    finish_after = 3000

    def __init__(
        self,
        *,
        aabb: Sequence[float],
        width: int = 128,
        depth: int = 4,
        n_frequencies: int = 10,
        skip: int | None = None,
    ):
        super().__init__(aabb)
        if width < 1 or depth < 1 or not 0 <= n_frequencies <= 16:
            raise SettingError(
                f"mlp needs width and depth >= 1 and 0..16 frequencies; got {width}, {depth} and {n_frequencies}"
            )
        if skip is not None and not 0 < skip <= depth:
            raise SettingError(f"skip must name a layer from 1 to depth {depth}; got {skip}")
        self.n_frequencies = n_frequencies
        self._shape = {"width": width, "depth": depth, "n_frequencies": n_frequencies, "skip": skip}
        self.trunk = Perceptron(3 * (1 + 2 * n_frequencies), 16, width=width, depth=depth, skip=skip)
        self.decoder = RadianceDecoder(n_features=15)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw He-uniform weights."""
        self.trunk.reset_parameters(generator)
        self.decoder.reset_parameters(generator)

    def config(self) -> FieldSettings:
        return {"aabb": self.box(), **self._shape}

    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch features"]]:
        encoded = positional_encoding(2 * self.unit_positions(positions) - 1, self.n_frequencies)
        out = self.trunk(encoded)
        return out[..., 0] - math.log(self.extent), out[..., 1:]

    def param_groups(self, lr_grid: float = 2e-2, lr_network: float = 4e-3) -> list[ParameterGroup]:
        hidden = [layer.weight for layer in self.trunk.layers[:-1]]
        muon = {id(p) for p in hidden}
        rest = [p for p in self.parameters() if id(p) not in muon]
        # Muon's rate is per unit of spectral norm and ten times Adam's here.
        return [
            {"params": rest, "lr": lr_network},
            {"params": hidden, "lr": 10 * lr_network, "optimizer": "muon"},
        ]
