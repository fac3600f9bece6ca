"""Configuration files: `--config FILE` reads the command's settings, and every run writes its own as OUTPUT.toml.

A file has a table for each command, `[convert]` or `[tensor.fit]`, with the command's options as keys, so that one file
may describe a whole chain of runs. The command line prevails.
"""

import argparse
import copy
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldmorph import __version__
from fieldmorph.apps.cli.arguments import Parser
from fieldmorph.apps.cli.options import (
    Values,
    actions,
    default_value,
    key_of,
    read_values,
    words_of,
    write_value,
)
from fieldmorph.fields.errors import InputError, SettingError, did_you_mean
from fieldmorph.fields.types import JsonObject

WRITTEN = "# Written by fieldmorph"  # how the files begin that may be overwritten


@dataclass(frozen=True)
class Command:
    """A command as it was called.

    Attributes:
        names: of the command, two for those of `tensor`.
        parser: of its options.
        words: what follows the names.
    """

    names: tuple[str, ...]
    parser: argparse.ArgumentParser
    words: tuple[str, ...]

    @classmethod
    def of(cls, parser: argparse.ArgumentParser, words: Sequence[str]) -> "Command | None":
        """Return the command that a command line names; None where it names none, or only wants help."""
        names: list[str] = []
        while below := _commands(parser):
            if len(words) == len(names) or words[len(names)] not in below:
                return None
            names.append(words[len(names)])
            parser = below[names[-1]]
        rest = tuple(words[len(names) :])
        return None if {"-h", "--help"} & {*rest} else cls(tuple(names), parser, rest)

    def given(self) -> tuple[Values, list[str]]:
        """Return the options and arguments that stand on the command line, and words that are none of them."""
        bare = Parser(prog=self.parser.prog, add_help=False, argument_default=argparse.SUPPRESS)
        keys, arguments = {}, []
        for action in self.parser._actions:
            if not action.option_strings:
                arguments.append(action)
            elif key_of(action) != "help":
                plain = copy.copy(action)
                plain.type = plain.choices = None
                plain.default, plain.required = argparse.SUPPRESS, False
                bare._add_action(plain)
                keys[action.dest] = key_of(action)
        found, rest = bare.parse_known_args(list(self.words))
        if "--" in rest:
            rest.remove("--")
        values: Values = {keys[name]: value for name, value in vars(found).items()}
        for action in arguments:
            n_words = len(rest) if action.nargs == "*" else 1
            taken, rest = rest[:n_words], rest[n_words:]
            if taken:
                values[key_of(action)] = taken if action.nargs == "*" else taken[0]
        return values, rest


def with_config(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return a command line with the settings of its `--config FILE` in it, or as it was where it has none.

    Args:
        parser: of all commands.
        words: the command line.

    Raises:
        InputError: the file cannot be read.
        SettingError: it has unknown keys, or values that their options do not take.
    """
    called = any(word.partition("=")[0] == "--config" for word in words)
    command = Command.of(parser, words) if called else None
    if command is None:
        return list(words)
    given, others = command.given()
    path = str(given.pop("config"))
    merged = _merge(command.parser, _read(parser, command, path), given)
    return [*command.names, f"--config={path}", *words_of(command.parser, merged, others)]


def check_config_output(args: argparse.Namespace) -> None:
    """Check before a run that OUTPUT.toml, where its settings will be written, is nobody else's.

    Raises:
        SettingError: it exists and no run wrote it, or it is the file of `--config` that somebody wrote by hand.
    """
    for path in map(config_path, _outputs(args)):
        if not path.exists() or _is_ours(path):
            continue
        if not args.force or (args.config is not None and path.resolve() == Path(args.config).resolve()):
            raise SettingError(
                f"{path}, where the settings of this run are written, exists and was not written by fieldmorph; "
                "choose another output"
            )


def write_config(parser: argparse.ArgumentParser, words: Sequence[str], args: argparse.Namespace) -> None:
    """Write the settings of a run next to each of its outputs, at once or not at all.

    Args:
        parser: of all commands.
        words: the command line with the settings of `--config` in it.
        args: what the parser made of it.
    """
    outputs = [path for path in _outputs(args) if Path(path).exists()]
    command = Command.of(parser, words)
    if not outputs or command is None:
        return
    import tomli_w

    from fieldmorph.fields.checkpoint import write_file

    table: JsonObject = settings_of(command)
    for name in reversed(command.names):
        table = {name: table}
    called = f"fieldmorph {' '.join(command.names)} --config FILE"
    text = f"{WRITTEN} {__version__}; `{called}` repeats the run.\n\n{tomli_w.dumps(table)}"
    for output in outputs:
        write_file(config_path(output), text.encode())


def settings_of(command: Command) -> JsonObject:
    """Return the settings of a call as a configuration file has them: those given, and the defaults of others."""
    given, _ = command.given()
    alternatives = {key: group for group in _groups(command.parser) for key in group}
    settings: JsonObject = {}
    for key, action in actions(command.parser).items():
        if key in given:
            settings[key] = write_value(action, given[key])
        elif not any(other in given for other in alternatives.get(key, ())):
            settings[key] = default_value(action)
    return {key: value for key, value in settings.items() if value is not None}


def config_path(output: str) -> Path:
    """Return where the settings of a run with this output are written."""
    return Path(f"{output.rstrip('/')}.toml")


def _merge(parser: argparse.ArgumentParser, file: Values, given: Values) -> Values:
    """Return the values of a file, replaced by those of the command line and by their alternatives."""
    excluded = {key for group in _groups(parser) for key in group if any(k in given for k in group)}
    merged = {key: value for key, value in file.items() if key not in excluded}
    repeated = [key_of(action) for action in parser._actions if isinstance(action, argparse._AppendAction)]
    for key, value in given.items():
        before = merged.get(key)
        if key in repeated and isinstance(before, list) and isinstance(value, list):
            value = [*before, *value]  # the last of a name counts
        merged[key] = value
    return merged


def _read(parser: argparse.ArgumentParser, command: Command, path: str) -> Values:
    """Return the values that a file has for a command; the keys of its other tables are checked, too."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    tables = _tables(parser, content, path, ())
    if command.names not in tables:
        there = ", ".join(f"[{'.'.join(names)}]" for names in tables) or "no table"
        raise SettingError(f"{path} has no table [{'.'.join(command.names)}]; it has {there}")
    return tables[command.names]


def _tables(
    parser: argparse.ArgumentParser, content: JsonObject, path: str, names: tuple[str, ...]
) -> dict[tuple[str, ...], Values]:
    """Return the values of every table below a command that has commands."""
    found: dict[tuple[str, ...], Values] = {}
    below = _commands(parser)
    for name, table in content.items():
        here = (*names, name)
        if name not in below:
            known = ", ".join(below)
            raise SettingError(
                f"{path}: unknown table {'.'.join(here)!r}; known: {known}{did_you_mean(name, below)}"
            )
        if not isinstance(table, dict):
            raise SettingError(f"{path}: {'.'.join(here)}: expected a table of settings; got {table!r}")
        if _commands(below[name]):
            found |= _tables(below[name], table, path, here)
        else:
            found[here] = read_values(below[name], table, f"{path}: [{'.'.join(here)}]")
    return found


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands below one, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _groups(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Return the keys of options of which one command line has at most one."""
    return [[key_of(a) for a in group._group_actions] for group in parser._mutually_exclusive_groups]


def _outputs(args: argparse.Namespace) -> list[str]:
    """Return the outputs of a call, which options named `output` or `output_...` in the parser hold."""
    found = [value for name, value in vars(args).items() if name.partition("_")[0] == "output"]
    return [value for value in found if isinstance(value, str)]


def _is_ours(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(WRITTEN)
    except OSError:
        return False
