"""`fieldmorph --print-completion SHELL`: completion of commands, options, choices and files in a shell."""

import argparse
from collections.abc import Iterator
from typing import Any, NoReturn

from fieldmorph.bayes.covariances.table import choices as kernels
from fieldmorph.fields.kinds import FIELDS, PRESETS

SHELLS = ("bash", "zsh", "tcsh")
SPLITS = ("train", "val", "test")
# Names that an option takes and its job checks, by where the parser keeps them.
NAMES = {
    "field": tuple(FIELDS),
    "to": tuple(FIELDS),
    "preset": tuple(PRESETS),
    "split": SPLITS,
    "kernel": tuple(kernels()),
}
# Where the parser keeps files and folders, besides outputs.
FILES = ("config", "data", "file", "files", "model", "points", "teacher", "test", "auth")


class PrintCompletion(argparse.Action):
    """Print the script that makes a shell complete command lines, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, shell: Any, *_: Any) -> NoReturn:
        import shtab

        for action in _actions(parser):
            if action.dest in NAMES:
                action.choices = NAMES[action.dest]
            elif action.dest in FILES or action.dest.partition("_")[0] == "output":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell=shell))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options of a command and of all below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action
