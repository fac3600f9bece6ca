"""Errors whose message is one line for the user: what was expected, what came."""

from collections.abc import Iterable


class InputError(ValueError):
    """Data that cannot be used: a missing file, a bad pose, a damaged checkpoint (exit code 3)."""


class UnsafeError(InputError):
    """A file that wants to run code or to leave its folder (exit code 4)."""


class SettingError(ValueError):
    """A name or value that the caller chose and that does not exist or cannot work (exit code 2)."""


class FruitlessError(SettingError):
    """A run without a result: it was too short, or it diverged (exit code 2)."""


def known(kind: str, name: str, names: Iterable[str]) -> SettingError:
    """Return the error for an unknown name, which lists the known ones.

    Args:
        kind: of the thing in the message, such as `field`.
        name: that does not exist.
        names: the known ones.
    """
    names = sorted(names)
    return SettingError(f"unknown {kind} {name!r}; known: {', '.join(names)}{did_you_mean(name, names)}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question that names the known name which is most like another one; nothing where none is alike."""
    from difflib import get_close_matches

    found = get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]}?" if found else ""
