"""A posterior as a scene."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fieldmorph.bayes.as_field import as_field
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.distill.conversion import convert
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.store import load_field, save_field

pytestmark = pytest.mark.numerical


def hill(coordinates: Tensor) -> Tensor:
    """Highest at (12, -1, 300), in boxes of very different units."""
    x, y, z = ((coordinates - torch.tensor([12.0, -1.0, 300.0])) / torch.tensor([8.0, 2.0, 400.0])).unbind(1)
    return 5 + 10 * torch.exp(-4 * (x.square() + y.square() + z.square()))


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(1500, 3, generator=generator, dtype=torch.float64)
    at = (40 * unit).round() / 40 * torch.tensor([20.0, 6.0, 1000.0]) + torch.tensor([0.0, -4.0, 0.0])
    values = hill(at) + 0.05 * torch.randn(1500, generator=generator, dtype=torch.float64)
    modes = tuple(Mode(name, "number") for name in ("depth", "salt", "day"))
    fitted, _ = fit(
        Observations(at, values, modes, "heat", "K", 0, 0, ""),
        FitConfig(ranks=(2,), kernels=("matern52",), centre=False, restarts=1, sweeps=30),
    )
    return fitted


def test_density_and_colour_are_the_posterior_s(posterior: Posterior) -> None:
    stored = as_field(posterior, low=5.0, high=15.0, nodes=64)
    generator = torch.Generator().manual_seed(1)
    unit = torch.rand(3000, 3, generator=generator)
    at = (unit * torch.tensor([20.0, 6.0, 1000.0]) + torch.tensor([0.0, -4.0, 0.0])).double()
    fraction = ((posterior.predict(at).mean - 5) / 10).clamp(0, 1).float()
    rgb, sigma = stored.field(2 * unit - 1, torch.tensor([0.0, 0.0, 1.0]).expand(3000, 3))
    shown = fraction > 0.15
    assert shown.sum() > 200
    density = 12 * fraction[shown].square() / stored.field.extent
    assert ((sigma[shown] - density).abs() / density).median() < 0.03
    assert sigma[fraction < 0.03].max() < 0.1 * sigma.max()
    high, low = fraction > 0.8, (fraction > 0.1) & (fraction < 0.2)
    assert (rgb[high, 0] > rgb[high, 2]).all()  # viridis: yellow on top
    assert (rgb[low, 2] > rgb[low, 0]).all()


def test_it_is_saved_rendered_and_converted_like_any_scene(posterior: Posterior, tmp_path: Path) -> None:
    stored = as_field(posterior, nodes=32)
    save_field(tmp_path / "scene.fm", stored)
    loaded = load_field(tmp_path / "scene.fm")
    shot = loaded.render(loaded.cameras[0])["colors"]
    assert 0.02 < float((shot < 0.95).any(-1).float().mean()) < 0.9
    assert loaded.provenance["modes"] == ["depth", "salt", "day"]
    _, report = convert(
        loaded, make_field("voxels", aabb=loaded.field.box(), resolution=32), Budget(steps=20)
    )
    assert report.loop.psnr > 25


def test_uncertainty_is_shown_where_nothing_was_measured(posterior: Posterior) -> None:
    wide = [(-20.0, 20.0), (-4.0, 2.0), (0.0, 1000.0)]
    field = as_field(posterior, "sd", nodes=32, ranges=wide).field
    far, near = torch.tensor([[-0.9, 0.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.0]])
    assert field.query_density(far) > 4 * field.query_density(near)


def test_what_is_shown_is_the_function_s_from_its_median_to_its_highest(posterior: Posterior) -> None:
    ends = [(float(p.points[0]), float(p.points[-1])) for p in posterior.processes]
    axes = [torch.linspace(*end, 12, dtype=torch.float64) for end in ends]
    found = posterior.predict_grid(posterior.factors(axes))
    for quantity, values in (("mean", found.mean), ("sd", found.latent_sd)):
        reported = as_field(posterior, quantity, nodes=12).provenance
        expected = [float(values.median()), float(values.max())]
        assert [reported["low"], reported["high"]] == pytest.approx(expected)


def test_what_cannot_be_shown_is_said_in_a_line(posterior: Posterior) -> None:
    for settings, reported in (
        ({"quantity": "tea"}, "'tea'; known: mean, sd"),
        ({"colormap": "tea"}, "unknown matplotlib colormap 'tea'"),
        ({"low": 3.0, "high": 2.0}, "low must be less than high; got 3 and 2"),
        ({"ranges": [(0.0, 0.0)] * 3}, "from a lower to a higher coordinate"),
    ):
        with pytest.raises(SettingError, match=reported):
            as_field(posterior, nodes=16, **settings)
    with pytest.raises(InputError, match="nothing of the posterior is above 90"):
        as_field(posterior, nodes=16, low=90.0, high=99.0)
