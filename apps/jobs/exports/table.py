"""The table of export formats: `fieldmorph export FILE --NAME OUTPUT`.

A new format takes one module, which writes it, and one line here. The module is imported when the format is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fieldmorph.apps.console import values
from fieldmorph.fields.lazy import load
from fieldmorph.fields.progress import OnPart


@runtime_checkable
class Exported(Protocol):
    """Result of an export."""

    def as_json(self) -> dict[str, Any]:
        """Return the values of `--json`."""

    def summary(self) -> str:
        """Return the result as text."""


@runtime_checkable
class Export(Protocol):
    """Function of a format, which writes the field in a file.

    Its keyword arguments are these and the format's options; nothing is written where it raises SettingError or
    InputError.
    """

    def __call__(
        self,
        path: str,
        output: str,
        *,
        device: str,
        force: bool,
        on_progress: OnPart,
        **options: Any,
    ) -> Exported: ...


@dataclass(frozen=True)
class Option:
    """A setting of a format: an option of the command, and a keyword argument of the format's function.

    Formats may share an option, with the same type and choices. Its default is the function's.

    Attributes:
        name: of the keyword argument; underscores are hyphens in the option.
        help: what it is, with the default.
        type: makes a value of a text, or raises ValueError or argparse.ArgumentTypeError.
        metavar: how usage shows the value.
        choices: the values that are allowed; None allows all.
    """

    name: str
    help: str
    type: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[Any, ...] | None = None

    @property
    def flag(self) -> str:
        """The option as it is written on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def same_values(self, other: "Option") -> bool:
        """Return whether two formats can share the option."""
        return (self.type, self.metavar, self.choices) == (other.type, other.metavar, other.choices)


@dataclass(frozen=True)
class ExportFormat:
    """A line of `EXPORTS`; its key is the option that chooses it.

    Attributes:
        title: what people read.
        function: its `Export`, as `module:function`.
        output: help of `--NAME OUTPUT`.
        options: its settings.
    """

    title: str
    function: str
    output: str
    options: tuple[Option, ...] = ()

    def load(self) -> Export:
        """Import the module and return the function.

        Raises:
            ImportError: an optional package is missing.
        """
        function: Export = load(self.function)
        return function


EXPORTS: dict[str, ExportFormat] = {
    "web": ExportFormat(
        "web page",
        "fieldmorph.apps.jobs.exports.web:export_web",
        "a page that opens offline, where the name ends in .html, else a folder for a web server",
        (
            Option(
                "resolution",
                "cells along the longest side, a multiple of 8 (default 256)",
                type=values.count,
                metavar="N",
            ),
            Option("degree", "of the spherical harmonics (default 1)", type=int, choices=(0, 1, 2)),
            Option("name", "title of the page (default: the file's name)"),
        ),
    ),
}
