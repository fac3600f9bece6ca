"""Streaming updates: a fitted model's posterior is the prior for new measurements; the old ones are not needed.

The posterior of a mode's functions is their Gaussian process times exp(eta' f - f' lam f / 2), so messages of new rows
are added to the stored ones, and new coordinates begin without a message. Core and noise have their own posteriors as
priors (streaming variational Bayes; Broderick et al. 2013, arXiv 1307.6769).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.core import Factor
from fieldmorph.bayes.entries import merge_rows
from fieldmorph.bayes.inference import PriorMessage, State, place_moments, sweep, update_mode
from fieldmorph.bayes.kalman import Marginals
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.student_t import StudentTRows
from fieldmorph.fields.checks import check_nonnegative, check_whole
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.progress import OnSweep

NEW_POINT_ROUNDS = 5  # rounds over modes with new coordinates before all modes are updated
GAIN_WINDOW = 3  # sweeps over which the bound's gain is averaged


@dataclass(frozen=True)
class UpdateReport:
    """Course of an update.

    Attributes:
        bounds: evidence lower bound of the new rows given the old posterior after every sweep, in nats; it never
            decreases.
        converged: whether the update ended before the maximum number of sweeps.
    """

    bounds: tuple[float, ...]
    converged: bool


@torch.no_grad()
def update(
    posterior: Posterior,
    coordinates: Float[Tensor, "n modes"],
    values: Float[Tensor, "n"],
    *,
    weights: Float[Tensor, "n"] | None = None,
    sweeps: int = 50,
    tolerance: float = 5e-4,
    generator: torch.Generator | None = None,
    on_sweep: OnSweep = lambda _sweep, _bound: None,
) -> tuple[Posterior, UpdateReport]:
    """Return a model updated with new rows; the one given is not changed.

    Time and memory grow with the new rows and each mode's distinct coordinates, not with the old rows. Kernels, ranks,
    center, scale and a residual process stay those of the fit, and so do calibrated intervals, which hold for the
    fit's data. A row that the model has seen already counts again.

    Args:
        posterior: the model, of `fit` or of an earlier update.
        coordinates: float64, in the model's units (`Mode.parse`), inside or outside the range of the old ones.
        values: in the unit of the model's value.
        weights: of the rows, at least 0; a weight of 2 counts as two measurements of the same value.
        sweeps: maximum number of sweeps.
        tolerance: the update ends when a sweep gains less than this, in nats per row.
        generator: of the initial functions at new coordinates; by default one seeded with 0.
        on_sweep: called after each sweep with its number and the bound in nats.

    Raises:
        InputError: no rows, not one coordinate for each of the model's modes, or a value that is not finite.
        SettingError: less than one sweep, or a tolerance that is negative or not finite.
    """
    weights = torch.ones_like(values) if weights is None else weights
    check_whole("sweeps", sweeps)
    check_nonnegative("tolerance", tolerance)
    _check(posterior, coordinates, values, weights)
    counted = weights > 0
    generator = generator or torch.Generator().manual_seed(0)
    state = _begin(posterior, coordinates[counted], values[counted], weights[counted], generator)
    converged = False
    while len(state.bounds) < sweeps and not converged:
        on_sweep(len(state.bounds) + 1, sweep(state))
        if len(state.bounds) > GAIN_WINDOW:
            gain = (state.bounds[-1] - state.bounds[-1 - GAIN_WINDOW]) / GAIN_WINDOW
            converged = gain < tolerance * state.entries.n_rows
    rows, before = int(counted.sum()), posterior.provenance
    latest = {"rows": rows, "sweeps": len(state.bounds), "converged": converged}
    updates = {"rows": before.get("rows", 0) + rows, "updates": [*before.get("updates", []), latest]}
    learned = replace(
        posterior,
        processes=tuple(state.processes),
        core=state.core,
        noise=state.noise,
        provenance={**before, **updates},
    )
    return learned, UpdateReport(tuple(state.bounds), converged)


def _begin(
    posterior: Posterior, coordinates: Tensor, values: Tensor, weights: Tensor, generator: torch.Generator
) -> State:
    """Return the initial state of an update: the old posterior, with new coordinates fitted to the new rows first."""
    if posterior.residual is not None:
        values = values - posterior.residual.at(coordinates)[0]
    values, weights = (values.double() - posterior.shift) / posterior.scale, weights.double()
    known = [process.points for process in posterior.processes]
    entries, degrees = merge_rows(coordinates, values, weights, known), posterior.noise.degrees
    pairs = list(zip(posterior.processes, entries.points, strict=True))
    processes = [_joined(*pair) for pair in pairs]
    marginals = [process.marginals() for process in processes]
    state = State(
        entries,
        list(posterior.kernels),
        posterior.core.as_prior(),
        processes,
        [_drawn(*pair, found, generator) for pair, found in zip(pairs, marginals, strict=True)],
        posterior.noise,
        [
            PriorMessage(p.eta, p.lam, found.log_evidence)
            for p, found in zip(processes, marginals, strict=True)
        ],
        posterior.noise,
        None if degrees is None else StudentTRows(degrees, values, entries.rows, weights),
    )
    # Functions at new coordinates are updated first, with the noise set to the residual of the current fit; otherwise
    # well-determined functions would adapt to arbitrary initial values.
    new = [mode for mode, (process, points) in enumerate(pairs) if len(points) > len(process.points)]
    for _ in range(NEW_POINT_ROUNDS):
        mean, second = place_moments(state)
        loss = entries.squares - 2 * entries.total @ mean + entries.weight @ second
        state.noise = state.prior.given(entries.n_rows, float(loss))
        for mode in sorted(new, key=lambda k: len(known[k]) - len(entries.points[k])):
            update_mode(state, mode)
    return state


def _joined(process: Process, points: Tensor) -> Process:
    """Return a process with these points, which include its own; the others have no information."""
    r, old = process.eta.shape[1], torch.searchsorted(points, process.points)
    eta, lam = process.eta.new_zeros(len(points), r), process.lam.new_zeros(len(points), r, r)
    eta[old], lam[old] = process.eta, process.lam
    return Process(process.space, points, eta, lam)


def _drawn(process: Process, points: Tensor, found: Marginals, generator: torch.Generator) -> Factor:
    """Return moments of the process, with a draw at new points: zero means of two modes would be a saddle point."""
    mean, covariance = found.mean.clone(), found.covariance.clone()
    new = ~torch.isin(points, process.points)
    if new.any():
        mean[new], covariance[new] = process.sample(points[new], 1, generator)[0], 0.0
    return Factor.of(mean, covariance)


def _check(posterior: Posterior, coordinates: Tensor, values: Tensor, weights: Tensor) -> None:
    names = [mode.name for mode in posterior.modes]
    if coordinates.shape[1] != len(names):
        raise InputError(
            f"expected a coordinate for each of the modes {', '.join(names)}; got {coordinates.shape[1]} in each row"
        )
    columns = [*coordinates.unbind(1), values, weights]
    for name, column in zip([*names, posterior.value_name, "weight"], columns, strict=True):
        if not (finite := column.isfinite()).all():
            row = int(finite.int().argmin())
            raise InputError(f"{name}, row {row + 1}: expected a number, got {float(column[row])}")
    if not (weights > 0).any():
        raise InputError("an update needs rows; all weights are zero or there are none")
