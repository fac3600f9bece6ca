"""The second part of a field: features and a direction become a color."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.perceptron import Perceptron


class RadianceDecoder(nn.Module):
    """Spherical harmonics of the direction and the features through a small perceptron to sRGB.

    It has a class of its own so that it can be transplanted from teacher to student: PVD's feature stage compares
    features, and features mean nothing without the decoder that reads them.

    The input is padded to a multiple of 16 with ones, as tiny-cuda-nn pads a bare network's; layers have no bias.
    """

    def __init__(self, *, n_features: int = 15, width: int = 64, depth: int = 2):
        super().__init__()
        self.spec = {"n_features": n_features, "width": width, "depth": depth}
        self.padding = -(16 + n_features) % 16
        self.network = Perceptron(16 + n_features + self.padding, 3, width=width, depth=depth, bias=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw He-uniform weights."""
        self.network.reset_parameters(generator)

    def forward(
        self, features: Float[Tensor, "*batch features"], directions: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch 3"]:
        """Return sRGB in [0, 1]."""
        parts = [spherical_harmonics(directions), features]
        if self.padding:
            parts.append(features.new_ones(*features.shape[:-1], self.padding))
        return torch.sigmoid(self.network(torch.cat(parts, dim=-1)))
