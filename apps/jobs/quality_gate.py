"""Where a conversion misses the quality that was asked for it goes on in parts, and the best student so far is kept."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fieldmorph.apps.jobs.resume import Outcome
from fieldmorph.distill.conversion import ConvertConfig, ConvertReport
from fieldmorph.distill.fidelity import Exhibit
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import FruitlessError
from fieldmorph.fields.renderable import RenderableField

PARTS = 4  # of a budget's length by which a conversion goes on at most
LR_SHARE = 0.2  # of the learning rates: what is there is to be kept
PICKED_BY = "the mean PSNR drop on the very photographs that this receipt reports"

Learn = Callable[[int, VolumeField, Budget, ConvertConfig], Outcome]
Assess = Callable[[RenderableField], tuple[dict[str, Any], list[Exhibit]]]


@dataclass(frozen=True)
class Measured:
    """A student, the conversions that made it, in order, and what `fidelity.measure` says of it."""

    stored: RenderableField
    made_by: tuple[ConvertReport, ...]
    quality: dict[str, Any]
    pictures: list[Exhibit]

    @property
    def drop(self) -> float:
        """Mean PSNR below the teacher on the photographs; infinite where it cannot be told."""
        drop = self.quality["held_out"]["mean"].get("psnr_drop")
        return math.inf if drop is None else drop


@dataclass(frozen=True)
class Extension:
    """How it went on.

    Attributes:
        best: of all students, by their drop.
        runs: all that ran, the conversion first, whether their student was kept or not.
        parts: what a receipt says of each part.
        stopped: why there were no more parts, where it was neither for the quality nor for the budget.
    """

    best: Measured
    runs: tuple[ConvertReport, ...]
    parts: tuple[dict[str, Any], ...] = ()
    stopped: str | None = None

    def gate(self, max_psnr_drop: float) -> dict[str, Any]:
        """What was asked for, whether it is met, and how the student was come by, as JSON values."""
        kept = [part["stage"] for part in self.parts if part["kept"]]
        return {
            "max_psnr_drop": max_psnr_drop,
            "psnr_drop": self.best.drop,
            "met": self.best.drop <= max_psnr_drop,
            "kept": kept[-1] if kept else "the conversion itself",
            "picked_by": PICKED_BY if self.parts else None,
            "extensions": list(self.parts),
            "stopped": self.stopped,
        }


def extend(
    first: Measured,
    budget: Budget,
    config: ConvertConfig,
    max_psnr_drop: float | None,
    learn: Learn,
    assess: Assess,
    on_better: Callable[[Measured], None],
) -> Extension:
    """Go on from the best student for up to the budget's length again, on pixels alone, with small steps.

    Each part has samples of its own and looks at the same rays as the conversion did.

    Args:
        max_psnr_drop: None asks for nothing.
        learn: part's number (from 1), student to begin with, budget and settings to what `convert` returns.
        assess: what `fidelity.measure` returns of a student.
        on_better: is given each student that is better than all before.
    """
    done = Extension(first, first.made_by)
    n_parts = PARTS if budget.steps is None else min(PARTS, budget.steps)
    for part in range(n_parts):
        best = done.best
        if max_psnr_drop is None or best.drop <= max_psnr_drop:
            break
        stage = replace(config.stages[-1], name=f"longer {part + 1}")
        settings = replace(
            config, stages=(stage,), lr_share=LR_SHARE, fresh=False, seed=config.seed + 1 + part,
            probe_seed=config.seed,
        )  # fmt: skip
        try:
            field = copy.deepcopy(best.stored.field)
            stored, report = learn(part + 1, field, budget.nth_part(part, n_parts), settings)
        except FruitlessError as error:
            return replace(done, stopped=f"{stage.name}: {error}")
        longer = Measured(stored, (*best.made_by, report), *assess(stored))
        told = {
            "stage": stage.name, "steps": report.loop.steps, "seed": settings.seed, "lr_share": settings.lr_share,
            "psnr_drop": longer.drop, "kept": longer.drop < best.drop,
        }  # fmt: skip
        if told["kept"]:
            best = longer
            on_better(best)
        done = Extension(best, (*done.runs, report), (*done.parts, told))
    return done
