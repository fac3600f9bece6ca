"""Gaussian process of several coordinates jointly that is added to a tensor model, for places without measurements.

A model of separate modes predicts a new place from other places of its latitude and of its longitude; that a place is
near in both it cannot represent. This process can. It is fitted first, to the measurements without their mean; then
the tensor model is fitted to its residuals. The reverse order does not help: at measured places the residuals of a
tensor model are only noise.

A prediction is the sum of both. Their posteriors are treated as independent, so that variances add. The noise is the
tensor model's, which is fitted to the residuals of both; that of the process is dropped.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, FitReport, fit
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.sparse_gp import fit_sparse
from fieldmorph.fields.checks import check_whole
from fieldmorph.fields.errors import SettingError, known
from fieldmorph.fields.progress import OnSweep


@dataclass(frozen=True)
class ResidualConfig:
    """Settings of a residual process.

    Attributes:
        modes: names of the modes that it is a function of: `lat` and `lon` where new places are expected. With all
            modes it competes with the tensor model, and errors at measured places grow.
        n_inducing: number of inducing points; with at most as many places the process is exact. Time is proportional
            to the number of places times the square of this.
        kernel: name of the table's `choices` (`matern12`, ...), with a lengthscale for each mode.
    """

    modes: tuple[str, ...]
    n_inducing: int = 256
    kernel: str = "matern12"

    def __post_init__(self) -> None:
        if not self.modes:
            raise SettingError("a residual process needs at least one mode")
        check_whole("n_inducing", self.n_inducing)
        choice(self.kernel)


def fit_with_residual(
    observations: Observations,
    config: FitConfig,
    residual: ResidualConfig,
    *,
    weights: Float[Tensor, "n"] | None = None,
    kernels: Sequence[Kernel] | None = None,
    on_sweep: OnSweep = lambda _sweep, _bound: None,
) -> tuple[Posterior, FitReport]:
    """Fit a residual process, then a tensor model to its residuals; other arguments are those of `fit`.

    Args:
        observations, config, weights, kernels, on_sweep: as `fit` takes them.
        residual: settings of the residual process.

    Returns:
        The posterior of their sum, and the course of the tensor model's fit.

    Raises:
        SettingError: an unknown mode, and what `fit` raises.
    """
    names = [mode.name for mode in observations.modes]
    for name in residual.modes:
        if name not in names:
            raise known("mode", name, names)
    columns = sorted({names.index(name) for name in residual.modes})
    process = fit_sparse(
        observations.coordinates,
        observations.values,
        columns=columns,
        n_inducing=residual.n_inducing,
        kernel=residual.kernel,
        weights=weights,
        seed=config.seed,
    )
    left = observations.values - process.at(observations.coordinates)[0]
    posterior, report = fit(
        replace(observations, values=left), config, weights=weights, kernels=kernels, on_sweep=on_sweep
    )
    provenance = {**posterior.provenance, "residual": asdict(residual)}
    return replace(posterior, residual=process, provenance=provenance), report
