"""Functional Bayesian Tucker models of data indexed by real numbers."""

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)
