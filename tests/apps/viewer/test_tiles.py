import io
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.view_fields import ball_field, request_of
from PIL import Image

from fieldmorph.apps.media import to_8bit
from fieldmorph.apps.viewer.tiles import (
    MAX_PIXELS,
    TILE_SECONDS,
    TILE_SIDES,
    RayCostEstimator,
    Tile,
    View,
    check_distance,
    read_messages,
    read_view,
    render_tile,
    text_message,
    tile_message,
    tiles,
)
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import resize
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField

STORED = ball_field()


def full_occupancy() -> OccupancyGrid:
    occupancy = OccupancyGrid(8)
    occupancy.occupied = torch.ones(8, 8, 8, dtype=torch.bool)
    return occupancy


CAMERA = resize(STORED.cameras[0], 50, 37)


def body(**others: Any) -> dict[str, Any]:
    return {**request_of(CAMERA), **others}


def test_tiles_of_a_view_make_the_image_that_the_renderer_makes() -> None:
    view = read_view(body(background=0.0))
    found = np.zeros((37, 50, 3), np.uint8)
    for tile in tiles(50, 37, 16):
        found[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = render_tile(STORED, view, tile)
    expected = to_8bit(STORED.render(CAMERA, background=0.0)["colors"])
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert expected.max() > 100


def test_a_quick_image_takes_coarser_steps_and_looks_alike() -> None:
    view, whole, stored = read_view(body()), Tile(0, 0, 50, 37), replace(STORED, render_step_size=0.01)
    fine, quick = render_tile(stored, view, whole), render_tile(stored, replace(view, quick=True), whole)
    assert not np.array_equal(fine, quick)
    assert np.abs(fine.astype(int) - quick).mean() < 6


def test_a_quick_image_leaves_low_density_out_and_takes_less_work(soft_sphere: VolumeField) -> None:
    """An optical depth of 5e-4 a step around a ball: only the ball's samples get a color."""
    colored = []

    def log_density(positions: torch.Tensor) -> torch.Tensor:
        return torch.logaddexp(dense(positions), torch.tensor(5e-4 / 0.02).log())

    def radiance(features: torch.Tensor, positions: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        colored.append(len(positions))
        return shade(features, positions, directions)

    field: Any = soft_sphere
    dense, shade = field.log_density, field.radiance
    field.log_density, field.radiance = log_density, radiance
    stored = RenderableField(field, full_occupancy(), 0.02, STORED.cameras, {})
    view, whole = read_view(body()), Tile(0, 0, 50, 37)
    fine, n_fine = render_tile(stored, view, whole), sum(colored)
    quick, n_quick = render_tile(stored, replace(view, quick=True), whole), sum(colored) - n_fine
    assert n_quick < 0.5 * n_fine
    assert np.abs(fine.astype(int) - quick).mean() < 12


@pytest.mark.parametrize("width", [1, 31, 64])
@pytest.mark.parametrize("side", [8, 24, 64])
def test_tiles_cover_every_pixel_once_and_begin_in_the_middle(width: int, side: int) -> None:
    cut = tiles(width, 50, side)
    seen = np.zeros((50, width), int)
    for tile in cut:
        seen[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
    assert (seen == 1).all()
    away = [abs(t.x + t.width / 2 - width / 2) + abs(t.y + t.height / 2 - 25) for t in (cut[0], cut[-1])]
    assert away[0] <= away[1]
    assert max(max(t.width, t.height) for t in cut) <= side
    assert min(t.width for t in cut) >= min(side / 2, width)  # no slivers


def test_tiles_of_a_span_cover_its_columns_alone() -> None:
    columns = {x for t in tiles(40, 10, 8, (13, 29)) for x in range(t.x, t.x + t.width)}
    assert columns == set(range(13, 29))
    assert tiles(40, 10, 8, (20, 20)) == []


def test_a_tile_s_size_follows_from_what_rays_cost() -> None:
    ray_cost = RayCostEstimator()
    for seconds_per_ray in (1e-4, 1e-6, 1e-1, 1e-4):
        for _ in range(500):
            ray_cost.update(seconds_per_ray * ray_cost.tile_side() ** 2, n_rays=ray_cost.tile_side() ** 2)
        assert ray_cost.tile_side() == np.clip(np.sqrt(TILE_SECONDS / seconds_per_ray), *TILE_SIDES) // 8 * 8


def test_a_tile_s_own_cost_and_the_first_of_all_do_not_make_tiles_small() -> None:
    ray_cost = RayCostEstimator()
    for _ in range(50):
        ray_cost.update(seconds=2e-3, n_rays=4)  # slivers: what a tile costs, however few its rays
    assert ray_cost.tile_side() >= 24
    ray_cost = RayCostEstimator()
    ray_cost.update(seconds=10.0, n_rays=ray_cost.tile_side() ** 2)  # it compiled
    assert ray_cost.tile_side() >= 16


def test_an_empty_border_does_not_make_the_tiles_of_the_middle_large() -> None:
    ray_cost = RayCostEstimator()
    for turn in range(20):
        for seconds_per_ray in (1e-3, 1e-3, *[1e-6] * 20):
            ray_cost.update(seconds_per_ray * ray_cost.tile_side() ** 2, n_rays=ray_cost.tile_side() ** 2)
        assert turn == 0 or ray_cost.tile_side() ** 2 * 1e-3 < 4 * TILE_SECONDS


def test_messages_come_back_as_they_were_sent() -> None:
    pixels = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(5, 6, 3)
    sent = tile_message(1, Tile(300, 200, 6, 5), pixels) + text_message("ça ne va pas")
    (which, tile, png), (marker, _, text) = read_messages(sent)
    assert (which, tile) == (1, Tile(300, 200, 6, 5))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels)
    assert (marker, text.decode()) == (0xFFFF, "ça ne va pas")


BAD = {
    "no width": {"width": None},
    "a width of half a pixel": {"width": 49.5},
    "true": {"width": True},
    "nothing wide": {"width": 0},
    "negative": {"height": -3},
    "too large": {"width": 1 << 12, "height": 1 + (MAX_PIXELS >> 12)},
    "an axis of two numbers": {"right": [1, 0]},
    "an axis that is a text": {"right": "abc"},
    "an axis that is nan": {"down": [float("nan"), 0, 0]},
    "a number without end": {"eye": [float("inf"), 0, 0]},
    "a huge whole number": {"eye": [10**400, 0, 0]},
    "axes that are not at right angles": {"right": [0, 0, 1], "down": [0, 0, 1], "forward": [0, 0, 1]},
    "a long axis": {"right": [2, 0, 0]},
    "no focal length": {"intrinsics": [0, 0, 10, 10]},
    "a background out of range": {"background": 2},
    "a background that is a list": {"background": [1]},
    "spans that are no pairs": {"spans": [[0]]},
    "spans that are a number": {"spans": 3},
}


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD)
def test_a_bad_view_is_refused_in_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as caught:
        read_view(body(**wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["width", "eye", "forward", "intrinsics"])
def test_a_view_lacks_nothing(name: str) -> None:
    with pytest.raises(SettingError, match="a view has"):
        read_view({key: value for key, value in body().items() if key != name})


def test_a_camera_far_away_is_refused() -> None:
    check_distance(read_view(body()), STORED)
    with pytest.raises(SettingError, match="lengths away"):
        check_distance(read_view(body(eye=[1e4, 0, 0])), STORED)


def test_a_file_s_step_cannot_exceed_the_maximum_of_samples() -> None:
    """A damaged or hostile file may state a step a thousand times too fine."""
    fine = replace(STORED, render_step_size=STORED.field.extent / (1 << 16))
    queried = []

    def density(positions: torch.Tensor) -> torch.Tensor:
        queried.append(len(positions))
        return type(STORED.field).query_density(STORED.field, positions)

    fine.field.query_density = density  # type: ignore[method-assign]
    try:
        render_tile(fine, View(CAMERA), Tile(20, 15, 8, 8))
    finally:
        del fine.field.query_density
    assert 0 < sum(queried) <= 64 * 1024 * 2


def test_spans_are_fractions_of_the_width() -> None:
    assert read_view(body(spans=[[0, 0.5], [0.5, 7]])).spans == ((0, 25), (25, 50))
    assert all(a <= b for a, b in itertools.pairwise(sum(read_view(body(spans=[[0, 0.3]])).spans, ())))
