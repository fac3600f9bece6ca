"""The page of the command line has every key of a configuration file, as the parser has them."""

import argparse
from collections.abc import Iterator

from helpers.generated import check_part
from helpers.pages import text_of

from fieldmorph.apps.cli.completion import SHELLS
from fieldmorph.apps.cli.main import build_parser
from fieldmorph.apps.cli.options import CALL_ONLY, actions, default_value, kind_of

PAGE = "docs/command-line.md"


def commands(
    parser: argparse.ArgumentParser, names: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield ".".join(names), parser
    for action in below:
        for name, command in action.choices.items():
            yield from commands(command, (*names, name))


def schema() -> str:
    """A table for each command: keys, kinds of values, defaults, meanings."""
    parts = []
    for name, parser in commands(build_parser()):
        rows = []
        for key, action in actions(parser).items():
            default = default_value(action)
            shown = "" if default is None else f"`{default}`"
            text = " ".join((action.help or "").split()).replace("|", "\\|")
            choices = f"{', '.join(map(str, action.choices))}" if action.choices else ""
            meaning = "; ".join(part for part in (text, choices if choices not in text else "") if part)
            rows.append(f"| `{key}` | {kind_of(action).name} | {shown} | {meaning} |")
        if rows:
            head = f"#### `[{name}]`\n\n| Key | Value | Default | Meaning |\n| --- | --- | --- | --- |"
            parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts)


def test_the_schema_is_that_of_the_parser() -> None:
    check_part(PAGE, "schema", schema())


def test_the_page_names_what_all_commands_share() -> None:
    text = text_of(PAGE)
    names = [f"--{name}" for name in CALL_ONLY if name != "help"]
    assert [name for name in (*names, *SHELLS, "-q", "-v", "--print-completion") if name not in text] == []
