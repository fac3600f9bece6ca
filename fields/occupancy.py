"""Occupancy grids: which cells of the box are worth a sample (Müller et al. 2022, appendix C)."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.lattice import coordinates, dilate

CELLS_PER_QUERY = 1 << 16
OCCUPIED_ALPHA = 0.01  # a cell counts when one step through it would stop a hundredth of the light


class OccupancyGrid:
    """A density bound per cell, and the cells over a threshold.

    Attributes:
        density: float32 (r, r, r), the largest density per world unit sampled lately in each cell.
        occupied: bool (r, r, r).
    """

    def __init__(self, resolution: int = 64):
        self.density = torch.zeros(resolution, resolution, resolution)
        self.occupied = torch.ones(resolution, resolution, resolution, dtype=torch.bool)

    @classmethod
    def from_density(
        cls, density: Float[Tensor, "r r r"], occupied: Bool[Tensor, "r r r"]
    ) -> "OccupancyGrid":
        """Return a saved grid.

        Args:
            density, occupied: as the attributes of these names.
        """
        grid = cls(1)
        grid.density, grid.occupied = density, occupied
        return grid

    @classmethod
    def from_bits(cls, bits: UInt8[Tensor, "bytes"], resolution: int) -> "OccupancyGrid":
        """Return a grid from a file, its remembered densities 0.

        Raises:
            ValueError: the bits are not a cube of this resolution.
        """
        flat = np.unpackbits(bits.numpy())
        if resolution < 1 or len(bits) != -(-(resolution**3) // 8):
            raise ValueError(f"{len(bits)} bytes of occupancy do not hold {resolution}^3 cells")
        cells = torch.from_numpy(flat[: resolution**3].astype(bool)).reshape((resolution,) * 3)
        return cls.from_density(torch.zeros(cells.shape), cells)

    def to_bits(self) -> UInt8[Tensor, "bytes"]:
        """Return which cells are occupied, eight in a byte."""
        return torch.from_numpy(np.packbits(self.occupied.cpu().numpy()))

    @property
    def resolution(self) -> int:
        """Number of cells per axis."""
        return self.occupied.shape[0]

    def at(self, unit: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Return whether positions in the box, taken to [0, 1]^3, lie in occupied cells; on their device."""
        cell = (unit * self.resolution).long().clamp(max=self.resolution - 1)
        return self.occupied.to(unit.device)[cell.unbind(-1)]

    @torch.no_grad()
    def update(
        self,
        field: VolumeField,
        render_step_size: float,
        generator: torch.Generator,
        *,
        decay: float = 0.95,
        fraction: float = 1.0,
    ) -> None:
        """Sample the field again at one random point per cell (Müller et al. 2022, appendix C).

        Args:
            field: whose density is sampled, on its own device.
            render_step_size: length in world units of the step whose alpha decides.
            generator: draws the points and the cells.
            decay: factor of the remembered density before the maximum is taken.
            fraction: of all cells that are sampled, half at random and half among the occupied.
        """
        n_cells = self.density.numel()
        if fraction >= 1:
            cells = torch.arange(n_cells)
        else:
            n = max(1, int(n_cells * fraction / 2))
            cells = torch.randint(n_cells, (n,), generator=generator)
            busy = self.occupied.flatten().nonzero()[:, 0]
            if len(busy):
                cells = torch.cat([cells, busy[torch.randint(len(busy), (n,), generator=generator)]])
            cells = cells.unique()
        fresh = self._query(field, cells, torch.rand(len(cells), 3, generator=generator))
        flat = self.density.flatten()
        flat[cells] = torch.maximum(flat[cells] * decay, fresh)
        self.density = flat.reshape(self.density.shape)
        alpha = alpha_from_density(self.density, render_step_size)
        self.occupied = alpha > min(OCCUPIED_ALPHA, float(alpha.mean()))

    @torch.no_grad()
    def rebuild(
        self,
        field: VolumeField,
        render_step_size: float,
        generator: torch.Generator,
        *,
        samples_per_cell: int = 4,
    ) -> None:
        """Recompute the grid from several points per cell; one ring of cells is added.

        A student is judged with a grid of its own: the teacher's would hide its floaters.

        Args:
            field: whose density is sampled, on its own device.
            render_step_size: length in world units of the step whose alpha decides.
            generator: draws the points.
            samples_per_cell: points per cell; after the first only where there is density nearby.
        """
        cells = torch.arange(self.density.numel())
        density = torch.zeros(len(cells))
        for sample in range(samples_per_cell):
            offsets = torch.rand(len(cells), 3, generator=generator)
            density[cells] = torch.maximum(density[cells], self._query(field, cells, offsets))
            if sample == 0:  # from now on only where there is something nearby
                nearby = alpha_from_density(density, render_step_size) > OCCUPIED_ALPHA / 10
                cells = dilate(nearby.reshape(self.density.shape)).flatten().nonzero()[:, 0]
        self.density = density.reshape(self.density.shape)
        self.occupied = dilate(alpha_from_density(self.density, render_step_size) > OCCUPIED_ALPHA)

    def _query(self, field: VolumeField, cells: Tensor, offsets: Tensor) -> Tensor:
        """Return the density at `offsets` in [0, 1]^3 within the given flat cells."""
        aabb = field.aabb.cpu()
        unit = (coordinates(cells, self.resolution) + offsets) / self.resolution
        positions = aabb[:3] + unit * (aabb[3:] - aabb[:3])
        chunks = positions.to(field.aabb.device).split(CELLS_PER_QUERY)
        return torch.cat([field.query_density(chunk) for chunk in chunks]).cpu()
