"""Callbacks through which long work reports how far it is, and what a training run reports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fieldmorph.fields.budget import Spent


@dataclass(frozen=True)
class Progress:
    """The state of a run after a step.

    Attributes:
        step: number of steps taken.
        fraction: of the budget that is used, in [0, 1].
        psnr: of the last probe, in dB; None before the first.
        spent: time since the run began.
        activity: name of the stage of a conversion that took the step; None elsewhere.
    """

    step: int
    fraction: float
    psnr: float | None
    spent: Spent
    activity: str | None = None


OnProgress = Callable[[Progress], None]  # after a step
OnCount = Callable[[int, int], None]  # number of units that are done, of how many
OnPart = Callable[[str, int, int], None]  # activity, number of its units that are done, of how many
OnExpected = Callable[[Mapping[str, float]], None]  # seconds that activities to come take, about, by name
OnSweep = Callable[[int, float], None]  # number of sweeps, bound in nats
OnFit = Callable[[int, int, float], None]  # number of sweeps, at most of how many, bound in nats
