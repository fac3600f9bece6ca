"""Checks of settings: one line for the user, which names the setting, what it must be, and what came."""

import math
from typing import Any

from fieldmorph.fields.errors import SettingError


def check_whole(name: str, value: Any, minimum: int = 1) -> None:
    """Check that a setting is an integer of at least `minimum`.

    Args:
        name: of the setting, for the message.
        value: what the caller gave.

    Raises:
        SettingError: it is not.
    """
    if type(value) is not int or value < minimum:
        raise SettingError(f"{name} must be a whole number of at least {minimum}; got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Check that a setting is True or False.

    Raises:
        SettingError: it is not.
    """
    if type(value) is not bool:
        raise SettingError(f"{name} must be True or False; got {value!r}")


def check_nonnegative(name: str, value: Any) -> None:
    """Check that a setting is a finite number of at least 0.

    Raises:
        SettingError: it is not.
    """
    if not is_number(value) or not 0 <= value < math.inf:
        raise SettingError(f"{name} must be a finite number of at least 0; got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Check that a setting is a finite number above 0.

    Raises:
        SettingError: it is not.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise SettingError(f"{name} must be a finite number above 0; got {value!r}")


def check_entries(name: str, value: Any) -> None:
    """Check that a setting is a tuple of one entry or more.

    Raises:
        SettingError: it is not.
    """
    if not isinstance(value, tuple) or not value:
        raise SettingError(f"{name} must be a tuple with one entry or more; got {value!r}")


def is_number(value: Any) -> bool:
    """Return whether a setting is an integer or a float, a NaN included."""
    return isinstance(value, int | float) and not isinstance(value, bool)
