"""New measurements for a fitted model, without those it was fitted to: what it knows is the prior of what it learns.

The posterior of a mode's functions is their Gaussian process times exp(eta' f - f' lam f / 2), so that messages of new
rows add to those that are kept, and coordinates not seen before join with none. Core and noise go on from their own
posteriors (streaming variational Bayes; Broderick et al. 2013, arXiv 1307.6769).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.checks import check_tolerance, check_whole
from fieldmorph.bayes.core import Factor
from fieldmorph.bayes.entries import merge_rows
from fieldmorph.bayes.inference import Earlier, State, inform, place_moments, sweep
from fieldmorph.bayes.kalman import Marginals
from fieldmorph.bayes.markov_gp import Process
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.student_t import Tails
from fieldmorph.fields.errors import InputError

FIRST_LOOKS = 5  # rounds over modes with new coordinates, before all others learn as well
LOOK_BACK = 3  # sweeps over which the bound's gain is averaged


@dataclass(frozen=True)
class UpdateReport:
    """How an update went.

    Attributes:
        bounds: evidence lower bound in nats after every sweep, of the new rows given what was known; it never falls.
        converged: whether it stopped before the most sweeps.
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
    on_sweep: Callable[[int, float], None] = lambda _sweep, _bound: None,
) -> tuple[Posterior, UpdateReport]:
    """A model that knows these rows as well; the one given stays as it is.

    Time and memory go with the new rows and each mode's distinct coordinates, not with the rows before. Kernels,
    ranks, centre, scale and a residual process stay those of the fit, and so do calibrated intervals: it is for the
    fit's data that they hold. A row that the model has seen already counts again.

    Args:
        coordinates: as the model counts them, in any order: inside, between or outside those it knows.
        weights: of the rows, at least 0: a weight of 2 is two measurements of this value.
        sweeps: at most.
        tolerance: nats for each row and sweep; with less gain the update is done.
        generator: of the draws that functions at new coordinates begin with; by default one seeded with 0.

    Raises:
        InputError: no rows, other modes than the model's, or what is not finite.
        SettingError: less than one sweep, or a tolerance that is negative or not finite.
    """
    weights = torch.ones_like(values) if weights is None else weights
    check_whole("sweeps", sweeps)
    check_tolerance("tolerance", tolerance)
    _check(posterior, coordinates, values, weights)
    counted = weights > 0
    generator = generator or torch.Generator().manual_seed(0)
    state = _begin(posterior, coordinates[counted], values[counted], weights[counted], generator)
    converged = False
    while len(state.bounds) < sweeps and not converged:
        on_sweep(len(state.bounds) + 1, sweep(state))
        if len(state.bounds) > LOOK_BACK:
            gain = (state.bounds[-1] - state.bounds[-1 - LOOK_BACK]) / LOOK_BACK
            converged = gain < tolerance * state.entries.n_rows
    rows, before = int(counted.sum()), posterior.provenance
    told = {"rows": rows, "sweeps": len(state.bounds), "converged": converged}
    updates = {"rows": before.get("rows", 0) + rows, "updates": [*before.get("updates", []), told]}
    learned = replace(
        posterior, processes=tuple(state.processes), core=state.core, noise=state.noise,
        provenance={**before, **updates},
    )  # fmt: skip
    return learned, UpdateReport(tuple(state.bounds), converged)


def _begin(
    posterior: Posterior, coordinates: Tensor, values: Tensor, weights: Tensor, generator: torch.Generator
) -> State:
    """What is known, with new coordinates among the points, and a first impression of the new rows."""
    if posterior.residual is not None:
        values = values - posterior.residual.at(coordinates)[0]
    values, weights = (values.double() - posterior.shift) / posterior.scale, weights.double()
    known = [process.points for process in posterior.processes]
    entries, degrees = merge_rows(coordinates, values, weights, known), posterior.noise.degrees
    pairs = list(zip(posterior.processes, entries.points, strict=True))
    processes = [_joined(*pair) for pair in pairs]
    marginals = [process.marginals() for process in processes]
    state = State(
        entries, list(posterior.kernels), posterior.core.carried_on(), processes,
        [_drawn(*pair, found, generator) for pair, found in zip(pairs, marginals, strict=True)], posterior.noise,
        [Earlier(p.eta, p.lam, found.log_evidence) for p, found in zip(processes, marginals, strict=True)],
        posterior.noise,
        None if degrees is None else Tails(degrees, values, entries.rows, weights),
    )  # fmt: skip
    # What is known well must not bend to functions of which nothing is known: these learn first, and noise is as large
    # as what they leave unexplained.
    new = [mode for mode, (process, points) in enumerate(pairs) if len(points) > len(process.points)]
    for _ in range(FIRST_LOOKS):
        mean, second = place_moments(state)
        loss = entries.squares - 2 * entries.total @ mean + entries.weight @ second
        state.noise = state.prior.given(entries.n_rows, float(loss))
        for mode in sorted(new, key=lambda k: len(known[k]) - len(entries.points[k])):
            inform(state, mode)
    return state


def _joined(process: Process, points: Tensor) -> Process:
    """The same knowledge, with points among its own of which nothing is known."""
    r, old = process.eta.shape[1], torch.searchsorted(points, process.points)
    eta, lam = process.eta.new_zeros(len(points), r), process.lam.new_zeros(len(points), r, r)
    eta[old], lam[old] = process.eta, process.lam
    return Process(process.space, points, eta, lam)


def _drawn(process: Process, points: Tensor, found: Marginals, generator: torch.Generator) -> Factor:
    """Moments of what is known, and a draw at new points: where two modes are unknown, both means are a saddle."""
    mean, covariance = found.mean.clone(), found.covariance.clone()
    new = ~torch.isin(points, process.points)
    if new.any():
        mean[new], covariance[new] = process.sample(points[new], 1, generator)[0], 0.0
    return Factor.of(mean, covariance)


def _check(posterior: Posterior, coordinates: Tensor, values: Tensor, weights: Tensor) -> None:
    names = [mode.name for mode in posterior.modes]
    if coordinates.shape[1] != len(names):
        raise InputError(
            f"the model has the modes {', '.join(names)}; got {coordinates.shape[1]} coordinates a row"
        )
    columns = [*coordinates.unbind(1), values, weights]
    for name, column in zip([*names, posterior.value_name, "weight"], columns, strict=True):
        if not (finite := column.isfinite()).all():
            row = int(finite.int().argmin())
            raise InputError(f"{name}, row {row + 1}: expected a number, got {float(column[row])}")
    if not (weights > 0).any():
        raise InputError("there are no rows to learn from")
