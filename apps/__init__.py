"""Command line, demo and benchmarks."""

from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)


def show(field: Any, **settings: Any) -> Any:
    """Return an interactive view of a field for a notebook's cell; see `fieldmorph.apps.notebook.show_field`."""
    from fieldmorph.apps.notebook import show_field  # imports torch, which the command line does without

    return show_field(field, **settings)
