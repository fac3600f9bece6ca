"""Common part of the benchmarks whose contestants share a teacher and a scene and take turns."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmorph.apps.bench.runner import Bench, Contestant, Row, quality, spent_by
from fieldmorph.apps.bench.turns import Turn
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.evaluate import evaluate
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.apps.jobs.train import train_scene
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import load_field

TEACHER = "hashgrid"


@dataclass(frozen=True)
class TestViews:
    """The test views in two halves, so that no figure chooses what another is measured on.

    Attributes:
        figures: every second view, for PSNR and SSIM.
        held_out: the others, or the same where there is only one view.
    """

    __test__ = False  # pytest takes it for tests

    figures: Split
    held_out: Split

    @classmethod
    def of(cls, views: Split) -> "TestViews":
        """Divide the views of a split."""
        return cls(_every_second(views, 0), _every_second(views, 1) if len(views) > 1 else views)


class SteppingLine:
    """An `on_progress` that shows a line and then waits for the next turn where the slice is used."""

    def __init__(self, line: ProgressLine, turn: Turn):
        self.line, self.turn = line, turn

    def __call__(self, progress: Progress) -> None:
        """Show the progress and wait."""
        self.line(progress)
        self.turn()


def teach(
    data: str,
    downscale: int,
    output: str,
    field: str,
    budget: float,
    seed: int,
    quiet: bool,
    preset: str = "small",
) -> Row:
    """Train a teacher as a job; evaluate it on the test views of the contestants' figures."""
    with ProgressLine("train", quiet) as line:
        run = train_scene(
            data,
            output,
            Budget(core_seconds=budget),
            field=field,
            preset=preset,
            downscale=downscale,
            seed=seed,
            force=True,
            on_progress=line,
        )
    stored = load_field(output)
    scene = open_scene(data, "test", downscale=downscale, aabb=stored.field.box())
    views = TestViews.of(scene.splits["test"]).figures
    return {
        **spent_by(run),
        "sha256": run.sha256,
        "views": len(views),
        **quality(evaluate(stored, views)),
    }


def figures(stored: RenderableField, views: TestViews, teacher: RenderableField, turn: Turn) -> Row:
    """Return the quality of a contestant on the test views, in turns, and on how many."""
    measured = evaluate(stored, views.figures, teacher, turn)
    return {"views": len(views.figures), "held_out_views": len(views.held_out), **quality(measured)}


def run_contestants(
    bench: Bench,
    teacher: Row,
    job: Any,
    contestants: Sequence[Row],
    settings: Row,
    slice_core_seconds: float,
) -> None:
    """Add the rows of one comparison.

    Args:
        teacher: row of the teacher, with its file in `path`.
        job: module's function that makes a contestant.
        contestants: keys of the rows, which the job takes as `contestant`.
        settings: further ones of all of them.
    """
    if "error" in teacher:
        for what in contestants:
            bench.fail(what, f"no teacher: {teacher['error']}")
        return
    of_all = {
        **bench.settings,
        **settings,
        "teacher": Path(teacher["path"]),
        "slice_core_seconds": slice_core_seconds,
    }
    bench.run_in_turns(
        [
            Contestant({**what, "teacher_sha256": teacher["sha256"]}, job, {**of_all, "contestant": what})
            for what in contestants
        ]
    )


def over_seeds(values: list[float]) -> Row:
    """Return the values and their median, mean, standard deviation and spread (maximum minus minimum)."""
    if not values:
        return {"values": [], "median": None, "mean": None, "std": None, "spread": None}
    return {
        "values": values,
        "median": statistics.median(values),
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "spread": max(values) - min(values),
    }


def number(n: int, what: str) -> str:
    """Return a number with its noun: `1 seed`, `3 seeds`."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _every_second(views: Split, first: int) -> Split:
    return Split(views.cameras[first::2], views.images[first::2], views.names[first::2])
