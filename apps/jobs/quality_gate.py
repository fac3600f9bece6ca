"""Extensions of a conversion that misses the requested quality; the best student so far is kept."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from fieldmorph.apps.jobs.resume import Outcome
from fieldmorph.distill.conversion import ConvertConfig, ConvertReport
from fieldmorph.distill.fidelity import ExampleView
from fieldmorph.distill.finish import IMAGES
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import FruitlessError
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.types import JsonObject

LR_SHARE = 0.2  # of the learning rates, so that what was learned is kept
PICKED_BY = "the mean PSNR drop on the test images that this receipt reports"

Learn = Callable[[int, VolumeField, Budget, ConvertConfig], Outcome]
Assess = Callable[[RenderableField], tuple[JsonObject, list[ExampleView]]]


@dataclass(frozen=True)
class Measured:
    """A student that was measured.

    Attributes:
        stored: the student.
        made_by: reports of the conversions that made it, in order.
        quality, images: figures and example views, as `fidelity.measure` returns them.
    """

    stored: RenderableField
    made_by: tuple[ConvertReport, ...]
    quality: JsonObject
    images: list[ExampleView]

    @property
    def drop(self) -> float:
        """Return the mean PSNR below the teacher on test images, in dB; infinite where it is unknown."""
        drop = self.quality["held_out"]["mean"].get("psnr_drop")
        return math.inf if drop is None else drop


@dataclass(frozen=True)
class ExtensionPart:
    """One part of an extension.

    Attributes:
        stage: its name.
        steps, seed, lr_share: of its training; the last is a fraction of the learning rates.
        psnr_drop: of its student, in dB.
        kept: whether its student is better than all before.
    """

    stage: str
    steps: int
    seed: int
    lr_share: float
    psnr_drop: float
    kept: bool


@dataclass(frozen=True)
class Gate:
    """A requested quality, and whether it is met.

    Attributes:
        max_psnr_drop: the request, in dB.
        psnr_drop: of the student that is kept; infinite where it is unknown.
        met: whether it is met.
        kept: stage that made the student.
        picked_by: by what it was chosen from several; None where there was one.
        extensions: all parts of the extension.
        stopped: why there were no more, where it was neither for the quality nor for the budget.
    """

    max_psnr_drop: float
    psnr_drop: float
    met: bool
    kept: str
    picked_by: str | None
    extensions: tuple[ExtensionPart, ...]
    stopped: str | None


@dataclass(frozen=True)
class Extension:
    """A conversion with its extension, which may have no parts.

    Attributes:
        best: the student with the smallest drop.
        runs: all that ran, the conversion first, whether their student was kept or not.
        parts: of the extension.
        stopped: as in `Gate`.
    """

    best: Measured
    runs: tuple[ConvertReport, ...]
    parts: tuple[ExtensionPart, ...] = ()
    stopped: str | None = None

    def gate(self, max_psnr_drop: float) -> Gate:
        """Return whether the quality is met and how the student was found."""
        kept = [part.stage for part in self.parts if part.kept]
        return Gate(
            max_psnr_drop=max_psnr_drop,
            psnr_drop=self.best.drop,
            met=self.best.drop <= max_psnr_drop,
            kept=kept[-1] if kept else "the conversion itself",
            picked_by=PICKED_BY if self.parts else None,
            extensions=self.parts,
            stopped=self.stopped,
        )


def extend(
    first: Measured,
    budget: Budget,
    config: ConvertConfig,
    max_psnr_drop: float | None,
    learn: Learn,
    assess: Assess,
    on_better: Callable[[Measured], None],
    n_parts: int = 4,
) -> Extension:
    """Continue from the best student for up to the budget's length again, on pixels alone, with small steps.

    Each part draws its own samples and is probed on the same rays as the conversion.

    Args:
        first: student of the conversion itself.
        max_psnr_drop: in dB; None: no quality is requested.
        learn: trains part i (from 1): student to begin with, budget and settings to what `convert` returns.
        assess: returns what `fidelity.measure` does of a student.
        on_better: called with each student that is better than all before.
        n_parts: of the extra budget, which is as long as the first.
    """
    done = Extension(first, first.made_by)
    # A student that was not trained on images has learned too little from its teacher yet.
    finish = 0.0 if IMAGES in first.made_by[0].dropped else config.finish
    n_parts = n_parts if budget.steps is None else min(n_parts, budget.steps)
    for part in range(n_parts):
        best = done.best
        if max_psnr_drop is None or best.drop <= max_psnr_drop:
            break
        stage = replace(config.stages[-1], name=f"longer {part + 1}")
        settings = replace(
            config,
            stages=(stage,),
            lr_share=LR_SHARE * config.lr_share,
            fresh=False,
            finish=finish,
            seed=config.seed + 1 + part,
            probe_seed=config.seed,
        )
        try:
            field = copy.deepcopy(best.stored.field)
            stored, report = learn(part + 1, field, budget.nth_part(part, n_parts), settings)
        except FruitlessError as error:
            return replace(done, stopped=f"{stage.name}: {error}")
        longer = Measured(stored, (*best.made_by, report), *assess(stored))
        part_report = ExtensionPart(
            stage=stage.name,
            steps=report.loop.steps,
            seed=settings.seed,
            lr_share=settings.lr_share,
            psnr_drop=longer.drop,
            kept=longer.drop < best.drop,
        )
        if part_report.kept:
            best = longer
            on_better(best)
        done = Extension(best, (*done.runs, report), (*done.parts, part_report))
    return done
