"""One warning for all predictions outside the range of the data."""

import logging
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fieldmorph.apps.tensor.labels import coordinate
from fieldmorph.bayes.posterior import Posterior

log = logging.getLogger(__name__)


def warn_outside(
    posterior: Posterior, columns: Sequence[Float[Tensor, "_"]], n_outside: int, n: int, what: str
) -> None:
    """Warn once if predictions lie outside the range of the data, with their number and the modes.

    Args:
        columns: coordinates that were predicted at, for each mode.
        n_outside, n: number of predictions outside the range, and of all.
        what: what is counted, in the plural: `rows`, `cells`.
    """
    if not n_outside:
        return
    modes = []
    for mode, process, column in zip(posterior.modes, posterior.processes, columns, strict=True):
        if mode.outside(column, process.points).any():
            first, last = (
                coordinate(float(process.points[end]), mode.kind, mode.calendar) for end in (0, -1)
            )
            modes.append(f"{mode.name} ({first} to {last})")
    log.warning(
        "%d of %d %s lie outside the range of the data in %s; they are marked as extrapolated",
        n_outside,
        n,
        what,
        ", ".join(modes),
    )
