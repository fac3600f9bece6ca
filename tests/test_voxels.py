"""The voxel field: sparse nodes, coarse to fine, from state to state; and what it refuses."""

import copy
import itertools
import json
import math
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields import fit, voxels
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.catalog import make_field, rebuild_field
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.kernels.variation import total_variation
from fieldmorph.fields.loop import Interrupted, Progress
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.render import render_image
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import StoredField, load_field, save_field
from fieldmorph.fields.voxels import EMPTY, FAINT, RUNS, SCHEDULE, Voxels, nodes_in_cells

BOX = (-1.0, -0.5, 0.0, 1.0, 1.5, 1.0)
EXTENT = 2.0
CUBE = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)


def fresh(resolution: int = 100, aabb: tuple[float, ...] = BOX) -> Voxels:
    field = make_field("voxels", aabb=aabb, resolution=resolution, tv_weight=0.0)
    assert isinstance(field, Voxels)
    return field


def lively(resolution: int = 100, density: float = 3.0) -> Voxels:
    """Coarse, random everywhere, no node so faint that it may be dropped."""
    field, generator = fresh(resolution), torch.Generator().manual_seed(2)
    with torch.no_grad():
        field.density_values.uniform_(density - 1, density + 1, generator=generator)
        field.sh_values.normal_(generator=generator)
    return field


def ball(resolution: int = 100, aabb: tuple[float, ...] = CUBE) -> Voxels:
    """Coarse: log-density 5 falling to -6 across the surface of a ball of radius 0.6, red to the left."""
    field = fresh(resolution, aabb)
    with torch.no_grad():
        at = field.node_positions()
        field.density_values[:, 0] = (5 - 40 * (at.norm(dim=-1) - 0.6)).clamp(-6, 5)
        field.sh_values[:, 0], field.sh_values[:, 9] = 10 * at[:, 0], -10 * at[:, 1]
    return field


def sparse(resolution: int = 40, share: float = 0.05) -> Voxels:
    """At its final resolution, few nodes active."""
    field, generator = fresh(resolution), torch.Generator().manual_seed(3)
    mask = torch.rand((resolution,) * 3, generator=generator) < share
    field.activate(mask, torch.randn(int(mask.sum()), 28, generator=generator) * 3 + 2)
    return field


def points(n: int = 2000, aabb: tuple[float, ...] = BOX) -> Tensor:
    low, high = torch.tensor(aabb[:3]), torch.tensor(aabb[3:])
    return low + torch.rand(n, 3, generator=torch.Generator().manual_seed(4)) * (high - low)


def directions(n: int) -> Tensor:
    return torch.nn.functional.normalize(
        torch.randn(n, 3, generator=torch.Generator().manual_seed(5)), dim=-1
    )


def raw(field: Voxels, positions: Tensor) -> Tensor:
    """Log-density per box length, then the harmonics."""
    log_sigma, features = field.geometry(positions)
    return torch.cat([log_sigma[:, None] + math.log(field.extent), features], dim=-1).detach()


def test_a_fresh_field_is_small_whatever_its_final_resolution() -> None:
    for resolution in (2, 40, 41, 128, 512, 1024):
        field = fresh(resolution)
        assert field.n_active == field.nodes**3 <= 40**3
        assert (field.nodes - 1) * field.divisor >= resolution - 1  # reaches across the box


def test_memory_goes_with_the_active_nodes() -> None:
    field, n = fresh(256), 256**3 // 20
    field.activate(torch.arange(n) * 20)
    arrays = [*field.parameters(), *field.buffers()]
    parameters = sum(p.nbytes for p in field.parameters())
    assert parameters == n * 28 * 4  # 94 MB
    assert sum(a.nbytes for a in arrays) < parameters + 256**3 * 3 / 8 + 100
    # with gradient and the two moments of Adam
    assert sum(a.nbytes for a in arrays) + 3 * parameters < 390e6


def test_nodes_hold_their_values_and_empty_space_is_nearly_nothing() -> None:
    field, mask = fresh(40), torch.zeros(40, 40, 40, dtype=torch.bool)
    mask[3, 4, 5] = mask[39, 0, 20] = True
    values = torch.arange(56.0).reshape(2, 28)
    field.activate(mask, values)
    assert field.node_indices().tolist() == [(3 * 40 + 4) * 40 + 5, 39 * 1600 + 20]
    step = torch.tensor([2.0, 2.0, 1.0]) / 39
    expected = torch.tensor(BOX[:3]) + torch.tensor([[3.0, 4, 5], [39, 0, 20]]) * step
    torch.testing.assert_close(field.node_positions(), expected)
    torch.testing.assert_close(raw(field, expected), values, rtol=0, atol=1e-3)
    between = expected[:1] + step * torch.tensor([0.5, 0, 0])
    torch.testing.assert_close(raw(field, between)[0, :2], torch.tensor([EMPTY / 2, 0.5]), rtol=0, atol=1e-3)
    far = points()[(points()[:, None] - expected).abs().gt(step).any(-1).all(-1)]
    assert torch.allclose(field.query_density(far), torch.tensor(math.exp(EMPTY) / EXTENT))
    rgb, _ = field(far, directions(len(far)))
    assert torch.equal(rgb, torch.full_like(rgb, 0.5))


def test_indices_in_any_order_keep_their_values() -> None:
    one, other = fresh(30), fresh(30)
    indices = torch.randperm(27_000, generator=torch.Generator().manual_seed(1))[:500]
    values = torch.randn(500, 28, generator=torch.Generator().manual_seed(2))
    one.activate(indices, values)
    order = indices.argsort()
    other.activate(
        torch.zeros(27_000, dtype=torch.bool).scatter(0, indices, True).reshape(30, 30, 30), values[order]
    )
    assert torch.equal(raw(one, points()), raw(other, points()))


def test_activated_without_values_a_field_keeps_what_it_has_there() -> None:
    field = lively()
    before = field.divisor, raw(field, points())
    field.activate(torch.ones(100, 100, 100, dtype=torch.bool))
    assert (before[0], field.divisor) == (4, 1)
    torch.testing.assert_close(raw(field, points()), before[1], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("nodes", "n_values"),
    [
        (torch.zeros(30, 30, 30, dtype=torch.bool), None),
        (torch.ones(30, 30, 29, dtype=torch.bool), None),
        (torch.tensor([5, 7, 5]), None),
        (torch.tensor([5, 27_000]), None),
        (torch.tensor([-1, 5]), None),
        (torch.tensor([4, 5]), 3),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_nodes_are_refused_and_change_nothing(nodes: Tensor, n_values: int | None) -> None:
    field = fresh(30)
    before = copy.deepcopy(field.state_dict())
    with pytest.raises(SettingError, match="node"):
        field.activate(nodes, None if n_values is None else torch.zeros(n_values, 28))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), field.state_dict().values(), strict=True))


def test_schedule_ends_at_the_final_resolution() -> None:
    assert SCHEDULE[0][0] == 0
    assert SCHEDULE[-1][1] == 1
    assert list(SCHEDULE) == sorted(SCHEDULE)
    field = fresh(100)
    seen = []
    for progress in torch.linspace(0, 1, 101).tolist():
        changed = field.refine(progress)
        assert changed == (not seen or seen[-1] != field.nodes) or not seen
        assert not field.refine(progress)  # decided by the field's own state
        seen.append(field.nodes)
    assert sorted(set(seen)) == [26, 51, 100]
    assert seen == sorted(seen)


@pytest.mark.parametrize("resolution", [41, 60, 100, 128])
def test_refining_keeps_the_function(resolution: int) -> None:
    field = lively(resolution)
    positions = points()
    positions[:8] = torch.tensor(list(itertools.product(*zip(BOX[:3], BOX[3:], strict=True))))
    before, coarse = raw(field, positions), field.divisor
    assert field.refine(1.0)
    assert (field.divisor, field.n_active) == (1, resolution**3)
    assert coarse > 1
    # in float32 a place on the finest grid is off by 1e-5 cells, values next to each other by some 5
    torch.testing.assert_close(raw(field, positions), before, rtol=0, atol=3e-4)


def test_refining_drops_only_what_cannot_be_seen() -> None:
    field, positions = ball(), points(20_000, CUBE)
    before = field.query_density(positions).detach()
    assert field.refine(1.0)
    after = field.query_density(positions).detach()
    assert field.n_active < 0.35 * 100**3  # the ball fills 11 %, and it has a ring of coarse cells
    seen = before > math.exp(FAINT) / EXTENT
    torch.testing.assert_close(after[seen], before[seen], rtol=1e-3, atol=0)
    assert 0.1 < seen.float().mean() < 0.2
    assert (after[~seen] <= before[~seen] * 1.001).all()
    assert (after[~seen] < before[~seen] / 2).float().mean() > 0.5  # dropped indeed


def test_refining_does_not_change_the_picture() -> None:
    field = ball()
    cameras, all_cells = orbit_box(CUBE, 2, width=24, height=16), OccupancyGrid(8)
    before = [render_image(field, camera, all_cells, 0.02)["colors"] for camera in cameras]
    field.refine(1.0)
    after = [render_image(field, camera, all_cells, 0.02)["colors"] for camera in cameras]
    assert before[0].std() > 0.1
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().max() < 3 / 255  # the fog of exp(-6) that is dropped makes 1.3 / 255


def test_refining_repeats_exactly() -> None:
    one, other = ball(), ball()
    one.refine(1.0), other.refine(SCHEDULE[-2][0]), other.refine(1.0)
    assert one.config() == other.config()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_field_without_content_stays_whole() -> None:
    field = fresh(60)
    field.refine(1.0)
    assert field.n_active == 60**3


def test_a_start_at_the_final_resolution_is_never_shrunk() -> None:
    field = sparse()
    before = copy.deepcopy(field.state_dict())
    for progress in (0.0, 0.3, 1.0):
        assert not field.refine(progress)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), field.state_dict().values(), strict=True))


@pytest.mark.parametrize("make", [ball, sparse])
@pytest.mark.parametrize("into", [fresh, lambda r: sparse(r, 0.5), ball])
def test_a_state_brings_its_own_resolution(make: Callable[..., Voxels], into: Callable[..., Voxels]) -> None:
    source, target = make(50), into(50)
    for field in (source, target):
        field.aabb.copy_(torch.tensor(BOX))
    target.load_state_dict(source.state_dict())
    assert target.config() == source.config()
    assert torch.equal(raw(target, target.node_positions()), raw(source, source.node_positions()))
    clone = copy.deepcopy(target)
    clone.load_state_dict(into(50).state_dict())  # a copy's own words follow
    assert torch.equal(raw(target, target.node_positions()), raw(source, source.node_positions()))


@pytest.mark.parametrize("make", [ball, sparse])
def test_a_file_gives_back_field_and_sparsity(tmp_path: Path, make: Callable[..., Voxels]) -> None:
    field = make(50)
    stored = StoredField(field, OccupancyGrid(4), 0.04, orbit_box(BOX, 2, width=8, height=8))
    save_field(tmp_path / "a.fm", stored)
    again = load_field(tmp_path / "a.fm").field
    assert isinstance(again, Voxels)
    assert again.config() == json.loads(json.dumps(field.config()))
    assert torch.equal(raw(again, points()), raw(field, points()))
    rows = field.n_active * 28 * 4
    assert rows < (tmp_path / "a.fm").stat().st_size < rows + 50**3 / 8 + 4000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda h, a: a["field.mask"].bitwise_xor_(a["field.mask"].new_tensor([1] + [0] * 999)),
            "active nodes have",
        ),
        (lambda h, a: a["field.mask"].zero_(), "active nodes have"),
        (lambda h, a: a["field.mask"].fill_(255), "active nodes have"),
        (lambda h, a: a.update({"field.mask": a["field.mask"][:-1].clone()}), "size mismatch for mask"),
        (
            lambda h, a: a.update({"field.density_values": a["field.density_values"][1:]}),
            "size mismatch for density",
        ),
        (
            lambda h, a: h["config"].update(n_nodes=h["config"]["n_nodes"] + 1),
            "size mismatch for density_values",
        ),
        (lambda h, a: h["config"].update(n_nodes=10**15), "n_nodes to be a whole number 1..8000"),
        (lambda h, a: h["config"].update(n_nodes=None), "go together"),
        (lambda h, a: h["config"].update(n_nodes=5.0), "n_nodes"),
        (lambda h, a: h["config"].update(resolution=21), "size mismatch for mask"),
        (lambda h, a: h["config"].update(resolution=10**9), "resolution to be a whole number 2..1024"),
        (lambda h, a: h["config"].update(divisor=3), "divisor"),
        (lambda h, a: h["config"].update(divisor=0), "divisor"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_damaged_file_is_refused(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    stored = StoredField(sparse(20), OccupancyGrid(4), 0.04, orbit_box(BOX, 2, width=8, height=8))
    save_field(tmp_path / "a.fm", stored)
    header, arrays = read_checkpoint(tmp_path / "a.fm")
    change(header, arrays)
    write_checkpoint(tmp_path / "a.fm", header, arrays)
    with pytest.raises(InputError, match=message):
        load_field(tmp_path / "a.fm")


def test_bits_beyond_the_grid_are_refused_and_nothing_is_read_after() -> None:
    field, other = sparse(21), sparse(21)  # 9261 nodes leave 3 bits of the last byte
    state = other.state_dict()
    first = int(state["mask"].nonzero()[0, 0])
    state["mask"][first] &= state["mask"][first] - 1  # one less inside, one more outside: the count is right
    state["mask"][-1] |= 128
    with pytest.raises(ValueError, match="outside its grid"):
        field.load_state_dict(state)
    with pytest.raises(ValueError, match="0 active nodes need as many rows"):
        field.query_density(points())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"resolution": 1}, r"whole number 2\.\.1024; got 1"),
        ({"resolution": 1025}, "got 1025"),
        ({"resolution": True}, "got True"),
        ({"resolution": 64.0}, r"got 64\.0"),
        ({"tv_weight": -1.0}, r"tv_weight to be a finite number >= 0; got -1\.0"),
        ({"tv_weight": math.nan}, "tv_weight"),
        ({"tv_weight": True}, "got True"),
        ({"n_nodes": 5}, "go together"),
        ({"divisor": 1}, "go together"),
        ({"n_nodes": 0, "divisor": 1}, "n_nodes"),
        ({"n_nodes": 5, "divisor": 8}, r"divisor of \[1, 2, 4\]; got 8"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_sizes_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_field("voxels", aabb=BOX, **{"resolution": 128, **overrides})


def test_rows_that_are_only_claimed_cost_no_memory() -> None:
    field = rebuild_field("voxels", {"aabb": list(BOX), "resolution": 256, "n_nodes": 10**7, "divisor": 1})
    assert field.n_parameters() == 28 * 10**7  # 1.1 GB that is never touched
    with pytest.raises(ValueError, match="0 active nodes"):
        field.query_density(points(3))


def test_nan_and_far_positions_are_harmless() -> None:
    field = sparse()
    wild = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0.5], [1e30, -1e30, 0], [0, 0, -9.0]])
    rgb, sigma = field(wild, directions(4))
    assert torch.equal(sigma, torch.zeros(4))
    assert rgb.isfinite().all()


def test_total_variation_is_the_mean_squared_step_between_active_neighbours(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voxels, "RUNS", 1)
    field, mask = fresh(40), torch.zeros(40, 40, 40, dtype=torch.bool)
    mask[3, 4, 5] = mask[3, 4, 6] = mask[4, 4, 5] = mask[9, 0, 20] = True
    values = torch.zeros(4, 28)  # rows in the order 3 4 5, 3 4 6, 4 4 5, 9 0 20
    values[1, 0], values[2, 7], values[3] = 3.0, -2.0, 100.0
    field.activate(mask, values)
    field.tv_weight = 0.5
    penalty = field.regularization(generator)
    penalty.backward()
    # 345 has steps of 3 along z and -2 along x; the last has no neighbour, and it is one of the four all the same
    assert penalty.item() == pytest.approx(0.5 * (9 + 4) / 4)
    assert field.density_values.grad[:, 0].tolist() == pytest.approx([-0.75, 0.75, 0, 0])  # 0.5 * 2 * 3 / 4
    assert field.sh_values.grad[:, 6].tolist() == pytest.approx([0.5, 0, -0.5, 0])


def test_an_estimate_of_the_total_variation_is_unbiased(monkeypatch: pytest.MonkeyPatch) -> None:
    field = sparse()
    field.tv_weight, leaves = 2.0, list(field.parameters())

    def penalty(seed: int) -> tuple[Tensor, ...]:
        """The value, then its gradients."""
        value = field.regularization(torch.Generator().manual_seed(seed))
        return value.detach(), *(g.to_dense() for g in torch.autograd.grad(value, leaves))

    runs = [int(torch.randint(RUNS, (1,), generator=torch.Generator().manual_seed(s))) for s in range(400)]
    drawn = [penalty(runs.index(run)) for run in range(RUNS)]  # each of the runs once
    values = [value for value, *_ in drawn]
    assert max(values) > 1.2 * min(values)
    monkeypatch.setattr(voxels, "RUNS", 1)
    for estimates, whole in zip(zip(*drawn, strict=True), penalty(0), strict=True):
        torch.testing.assert_close(torch.stack(estimates).mean(0), whole, rtol=1e-4, atol=1e-6)


def test_without_a_weight_or_a_generator_there_is_no_total_variation(generator: torch.Generator) -> None:
    before, field = generator.get_state(), lively()
    assert field.regularization(generator).item() == 0
    assert torch.equal(generator.get_state(), before)
    field.tv_weight = 1.0
    assert field.regularization().item() == 0
    assert field.regularization(generator).item() > 0


def test_a_file_without_the_weight_is_one_of_weight_zero(tmp_path: Path) -> None:
    stored = StoredField(sparse(20), OccupancyGrid(4), 0.04, orbit_box(BOX, 2, width=8, height=8))
    save_field(tmp_path / "a.fm", stored)
    header, arrays = read_checkpoint(tmp_path / "a.fm")
    # the keys of a file, and of a run to go on with, from before there was a weight
    assert set(header["config"]) == {"aabb", "resolution", "n_nodes", "divisor"}
    header["config"]["tv_weight"] = 0.25
    write_checkpoint(tmp_path / "b.fm", header, arrays)
    for name, weight in (("a.fm", 0.0), ("b.fm", 0.25)):
        field = load_field(tmp_path / name).field
        assert isinstance(field, Voxels)
        assert field.tv_weight == weight
        assert field.config().get("tv_weight", 0.0) == weight


def test_harmonics_of_degree_two_fit_a_directional_colour() -> None:
    x, y, z = (d := directions(400)).unbind(-1)
    logits = torch.stack([0.5 + x - 2 * y * z, 3 * x * y - 1, z * z - x * x + y], dim=-1)  # all of degree 2
    target, beyond = torch.sigmoid(logits), torch.sigmoid(logits + 3 * x[:, None] ** 3)
    field = fresh(4)
    losses = []
    for colors in (target, beyond):
        features = torch.zeros(27, requires_grad=True)
        optimizer = torch.optim.LBFGS([features], max_iter=100, line_search_fn="strong_wolfe")

        def closure(
            features: Tensor = features, colors: Tensor = colors, optimizer: Any = optimizer
        ) -> Tensor:
            optimizer.zero_grad()
            rgb = field.radiance(features.expand(400, 27), torch.zeros(400, 3), d)
            loss = (rgb - colors).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        losses.append(closure().item())
    assert losses[0] < 1e-7
    assert losses[1] > 1e-4  # no more than degree 2


def test_colour_stays_in_range_and_keeps_a_gradient() -> None:
    features = torch.tensor([[-20.0, 20.0, 0.0]]).repeat_interleave(9, dim=1).requires_grad_()
    rgb = fresh(4).radiance(features, torch.zeros(1, 3), directions(1))
    assert 0 <= rgb.min() <= rgb.max() <= 1
    rgb.sum().backward()
    assert (features.grad.reshape(3, 9).abs().amax(-1) > 0).all()


@settings(max_examples=40, deadline=None)
@given(
    n_cells=st.integers(1, 9), resolution=st.integers(2, 20), share=st.floats(0, 0.4), seed=st.integers(0, 99)
)
def test_nodes_in_cells_are_those_inside_and_one_more(n_cells, resolution, share, seed) -> None:
    occupied = torch.rand((n_cells,) * 3, generator=torch.Generator().manual_seed(seed)) < share
    before = occupied.clone()
    size = Fraction(resolution - 1, n_cells)
    expected = torch.zeros((resolution,) * 3, dtype=torch.bool)
    for cell in occupied.nonzero().tolist():
        spans = [(math.ceil(k * size) - 1, math.floor((k + 1) * size) + 1) for k in cell]
        expected[tuple(slice(max(low, 0), high + 1) for low, high in spans)] = True
    assert torch.equal(nodes_in_cells(occupied, resolution), expected)
    assert torch.equal(occupied, before)


CONFIG = FitConfig(samples_per_step=1024, occupancy_resolution=8)


@pytest.fixture
def views(soft_sphere: Any, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Four little pictures of the sphere, for short runs."""
    monkeypatch.setattr(fit, "WARMUP_STEPS", 2)
    monkeypatch.setattr(fit, "PROBE_RAYS", 64)
    cameras = orbit_box(CUBE, 4, width=16, height=16)
    pictures = [
        render_image(soft_sphere, camera, OccupancyGrid(8), 0.05, background=0.0) for camera in cameras
    ]
    rgba = torch.stack([torch.cat([p["colors"], p["opacities"][..., None]], dim=-1) for p in pictures])
    return Split(cameras, (255 * rgba).round().byte(), ("a", "b", "c", "d"))


def test_training_looks_at_the_total_variation_of_few_nodes(
    views: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, learned = [], []

    def spy(values: Tensor, grid: Any, first: int, last: int) -> Tensor:
        shares.append((last - first) / grid.n_active)
        return total_variation(values, grid, first, last)

    monkeypatch.setattr(voxels, "total_variation", spy)
    for weight in (0.0, 1e-4):
        field = make_field("voxels", aabb=CUBE, resolution=50, tv_weight=weight)
        fit_images(field, views, Budget(steps=20), CONFIG)
        learned.append(field.query_density(points(100, CUBE)))
    assert len(shares) == 2 * 20  # densities and colours, and none without a weight
    assert max(shares) < 1.01 / RUNS
    assert not torch.equal(*learned)


@pytest.mark.parametrize(("at", "tv_weight"), [(5, 0.0), (14, 0.1)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    views: Split, tmp_path: Path, at: int, tv_weight: float
) -> None:
    def run(**options: Any) -> Voxels:
        field = make_field("voxels", aabb=CUBE, resolution=50, tv_weight=tv_weight)
        assert isinstance(field, Voxels)
        fit_images(field, views, Budget(steps=20), CONFIG, **options)
        return field

    def interrupt(progress: Progress) -> None:
        if progress.step == at:
            signal.raise_signal(signal.SIGINT)

    whole, path = run(), tmp_path / "state"
    with pytest.raises(Interrupted):
        run(state_path=path, on_progress=interrupt)
    resumed = run(state_path=path, resume=True)
    assert whole.config() == resumed.config()
    assert whole.divisor == 1
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
