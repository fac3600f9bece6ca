"""Other packages' methods learn a smooth function of three coordinates from measurements, in any units."""

import importlib.util
import math
from dataclasses import replace

import pytest
import torch
from helpers.defaults import Defaults

from fieldmorph.apps.bench.tensor_baselines import BASELINES, Method, Sizes, parafac
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations

SIZES = Defaults(Sizes)
UNITS = torch.tensor([1.0, 1e3, 1e8]).double()
HERE = [name for name, method in BASELINES.items() if method.missing() is None]


def measured(n: int, generator: torch.Generator) -> Observations:
    """Products of two waves and a line, around 50 with a deviation of 5 or so, and noise of 1."""
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64).round(decimals=1)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    values = 50 + 10 * (3 * x[:, 0]).sin() * (3 * x[:, 1]).cos() * (1 + x[:, 2]) + noise
    return Observations(x * UNITS, values, tuple(map(Mode, "abc")), "y", None, 0, 0, "test")


@pytest.mark.parametrize("name", HERE)
def test_baselines_learn(name: str, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    for size, value in {"inducing": 64, "epochs": 30, "batch": 100, "trees": 100}.items():
        monkeypatch.setattr(SIZES, size, value)
    train, test = measured(700, generator), measured(100, generator)
    predict = BASELINES[name].learn(train, None)
    found = predict(test.coordinates)
    error = found.mean - test.values
    assert float(error.square().mean().sqrt()) < 0.6 * float(test.values.std())
    again = predict(test.coordinates.flip(0)).mean.flip(0)
    assert torch.allclose(again, found.mean)
    if BASELINES[name].spread:
        inside = (error.abs() < 1.96 * found.sd).double().mean()
        assert float(inside) > 0.85
        assert float(found.sd.mean()) < 0.7 * float(test.values.std())
        assert (found.sd > found.latent_sd).all()
    else:
        assert (found.sd == 1).all()
        assert (found.latent_sd == 0).all()


@pytest.mark.parametrize("name", HERE)
def test_a_few_rows_are_enough_to_try(
    name: str, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(SIZES, "epochs", 1)
    monkeypatch.setattr(SIZES, "trees", 2)
    few = measured(5, generator)
    assert BASELINES[name].learn(few, None)(few.coordinates).mean.isfinite().all()


@pytest.mark.skipif("parafac" not in HERE, reason="needs tensorly")
@pytest.mark.parametrize("cells", [1 << 20, 200])
def test_a_tensor_is_binned_when_it_is_too_large(
    cells: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(SIZES, "cells", cells)
    grid = torch.cartesian_prod(*[torch.arange(n).double() for n in (3, 12, 10)])
    values = (grid[:, 0] + 1) * (grid[:, 1] / 3).sin() * (1 + grid[:, 2])
    # With noise, for the normal equations of a tensor of rank 1 are singular but for what rounding leaves.
    values = values + 0.01 * torch.randn(len(values), generator=generator, dtype=torch.float64)
    rows = Observations(grid * UNITS, values, tuple(map(Mode, "abc")), "y", None, 0, 0, "test")
    off = parafac(rows)(rows.coordinates).mean - values
    exact = math.prod((3, 12, 10)) <= cells
    assert (float(off.abs().max()) < 0.2) == exact
    assert float(off.std() / values.std()) < 0.4
    outside = parafac(rows)(torch.tensor([[-9.0, 1e9, 0.0]]).double())
    assert outside.mean.isfinite().all()


def test_tuned_neighbours_find_what_matters(generator: torch.Generator) -> None:
    """Values depend on the second mode alone: neighbours are looked for along it."""
    train, test = measured(400, generator), measured(100, generator)
    train, test = (replace(rows, values=(rows.coordinates[:, 1] / 300).sin()) for rows in (train, test))
    plain, tuned = (BASELINES[name].learn(train, None)(test.coordinates) for name in ("kNN", "kNN-tuned"))
    off = [float((found.mean - test.values).square().mean().sqrt()) for found in (plain, tuned)]
    assert off[1] < 0.3 * off[0]


def test_a_package_that_is_not_there_is_named() -> None:
    assert (
        Method(BASELINES["kNN"].learn, "no_such_package_here").missing()
        == "no_such_package_here is not installed"
    )
    assert BASELINES["kNN"].missing() is None
    assert ("LightGBM" in HERE) == (importlib.util.find_spec("lightgbm") is not None)
