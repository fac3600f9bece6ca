"""Common steps of jobs that make a field: check settings first, claim the output, write it last."""

import importlib.metadata
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldmorph.distill.receipt import plain
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.loop import LoopReport
from fieldmorph.fields.registry import FIELDS, field_settings
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import save_field
from fieldmorph.fields.types import JsonObject

UNIT_BOX = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
COPIES = 5  # of the parameters in memory during training: with gradients, two moments and the best so far

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedRun:
    """A field that was made and saved.

    Attributes:
        output: the field's file.
        field, preset: names of its representation and preset.
        params: number of its parameters.
        bytes, sha256: of the file.
        steps: of the optimiser.
        seconds, core_seconds: wall-clock and CPU time of the run.
        psnr: best PSNR of the probe in dB.
        seed: of the run.
    """

    output: str
    field: str
    preset: str
    params: int
    bytes: int
    sha256: str
    steps: int
    seconds: float
    core_seconds: float
    psnr: float
    seed: int

    def as_json(self) -> JsonObject:
        """Return the values of `--json`."""
        values: JsonObject = plain(self)
        return values


def check_settings(
    name: str, preset: str, overrides: Mapping[str, Any], occupied: Tensor | None = None
) -> None:
    """Check a field's settings, and that training it fits into memory, before data is read.

    Args:
        occupied: (x, y, z) bool, cells that are not empty, where they are known.

    Raises:
        SettingError: unknown names, values that no field can be built with, or too little memory.
    """
    settings = field_settings(name, preset, **overrides)
    cells = torch.zeros(1, 1, 1, dtype=torch.bool) if occupied is None else occupied
    try:
        needed = COPIES * FIELDS[name].storage_bytes(settings, cells)
        if needed > (available := _memory_bytes()):
            raise SettingError(
                f"training {name} with these settings takes about {needed / 1e9:.1f} GB; "
                f"this machine has {available / 1e9:.1f} GB"
            )
        FIELDS[name](aabb=UNIT_BOX, **settings)
    except SettingError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"{name} cannot be built with {dict(overrides)}: {reason}") from None


def state_path(output: str | Path) -> Path:
    """Return where the state of an interrupted run is kept."""
    return Path(f"{output}.state")


def claim(output: str | Path, resume: bool, force: bool) -> Path:
    """Check that output and state may be written and return the state's path.

    Raises:
        SettingError: one of them exists and neither `resume` nor `force` allows it, or it cannot be written.
    """
    state = state_path(output)
    resumes = resume and state.exists()
    if state.exists() and not (resume or force):
        raise SettingError(
            f"found {state} from an interrupted run: use --resume to continue or --force to start over"
        )
    check_output(output, force or resumes)
    check_output(state, force=True)
    if resume and not resumes:
        log.warning("no %s to resume from; starting over", state)
    return state


def forget(state: Path, resume: bool) -> None:
    """Remove an old run's state, which a later `--resume` would take for the new run's."""
    if not resume:
        state.unlink(missing_ok=True)


def finish(
    stored: RenderableField,
    report: LoopReport,
    output: str | Path,
    job: JsonObject,
    preset: str,
    seed: int,
) -> tuple[RenderableField, SavedRun]:
    """Save a field with its provenance and sum up the run.

    The provenance holds no times, so that equal runs give equal bytes.

    Args:
        job: what the provenance says of how the field was made, JSON values.
    """
    version = importlib.metadata.version("fieldmorph")
    provenance = {**job, "seed": seed, "steps": report.steps, "fieldmorph": version}
    stored = replace(stored, provenance=provenance)
    save_field(output, stored)
    return stored, SavedRun(
        output=str(output),
        field=stored.field.name,
        preset=preset,
        params=stored.field.n_parameters(),
        bytes=Path(output).stat().st_size,
        sha256=file_sha256(output),
        steps=report.steps,
        seconds=report.spent.seconds,
        core_seconds=report.spent.core_seconds,
        psnr=report.psnr,
        seed=seed,
    )


def _memory_bytes() -> float:
    """Return the machine's memory; infinite where the system does not report it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
