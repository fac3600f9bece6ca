"""Budgets are read as people write them, and say how much of them is used up."""

import math
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest

from fieldmorph.fields.budget import Budget, Spent, TooShortError, now
from fieldmorph.fields.errors import SettingError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", Budget(seconds=90.0)),
        ("90", Budget(seconds=90.0)),
        ("2m", Budget(seconds=120.0)),
        ("2.5m", Budget(seconds=150.0)),
        ("1h", Budget(seconds=3600.0)),
        (".5h", Budget(seconds=1800.0)),
        ("1.s", Budget(seconds=1.0)),
        (" 3 m ", Budget(seconds=180.0)),
        ("150cs", Budget(core_seconds=150.0)),
        ("0.5 cs", Budget(core_seconds=0.5)),
    ],
)
def test_budget_is_read_as_it_is_written(text: str, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "s", "0s", "0.0m", "-3s", "3d", "2 m 3 s", "1e3s", "3S", "nan", "inf", "1,5m", ".", "9s\n9s"]
)
def test_budget_that_means_nothing_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingError, match=r"a budget looks like 90s, 2m, 1h or 150cs") as caught:
        Budget.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_budget_beyond_every_number_is_refused() -> None:
    with pytest.raises(SettingError, match="one positive number"):
        Budget.parse("9" * 400 + "s")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"steps": 3, "seconds": 1.0},
        {"seconds": 1.0, "core_seconds": 1.0},
        {"steps": 0},
        {"steps": -1},
        {"seconds": 0.0},
        {"core_seconds": -1.0},
        {"seconds": math.inf},
        {"core_seconds": math.nan},
    ],
)
def test_budget_is_exactly_one_positive_number(given: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="one positive number of steps, seconds or core-seconds"):
        Budget(**given)


def test_progress_counts_what_the_budget_is_made_of() -> None:
    spent = Spent(seconds=30.0, core_seconds=45.0)
    assert Budget(steps=200).progress(50, spent) == 0.25
    assert Budget(seconds=120.0).progress(50, spent) == 0.25
    assert Budget(core_seconds=60.0).progress(50, spent) == 0.75
    assert Budget(steps=40).progress(50, spent) == 1.25  # over is over


def test_spent_adds_and_subtracts_each_clock() -> None:
    a, b = Spent(5.0, 8.0), Spent(2.0, 1.0)
    assert a + b == Spent(7.0, 9.0)
    assert a - b == Spent(3.0, 7.0)


def test_core_seconds_pass_while_working_and_stand_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are read from the system's clocks: that of the day, and that of the process's CPU time."""
    clocks = {"monotonic": 100.0, "process_time": 7.0}
    readings = {name: partial(clocks.__getitem__, name) for name in clocks}
    monkeypatch.setattr("fieldmorph.fields.budget.time", SimpleNamespace(**readings))
    start = now()
    clocks["monotonic"] += 2.0  # waiting
    assert now() - start == Spent(seconds=2.0, core_seconds=0.0)
    clocks["monotonic"] += 0.5  # working with two threads
    clocks["process_time"] += 1.0
    assert now() - start == Spent(seconds=2.5, core_seconds=1.0)


def test_cpu_time_is_that_of_all_threads() -> None:
    """A thread's own CPU clock, read in it at its end, is a part of the process's."""
    start, worked = now(), []

    def work() -> None:
        while time.thread_time() < 0.02:
            pass
        worked.append(time.thread_time())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (now() - start).core_seconds >= sum(worked) >= 0.04


@pytest.mark.parametrize("budget", [Budget(seconds=8.0), Budget(core_seconds=8.0), Budget(steps=8)])
def test_parts_are_of_the_same_kind(budget: Budget) -> None:
    assert [next(v for v in vars(budget.part(s)).values() if v) for s in (0.25, 0.75)] == [2, 6]


def test_a_part_of_steps_is_at_least_one() -> None:
    assert Budget(steps=2).part(0.01) == Budget(steps=1)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(steps=200), "200 steps"),
        (Budget.parse("2.5m"), "150s"),
        (Budget.parse("150cs"), "150cs"),
        (Budget.parse("0.001s"), "0.001s"),
    ],
)
def test_a_budget_is_written_as_it_is_read(budget: Budget, text: str) -> None:
    assert str(budget) == text


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.02, 1), (1.0, 1), (1.1, 2), (4.0, 5), (5.1, 10), (10.0, 10), (130.0, 200)]
)
def test_rounding_up_gives_a_number_one_remembers(seconds: float, expected: float) -> None:
    assert Budget(seconds=seconds).rounded_up() == Budget(seconds=expected)
    assert Budget(core_seconds=seconds).rounded_up() == Budget(core_seconds=expected)


def test_the_error_of_a_part_names_the_whole() -> None:
    error = TooShortError(3, Budget(core_seconds=1.0), Budget(core_seconds=7.0))
    assert (
        str(error) == "the budget of 1cs ended after 3 steps, too short to do anything; about 10cs would do"
    )
    whole = error.of_whole(0.25)
    assert (
        str(whole) == "the budget of 4cs ended after 3 steps, too short to do anything; about 50cs would do"
    )
