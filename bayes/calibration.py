"""Fitting with intervals that are calibrated on rows, or whole blocks of rows, which were held out.

The factorised posterior is sure of too much. So a share of the data is held out, a model fitted to the rest says how
large residuals are in its own standard deviations, and the final model, fitted to everything, takes over these factors.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.bayes.conformal import conformal
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, FitReport, OnSweep, fit
from fieldmorph.bayes.posterior import Posterior, Prediction
from fieldmorph.bayes.residual_gp import ResidualConfig, fit_with_residual
from fieldmorph.fields.errors import SettingError, known

USUAL_LEVEL = 0.95

Predict = Callable[[Float[Tensor, "n modes"]], Prediction]

log = logging.getLogger(__name__)


def fit_calibrated(
    observations: Observations,
    config: FitConfig | None = None,
    *,
    share: float = 0.2,
    rounds: int = 1,
    blocks: Int[Tensor, "n"] | None = None,
    weights: Float[Tensor, "n"] | None = None,
    kernels: Sequence[Kernel] | None = None,
    residual: ResidualConfig | None = None,
    on_sweep: OnSweep = lambda _sweep, _bound: None,
) -> tuple[Posterior, FitReport]:
    """What `fit`, or `fit_with_residual`, returns, with calibrated intervals.

    Blocks decide what "new" means: with every row by itself intervals hold for more rows like these, with whole
    places held out for new places. A level of 95 % needs 19 of them held out.

    Args:
        share: of the blocks that is held out at once.
        rounds: parts of this size that are held out one after the other, each with a fit of its own.
        blocks: a label for every row (see `blocks_of`); by default rows are held out one by one.
        residual: settings of a residual process beside the model; without them there is none.

    Raises:
        SettingError: a share that leaves no block to fit or to hold out, more rounds than there are parts, and what
            `fit` raises.
    """
    config = config or FitConfig()
    chosen = fit if residual is None else partial(fit_with_residual, residual=residual)

    def learn(rest: Observations, kept: Tensor) -> Predict:
        left = None if weights is None else weights[kept]
        return chosen(rest, config, weights=left, kernels=kernels, on_sweep=on_sweep)[0].predict

    scores, block = held_out_scores(
        observations, learn, share=share, rounds=rounds, blocks=blocks, seed=config.seed
    )
    held = ~scores.isnan() if weights is None else ~scores.isnan() & (weights > 0)
    intervals = conformal(scores[held], block[held])
    n_blocks = len(block[held].unique())
    if intervals.guaranteed < USUAL_LEVEL:
        log.warning(
            "%d held-out %s guarantee intervals up to %.0f %% only; hold out more, or in more rounds",
            n_blocks, "rows" if blocks is None else "blocks", 100 * intervals.guaranteed,
        )  # fmt: skip
    posterior, report = chosen(observations, config, weights=weights, kernels=kernels, on_sweep=on_sweep)
    calibration = {"share": share, "rounds": rounds, "rows": int(held.sum()), "blocks": n_blocks}
    provenance = {**posterior.provenance, "calibration": calibration}
    return replace(posterior, intervals=intervals, provenance=provenance), report


def held_out_scores(
    observations: Observations,
    learn: Callable[[Observations, Bool[Tensor, "n"]], Predict],
    *,
    share: float = 0.2,
    rounds: int = 1,
    blocks: Int[Tensor, "n"] | None = None,
    seed: int = 0,
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """What `conformal` takes, of any model: absolute residuals in standard deviations, and each row's block.

    Rows that are never held out have NaN. Settings and errors are `fit_calibrated`'s.

    Args:
        learn: what predicts after having seen these rows; they are also given as a mask over all.
    """
    n = len(observations.values)
    _, block = (torch.arange(n) if blocks is None else blocks).unique(return_inverse=True)
    scores = observations.values.new_full((n,), torch.nan)
    for part in _parts(int(block.max()) + 1, share, rounds, seed):
        held = torch.isin(block, part)
        found = learn(_rows(observations, ~held), ~held)(observations.coordinates[held])
        scores[held] = (observations.values[held] - found.mean).abs() / found.sd
    return scores, block


def blocks_of(observations: Observations, widths: Mapping[str, float]) -> Int[Tensor, "n"]:
    """Labels of rows that belong together: alike in every mode that is named.

    Args:
        widths: for each of these modes how long an interval of it is one block (times are in seconds); 0 where each
            coordinate is one. `{"lat": 0, "lon": 0, "year": 10}`: each decade of each place.

    Raises:
        SettingError: no mode, an unknown one, or a negative width.
    """
    names = [mode.name for mode in observations.modes]
    columns = []
    for name, width in widths.items():
        if name not in names:
            raise known("mode", name, names)
        if not 0 <= width < float("inf"):
            raise SettingError(f"a block's width in {name} must be at least 0; got {width!r}")
        column = observations.coordinates[:, names.index(name)]
        columns.append((column / width).floor() if width else column)
    if not columns:
        raise SettingError(f"blocks need a mode; known: {', '.join(names)}")
    return torch.stack(columns, dim=1).unique(dim=0, return_inverse=True)[1]


def _parts(n: int, share: float, rounds: int, seed: int) -> tuple[Tensor, ...]:
    """Disjoint random parts of n blocks."""
    size = round(share * n)
    if not 0 < share < 1 or not 0 < size < n:
        raise SettingError(f"a share of {share!r} of {n} blocks cannot be held out")
    if type(rounds) is not int or not 1 <= rounds <= -(-n // size):
        raise SettingError(f"{rounds!r} parts of a share of {share!r} cannot be held out one after the other")
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return drawn.split(size)[:rounds]


def _rows(observations: Observations, chosen: Tensor) -> Observations:
    return replace(
        observations, coordinates=observations.coordinates[chosen], values=observations.values[chosen]
    )
