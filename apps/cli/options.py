"""The options of a command as a configuration file has them: keys, kinds of values, and both ways of conversion.

A value is a text as on the command line, which the parser reads; TOML's numbers, truth values, lists and tables become
such texts, and back.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from fieldmorph.apps.console.values import DottedName
from fieldmorph.fields.errors import SettingError, did_you_mean

Value = str | bool | list[str]  # of an option: a text, a switch, or several texts
Values = dict[str, Value]  # by key

# These belong to a call and not to the run: what it shows, and whether it may overwrite or continue something.
CALL_ONLY = ("help", "config", "json", "quiet", "verbose", "force", "resume")


@dataclass(frozen=True)
class Kind:
    """One kind of values of a configuration file.

    Attributes:
        name: for messages and pages.
        accepts: whether a value of TOML is of this kind.
        to_words: from a value of TOML to the texts of the command line.
        to_toml: from these texts back.
    """

    name: str
    accepts: Callable[[Any], bool]
    to_words: Callable[[Any], Value]
    to_toml: Callable[[Any], Any]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() and "." not in text else number


def _number_or_text(text: str) -> int | float | str:
    try:
        return _number(text)
    except ValueError:
        return text


def _setting(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; numbers and truth values as such, all else as the text that it was."""
    key, _, raw = text.partition("=")
    try:
        value = json.loads(raw)
    except ValueError:
        return key, raw
    return key, value if isinstance(value, bool | int | float) else raw


def _words_of_table(table: Mapping[str, Any]) -> list[str]:
    return [f"{k}={v if isinstance(v, str) else json.dumps(v, default=str)}" for k, v in table.items()]


def _leaves(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a table and of those in it, by their dotted names."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _tables_of(texts: list[str]) -> dict[str, Any]:
    """Return the tables that dotted names belong to."""
    tables: dict[str, Any] = {}
    for dotted, value in dict(map(_setting, texts)).items():
        *names, key = dotted.split(".")
        table = tables
        for name in names:
            table = table.setdefault(name, {})
        table[key] = value
    return tables


SWITCH = Kind("true or false", lambda value: isinstance(value, bool), bool, bool)
WHOLE = Kind("a whole number", lambda value: type(value) is int, str, _number)
NUMBER = Kind("a number", _is_number, repr, _number)
TEXT = Kind("a text", lambda value: isinstance(value, str), str, str)
NUMBER_OR_TEXT = Kind(
    "a number or a text",
    lambda value: isinstance(value, str) or _is_number(value),
    lambda value: value if isinstance(value, str) else repr(value),
    _number_or_text,
)
LIST = Kind(
    "a text or a list",
    lambda value: (
        isinstance(value, str)
        or (isinstance(value, list) and all(isinstance(part, str) or _is_number(part) for part in value))
    ),
    lambda value: value if isinstance(value, str) else ",".join(map(str, value)),
    str,
)
TEXTS = Kind(
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(part, str) for part in value),
    list,
    list,
)
TABLE = Kind(
    "a table",
    lambda value: isinstance(value, dict),
    _words_of_table,
    lambda texts: dict(map(_setting, texts)),
)
TABLES = Kind(
    "a table of tables",
    lambda value: isinstance(value, dict),
    lambda value: _words_of_table(dict(_leaves(value))),
    _tables_of,
)


def actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options and arguments of a command that a configuration file may have, by key."""
    return {key: action for action in parser._actions if (key := key_of(action)) not in CALL_ONLY}


def key_of(action: argparse.Action) -> str:
    """Return the key of an option: its long name; that of an argument in small letters."""
    long = [name for name in action.option_strings if name.startswith("--")]
    return long[0].removeprefix("--") if long else action.dest


def kind_of(action: argparse.Action) -> Kind:
    """Return the kind of an option's values, which follows from its action and the type that it has in the parser."""
    if action.nargs == 0:
        return SWITCH
    made = action.type
    result = get_type_hints(made).get("return") if callable(made) and not isinstance(made, type) else made
    several = get_origin(result) is tuple
    if isinstance(action, argparse._AppendAction):
        if several and get_args(result)[0] is DottedName:
            return TABLES
        return TABLE if several else TEXTS  # pairs of name and value, or values alone
    if action.nargs == "*":
        return TEXTS
    kinds: dict[Any, Kind] = {int: WHOLE, float: NUMBER, float | None: NUMBER_OR_TEXT}
    return kinds.get(result, LIST if several else TEXT)


def read_values(parser: argparse.ArgumentParser, table: Mapping[str, Any], where: str) -> Values:
    """Return the values of a table of a configuration file.

    Args:
        parser: of the command.
        where: file and table, which begin every message.

    Raises:
        SettingError: an unknown key, or a value of another type than its option has.
    """
    known = actions(parser)
    found: Values = {}
    for key, value in table.items():
        if key in CALL_ONLY:
            raise SettingError(f"{where}: {key} is for the command line alone")
        if key not in known:
            names = ", ".join(known)
            raise SettingError(f"{where}: unknown key {key!r}; known: {names}{did_you_mean(key, known)}")
        kind = kind_of(known[key])
        if not kind.accepts(value):
            got = json.dumps(value, default=str)
            raise SettingError(f"{where}: {key}: expected {kind.name}; got {got}")
        found[key] = kind.to_words(value)
        _check(known[key], found[key], f"{where}: {key}")
    return found


def write_value(action: argparse.Action, value: Value) -> Any:
    """Return a value as a configuration file has it."""
    return kind_of(action).to_toml(value)


def default_value(action: argparse.Action) -> Any:
    """Return an option's default as a configuration file has it; None where nothing need be written."""
    default = action.default
    if default is argparse.SUPPRESS or default is None or default is False or default in ([], {}, ""):
        return None
    return ",".join(map(str, default)) if isinstance(default, tuple) else default


def words_of(parser: argparse.ArgumentParser, found: Values, others: list[str]) -> list[str]:
    """Return a command line that means these values.

    Args:
        parser: of the command.
        others: words that the command does not have, for the parser to complain of.
    """
    options, arguments = [], []
    for action in parser._actions:
        if (value := found.get(key := key_of(action))) is None:
            continue
        if not action.option_strings:
            arguments += _texts(value)
        elif isinstance(value, bool):
            negated = [name for name in action.option_strings if name.startswith("--no-")]
            options += [f"--{key}"] if value else negated[-1:] if len(action.option_strings) > 1 else []
        else:
            options += [f"--{key}={text}" for text in _texts(value)]
    return [*options, "--", *arguments, *others]


def _texts(value: Value) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [] if isinstance(value, bool) else value


def _check(action: argparse.Action, value: Value, where: str) -> None:
    """Check the texts of a value with the option's own type and choices."""
    convert = action.type if callable(action.type) else str
    for text in _texts(value):
        try:
            made = convert(text)
        except argparse.ArgumentTypeError as error:
            raise SettingError(f"{where}: {error}") from None
        except ValueError:
            raise SettingError(f"{where}: expected {kind_of(action).name}; got {text!r}") from None
        if action.choices is not None and made not in action.choices:
            names = list(map(str, action.choices))
            expected = f"expected one of {', '.join(names)}"
            raise SettingError(f"{where}: {expected}; got {text!r}{did_you_mean(text, names)}")
