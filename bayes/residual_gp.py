"""A Gaussian process of all coordinates together beside a tensor model, for places that no mode knows on its own.

A model of separate modes puts an unseen place together from what its latitude and its longitude have meant elsewhere;
what is near in both at once it cannot see. This process can. It comes first and learns the measurements less their
mean, all that it leaves being noise to it; then the tensor model is fitted to what it leaves. The other way round is of
no use: at the places measured a tensor model leaves noise alone, and what it leaves at places held out says where it
errs without them, not where it errs with them.

A prediction is the sum of both. Their posteriors are taken for independent, so that variances add. Noise counts once:
it is the tensor model's, which sees what both leave; the process's own is dropped.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.checks import check_whole
from fieldmorph.bayes.covariances.table import choice
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, FitReport, OnSweep, fit
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.sparse_gp import fit_sparse
from fieldmorph.fields.errors import SettingError, known


@dataclass(frozen=True)
class ResidualConfig:
    """Settings of the process.

    Attributes:
        modes: names of those that it is a function of: `lat` and `lon` where new places are expected. With all of them,
            time too, it takes what the tensor model knows better, and errors at known places grow.
        n_inducing: places through which it knows the others; with no more it is exact. Time goes with the places
            times its square.
        kernel: name of the table's `choices` (`matern12`, ...), with a lengthscale for each mode.
    """

    modes: tuple[str, ...]
    n_inducing: int = 256
    kernel: str = "matern12"

    def __post_init__(self) -> None:
        if not self.modes:
            raise SettingError("a residual process needs the modes that it is a function of")
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
    """What `fit` returns, of a model with a residual process beside it; the report is the tensor model's.

    Raises:
        SettingError: an unknown mode, and what `fit` raises.
    """
    names = [mode.name for mode in observations.modes]
    for name in residual.modes:
        if name not in names:
            raise known("mode", name, names)
    columns = sorted({names.index(name) for name in residual.modes})
    process = fit_sparse(
        observations.coordinates, observations.values, columns=columns, n_inducing=residual.n_inducing,
        kernel=residual.kernel, weights=weights, seed=config.seed,
    )  # fmt: skip
    left = observations.values - process.at(observations.coordinates)[0]
    posterior, report = fit(
        replace(observations, values=left), config, weights=weights, kernels=kernels, on_sweep=on_sweep
    )
    provenance = {**posterior.provenance, "residual": asdict(residual)}
    return replace(posterior, residual=process, provenance=provenance), report
