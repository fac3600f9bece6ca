"""Plenoxels' field: density and spherical harmonics on the nodes of a sparse grid (Fridovich-Keil et al. 2022)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kernels.total_variation import total_variation
from fieldmorph.fields.kernels.voxels import NodeGrid, pack_mask, rank_words, sparse_trilinear, unpack_mask
from fieldmorph.fields.lattice import coordinates, dilate_along
from fieldmorph.fields.types import FieldSettings, ParameterGroup

N_HARMONICS = 9  # functions of degree 0, 1 and 2, per color channel
EMPTY = (
    -10.0
)  # logarithm of density per box length where there is no node: a ray through the box loses 1 / 22,000
FRESH = -1.5  # the same of a fresh field's nodes, give or take a little noise
FAINT = 1.0  # below it a render step of a hundredth of the box stops less than a thirtieth of the light
MAX_NODES = 1024  # per axis
SLAB = 32  # planes of nodes that are processed together
RUNS = 32  # a step takes the total variation of one in so many nodes, which is a sixteenth of its time
COARSEST = 40  # a fresh field has at most so many nodes per axis

# Fraction of training from which on every n-th node along an axis is active; Plenoxels' rule of doubling.
SCHEDULE = ((0.0, 16), (0.05, 8), (0.1, 4), (0.2, 2), (0.5, 1))


class Voxels(VolumeField):
    """No network at all: 1 + 27 numbers on every active node, interpolated trilinearly.

    An inactive node has no numbers: its density is `EMPTY`, its color gray. Memory scales with the active nodes, at
    112 bytes each, and 3 bits for every node there could be.

    Training goes from coarse to fine. A coarser grid takes every second (fourth, ...) node of the final one, so that
    a refined grid holds exactly the function it had; the last coarse cell may reach beyond the box.

    Args:
        aabb: the box in world units, min then max.
        resolution: nodes per axis of the final grid.
        tv_weight: weight of the total variation of density and color in the loss of training from images.
        n_nodes: active nodes of a saved field; None for a fresh one, coarse and dense.
        divisor: how many times coarser than the final grid a saved field is; goes with n_nodes.
    """

    name = "voxels"
    title = "Voxels (Plenoxels)"
    kernels = ("voxels", "variation")
    grows = True
    # The weight was measured: lego at 100 x 100, 100 core-seconds, is 0.3 dB better on test views; at 1e-3 it blurs.
    presets = {"small": {"resolution": 128, "tv_weight": 3e-5}, "paper": {"resolution": 512}}
    sizes = [
        {"resolution": n} for n in (12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)
    ]

    mask: Tensor
    words: Tensor

    def __init__(
        self,
        *,
        aabb: Sequence[float],
        resolution: int = 128,
        tv_weight: float = 0.0,
        n_nodes: int | None = None,
        divisor: int | None = None,
    ):
        super().__init__(aabb)
        if type(resolution) is not int or not 2 <= resolution <= MAX_NODES:
            raise SettingError(
                f"voxels needs resolution to be a whole number 2..{MAX_NODES}; got {resolution!r}"
            )
        if type(tv_weight) not in (int, float) or not 0 <= tv_weight < math.inf:
            raise SettingError(f"voxels needs tv_weight to be a finite number >= 0; got {tv_weight!r}")
        if (n_nodes is None) != (divisor is None):
            raise SettingError(f"n_nodes and divisor go together; got {n_nodes} and {divisor}")
        self.resolution, self.tv_weight = resolution, tv_weight
        self.divisors = [1]
        while self._nodes_at(self.divisors[-1]) > COARSEST:
            self.divisors.append(2 * self.divisors[-1])
        fresh = divisor is None
        divisor = self.divisors[-1] if divisor is None else divisor
        if type(divisor) is not int or divisor not in self.divisors:
            raise SettingError(
                f"voxels of resolution {resolution} needs a divisor of {self.divisors}; got {divisor!r}"
            )
        max_nodes = self._nodes_at(divisor) ** 3
        n_nodes = max_nodes if n_nodes is None else n_nodes
        if type(n_nodes) is not int or not 1 <= n_nodes <= max_nodes:
            raise SettingError(f"voxels needs n_nodes to be a whole number 1..{max_nodes}; got {n_nodes!r}")
        # Not zeros: rows that a damaged file only claims to have never cost memory.
        self.density_values = nn.Parameter(torch.empty(n_nodes, 1))
        self.sh_values = nn.Parameter(torch.empty(n_nodes, 3 * N_HARMONICS))
        self.register_buffer("mask", torch.zeros(-(-max_nodes // 8), dtype=torch.uint8))
        self.register_buffer("words", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.divisor = divisor
        if fresh:
            self.mask = pack_mask(torch.ones(max_nodes, dtype=torch.bool))
        self.words, self.n_active = rank_words(self.mask)
        self.register_load_state_dict_post_hook(_adopt)  # type: ignore[no-untyped-call]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Set a low gray density, a little uneven so that an occupancy grid finds something to compare."""
        nn.init.normal_(self.density_values, FRESH, 0.1, generator=generator)
        nn.init.zeros_(self.sh_values)

    def config(self) -> FieldSettings:
        rows = {"n_nodes": len(self.density_values), "divisor": self.divisor}
        # A file, or a run to resume, that names no weight has none.
        weights = {"tv_weight": self.tv_weight} if self.tv_weight else {}
        return {"aabb": self.box(), "resolution": self.resolution, **weights, **rows}

    @classmethod
    def storage_bytes(cls, settings: FieldSettings, occupied: Bool[Tensor, "x y z"]) -> int:
        nodes: int = settings["resolution"]
        return 4 * (1 + 3 * N_HARMONICS) * int(nodes_in_cells(occupied, nodes).sum()) + nodes**3 // 8

    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch features"]]:
        features = self._interpolate(positions, self.sh_values, 0.0)
        return self._log_density(positions), features

    def radiance(
        self,
        features: Float[Tensor, "*batch features"],
        positions: Float[Tensor, "*batch 3"],
        directions: Float[Tensor, "*batch 3"],
    ) -> Float[Tensor, "*batch 3"]:
        """Return the logistic function of each channel's sum of harmonics."""
        basis = spherical_harmonics(directions)[..., None, :N_HARMONICS]
        return torch.sigmoid((features.unflatten(-1, (3, N_HARMONICS)) * basis).sum(-1))

    def query_density(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        return self.density(self._log_density(positions), positions)

    def param_groups(self, lr_grid: float = 1e-1, lr_network: float = 1e-2) -> list[ParameterGroup]:
        """Return the rates: log-densities change by some ten units until a surface is found, harmonics by a third."""
        return [
            {"params": [self.density_values], "lr": 3 * lr_grid},
            {"params": [self.sh_values], "lr": lr_grid},
        ]

    def regularization(self, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Return the weighted total variation, estimated on a random run of nodes.

        It is the mean of active nodes' squared steps to the next active ones along each axis.
        """
        n = self.n_active
        if generator is None or not self.tv_weight or not n:
            return super().regularization()
        runs = min(RUNS, n)
        return self.total_variation_of(int(torch.randint(runs, (1,), generator=generator)), runs)

    def total_variation_of(self, run: int, runs: int) -> Float[Tensor, ""]:
        """Return the weighted total variation, estimated on one of so many runs of nodes."""
        n = self.n_active
        first, last = run * n // runs, (run + 1) * n // runs
        tables = (self.density_values, self.sh_values)
        total = torch.stack([total_variation(t, self._grid(), first, last) for t in tables]).sum()
        return self.tv_weight * runs / n * total

    def refine(self, progress: float) -> bool:
        target = [divisor for start, divisor in SCHEDULE if start <= progress][-1]
        refined = False
        while self.divisor > target:
            self._double()
            refined = True
        return refined

    @torch.no_grad()
    def activate(
        self,
        nodes: Bool[Tensor, "r r r"] | Int[Tensor, "n_nodes"],
        values: Float[Tensor, "n_nodes 28"] | None = None,
    ) -> None:
        """Replace the active nodes, at the final resolution.

        Args:
            nodes: a mask by x, y, z, or different flat indices `(x resolution + y) resolution + z`.
            values: for each node, a mask's in the order of flat indices: log-density per box length, then 9 harmonics
                of red, green and blue. By default what the field has there now.

        Raises:
            SettingError: no node, nodes outside the grid or named twice, or values of another shape.
        """
        r = self.resolution
        if nodes.dtype == torch.bool and nodes.shape == (r, r, r):
            indices = nodes.flatten().cpu().nonzero()[:, 0]
        elif nodes.dtype == torch.bool or nodes.dim() != 1:
            raise SettingError(f"a mask of nodes must be {r} x {r} x {r}; got {tuple(nodes.shape)}")
        else:
            indices = nodes.cpu().long()
        indices, order = indices.sort()
        if not len(indices) or indices[0] < 0 or indices[-1] >= r**3 or bool((indices.diff() == 0).any()):
            raise SettingError(f"active nodes must be at least one, in 0..{r**3 - 1}, each once")
        if values is None:
            unit = coordinates(indices, r).float() / (r - 1)
            density, sh = self._resampled(unit, self._grid())
        elif values.shape != (len(indices), 1 + 3 * N_HARMONICS):
            raise SettingError(f"{len(indices)} nodes need as many rows of 28; got {tuple(values.shape)}")
        else:
            values = values.to(self.density_values)[order.to(self.density_values.device)]
            density, sh = values[:, :1], values[:, 1:]
        self._replace(indices, 1, density, sh)

    def node_indices(self) -> Int[Tensor, "n_nodes"]:
        """Return the flat indices of the active nodes at the current resolution, ascending as their rows are."""
        return unpack_mask(self.mask, self.nodes**3).nonzero()[:, 0].to(self.aabb.device)

    def node_positions(self) -> Float[Tensor, "n_nodes 3"]:
        """Return the positions of the active nodes in world units."""
        unit = coordinates(self.node_indices(), self.nodes) * (self.divisor / (self.resolution - 1))
        return self.aabb[:3] + unit.to(self.aabb) * (self.aabb[3:] - self.aabb[:3])

    @property
    def nodes(self) -> int:
        """Nodes per axis at the current resolution."""
        return self._nodes_at(self.divisor)

    def _nodes_at(self, divisor: int) -> int:
        return -(-(self.resolution - 1) // divisor) + 1

    def _grid(self) -> NodeGrid:
        return NodeGrid(self.words, self.n_active, self.nodes, (self.resolution - 1) / self.divisor)

    def _log_density(self, positions: Tensor) -> Tensor:
        return self._interpolate(positions, self.density_values, EMPTY)[..., 0] - math.log(self.extent)

    def _interpolate(self, positions: Tensor, values: Tensor, empty: float) -> Tensor:
        unit = self.unit_positions(positions).reshape(-1, 3)
        return sparse_trilinear(unit, values, self._grid(), empty).reshape(
            *positions.shape[:-1], values.shape[1]
        )

    def _resampled(self, unit: Tensor, grid: NodeGrid) -> tuple[Tensor, Tensor]:
        unit = unit.to(self.density_values.device)
        density = sparse_trilinear(unit, self.density_values, grid, EMPTY)
        return density, sparse_trilinear(unit, self.sh_values, grid, 0.0)

    @torch.no_grad()
    def _double(self) -> None:
        """Halve the spacing; keep nodes only in cells with a visible corner and in the cells around these.

        The function stays the same wherever its density is high enough to be visible.
        """
        n, divisor = self.nodes, self.divisor // 2
        seen = torch.zeros(n**3, dtype=torch.bool)
        indices = self.node_indices().cpu()
        seen[indices[(self.density_values[:, 0] > FAINT).cpu()]] = True
        if not bool(seen.any()):  # nothing has been learned yet
            seen[indices] = True
        finer = self._nodes_at(divisor)
        fine = _nodes_between(seen.reshape(n, n, n), finer)
        unit = coordinates(fine, finer).float() / (2 * (n - 1))
        # In units of the old grid, not of the box: nodes beyond the box keep their values.
        grid = NodeGrid(self.words, self.n_active, n, float(n - 1))
        density, sh = self._resampled(unit, grid)
        self._replace(fine, divisor, density, sh)

    def _replace(self, indices: Tensor, divisor: int, density: Tensor, sh: Tensor) -> None:
        device = self.aabb.device
        self.divisor = divisor
        active = torch.zeros(self.nodes**3, dtype=torch.bool)
        active[indices] = True
        self.mask = pack_mask(active).to(device)
        words, self.n_active = rank_words(self.mask)
        self.words = words.to(device)
        for parameter, values in ((self.density_values, density), (self.sh_values, sh)):
            parameter.grad, parameter.data = None, values.contiguous()


def nodes_in_cells(occupied: Bool[Tensor, "x y z"], resolution: int) -> Bool[Tensor, "r r r"]:
    """Return the nodes in occupied cells of the box, faces included, and one more to every side.

    Every point of these cells has all eight of its nodes among them, whatever the two resolutions.

    Args:
        occupied: cells of the box, of any resolution.
        resolution: nodes along each axis of the other grid.
    """
    node = torch.arange(resolution, device=occupied.device)
    for axis, n_cells in enumerate(occupied.shape):
        # Cell k spans k s .. (k + 1) s with s = (resolution - 1) / n_cells, so node i is in it, or next to a node or
        # a face of it, for the k with (i - 1) / s - 1 <= k <= (i + 1) / s.
        first = (-((1 - node) * n_cells // (resolution - 1)) - 1).clamp(0, n_cells - 1)
        last = ((node + 1) * n_cells // (resolution - 1)).clamp(0, n_cells - 1)
        near = occupied.index_select(axis, last)
        for step in range(int((last - first).max())):
            near |= occupied.index_select(axis, torch.minimum(first + step, last))
        occupied = near
    return occupied


def _nodes_between(nodes: Bool[Tensor, "n n n"], finer: int) -> Int[Tensor, "n_fine"]:
    """Return the flat indices of nodes at most two away from a true one, on a grid of half the spacing.

    Args:
        finer: nodes per axis of that grid.
    """
    found = []
    for first, slab in enumerate(_between(nodes, 0)[:finer].split(SLAB)):  # the whole mask takes memory
        slab = _between(_between(slab, 1), 2)[:, :finer, :finer]
        found.append(slab.flatten().nonzero()[:, 0] + first * SLAB * finer**2)
    return torch.cat(found)


def _between(nodes: Bool[Tensor, "x y z"], axis: int) -> Bool[Tensor, "..."]:
    """Return, along one axis at half the spacing, the nodes at most two new spacings from a true one."""
    near, n = dilate_along(nodes, axis), nodes.shape[axis]
    middle = nodes.narrow(axis, 0, n - 1) | nodes.narrow(axis, 1, n - 1)
    both = torch.stack([near.narrow(axis, 0, n - 1), middle], dim=axis + 1).flatten(axis, axis + 1)
    return torch.cat([both, near.narrow(axis, n - 1, 1)], dim=axis)


def _adopt(field: Voxels, _incompatible: Any) -> None:
    """Set the resolution and the order of rows from the mask, after loading.

    Raises:
        ValueError: the mask and the rows do not belong together.
    """
    device = field.aabb.device
    n_bytes = field.mask.numel()
    field.n_active, field.words = 0, torch.zeros(0, dtype=torch.int64, device=device)
    sizes = {-(-(field._nodes_at(d) ** 3) // 8): d for d in field.divisors}
    if field.mask.dtype != torch.uint8 or n_bytes not in sizes:
        raise ValueError(f"a node mask of {n_bytes} bytes suits no grid of resolution {field.resolution}")
    words, n_active = rank_words(field.mask)
    padding = 8 * n_bytes - field._nodes_at(sizes[n_bytes]) ** 3
    if int(field.mask[-1]) >> (8 - padding):
        raise ValueError("the node mask names nodes outside its grid")
    shapes = (tuple(field.density_values.shape), tuple(field.sh_values.shape))
    if shapes != ((n_active, 1), (n_active, 3 * N_HARMONICS)):
        raise ValueError(f"{n_active} active nodes have densities and colors of shapes {shapes}")
    field.divisor, field.n_active, field.words = sizes[n_bytes], n_active, words.to(device)
