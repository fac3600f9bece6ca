"""Training from file to file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldmorph.apps.jobs.lifecycle import SavedRun, check_settings, claim, finish, forget
from fieldmorph.apps.jobs.scenes import CAMERAS, digest, open_scene
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.progress import OnProgress
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import camera_digests
from fieldmorph.fields.types import FieldSettings


@dataclass(frozen=True)
class TrainResult(SavedRun):
    """A trained field."""


def train_scene(
    data: str | Path,
    output: str | Path,
    budget: Budget,
    *,
    field: str = "hashgrid",
    preset: str = "small",
    overrides: FieldSettings | None = None,
    downscale: int = 1,
    aabb: Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
    on_start: Callable[[RenderableField], None] = lambda _: None,
) -> TrainResult:
    """Fit a field to the images of a scene's `train` split and save it.

    An interrupted run leaves `<output>.state`, from which `resume` continues. It has an argument for each option of
    `fieldmorph train`, which is why they are more than ten.

    Args:
        data: the scene's folder.
        output: file to write.
        field, preset, overrides: representation, its preset, and constructor arguments that replace the preset's.
        downscale: factor by which the images are shrunk.
        aabb: the scene's box, min then max; estimated by default.
        seed: of all random numbers.
        resume, force: continue an interrupted run; overwrite what exists.
        on_progress: called after each step.
        on_start: called before the first step, with the field as it changes from then on.

    Raises:
        SettingError, InputError: before anything is written.
        Interrupted: the state is saved.
    """
    overrides = overrides or {}
    check_settings(field, preset, overrides)
    place = choose_device(device)
    state = claim(output, resume, force)
    scene = open_scene(data, "train", downscale=downscale, aabb=aabb)
    views = scene.splits["train"]
    model = make_field(field, preset, aabb=scene.aabb, seed=seed, **overrides).to(place)
    source = {
        "scene": scene.name,
        "images": len(views),
        "downscale": downscale,
        "data_sha256": digest(views),
    }
    forget(state, resume)
    stored, report = fit_images(
        model,
        views,
        budget,
        FitConfig(seed=seed),
        state_path=state,
        resume=resume,
        settings={**source, "steps": budget.steps},
        on_progress=on_progress,
        on_start=on_start,
    )
    job = {"job": "train", **source, CAMERAS: camera_digests(data), "preset": preset}
    saved = finish(stored, report, output, job, preset, seed)[1]
    state.unlink(missing_ok=True)
    return TrainResult(**vars(saved))
