"""`fieldmorph export`: a field in one of the table's formats, each with an option of its own."""

import argparse
from collections.abc import Iterator
from typing import Any

from fieldmorph.apps.cli import arguments as arg
from fieldmorph.apps.cli.common import Args, prepare, show
from fieldmorph.apps.jobs.exports.table import EXPORTS, Option
from fieldmorph.fields.errors import SettingError


def add_parser(jobs: Any) -> None:
    """Add the command, an option for the output of every format, and the formats' own options."""
    titles = ", ".join(entry.title for entry in EXPORTS.values())
    parser = arg.command(
        jobs, "export", run, f"export a field: {titles}", threads=arg.THREADS_HELP, device=True
    )
    parser.add_argument("file", metavar="FILE", help="file of the field")
    outputs = parser.add_mutually_exclusive_group(required=True)
    for name, entry in EXPORTS.items():
        flag = f"--{name.replace('_', '-')}"
        outputs.add_argument(flag, dest=_output(name), metavar="OUTPUT", help=entry.output)
    for option, text in _options():
        parser.add_argument(
            option.flag,
            dest=_setting(option),
            type=option.type,
            choices=option.choices,
            metavar=option.metavar or (None if option.choices else option.name.upper()),
            default=argparse.SUPPRESS,
            help=text,
        )
    arg.add_force(parser)


def run(args: Args) -> int:
    """Export in the chosen format and print what was written."""
    [chosen] = [name for name in EXPORTS if getattr(args, _output(name)) is not None]
    settings = _settings_of(args, chosen)
    progress = prepare("export", args)
    export = EXPORTS[chosen].load()
    with progress:
        result = export(
            args.file,
            getattr(args, _output(chosen)),
            device=args.device,
            force=args.force,
            on_progress=lambda what, done, total: progress.show(
                done / total, done, "part", part=what, total=total
            ),
            **settings,
        )
    return show(result, args, lambda exported: exported.summary())


def _options() -> Iterator[tuple[Option, str]]:
    """Yield every option once, with its help; that of an option of several formats says whose it is.

    Raises:
        ValueError: two formats have an option of one name and differ in its values.
    """
    users: dict[str, list[tuple[str, Option]]] = {}
    for name, entry in EXPORTS.items():
        for option in entry.options:
            users.setdefault(option.name, []).append((name, option))
    for used in users.values():
        first = used[0][1]
        if not all(option.same_values(first) for _, option in used):
            raise ValueError(f"{first.flag} takes different values in {', '.join(name for name, _ in used)}")
        yield first, "; ".join(f"{name}: {option.help}" for name, option in used) if used[1:] else first.help


def _settings_of(args: Args, chosen: str) -> dict[str, Any]:
    """Return the options that were given, by name.

    Raises:
        SettingError: one is not of the chosen format.
    """
    given = {option.name: option for option, _ in _options() if hasattr(args, _setting(option))}
    own = [option.name for option in EXPORTS[chosen].options]
    for name, option in given.items():
        if name not in own:
            raise SettingError(f"{option.flag} is not an option of --{chosen}")
    return {name: getattr(args, _setting(option)) for name, option in given.items()}


def _output(name: str) -> str:
    return f"output_{name}"


def _setting(option: Option) -> str:
    return f"setting_{option.name}"
