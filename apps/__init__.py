"""Command line, demo and benchmarks."""

from typing import Any


def show(field: Any, **settings: Any) -> Any:
    """A field in a notebook's cell, to be turned and zoomed; see `fieldmorph.apps.notebook.show_field`."""
    from fieldmorph.apps.notebook import show_field  # imports torch, which the command line does without

    return show_field(field, **settings)
