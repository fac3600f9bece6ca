"""Precomputed moments of a tensor model, put together again, are what the model predicts, at every place."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmorph.apps.tensor.explorer import MAX_STOPS, Explorer
from fieldmorph.apps.tensor.map_layers import MapLayers
from fieldmorph.apps.tensor.masks import GridMask, Mask
from fieldmorph.bayes.data.observations import Mode, Observations
from fieldmorph.bayes.experimental_design import where_next
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.errors import InputError, SettingError

pytestmark = pytest.mark.numerical

LONG = np.array([0.0, 0.25])
QUICK = FitConfig(ranks=(2,), restarts=1, sweeps=3, learn_every=0)


def model_of(*kinds: str, rows: int = 60) -> Posterior:
    """Fitted in three sweeps to noise at random coordinates in [0, 1) of modes of these kinds, of ranks 2."""
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(rows, len(kinds), generator=generator, dtype=torch.float64)
    values = torch.randn(rows, generator=generator, dtype=torch.float64)
    modes = tuple(Mode(f"x{k}", kind) for k, kind in enumerate(kinds))
    return fit(Observations(at, values, modes, "y", None, 0, 0, "test"), QUICK)[0]


@pytest.fixture(scope="module")
def explorer(tensor_model: Path) -> Explorer:
    return Explorer(load_posterior(tensor_model))


def test_modes_of_map_and_sliders_are_distinguished(explorer: Explorer) -> None:
    assert (explorer.across, explorer.up, explorer.sliders) == (1, 0, [2])
    assert explorer.ratio == pytest.approx(40 / 60, rel=0.02)
    up, across, time = explorer.stops
    assert (len(across), len(up)) == (160, 240)
    torch.testing.assert_close(time, explorer.posterior.processes[2].points)
    assert explorer.words(2)[0] == "2020-01-01"
    assert explorer.words(0)[0].endswith("°S")


def test_map_is_what_the_model_predicts_at_its_cells(explorer: Explorer) -> None:
    place = [3, 7, 20]
    found = explorer.map(place)
    assert found.mean.shape == (len(explorer.stops[0]), len(explorer.stops[1]))
    for up, across in ((0, 0), (17, 150), (len(explorer.stops[0]) - 1, 2)):
        there = explorer.posterior.predict(explorer.coordinates([up, across, 20])[None])
        torch.testing.assert_close(found.mean[up, across], there.mean[0])
        torch.testing.assert_close(found.latent_sd[up, across], there.latent_sd[0])
        torch.testing.assert_close(found.sd[up, across], there.sd[0])


@pytest.mark.parametrize(("quantity", "of"), [("mean", "mean"), ("sd", "latent_sd")])
def test_image_has_the_values_as_grey_with_the_last_row_first(
    explorer: Explorer, quantity: str, of: str
) -> None:
    place = [0, 0, 31]
    with Image.open(io.BytesIO(explorer.image(quantity, place))) as image:
        grey = np.asarray(image, dtype=np.float64)[::-1]
    low, high = explorer.limits[quantity]
    values = getattr(explorer.map(place), of).numpy()
    step = (high - low) / 255
    inside = (values > low) & (values < high)
    assert inside.mean() > 0.9
    np.testing.assert_allclose((low + step * grey)[inside], values[inside], atol=0.501 * step)
    assert quantity == "mean" or low == 0


def test_curve_is_what_the_model_predicts_along_a_mode(explorer: Explorer) -> None:
    place = [200, 10, 40]
    for mode in range(3):
        x, found = explorer.curve(place, mode)
        assert set(explorer.stops[mode].tolist()) <= set(x.tolist()) or mode != 2
        at = explorer.coordinates(place).repeat(len(x), 1)
        at[:, mode] = x
        there = explorer.posterior.predict(at)
        torch.testing.assert_close(found.mean, there.mean)
        torch.testing.assert_close(found.sd, there.sd)
        torch.testing.assert_close(found.interval(0.9), there.interval(0.9))


def test_picks_lie_on_this_map_and_are_more_informative_than_others(explorer: Explorer) -> None:
    place = [0, 0, 5]
    picks = explorer.where_next(place, 3)
    assert len(picks.places) == 3
    assert all(pick[2] == 5 for pick in picks.places)
    assert all(after < before for before, after in pairwise(picks.sd))
    whole = explorer.map(place).latent_sd
    assert picks.sd[0] == pytest.approx(float(whole.square().mean().sqrt()), rel=0.05)
    cells = torch.cartesian_prod(*(torch.arange(6, len(explorer.stops[k]), 12) for k in (0, 1))).tolist()
    others = torch.stack([explorer.coordinates([*cell, 5]) for cell in cells])
    first = explorer.coordinates(picks.places[0])[None]
    tried = [
        float(where_next(explorer.posterior, one, 1, references=others).variance[1])
        for one in (first, others[:1], others[len(others) // 2 :][:1])
    ]
    assert tried[0] == pytest.approx(picks.sd[1] ** 2, rel=0.1)
    assert tried[0] < min(tried[1:])


def test_further_modes_have_sliders_of_their_own() -> None:
    explorer = Explorer(model_of("number", "longitude", "time", "latitude"))
    assert (explorer.across, explorer.up, explorer.sliders) == (1, 3, [2, 0])
    place = [4, 9, 7, 30]
    found = explorer.map(place)
    there = explorer.posterior.predict(explorer.coordinates(place)[None])
    torch.testing.assert_close(found.mean[30, 9], there.mean[0])


def test_many_points_are_spread_over_fewer_stops() -> None:
    explorer = Explorer(model_of("number", "number", "number", rows=400))
    assert len(explorer.stops[2]) == MAX_STOPS
    points = explorer.posterior.processes[2].points
    assert explorer.stops[2][[0, -1]].tolist() == points[[0, -1]].tolist()


def test_two_modes_make_a_map_without_sliders() -> None:
    explorer = Explorer(model_of("number", "time"))
    assert (explorer.across, explorer.up, explorer.sliders) == (1, 0, [])
    assert explorer.map([0, 0]).mean.shape == tuple(len(stops) for stops in explorer.stops)


def test_one_mode_has_a_curve_alone() -> None:
    explorer = Explorer(model_of("number"))
    assert explorer.sliders == [0]
    x, found = explorer.curve([3], 0)
    torch.testing.assert_close(found.mean, explorer.posterior.predict(x[:, None]).mean)
    with pytest.raises(SettingError, match="no map"):
        explorer.image("mean", [3])


@pytest.mark.parametrize(
    "place", [None, "abc", [0, 0], [0, 0, 0, 0], [0, 0, -1], [0, 0, 10**9], [0, 0, 1.5], [0, True, 1]]
)
def test_what_is_no_place_is_refused(explorer: Explorer, place: object, unchecked: None) -> None:
    for call in (
        lambda: explorer.image("mean", place),
        lambda: explorer.curve(place, 0),
        lambda: explorer.where_next(place, 2),
    ):
        with pytest.raises(InputError, match="stops"):
            call()


def test_unknown_quantities_modes_and_counts_are_refused(explorer: Explorer, unchecked: None) -> None:
    place = explorer.middle()
    with pytest.raises(SettingError, match="unknown quantity 'latent_sd'; known: mean, sd"):
        explorer.image("latent_sd", place)
    for mode in (-1, 3, "time"):
        with pytest.raises(InputError, match="modes of the model: 0 to 2"):
            explorer.curve(place, mode)
    for n in (0, 13, 2.0):
        with pytest.raises(InputError, match="places to pick: 1 to 12"):
            explorer.where_next(place, n)


class Halves(Mask):
    """Keeps the western half of a map."""

    words = "the west"

    def keeps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.repeat(x[None] < 0, len(y), axis=0)


def test_mask_leaves_cells_out_of_images_limits_and_choices(tensor_model: Path) -> None:
    posterior = load_posterior(tensor_model)
    whole, west = Explorer(posterior), Explorer(posterior, MapLayers(Halves()))
    place = west.middle()
    assert west.kept is not None
    assert west.kept[place[0], place[1]]
    with Image.open(io.BytesIO(west.image("sd", place))) as image:
        assert image.mode == "LA"
        alpha = np.asarray(image)[::-1, :, 1]
    assert (alpha == 255 * west.kept).all()
    low, high = west.limits["mean"]
    values = torch.cat([west.map([0, 0, t]).mean[:, west.kept[0]] for t in range(0, 59, 7)])
    assert low <= float(values.quantile(0.02))
    assert high >= float(values.quantile(0.98))
    assert high < whole.limits["mean"][1]  # the mean grows to the east
    picks = west.where_next(place, 5)
    assert all(west.kept[pick[0], pick[1]] for pick in picks.places)
    assert any(not west.kept[pick[0], pick[1]] for pick in whole.where_next(place, 5).places)
    kept = west.map(place).latent_sd[torch.from_numpy(west.kept.copy())]
    assert picks.sd[0] == pytest.approx(float(kept.square().mean().sqrt()), rel=0.05)


def test_mask_that_leaves_too_little_is_refused(tensor_model: Path) -> None:
    posterior = load_posterior(tensor_model)
    with pytest.raises(SettingError, match="the mask m leaves no cell of the map"):
        Explorer(posterior, MapLayers(GridMask("m", np.zeros((2, 2), bool), LONG, LONG)))
    few = Explorer(posterior, MapLayers(GridMask("m", np.ones((2, 2), bool), LONG, LONG)))
    assert few.kept is not None
    n = int(few.kept.sum())
    with pytest.raises(SettingError, match=f"the mask m leaves {n} places to choose from"):
        few.where_next(few.middle(), n + 1)
