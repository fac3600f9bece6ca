"""Fits with conformal prediction intervals, calibrated on held-out rows or blocks of rows.

The factorized posterior is overconfident. So a fraction of the data is held out, a model is fitted to the rest, and the
quantiles of the held-out residuals, in that model's standard deviations, become the half-widths of the intervals of the
final model, which is fitted to all rows.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.bayes.conformal import calibrate_intervals
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, FitReport, fit
from fieldmorph.bayes.posterior import Posterior, Prediction
from fieldmorph.bayes.residual_gp import ResidualConfig, fit_with_residual
from fieldmorph.fields.errors import SettingError, known
from fieldmorph.fields.progress import OnSweep

COMMON_LEVEL = 0.95  # of intervals; a warning says if fewer held-out rows guarantee less

Predict = Callable[[Float[Tensor, "n modes"]], Prediction]

log = logging.getLogger(__name__)


def fit_calibrated(
    observations: Observations,
    config: FitConfig | None = None,
    *,
    fraction: float = 0.2,
    rounds: int = 1,
    blocks: Int[Tensor, "n"] | None = None,
    weights: Float[Tensor, "n"] | None = None,
    kernels: Sequence[Kernel] | None = None,
    residual: ResidualConfig | None = None,
    on_sweep: OnSweep = lambda _sweep, _bound: None,
) -> tuple[Posterior, FitReport]:
    """Fit a model as `fit` or `fit_with_residual` does, and calibrate its intervals on held-out rows.

    Intervals hold for new blocks like those held out: with single rows as blocks for more rows like these, with all
    rows of a place as a block for new places. A level of 95 % needs 19 held-out blocks.

    Args:
        observations: the measurements, as `read_observations` returns them.
        config: settings of every fit.
        fraction: of the blocks that are held out at once, in (0, 1).
        rounds: number of disjoint parts of this size that are held out one after the other, each with its own fit.
        blocks: label of every row (see `blocks_of`); by default every row is a block.
        weights, kernels: as in `fit`.
        residual: settings of a residual process that is added to the model; None for none.
        on_sweep: called after each sweep of every fit with its number and the bound in nats.

    Returns:
        The posterior with calibrated intervals, and the course of the last fit.

    Raises:
        SettingError: a fraction that leaves no block to fit or to hold out, more rounds than there are parts, and what
            `fit` raises.
    """
    config = config or FitConfig()
    chosen = fit if residual is None else partial(fit_with_residual, residual=residual)

    def learn(rest: Observations, kept: Tensor) -> Predict:
        left = None if weights is None else weights[kept]
        return chosen(rest, config, weights=left, kernels=kernels, on_sweep=on_sweep)[0].predict

    scores, block = held_out_scores(
        observations, learn, fraction=fraction, rounds=rounds, blocks=blocks, seed=config.seed
    )
    held = ~scores.isnan() if weights is None else ~scores.isnan() & (weights > 0)
    intervals = calibrate_intervals(scores[held], block[held])
    n_blocks = len(block[held].unique())
    if intervals.guaranteed < COMMON_LEVEL:
        log.warning(
            "%d held-out %s guarantee intervals only up to %.0f %%; hold out a larger fraction or use more rounds",
            n_blocks,
            "rows" if blocks is None else "blocks",
            100 * intervals.guaranteed,
        )
    posterior, report = chosen(observations, config, weights=weights, kernels=kernels, on_sweep=on_sweep)
    calibration = {"share": fraction, "rounds": rounds, "rows": int(held.sum()), "blocks": n_blocks}
    provenance = {**posterior.provenance, "calibration": calibration}
    return replace(posterior, intervals=intervals, provenance=provenance), report


def held_out_scores(
    observations: Observations,
    learn: Callable[[Observations, Bool[Tensor, "n"]], Predict],
    *,
    fraction: float = 0.2,
    rounds: int = 1,
    blocks: Int[Tensor, "n"] | None = None,
    seed: int = 0,
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """Return held-out rows' absolute residuals in standard deviations, and each row's block (`calibrate_intervals`).

    Rows that are never held out have NaN. The other arguments and the errors are those of `fit_calibrated`.

    Args:
        learn: fits any model to these rows, also given as a mask over all rows, and returns its predictions.
        seed: of the draw of the held-out blocks.
    """
    n = len(observations.values)
    _, block = (torch.arange(n) if blocks is None else blocks).unique(return_inverse=True)
    scores = observations.values.new_full((n,), torch.nan)
    for part in _parts(int(block.max()) + 1, fraction, rounds, seed):
        held = torch.isin(block, part)
        found = learn(_rows(observations, ~held), ~held)(observations.coordinates[held])
        scores[held] = (observations.values[held] - found.mean).abs() / found.sd
    return scores, block


def blocks_of(observations: Observations, widths: Mapping[str, float]) -> Int[Tensor, "n"]:
    """Return block labels of the rows; rows of a block agree in every mode that is named.

    Args:
        observations: the measurements, as `read_observations` returns them.
        widths: for each of these modes the width of an interval that counts as equal, in the mode's unit (seconds for
            times); 0 for equal coordinates. `{"lat": 0, "lon": 0, "year": 10}` is each decade of each place.

    Raises:
        SettingError: no mode, an unknown one, or a negative width.
    """
    names = [mode.name for mode in observations.modes]
    columns = []
    for name, width in widths.items():
        if name not in names:
            raise known("mode", name, names)
        if not 0 <= width < float("inf"):
            raise SettingError(f"the block width in {name} must be at least 0; got {width!r}")
        column = observations.coordinates[:, names.index(name)]
        columns.append((column / width).floor() if width else column)
    if not columns:
        raise SettingError(f"blocks need at least one mode; known: {', '.join(names)}")
    labels: Tensor = torch.stack(columns, dim=1).unique(dim=0, return_inverse=True)[1]
    return labels


def _parts(n: int, fraction: float, rounds: int, seed: int) -> tuple[Tensor, ...]:
    """Return disjoint random parts of n blocks."""
    size = round(fraction * n)
    if not 0 < fraction < 1 or not 0 < size < n:
        raise SettingError(f"a fraction of {fraction!r} of {n} blocks cannot be held out")
    if type(rounds) is not int or not 1 <= rounds <= -(-n // size):
        raise SettingError(
            f"{rounds!r} disjoint parts with a fraction of {fraction!r} each cannot be held out"
        )
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    parts: tuple[Tensor, ...] = drawn.split(size)
    return parts[:rounds]


def _rows(observations: Observations, chosen: Tensor) -> Observations:
    return replace(
        observations, coordinates=observations.coordinates[chosen], values=observations.values[chosen]
    )
