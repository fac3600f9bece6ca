"""Names that are imported when they are first used: public names of a package, and tables of implementations."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


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
        return load(f"{package}.{names[name]}")

    return get, lambda: sorted(names)


def load(path: str) -> Any:
    """Return what a path `module:attribute`, or `module` alone, names; the module is imported.

    Raises:
        ImportError, AttributeError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = path.partition(":")
    imported = importlib.import_module(module)
    return getattr(imported, attribute) if attribute else imported


@dataclass(frozen=True)
class Line:
    """One line of a table: an implementation that is not imported yet.

    Attributes:
        name: by which commands, files and settings call it.
        title: what people read.
        path: `module:attribute`, or `module` alone.
    """

    name: str
    title: str
    path: str


class LazyTable(Mapping[str, T], Generic[T]):
    """Implementations by name, each imported when it is looked up; names and titles are there without.

    A new implementation takes one more line, here or by `add` from outside.

    Args:
        lines: in the order in which they are shown.
    """

    def __init__(self, lines: Iterable[Line]):
        self._lines: dict[str, Line] = {}
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Append a line.

        Raises:
            ValueError: the name is taken.
        """
        if line.name in self._lines:
            raise ValueError(f"{line.name!r} is in the table already: {self._lines[line.name].path}")
        self._lines[line.name] = line

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines in their order."""
        return tuple(self._lines.values())

    @property
    def titles(self) -> dict[str, str]:
        """Return titles by name, without importing anything."""
        return {name: line.title for name, line in self._lines.items()}

    def __getitem__(self, name: str) -> T:
        found: T = load(self._lines[name].path)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._lines  # Mapping's own would import

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)
