"""A bake as a field, rendered like any other: the reference for the browser's shader."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.apps.bake.bricks import ZERO, Bake, Lattice
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.kernels.voxels import sparse_trilinear
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.types import FieldSettings

MIN_KNOWN = 1e-3  # interpolation weight of the corners with a colour, below which it fades to black


class BakedField(VolumeField):
    """Codes on the nodes of a lattice, interpolated trilinearly and then decoded, as the shader does.

    Args:
        lattice: positions of nodes.
        nodes: flat indices of those with density, ascending.
        codes: of density, in [0, 1]; see `Bake`.
        harmonics: red, green and blue of each harmonic, the constant one first; None: density only.
        log_range, render_step_size: scale of the codes, see `Bake`.
    """

    name = "baked"
    title = "Baked volume"
    kernels = ("voxels",)
    presets = {}

    def __init__(
        self,
        lattice: Lattice,
        nodes: Int[Tensor, "n"],
        codes: Float[Tensor, "n"],
        harmonics: Float[Tensor, "n coefficients"] | None,
        log_range: tuple[float, float],
        render_step_size: float,
    ):
        super().__init__(lattice.aabb)
        self.lattice, self.grid = lattice, lattice.grid(nodes)
        self.codes = codes[:, None].contiguous()
        known = codes.new_ones(len(codes), 1)
        self.harmonics = known if harmonics is None else torch.cat([known, harmonics], dim=1)
        self.log_range, self.render_step_size = log_range, render_step_size

    def config(self) -> FieldSettings:
        return {"aabb": self.box()}

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Do nothing: there are no parameters."""

    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch features"]]:
        features = self._interpolate(positions, self.harmonics)
        return self._log_density(positions), features

    def radiance(
        self,
        features: Float[Tensor, "*batch features"],
        positions: Float[Tensor, "*batch 3"],
        directions: Float[Tensor, "*batch 3"],
    ) -> Float[Tensor, "*batch 3"]:
        """Return the mean of the corners that have a colour, clamped to [0, 1]."""
        known, coefficients = features[..., :1], features[..., 1:].unflatten(-1, (-1, 3))
        basis = spherical_harmonics(directions)[..., 1 : coefficients.shape[-2]]
        rgb = coefficients[..., 0, :] + (basis[..., None] * coefficients[..., 1:, :]).sum(-2)
        return (rgb / known.clamp(min=MIN_KNOWN)).clamp(0, 1)

    def query_density(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        return self.density(self._log_density(positions), positions)

    def _log_density(self, positions: Tensor) -> Tensor:
        low, high = self.log_range
        code = self._interpolate(positions, self.codes)[..., 0]
        optical = torch.exp(low + (high - low) * code) - math.exp(low)
        return torch.log(optical.clamp(min=0) / self.render_step_size)

    def _interpolate(self, positions: Tensor, values: Tensor) -> Tensor:
        at = self.lattice.grid_positions(positions.reshape(-1, 3))
        return sparse_trilinear(at, values, self.grid, 0.0).reshape(*positions.shape[:-1], values.shape[1])


def baked_field(bake: Bake, cameras: Cameras) -> RenderableField:
    """Return the bake as a renderable field, with its bricks as occupancy grid and these cameras."""
    nodes, order = bake.nodes().sort()
    codes = bake.density[bake.density > 0][order].float() / 255
    colour = bake.colour.float()
    colour[:3] /= 255
    colour[3:] = (colour[3:] - ZERO) * bake.harmonic_step
    field = BakedField(
        bake.lattice, nodes, codes, colour.T[order].contiguous(), bake.log_range, bake.render_step_size
    )
    occupancy = OccupancyGrid(1)
    occupancy.occupied = bake.occupied[:-1, :-1, :-1]  # the last bricks have no cells
    return RenderableField(field, occupancy, bake.render_step_size, cameras)
