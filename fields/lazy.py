"""Public names of a package that are imported when they are first used, so that importing the package stays light."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's module-level `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: dotted name of the package.
        names: each public name and `module:attribute` below the package, which holds it.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        return getattr(importlib.import_module(f"{package}.{module}"), attribute)

    return get, lambda: sorted(names)
