"""Conversions that can be interrupted at any point until the receipt is written.

While a student trains there is the loop's state. Once it is trained, student and report take that state's place until
everything is done. A resumed run repeats the same steps: conversions that are complete return their student at once,
the one that was interrupted continues, and images are rendered again.
"""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fieldmorph.apps.jobs.lifecycle import state_path
from fieldmorph.distill.conversion import ConvertConfig, ConvertReport, StageReport, convert
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.checkpoint import pack_state, read_header, unpack_state
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.loop import Interrupted, LoopReport, check_same
from fieldmorph.fields.progress import OnProgress
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split
from fieldmorph.fields.settings import saved_settings
from fieldmorph.fields.store import load_field, save_field
from fieldmorph.fields.types import JsonObject

Outcome = tuple[RenderableField, ConvertReport]


def state_paths(output: str | Path, parts: int) -> list[Path]:
    """Return the files of an interrupted conversion: its own, then those of its extension's parts."""
    return [state_path(output), *(Path(f"{output}.longer-{i + 1}.state") for i in range(parts))]


def distilled_path(state: Path) -> Path:
    """Return the file of the student as it was before its training on images, next to the outcome."""
    return state.with_name(f"{state.name}.distilled")


def begun_settings(state: Path) -> JsonObject:
    """Return the settings with which an interrupted conversion began, from the loop's state or the outcome."""
    head = read_header(state)
    holder = head["header"].get("provenance") if head["kind"] == "field" else head["header"]
    settings = holder.get("settings") if isinstance(holder, dict) else None
    return settings if isinstance(settings, dict) else {}


def convert_once(
    teacher: RenderableField,
    student: VolumeField,
    budget: Budget,
    config: ConvertConfig,
    *,
    state: Path,
    resume: bool,
    keep: bool,
    settings: JsonObject,
    on_progress: OnProgress,
    views: Split | None = None,
) -> Outcome:
    """Return what `convert` does, or what it returned before where `state` holds that.

    Args:
        state: file of the loop's state, and of the outcome afterwards; another next to it holds the student as it was
            before it was trained on images.
        keep: leave the outcome in `state` for a run that is resumed later.
        settings: JSON values that must be the same when the run is resumed.
        views: training images, where the student is trained on them as well.

    Raises:
        SettingError: `state` was made with other settings; once it is complete the budget counts as one.
    """
    length = {name: value for name, value in asdict(budget).items() if value is not None}
    requested = {
        **settings,
        **saved_settings(config),
        "student": student.name,
        **student.config(),
        "budget": length,
    }
    requested = json.loads(json.dumps(requested))  # as it comes back from the file
    if resume and state.exists() and read_header(state)["kind"] == "field":
        return _read(state, student, requested)
    stored, report = convert(
        teacher,
        student,
        budget,
        config,
        views=views,
        state_path=state,
        resume=resume,
        settings=settings,
        on_progress=on_progress,
    )
    if keep:
        distilled_path(state).unlink(missing_ok=True)
        if report.distilled is not None:
            save_field(distilled_path(state), report.distilled)
        plain = replace(report, distilled=None)
        outcome = {"settings": requested, "report": pack_state(asdict(plain))[0], "of": stored.provenance}
        save_field(state, replace(stored, provenance=outcome))
    return stored, report


@contextmanager
def interruptible(state: Path) -> Iterator[None]:
    """Raise on SIGINT and SIGTERM outside of a loop: what `state` does not hold is quickly made again.

    Raises:
        Interrupted: as a loop does.
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


def _read(state: Path, student: VolumeField, requested: JsonObject) -> Outcome:
    """Read the outcome of a complete conversion.

    Raises:
        SettingError: it was made with other settings.
        InputError: it is a field but no outcome.
    """
    stored = load_field(state)
    try:
        outcome = stored.provenance
        check_same(state, outcome["settings"], requested)
        report = unpack_state(outcome["report"], {})
        loop = {**report["loop"], "spent": Spent(**report["loop"]["spent"])}
        stages = tuple(StageReport(**stage) for stage in report["stages"])
        stored = replace(stored, field=stored.field.to(student.aabb.device), provenance=outcome["of"])
        before = distilled_path(state)
        distilled = load_field(before) if before.exists() else None
        if distilled is not None:
            distilled = replace(distilled, field=distilled.field.to(student.aabb.device))
        return stored, ConvertReport(LoopReport(**loop), stages, report["dropped"], distilled)
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{state} is a field but not the outcome of an interrupted conversion") from None
