"""A baked scene: bricks of nodes in a box, with density and colour as bytes at the visible nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.fields.kernels.voxels import NodeGrid, pack_mask, rank_words
from fieldmorph.fields.types import JsonObject

BRICK = 8  # nodes that a brick owns along an edge; its cells touch one more, of the next brick
ZERO = 128  # code of a harmonic coefficient of 0


@dataclass(frozen=True)
class Lattice:
    """Equally spaced nodes that span a box, its faces included.

    Attributes:
        aabb: the box in world units, min then max.
        cells: along each axis, a multiple of BRICK; the spacing is nearly the same along all three.
    """

    aabb: tuple[float, ...]
    cells: tuple[int, int, int]

    @classmethod
    def spanning(cls, aabb: Sequence[float], resolution: int) -> "Lattice":
        """Return a lattice with `resolution` cells, a multiple of BRICK, along the longest side."""
        sides = [hi - lo for lo, hi in zip(aabb[:3], aabb[3:], strict=True)]
        spacing = max(sides) / resolution
        x, y, z = (BRICK * max(1, round(side / spacing / BRICK)) for side in sides)
        return cls(tuple(aabb), (x, y, z))

    @property
    def bricks(self) -> tuple[int, int, int]:
        """Number of bricks along each axis. The last brick has only the nodes of the box's upper face, and no cells."""
        x, y, z = (n // BRICK + 1 for n in self.cells)
        return x, y, z

    @property
    def edge(self) -> int:
        """Number of nodes along the longest side; flat indices are `(x edge + y) edge + z`."""
        return max(self.cells) + 1

    def grid(self, nodes: Int[Tensor, "n"]) -> NodeGrid:
        """Return a grid whose active nodes have these ascending flat indices."""
        active = torch.zeros(self.edge**3, dtype=torch.bool)
        active[nodes] = True
        words, n_active = rank_words(pack_mask(active))
        return NodeGrid(words, n_active, self.edge, float(self.edge - 1))

    def grid_positions(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return positions in world units as coordinates of `grid`, [0, 1] along the longest side."""
        box = positions.new_tensor(self.aabb)
        cells = torch.tensor(self.cells, device=positions.device)
        return (positions - box[:3]) / (box[3:] - box[:3]) * (cells / (self.edge - 1))

    def unit_positions(self, nodes: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """Return the positions of nodes in the box, [0, 1]^3."""
        return self.coordinates(nodes) / torch.tensor(self.cells)

    def coordinates(self, nodes: Int[Tensor, "n"]) -> Int[Tensor, "n 3"]:
        """Return the indices of nodes along x, y and z."""
        return torch.stack([nodes // self.edge**2, nodes // self.edge % self.edge, nodes % self.edge], dim=-1)

    def flat(self, coordinates: Int[Tensor, "n 3"]) -> Int[Tensor, "n"]:
        """Return the flat indices of nodes; the inverse of `coordinates`."""
        x, y, z = coordinates.unbind(-1)
        return (x * self.edge + y) * self.edge + z

    def corners(self, values: Float[Tensor, "x y z"]) -> Float[Tensor, "x1 y1 z1"]:
        """Return for each node the largest value of the cells around it."""
        return F.max_pool3d(F.pad(values[None], (1,) * 6), kernel_size=2, stride=1)[0]


@dataclass(frozen=True)
class Bake:
    """A scene as the browser receives it.

    A node's density code c means that a render step there has the optical depth exp(a + c (b - a) / 255) - exp(a),
    with (a, b) = `log_range`; between nodes codes are interpolated, not depths. Colours are sums of
    spherical harmonics in sRGB: the constant part is code / 255, the others (code - ZERO) `harmonic_step`.

    Attributes:
        name: text for people.
        lattice: where the nodes are.
        occupied: bricks that own a node with density, or whose cells touch one.
        density: codes of the occupied bricks in the order of their flat indices; 0: empty, without a colour.
        colour: rows of red, green, blue for each harmonic; columns are the nodes with density in the same order.
        log_range, harmonic_step: scale of the codes, see above.
        render_step_size: in world units.
        camera: the first view: `eye`, `target`, `up`, and `focal` over the image's shorter side.
        facts: about the scene, name and value, texts for people.
    """

    name: str
    lattice: Lattice
    occupied: Bool[Tensor, "bx by bz"]
    density: UInt8[Tensor, "n_bricks 8 8 8"]
    colour: UInt8[Tensor, "rows n_nodes"]
    log_range: tuple[float, float]
    harmonic_step: float
    render_step_size: float
    camera: JsonObject
    facts: tuple[tuple[str, str], ...] = field(default=())

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round((len(self.colour) / 3) ** 0.5) - 1

    def with_facts(self, *facts: tuple[str, str]) -> "Bake":
        """Return the same scene with more facts."""
        return replace(self, facts=(*self.facts, *facts))

    def nodes(self) -> Int[Tensor, "n_nodes"]:
        """Return the flat indices of the nodes with density, in the order of the columns of `colour`."""
        bricks = self.occupied.nonzero()
        brick, x, y, z = self.density.nonzero().unbind(-1)
        return self.lattice.flat(bricks[brick] * BRICK + torch.stack([x, y, z], dim=-1))


def into_bricks(
    lattice: Lattice, nodes: Int[Tensor, "n"], codes: UInt8[Tensor, "n"]
) -> tuple[Bool[Tensor, "bx by bz"], UInt8[Tensor, "n_bricks 8 8 8"], Int[Tensor, "n"]]:
    """Return the occupied bricks, their codes, and the order of the nodes in them.

    Args:
        nodes: flat indices.
        codes: at least 1.
    """
    at = lattice.coordinates(nodes)
    owner, local = at // BRICK, at % BRICK
    occupied = torch.zeros(lattice.bricks, dtype=torch.bool)
    for corner in range(8):
        back = torch.tensor([corner >> 2, corner >> 1 & 1, corner & 1])
        # A node at the start of a brick is touched by the last cells of the brick before.
        x, y, z = torch.where(local == 0, owner - back, owner).clamp(min=0).unbind(-1)
        occupied[x, y, z] = True
    slots = torch.full(lattice.bricks, -1)
    slots[occupied] = torch.arange(int(occupied.sum()))
    slot = slots[owner[:, 0], owner[:, 1], owner[:, 2]]
    place = ((slot * BRICK + local[:, 0]) * BRICK + local[:, 1]) * BRICK + local[:, 2]
    density = torch.zeros(int(occupied.sum()) * BRICK**3, dtype=torch.uint8)
    density[place] = codes
    return occupied, density.reshape(-1, BRICK, BRICK, BRICK), place.argsort()


def rounded(values: Float[Tensor, "*shape"], step: int) -> UInt8[Tensor, "*shape"]:
    """Return bytes that are multiples of `step`."""
    return ((values / step).round() * step).clamp(0, 255).to(torch.uint8)
