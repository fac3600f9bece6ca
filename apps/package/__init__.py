"""Neural fields: training, conversion between architectures, web pages, and functional Bayesian Tucker models.

The public names lie in `fieldmorph.fields`, `fieldmorph.distill` and `fieldmorph.bayes`. This file is the package
`fieldmorph` itself (`package-dir` in pyproject.toml maps it), and the only place that holds the version.
"""

__version__ = "0.2.0"
