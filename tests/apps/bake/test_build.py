"""Baking: what of a field is kept, how exact its codes are, and what it costs."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fieldmorph.apps.bake.baked_field import BakedField, baked_field
from fieldmorph.apps.bake.bricks import BRICK, Bake, Lattice, into_bricks
from fieldmorph.apps.bake.build import HARMONIC_STEP, BakeConfig, bake
from fieldmorph.apps.bake.nodes import DENSITY_STEP, LOG_RANGE, find_dense_nodes
from fieldmorph.apps.jobs.exports.web import fidelity
from fieldmorph.fields.blackbox import box_cameras, callable_teacher
from fieldmorph.fields.cameras import Cameras, orbit_box, resize
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.renderable import RenderableField

pytestmark = pytest.mark.numerical

CUBE = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
ELSEWHERE = (10.0, -7.0, 100.0, 14.0, -5.0, 101.0)  # 4 x 2 x 1, far from the origin
STEP = 0.03

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def ball(density: float, radius: float = 0.6) -> Function:
    """Of one density, grey."""
    return lambda p, _d: (torch.full_like(p, 0.5), density * (p.norm(dim=-1) < radius).float())


def tinted(coefficients: Tensor) -> Function:
    """Low density everywhere, whose colour has these harmonics (n, 3) after the constant 0.5."""

    def function(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        basis = spherical_harmonics(d)[:, 1 : len(coefficients) + 1]
        return 0.5 + basis @ coefficients, torch.full_like(p[:, 0], 0.5)

    return function


def stored_of(
    function: Function, box: tuple[float, ...] = CUBE, cameras: Cameras | None = None
) -> RenderableField:
    cameras = cameras or resize(box_cameras(box), 40, 40)
    return callable_teacher(function, box, cameras=cameras, resolution=32, render_step_size=STEP)


def places(baked: Bake) -> Tensor:
    """Its nodes in world units, in the order of the columns of its colours."""
    box = torch.tensor(baked.lattice.aabb)
    return box[:3] + baked.lattice.unit_positions(baked.nodes()) * (box[3:] - box[:3])


def optical_ref(baked: Bake) -> Tensor:
    """Of a render step at each node, as `Bake` defines it."""
    (low, high), codes = baked.log_range, baked.density[baked.density > 0].double()
    return torch.exp(low + codes * (high - low) / 255) - math.exp(low)


def test_what_no_camera_sees_is_left_out() -> None:
    baked = bake(stored_of(ball(300.0)), BakeConfig(64))
    radius = places(baked).norm(dim=-1)
    assert radius.max() < 0.6
    assert radius.min() > 0.4  # the inside
    directions = torch.nn.functional.normalize(
        torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    nearest = torch.cdist(0.58 * directions, places(baked)).amin(dim=1)
    assert nearest.max() < 1.2 * 2 / 64  # the surface is whole
    assert baked.occupied.sum() < 0.5 * baked.occupied.numel()


def test_a_preview_keeps_the_surface_and_queries_the_field_less() -> None:
    """As many cameras as a scene has; the preview takes some of them, and fits one color per node."""
    queried = [0]

    def function(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        queried[0] += len(positions)
        return truly(positions, directions)

    truly, n_queried, bakes = ball(300.0), [], []
    cameras = orbit_box(CUBE, 48, width=40, height=40)
    for config in (BakeConfig(32), BakeConfig.preview(32)):
        stored = stored_of(function, cameras=cameras)
        queried[0] = 0
        bakes.append(bake(stored, config))
        n_queried.append(queried[0])
    preview = bakes[1]
    assert preview.degree == 0
    assert n_queried[1] < 0.8 * n_queried[0]
    nodes = [{tuple(place.tolist()) for place in baked.lattice.coordinates(baked.nodes())} for baked in bakes]
    assert nodes[0] <= nodes[1]  # the inside, which no camera sees, is in the preview too
    assert (preview.colour[:3].float() / 255 - 0.5).abs().max() < 0.02


def test_a_preview_keeps_the_field_s_values_where_they_take_few_bytes() -> None:
    queried: list[int] = []

    def function(positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        queried.append(len(positions))
        return truly(positions, directions)

    truly, config, counts, bakes = ball(20.0), BakeConfig.preview(32), [], []
    stored = stored_of(function)
    assert config.max_value_bytes > 0
    for max_bytes in (config.max_value_bytes, 20_000, 0):
        queried.clear()
        bakes.append(bake(stored, replace(config, max_value_bytes=max_bytes)))
        counts.append(sum(queried))
    nodes = bakes[0].colour.shape[1]
    assert 16 * nodes > 20_000  # so that the second bake keeps none
    assert counts[1] == counts[2] == counts[0] + nodes
    for other in bakes[1:]:
        assert torch.equal(bakes[0].density, other.density)
        assert torch.equal(bakes[0].colour, other.colour)


def test_every_other_node_first_finds_what_is_connected() -> None:
    """A ball, and a wire of one node's width that leaves it between the nodes that are evaluated first."""

    def function(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
        queried.append(len(p))
        wire = (p[:, 1:] - 1 / 32).norm(dim=-1) < 0.02
        return torch.full_like(p, 0.5), 40.0 * (wire | (p.norm(dim=-1) < 0.3)).float()

    queried: list[int] = []
    stored, generator = stored_of(function), torch.Generator()
    stored.occupancy.occupied = torch.ones_like(stored.occupancy.occupied)
    lattice = Lattice.spanning(CUBE, 64)
    dense, counts = [], []
    for sparse_first in (False, True):
        queried.clear()
        found = find_dense_nodes(lattice, stored, generator, lambda *_: None, sparse_first=sparse_first)
        dense.append({tuple(at) for at in lattice.coordinates(found.nodes).tolist()})
        counts.append(sum(queried))
        assert (found.nodes.diff() > 0).all()
    wire = {(x, 33, 33) for x in range(65)}
    ball_nodes = dense[0] - wire
    assert len(dense[0] & wire) >= 60
    assert ball_nodes <= dense[1] <= dense[0]
    assert dense[1] & wire == {(x, 33, 33) for x in range(21, 44)}  # 3 nodes beyond even ones, from 24 to 40
    assert counts[0] == 65**3
    assert counts[1] < 0.25 * counts[0]


def test_all_of_what_light_passes_through_is_kept() -> None:
    baked = bake(stored_of(ball(1.0)), BakeConfig(32))
    expected = (torch.cartesian_prod(*[torch.linspace(-1, 1, 33)] * 3).norm(dim=-1) < 0.6).sum()
    assert baked.colour.shape[1] == pytest.approx(int(expected), rel=0.02)
    assert places(baked).norm(dim=-1).min() == 0  # where all cameras look


def test_density_codes_are_within_half_a_step() -> None:
    def function(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(p, 0.5), torch.exp(5 * p[:, 0]) * (p[:, 1:].norm(dim=-1) < 0.1)

    baked = bake(stored_of(function), BakeConfig(32))
    truth = torch.exp(5 * places(baked)[:, 0]).double() * STEP
    low, high = LOG_RANGE
    assert truth.min() < 0.05
    assert truth.max() > 4
    within = (optical_ref(baked) + math.exp(low)) / (truth + math.exp(low))
    assert within.log().abs().max() <= (high - low) * DENSITY_STEP / 2 / 255 + 1e-4


def test_what_lets_hardly_any_light_through_is_as_dense_as_can_be() -> None:
    baked = bake(stored_of(ball(1e6)), BakeConfig(32))
    assert (baked.density[baked.density > 0] == 255).all()
    assert torch.exp(-optical_ref(baked)).max() < 1 / 1500


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_harmonics_are_found(degree: int) -> None:
    n = (degree + 1) ** 2 - 1
    coefficients = 0.1 * torch.randn(n, 3, generator=torch.Generator().manual_seed(degree)).clamp(-2, 2)
    function = tinted(coefficients)
    stored = stored_of(function)
    baked = bake(stored, BakeConfig(16, degree))
    assert baked.degree == degree
    codes = baked.colour.float()
    off = (codes[:3] / 255 - 0.5).abs()
    assert off.quantile(0.95) < 0.01
    if degree:
        off = ((codes[3:] - 128) * baked.harmonic_step - coefficients.flatten()[:, None]).abs()
        assert off.quantile(0.95) < HARMONIC_STEP / 2 + 0.01  # some nodes are seen from one side alone
    field, at = baked_field(baked, stored.cameras).field, places(baked)[::7]
    for camera in stored.cameras[torch.arange(0, 48, 7)]:
        directions = torch.nn.functional.normalize(at - camera.camera_to_world[0, :, 3], dim=-1)
        off = (field(at, directions)[0] - function(at, directions)[0]).abs()
        assert off.quantile(0.95) < 0.03


def test_a_higher_degree_is_nearer_to_what_has_one() -> None:
    coefficients = torch.tensor([0.12, 0.12, -0.12, 0.06, 0.06, 0.06, 0.06, -0.06])
    stored = stored_of(tinted(coefficients[:, None].expand(8, 3)))
    scores = [fidelity(bake(stored, BakeConfig(16, degree)), stored) for degree in (0, 1, 2)]
    assert scores[0] + 3 < scores[1] < scores[2] - 3


@pytest.mark.parametrize("config", [BakeConfig(32), BakeConfig.preview(32)], ids=["fitted", "mean"])
def test_the_colours_that_cameras_see_count_most(config: BakeConfig) -> None:
    """A colour that no harmonics have: exact where the cameras are, whatever it is elsewhere."""

    def function(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        ahead = (d[:, :1] > 0.5).float()  # seen from the left
        return ahead * torch.tensor([0.9, 0.2, 0.1]) + (1 - ahead) * 0.5, 2.0 * (p.norm(dim=-1) < 0.6)

    left = orbit_box(CUBE, 400)
    left = left[(left.camera_to_world[:, 0, 2] > 0.9).nonzero()[:, 0]]
    stored = stored_of(function, cameras=left)
    assert fidelity(bake(stored, config), stored) > 32


def test_a_bake_is_determined_by_its_seed() -> None:
    stored = stored_of(ball(20.0))
    one, same, other = (bake(stored, BakeConfig(16, 1, seed)) for seed in (0, 0, 1))
    for name in ("occupied", "density", "colour"):
        assert torch.equal(getattr(one, name), getattr(same, name))
    assert not (other.colour.shape == one.colour.shape and torch.equal(other.colour, one.colour))


def test_memory_scales_with_occupied_cells() -> None:
    def function(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(p, 0.5), 50.0 * ((p - 0.5).norm(dim=-1) < 0.1)

    baked = bake(stored_of(function), BakeConfig(128))
    reached = math.ceil(0.2 / (2 / 128) / BRICK) + 2  # bricks along each axis
    assert 0 < baked.occupied.sum() <= reached**3 < baked.occupied.numel() / 50
    assert baked.density.shape == (int(baked.occupied.sum()), BRICK, BRICK, BRICK)
    assert baked.colour.shape == (12, int((baked.density > 0).sum()))
    low, high = places(baked).amin(0), places(baked).amax(0)
    assert ((low > 0.4) & (high < 0.6)).all()


def test_a_box_may_be_long_and_anywhere() -> None:
    centre = torch.tensor([12.0, -6.0, 100.5])

    def function(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        inside = ((p - centre) / torch.tensor([1.8, 0.8, 0.4])).norm(dim=-1) < 1
        return 0.5 + 0.1 * (p - centre).clamp(-2, 2) + 0.2 * d, 20.0 * inside

    stored = stored_of(function, ELSEWHERE)
    baked = bake(stored, BakeConfig(64))
    assert baked.lattice.cells == (64, 32, 16)
    assert baked.lattice.aabb == ELSEWHERE
    inside = ((places(baked) - centre) / torch.tensor([1.8, 0.8, 0.4])).norm(dim=-1)
    assert inside.max() < 1 + 1e-5
    assert fidelity(baked, stored) > 30
    eye, target = torch.tensor(baked.camera["eye"]), torch.tensor(baked.camera["target"])
    assert (eye - centre).norm() > (target - centre).norm()
    assert (target - centre).norm() < 1


def test_a_full_box_is_baked_to_its_faces() -> None:
    def function(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 + 0.4 * p.clamp(-1, 1), torch.full_like(p[:, 0], 1.0)

    stored = stored_of(function)
    baked = bake(stored, BakeConfig(16))
    assert baked.occupied.all()
    assert baked.colour.shape[1] == 17**3  # the middle, too, though each camera gets least from there
    assert fidelity(baked, stored) > 40


def test_an_empty_scene_is_refused() -> None:
    stored = stored_of(ball(20.0))
    stored.occupancy.occupied = torch.zeros_like(stored.occupancy.occupied)
    with pytest.raises(InputError, match="this field is invisible"):
        bake(stored, BakeConfig(16))


def test_progress_comes_to_its_end() -> None:
    reports: list[tuple[str, int, int]] = []
    bake(stored_of(ball(20.0)), BakeConfig(16), on_progress=lambda *at: reports.append(at))
    ends = {what: (done, total) for what, done, total in reports}
    assert list(ends) == ["density", "visibility", "colour"]
    assert all(done == total > 0 for done, total in ends.values())


@pytest.mark.parametrize("resolution", [0, 8, 100, 520, -64])
def test_a_resolution_is_whole_bricks(resolution: int) -> None:
    with pytest.raises(SettingError, match=f"a multiple of 8 from 16 to 512; got {resolution}"):
        BakeConfig(resolution)


@pytest.mark.parametrize("degree", [-1, 3])
def test_a_degree_is_known(degree: int) -> None:
    with pytest.raises(SettingError, match=f"0, 1 or 2; got {degree}"):
        BakeConfig(degree=degree)


def test_colors_that_are_not_fitted_have_no_direction() -> None:
    with pytest.raises(SettingError, match="not fitted have degree 0"):
        BakeConfig(degree=1, fits_colors=False)


def test_bricks_have_every_node_that_their_cells_touch() -> None:
    lattice = Lattice.spanning((0, 0, 0, 2, 1, 1), 16)
    assert (lattice.cells, lattice.bricks) == ((16, 8, 8), (3, 2, 2))
    at = torch.tensor([[8, 3, 0], [15, 8, 8], [16, 0, 5]])
    codes = torch.tensor([10, 20, 30], dtype=torch.uint8)
    occupied, density, order = into_bricks(lattice, lattice.flat(at), codes)
    # Nodes on a brick's first plane belong to cells of the brick before as well.
    expected = {(1, 0, 0), (0, 0, 0), (1, 1, 1), (1, 0, 1), (1, 1, 0), (2, 0, 0)}
    assert {tuple(brick) for brick in occupied.nonzero().tolist()} == expected
    bricks = occupied.nonzero()
    brick, *local = density.nonzero().unbind(-1)
    assert torch.equal(bricks[brick] * BRICK + torch.stack(local, -1), at[order])
    assert torch.equal(density[density > 0], codes[order])


def test_a_baked_field_interpolates_codes_and_then_decodes() -> None:
    lattice = Lattice.spanning((0, 0, 0, 8, 8, 8), 8)
    nodes = lattice.flat(torch.tensor([[3, 3, 3], [4, 3, 3]]))
    colours = torch.tensor([[0.2, 0.4, 0.6], [0.4, 0.6, 0.8]])
    field = BakedField(lattice, nodes, torch.tensor([0.5, 1.0]), colours, LOG_RANGE, STEP)
    at = torch.tensor([[3.25, 3.0, 3.0], [3.0, 3.5, 3.0], [6.0, 6.0, 6.0]])
    rgb, sigma = field(at, torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))
    low, high = LOG_RANGE
    for i, code in enumerate((0.625, 0.25, 0.0)):
        expected = (math.exp(low + (high - low) * code) - math.exp(low)) / STEP
        assert float(sigma[i]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert rgb[0].tolist() == pytest.approx([0.25, 0.45, 0.65], abs=1e-5)
    assert rgb[1].tolist() == pytest.approx(
        [0.2, 0.4, 0.6], abs=1e-5
    )  # corners without a colour do not count
