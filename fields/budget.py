"""The length of a run, in steps, seconds or core-seconds, and the clocks that measure it."""

import math
import re
import time
from dataclasses import dataclass

from fieldmorph.fields.errors import FruitlessError, SettingError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """A limit in optimizer steps, wall-clock seconds or CPU seconds of all threads; exactly one is set.

    Raises:
        SettingError: none or several are set, or the number is not positive and finite.
    """

    steps: int | None = None
    seconds: float | None = None
    core_seconds: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.steps, self.seconds, self.core_seconds) if v is not None]
        if len(given) != 1 or not 0 < given[0] < float("inf"):
            raise SettingError(
                f"a budget is one positive number of steps, seconds or core-seconds; got {self!r}"
            )

    def __str__(self) -> str:
        """Return it as the command line takes it: `90s`, `150cs`, or `2000 steps`."""
        if self.steps is not None:
            return f"{self.steps} steps"
        return f"{self.seconds:g}s" if self.seconds is not None else f"{self.core_seconds:g}cs"

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `90s`, `2.5m`, `1h` of wall-clock time, or `150cs` of core-seconds (CPU time of all threads).

        Raises:
            SettingError: anything else.
        """
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(s|m|h|cs)?", text.strip())
        if not match or float(match[1]) <= 0:
            raise SettingError(f"a budget looks like 90s, 2m, 1h or 150cs (core-seconds); got {text!r}")
        value, unit = float(match[1]), match[2] or "s"
        return cls(core_seconds=value) if unit == "cs" else cls(seconds=value * _UNITS[unit])

    def part(self, fraction: float) -> "Budget":
        """Return a budget of the same kind and a fraction of the length."""
        if self.steps is not None:
            return Budget(steps=max(1, round(fraction * self.steps)))
        if self.seconds is not None:
            return Budget(seconds=fraction * self.seconds)
        assert self.core_seconds is not None
        return Budget(core_seconds=fraction * self.core_seconds)

    def rounded_up(self) -> "Budget":
        """Return the next budget of the same kind whose number is 1, 2 or 5 times a power of ten, and at least 1."""
        value = max(self.steps or self.seconds or self.core_seconds or 1.0, 1.0)
        power = 10 ** math.floor(math.log10(value))
        number = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)
        if self.steps is not None:
            return Budget(steps=number)
        return Budget(seconds=number) if self.seconds is not None else Budget(core_seconds=number)

    def nth_part(self, i: int, n: int) -> "Budget":
        """Return the i-th of n parts that make up the whole together.

        Raises:
            SettingError: there are fewer steps than parts and this one has none.
        """
        if self.steps is None:
            return self.part(1 / n)
        return Budget(steps=(i + 1) * self.steps // n - i * self.steps // n)

    def progress(self, steps: int, spent: "Spent") -> float:
        """Return the fraction of the budget that is used up; 1 or more when it is over."""
        if self.steps is not None:
            return steps / self.steps
        if self.seconds is not None:
            return spent.seconds / self.seconds
        assert self.core_seconds is not None
        return spent.core_seconds / self.core_seconds


@dataclass(frozen=True)
class Spent:
    """Wall-clock seconds and CPU seconds of the process."""

    seconds: float = 0.0
    core_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.seconds + other.seconds, self.core_seconds + other.core_seconds)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.seconds - other.seconds, self.core_seconds - other.core_seconds)


class TooShortError(FruitlessError):
    """A budget that ended before anything was learned.

    Args:
        steps: number of steps that it allowed.
        budget, enough: the budget, and about the one that would do.
    """

    def __init__(self, steps: int, budget: Budget, enough: Budget):
        super().__init__(
            f"the budget of {budget} ended after {steps} steps, too short to do anything; "
            f"about {enough.rounded_up()} would do"
        )
        self.steps, self.budget, self.enough = steps, budget, enough

    def of_whole(self, fraction: float) -> "TooShortError":
        """Return the same error for the budget of which this was a fraction."""
        return TooShortError(self.steps, self.budget.part(1 / fraction), self.enough.part(1 / fraction))


def now() -> Spent:
    """Read both clocks; the difference of two readings is what was spent between them."""
    return Spent(time.monotonic(), time.process_time())
