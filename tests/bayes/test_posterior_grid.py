"""Predictions on a grid are those at its cells."""

import pytest
import torch

from fieldmorph.bayes.entries import merge_rows
from fieldmorph.bayes.hyperparameters import default_kernel
from fieldmorph.bayes.inference import begin, sweep
from fieldmorph.bayes.posterior import Posterior

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("ranks", [(2, 3), (2, 3, 2)])
@pytest.mark.parametrize("cp", [False, True])
def test_grid_is_prediction_at_its_cells(
    ranks: tuple[int, ...], cp: bool, generator: torch.Generator
) -> None:
    ranks = (2,) * len(ranks) if cp else ranks
    coordinates = torch.rand(60, len(ranks), generator=generator, dtype=torch.float64)
    values = (3 * coordinates).sin().sum(1) + 0.1 * torch.randn(60, generator=generator, dtype=torch.float64)
    entries = merge_rows(coordinates, values)
    kernels = [default_kernel("matern32", points) for points in entries.points]
    state = begin(entries, kernels, ranks, generator, cp)
    for _ in range(5):
        sweep(state)
    posterior = Posterior(
        (), "y", None, tuple(kernels), tuple(state.processes), state.core, state.noise, 2.0, 3.0
    )
    axes = [
        torch.rand(n, generator=generator, dtype=torch.float64) * 2 - 0.5 for n in (4, 3, 5)[: len(ranks)]
    ]
    on_grid = posterior.predict_grid(posterior.factors(axes))
    cells = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    at_cells = posterior.predict(cells)
    assert on_grid.mean.shape == tuple(map(len, axes))
    for name in ("mean", "latent_sd", "sd"):
        torch.testing.assert_close(
            getattr(on_grid, name).flatten(), getattr(at_cells, name), rtol=1e-9, atol=1e-9
        )
