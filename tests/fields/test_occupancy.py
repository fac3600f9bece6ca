"""The occupancy grid bounds its field, forgets slowly, and repeats itself."""

import itertools

import pytest
import torch
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.occupancy import OCCUPIED_ALPHA, OccupancyGrid

pytestmark = pytest.mark.numerical

STEP = 2 / 128


def occupied_ref(field: VolumeField, resolution: int, per_axis: int = 5) -> Tensor:
    """Cells that hold a point with more than the threshold's alpha, by a lattice with the cells' corners."""
    n = resolution * (per_axis - 1) + 1
    axis = torch.linspace(-1, 1, n)
    lattice = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    alpha = 1 - torch.exp(-field.query_density(lattice) * STEP)
    largest = torch.nn.functional.max_pool3d(alpha[None], per_axis, stride=per_axis - 1)[0]
    return largest > OCCUPIED_ALPHA


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_rebuilt_grid_misses_no_cell_and_is_tight(soft_sphere: VolumeField) -> None:
    grid = OccupancyGrid(24)
    grid.rebuild(soft_sphere, STEP, seeded())
    truth = occupied_ref(soft_sphere, 24)
    assert truth.any()
    assert not (truth & ~grid.occupied).any()
    two_rings = torch.nn.functional.max_pool3d(truth[None].float(), 5, stride=1, padding=2)[0] > 0
    assert not (grid.occupied & ~two_rings).any()
    assert grid.occupied.float().mean() < 0.35


def test_one_ring_of_cells_is_added() -> None:
    class Speck(VolumeField):  # one dense cell in the middle of 5^3
        config = reset_parameters = None

        def geometry(self, positions: Tensor) -> tuple[Tensor, Tensor]:
            inside = (positions.abs() < 0.2).all(-1)
            return torch.where(inside, 5.0, -50.0), positions

    Speck.__abstractmethods__ = frozenset()
    grid = OccupancyGrid(5)
    grid.rebuild(Speck((-1, -1, -1, 1, 1, 1)), STEP, seeded())
    expected = torch.zeros(5, 5, 5, dtype=torch.bool)
    expected[1:4, 1:4, 1:4] = True
    assert torch.equal(grid.occupied, expected)
    assert (grid.density > 0).sum() >= 1
    assert grid.density[2, 2, 2].item() == pytest.approx(torch.tensor(5.0).exp().item())


def test_axes_of_the_grid_are_those_of_the_box(uniform_field) -> None:
    field = uniform_field(50.0, (0.0, 0.0, 0.0, 1.0, 2.0, 4.0))
    field.log_density = lambda p: torch.where((p[..., 2] > 3) & (p[..., 1] < 0.5), 4.0, -50.0)
    grid = OccupancyGrid(8)
    grid.update(field, 0.1, seeded())
    expected = torch.zeros(8, 8, 8, dtype=torch.bool)
    expected[:, :2, 6:] = True  # x free; y in the first quarter; z in the last
    assert torch.equal(grid.occupied, expected)


def test_updates_forget_by_their_decay(uniform_field) -> None:
    box = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    grid = OccupancyGrid(4)
    grid.update(uniform_field(8.0, box), 0.1, seeded())
    torch.testing.assert_close(grid.density, torch.full((4, 4, 4), 8.0))
    grid.update(uniform_field(1e-9, box), 0.1, seeded(), decay=0.5)
    torch.testing.assert_close(grid.density, torch.full((4, 4, 4), 4.0))
    grid.update(uniform_field(7.0, box), 0.1, seeded(), decay=0.5)
    torch.testing.assert_close(grid.density, torch.full((4, 4, 4), 7.0))  # the fresh value is larger


def test_a_field_that_thins_out_frees_its_cells(uniform_field) -> None:
    box = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    grid, generator = OccupancyGrid(4), seeded()
    grid.update(uniform_field(8.0, box), 0.1, generator)
    thin = uniform_field(1.0, box)
    thin.log_density = lambda p: torch.where(p[..., 0] < 0.5, 2.0, -50.0)
    for _ in range(200):
        grid.update(thin, 0.1, generator)
    assert grid.occupied[:2].all()
    assert not grid.occupied[2:].any()


def test_an_empty_start_does_not_close_the_grid(uniform_field) -> None:
    grid = OccupancyGrid(8)
    assert grid.occupied.all()
    thin = uniform_field(
        1.0, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    )  # far below the threshold, but thicker at one side
    thin.log_density = lambda p: -6 + p[..., 0]
    grid.update(thin, 0.01, seeded())
    assert 0.2 < grid.occupied.float().mean() < 0.8  # the threshold is at most the mean


def test_a_part_of_the_cells_is_sampled(uniform_field, generator: torch.Generator) -> None:
    grid = OccupancyGrid(8)
    grid.update(uniform_field(8.0, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)), 0.1, generator, fraction=0.25)
    assert 0.1 < (grid.density > 0).float().mean() < 0.25


@pytest.mark.parametrize("fraction", [1.0, 0.25])
def test_the_generator_decides_everything(soft_sphere: VolumeField, fraction: float) -> None:
    grids = []
    for seed in (1, 1, 2):
        grid, generator = OccupancyGrid(12), seeded(seed)
        for _ in range(3):
            grid.update(soft_sphere, STEP, generator, fraction=fraction)
        grids.append(grid)
    assert torch.equal(grids[0].density, grids[1].density)
    assert torch.equal(grids[0].occupied, grids[1].occupied)
    assert not torch.equal(grids[0].density, grids[2].density)


def test_a_saved_grid_comes_back(soft_sphere: VolumeField) -> None:
    grid = OccupancyGrid(6)
    grid.rebuild(soft_sphere, STEP, seeded())
    again = OccupancyGrid.from_density(grid.density, grid.occupied)
    assert again.resolution == 6
    for one, other in itertools.pairwise((grid, again)):
        assert torch.equal(one.density, other.density)
        assert torch.equal(one.occupied, other.occupied)


@pytest.mark.parametrize("resolution", [1, 3, 8])
def test_bits_come_back_as_the_same_cells(resolution: int, generator: torch.Generator) -> None:
    grid = OccupancyGrid(resolution)
    grid.occupied = torch.rand(resolution, resolution, resolution, generator=generator) < 0.5
    bits = grid.to_bits()
    assert len(bits) == -(-(resolution**3) // 8)
    assert torch.equal(OccupancyGrid.from_bits(bits, resolution).occupied, grid.occupied)


def test_bits_of_another_resolution_are_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes of occupancy do not hold 9"):
        OccupancyGrid.from_bits(OccupancyGrid(8).to_bits(), 9)


def test_positions_lie_in_occupied_cells_or_not() -> None:
    grid = OccupancyGrid(4)
    grid.occupied[:] = False
    grid.occupied[1, 2, 3] = True
    unit = torch.tensor([[0.25, 0.5, 0.75], [0.49, 0.74, 1.0], [0.24, 0.5, 0.75], [0.5, 0.5, 0.75]])
    assert grid.at(unit).tolist() == [True, True, False, False]  # the last face, too
    assert grid.at(unit.reshape(2, 2, 3)).shape == (2, 2)
