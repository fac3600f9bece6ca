"""The table of export formats: every line loads, and its options are arguments of its function."""

import inspect
import re

import pytest

from fieldmorph.apps.jobs.exports.table import EXPORTS, Option

ALWAYS = {"path", "output", "device", "force", "on_progress"}


@pytest.mark.parametrize("name", list(EXPORTS))
def test_the_options_of_a_format_are_arguments_of_its_function(name: str) -> None:
    entry = EXPORTS[name]
    parameters = inspect.signature(entry.load()).parameters
    assert set(parameters) == ALWAYS | {option.name for option in entry.options}
    for option in entry.options:
        default = parameters[option.name].default
        assert default is not inspect.Parameter.empty
        stated = re.search(r"\(default (\S+)\)", option.help)
        assert stated is None or stated.group(1) == str(default)
        assert stated is not None or "(default: " in option.help


def test_the_table_states_the_choices_of_a_bake() -> None:
    from fieldmorph.apps.bake.build import DEGREES

    [degree] = [option for option in EXPORTS["web"].options if option.name == "degree"]
    assert degree.choices == DEGREES


def test_options_are_shared_where_their_values_are_the_same() -> None:
    one = Option("resolution", "cells", type=int)
    assert one.same_values(Option("resolution", "samples a side", type=int))
    assert not one.same_values(Option("resolution", "cells", type=float))
    assert not one.same_values(Option("resolution", "cells", type=int, choices=(1, 2)))
    assert Option("keep_colors", "").flag == "--keep-colors"
