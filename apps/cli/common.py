"""Steps that several commands share: threads, progress, the printed result, optional packages."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.types import JsonObject

if TYPE_CHECKING:
    from fieldmorph.apps.console.progress import ProgressLine

Args = argparse.Namespace

EXTRAS = {"bayes": "tensor commands need packages", "view": "the viewer needs gradio"}


def set_threads(args: Args) -> None:
    """Give torch and the kernels the number of threads of `--threads`."""
    from fieldmorph.fields.runtime import use_threads

    use_threads(args.threads)


def prepare(label: str, args: Args) -> "ProgressLine":
    """Set the threads and return the command's progress line."""
    set_threads(args)
    from fieldmorph.apps.console.progress import ProgressLine

    return ProgressLine(label, args.quiet)


def budget_of(args: Args) -> Budget:
    """Return the budget of `--steps` or `--budget`.

    Raises:
        SettingError: it is no duration.
    """
    return Budget(steps=args.steps) if args.steps is not None else Budget.parse(args.budget)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn an ImportError into one line that names the optional packages to install.

    Args:
        name: of the extra in pyproject.toml, a key of `EXTRAS`.

    Raises:
        SettingError: a package is missing.
    """
    try:
        yield
    except ImportError as error:
        raise SettingError(f"{EXTRAS[name]}: pip install 'fieldmorph[{name}]' ({error})") from None


@runtime_checkable
class Result(Protocol):
    """Result of a command, with the values of `--json`."""

    def as_json(self) -> JsonObject:
        """Return the values of `--json`."""


Shown = TypeVar("Shown", bound=Result | JsonObject)


def show(result: Shown, args: Args, table: Callable[[Shown], str]) -> int:
    """Print a result as one JSON object or as a table and return exit code 0."""
    if args.json:
        values = result if isinstance(result, dict) else result.as_json()
        print(json.dumps(values, allow_nan=False))
    else:
        print(table(result))
    return 0
