"""Conversions that an interruption costs little, until the receipt is written and not only while a student learns.

While a student learns there is its loop's state. Once it has learned, the student itself and the report of how it was
made take that state's place until all is done. So a resumed run takes the same way again: conversions that came to
their end give their student back at once, the one that was cut off goes on, and pictures are rendered anew.
"""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fieldmorph.apps.jobs.train import OnProgress, state_path
from fieldmorph.distill.conversion import ConvertConfig, ConvertReport, StageReport, convert
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.checkpoint import pack_state, read_header, unpack_state
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.loop import Interrupted, LoopReport, check_same
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import load_field, save_field

Outcome = tuple[RenderableField, ConvertReport]


def state_paths(output: str | Path, parts: int) -> list[Path]:
    """Where an interrupted conversion is kept, and then the parts by which it goes on."""
    return [state_path(output), *(Path(f"{output}.longer-{i + 1}.state") for i in range(parts))]


def convert_once(
    teacher: RenderableField,
    student: VolumeField,
    budget: Budget,
    config: ConvertConfig,
    *,
    state: Path,
    resume: bool,
    keep: bool,
    settings: dict[str, Any],
    on_progress: OnProgress,
) -> Outcome:
    """What `convert` returns, or what it returned before where `state` has that.

    Args:
        keep: leave the outcome in `state` for a run that is resumed later.

    Raises:
        SettingError: `state` was made with other settings, a longer or shorter time included once it is over.
    """
    length = {name: value for name, value in asdict(budget).items() if value is not None}
    asked = {**settings, **asdict(config), "student": student.name, **student.config(), "budget": length}
    asked = json.loads(json.dumps(asked))  # as it comes back from the file
    if resume and state.exists() and read_header(state)["kind"] == "field":
        return _read(state, student, asked)
    stored, report = convert(
        teacher, student, budget, config,
        state_path=state, resume=resume, settings=settings, on_progress=on_progress,
    )  # fmt: skip
    if keep:
        told = {"settings": asked, "report": pack_state(asdict(report))[0], "of": stored.provenance}
        save_field(state, replace(stored, provenance=told))
    return stored, report


@contextmanager
def interruptible(state: Path) -> Iterator[None]:
    """SIGINT and SIGTERM end what is no loop at once: what `state` does not hold is soon made again.

    Raises:
        Interrupted: as from a loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, _frame: Any) -> None:
        raise Interrupted(signum, state if state.exists() else None)

    previous = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _read(state: Path, student: VolumeField, asked: dict[str, Any]) -> Outcome:
    stored = load_field(state)
    try:
        told = stored.provenance
        check_same(state, told["settings"], asked)
        report = unpack_state(told["report"], {})
        loop = {**report["loop"], "spent": Spent(**report["loop"]["spent"])}
        stages = tuple(StageReport(**stage) for stage in report["stages"])
        stored = replace(stored, field=stored.field.to(student.aabb.device), provenance=told["of"])
        return stored, ConvertReport(LoopReport(**loop), stages, report["dropped"])
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{state} is a field but not the outcome of an interrupted conversion") from None
