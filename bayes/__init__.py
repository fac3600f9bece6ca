"""Functional Bayesian Tucker models of data indexed by real numbers."""

from typing import TYPE_CHECKING

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)
from fieldmorph.fields.lazy import lazy_names

if TYPE_CHECKING:
    from fieldmorph.bayes.data.observations import read_observations as read_observations
    from fieldmorph.bayes.fitting import fit as fit
    from fieldmorph.bayes.regressor import FunBaTRegressor as FunBaTRegressor
    from fieldmorph.bayes.store import load_model as load_model

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FunBaTRegressor": "regressor:FunBaTRegressor",
        "fit": "fitting:fit",
        "load_model": "store:load_model",
        "read_observations": "data.observations:read_observations",
    },
)
