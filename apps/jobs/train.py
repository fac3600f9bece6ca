"""Training from file to file, and what every such job does: check everything first, write the output last."""

import hashlib
import importlib.metadata
import importlib.resources
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldmorph.fields.budget import Budget
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import InputError, SettingError, UnsafeError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.loop import LoopReport, Progress
from fieldmorph.fields.registry import FIELDS, field_settings, make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import Scene, Split, load_scene
from fieldmorph.fields.store import save_field

UNIT_BOX = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
COPIES = 5  # of the parameters while they are trained: gradients, two moments, the best so far

OnProgress = Callable[[Progress], None]

log = logging.getLogger(__name__)


def train_scene(
    data: str | Path,
    output: str | Path,
    budget: Budget,
    *,
    field: str = "hashgrid",
    preset: str = "small",
    overrides: dict[str, Any] | None = None,
    downscale: int = 1,
    aabb: Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> dict[str, Any]:
    """Fit a field to the photographs of a scene's `train` split and save it; what came out, as JSON values.

    An interrupted run leaves `<output>.state`, from which `resume` goes on.

    Raises:
        SettingError, InputError: before anything is written.
        Interrupted: the state is saved.
    """
    check_settings(field, preset, overrides)
    place = choose_device(device)
    state = claim(output, resume, force)
    scene = open_scene(data, "train", downscale=downscale, aabb=aabb)
    views = scene.splits["train"]
    model = make_field(field, preset, aabb=scene.aabb, seed=seed, **(overrides or {})).to(place)
    source = {
        "scene": scene.name,
        "images": len(views),
        "downscale": downscale,
        "data_sha256": digest(views),
    }
    forget(state, resume)
    stored, report = fit_images(
        model, views, budget, FitConfig(seed=seed),
        state_path=state, resume=resume, settings={**source, "steps": budget.steps}, on_progress=on_progress,
    )  # fmt: skip
    job = {"job": "train", **source, "preset": preset}
    result = finish(stored, report, output, job, preset, seed)[1]
    state.unlink(missing_ok=True)
    return result


def bundled_scene() -> Path:
    """The folder of the scene that comes with the package."""
    return Path(str(importlib.resources.files("fieldmorph.apps") / "data" / "spot"))


def open_scene(
    data: str | Path, *splits: str, downscale: int = 1, aabb: Sequence[float] | None = None
) -> Scene:
    """Some splits of a scene.

    Raises:
        InputError: bad data; a path that leaves the folder is bad data too, it asks to run nothing.
        SettingError: a split that does not exist.
    """
    try:
        return load_scene(data, downscale=downscale, aabb=aabb, splits=splits)
    except UnsafeError as error:
        raise InputError(str(error)) from None


def state_path(output: str | Path) -> Path:
    """Where an interrupted run is kept."""
    return Path(f"{output}.state")


def check_settings(
    name: str, preset: str, overrides: dict[str, Any] | None, occupied: Tensor | None = None
) -> None:
    """Try a field's settings, and whether training it fits into memory, before data is read.

    Args:
        occupied: cells that have something in them, where that is known.
    """
    settings = field_settings(name, preset, **(overrides or {}))
    cells = torch.zeros(1, 1, 1, dtype=torch.bool) if occupied is None else occupied
    try:
        needed = COPIES * FIELDS[name].storage_bytes(settings, cells)
        if needed > (there := _memory_bytes()):
            raise SettingError(
                f"training {name} with these settings takes about {needed / 1e9:.1f} GB; "
                f"this machine has {there / 1e9:.1f} GB"
            )
        FIELDS[name](aabb=UNIT_BOX, **settings)
    except SettingError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"{name} cannot be built with {overrides}: {reason}") from None


def claim(output: str | Path, resume: bool, force: bool) -> Path:
    """The state's path, once output and state may be written."""
    state = state_path(output)
    goes_on = resume and state.exists()
    if state.exists() and not (resume or force):
        raise SettingError(
            f"{state} from an interrupted run is there: --resume goes on with it, --force starts anew"
        )
    check_output(output, force or goes_on)
    check_output(state, force=True)
    if resume and not goes_on:
        log.warning("no %s to go on with; starting anew", state)
    return state


def forget(state: Path, resume: bool) -> None:
    """Drop an old run's state, which a later `--resume` would take for the new run's."""
    if not resume:
        state.unlink(missing_ok=True)


def finish(
    stored: RenderableField, report: LoopReport, output: str | Path, job: dict[str, Any], preset: str, seed: int
) -> tuple[RenderableField, dict[str, Any]]:
    """Save with its provenance (no times in it: equal runs give equal bytes), sum up as JSON values."""
    version = importlib.metadata.version("fieldmorph")
    provenance = {**job, "seed": seed, "steps": report.steps, "fieldmorph": version}
    stored = replace(stored, provenance=provenance)
    save_field(output, stored)
    return stored, {
        "output": str(output),
        "field": stored.field.name,
        "preset": preset,
        "params": stored.field.n_parameters(),
        "bytes": Path(output).stat().st_size,
        "sha256": file_sha256(output),
        "steps": report.steps,
        "seconds": report.spent.seconds,
        "core_seconds": report.spent.core_seconds,
        "psnr": report.psnr,
        "seed": seed,
    }


def digest(views: Split) -> str:
    """sha256 over pictures and cameras."""
    digest = hashlib.sha256()
    for tensor in (views.images, views.cameras.camera_to_world, views.cameras.intrinsics):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _memory_bytes() -> float:
    """Of the machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
