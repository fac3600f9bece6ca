"""Training and conversion from file to file: everything is checked first, the output is written last."""

import hashlib
import importlib.metadata
import importlib.resources
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.outputs import file_sha256
from fieldmorph.distill.convert import ConvertConfig, convert
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.catalog import FIELDS, field_settings, make_field
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import InputError, SettingError, UnsafeError
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.loop import LoopReport, Progress
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import Scene, Split, load_scene
from fieldmorph.fields.store import StoredField, load_field, save_field

UNIT_BOX = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)

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
    _check_settings(field, preset, overrides)
    place = choose_device(device)
    state = _claim(output, resume, force)
    scene = open_scene(data, "train", downscale=downscale, aabb=aabb)
    views = scene.splits["train"]
    model = make_field(field, preset, aabb=scene.aabb, seed=seed, **(overrides or {})).to(place)
    source = {
        "scene": scene.name,
        "images": len(views),
        "downscale": downscale,
        "data_sha256": _digest(views),
    }
    _forget(state, resume)
    stored, report = fit_images(
        model, views, budget, FitConfig(seed=seed),
        state_path=state, resume=resume, settings={**source, "steps": budget.steps}, on_progress=on_progress,
    )  # fmt: skip
    job = {"job": "train", **source, "preset": preset}
    return _finish(stored, report, output, job, preset, seed)


def convert_file(
    teacher: str | Path,
    output: str | Path,
    budget: Budget,
    *,
    to: str = "mlp",
    preset: str = "small",
    overrides: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> dict[str, Any]:
    """Teach a new field what the one in a file is and save it; what came out, as JSON values.

    State, `resume` and errors are `train_scene`'s.
    """
    _check_settings(to, preset, overrides)
    place = choose_device(device)
    if Path(output).resolve() == Path(teacher).resolve():
        raise SettingError(f"the output {output} is the teacher itself; choose another name")
    state = _claim(output, resume, force)
    taught_by = load_field(teacher)
    taught_by.field.to(place)
    sha256 = file_sha256(teacher)
    student = make_field(to, preset, aabb=taught_by.field.box(), seed=seed, **(overrides or {})).to(place)
    _forget(state, resume)
    stored, report = convert(
        taught_by, student, budget, ConvertConfig(seed=seed),
        state_path=state, resume=resume,
        settings={"teacher_sha256": sha256, "steps": budget.steps}, on_progress=on_progress,
    )  # fmt: skip
    origin = {"field": taught_by.field.name, "sha256": sha256, "provenance": taught_by.provenance}
    stages = {"stages": [stage.name for stage in report.stages], "dropped": report.dropped}
    job = {"job": "convert", "teacher": origin, **stages, "preset": preset}
    result = _finish(stored, report.loop, output, job, preset, seed)
    return {**result, **stages, "teacher": str(teacher), "teacher_sha256": sha256}


def bundled_scene() -> Path:
    """The folder of the scene that comes with the package."""
    return Path(str(importlib.resources.files("fieldmorph.apps") / "spot"))


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


def _check_settings(name: str, preset: str, overrides: dict[str, Any] | None) -> None:
    """Try a field's settings in a unit box before data is read."""
    settings = field_settings(name, preset, **(overrides or {}))
    try:
        FIELDS[name](aabb=UNIT_BOX, **settings)
    except SettingError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"{name} cannot be built with {overrides}: {reason}") from None


def _claim(output: str | Path, resume: bool, force: bool) -> Path:
    """The state's path, once output and state may be written."""
    state = state_path(output)
    goes_on = resume and state.exists()
    check_output(output, force or goes_on)
    check_output(state, force=True)
    if resume and not goes_on:
        log.warning("no %s to go on with; starting anew", state)
    if state.exists() and not (resume or force):
        raise SettingError(
            f"{state} from an interrupted run is there: --resume goes on with it, --force starts anew"
        )
    return state


def _forget(state: Path, resume: bool) -> None:
    """Drop an old run's state, which a later `--resume` would take for the new run's."""
    if not resume:
        state.unlink(missing_ok=True)


def _finish(
    stored: StoredField, report: LoopReport, output: str | Path, job: dict[str, Any], preset: str, seed: int
) -> dict[str, Any]:
    """Save with its provenance (no times in it: equal runs give equal bytes), drop the state, sum up."""
    version = importlib.metadata.version("fieldmorph")
    provenance = {**job, "seed": seed, "steps": report.steps, "fieldmorph": version}
    save_field(output, replace(stored, provenance=provenance))
    state_path(output).unlink(missing_ok=True)
    return {
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


def _digest(views: Split) -> str:
    """sha256 over pictures and cameras."""
    digest = hashlib.sha256()
    for tensor in (views.images, views.cameras.camera_to_world, views.cameras.intrinsics):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
