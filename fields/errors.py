"""Errors whose message is one line for the user: what was expected, what came."""


class InputError(ValueError):
    """Data that cannot be used: a missing file, a bad pose, a damaged checkpoint (exit code 3)."""


class UnsafeError(InputError):
    """A file that wants to run code or to leave its folder (exit code 4)."""


class SettingError(ValueError):
    """A name or value that the caller chose and that does not exist or cannot work (exit code 2)."""


class FruitlessError(SettingError):
    """A run that was begun and came to nothing: too short, or it diverged."""


def known(kind: str, name: str, names: "list[str] | dict") -> SettingError:
    """The error for an unknown name, listing the known ones."""
    return SettingError(f"unknown {kind} {name!r}; known: {', '.join(sorted(names))}")
