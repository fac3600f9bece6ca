"""Evaluation of a field: PSNR and SSIM on images of a scene and against its teacher, size and speed."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fieldmorph.apps.jobs.inputs import compile_for, open_field
from fieldmorph.apps.jobs.scenes import open_scene, warn_of_other_scene
from fieldmorph.distill.receipt import plain
from fieldmorph.fields.budget import Spent, now
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.metrics import SSIM_WINDOW, capped_psnr, ssim
from fieldmorph.fields.progress import OnCount
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import Split
from fieldmorph.fields.types import JsonObject


@dataclass(frozen=True)
class Evaluation:
    """Figures of a field over the views of a split.

    Attributes:
        psnr, ssim: means over the views, against the scene's images; PSNR in dB, at most 100 per view.
        psnr_to_teacher, ssim_to_teacher: against the teacher's renderings; None without a teacher.
        psnr_per_view, ssim_per_view, psnr_to_teacher_per_view, ssim_to_teacher_per_view: the same by view.
        views: their names.
        image_size: width and height in pixels.
        field, params: representation and number of parameters.
        seconds_per_image, core_seconds_per_image: wall-clock and CPU time of rendering, without the teacher's.
    """

    psnr: float
    ssim: float
    psnr_to_teacher: float | None
    ssim_to_teacher: float | None
    psnr_per_view: tuple[float, ...]
    ssim_per_view: tuple[float, ...]
    psnr_to_teacher_per_view: tuple[float, ...] | None
    ssim_to_teacher_per_view: tuple[float, ...] | None
    views: tuple[str, ...]
    image_size: tuple[int, int]
    field: str
    params: int
    seconds_per_image: float
    core_seconds_per_image: float

    def as_json(self) -> JsonObject:
        """Return JSON values: nothing of the teacher where there is none."""
        return {name: value for name, value in plain(self).items() if value is not None}


@dataclass(frozen=True)
class EvalResult:
    """Figures of the field in a file.

    Attributes:
        file: as it was given.
        bytes, sha256: of the file.
        evaluation: of the field.
        same_scene: whether the views are of the scene that the field was trained on; None where that is unknown.
    """

    file: str
    bytes: int
    sha256: str
    evaluation: Evaluation
    same_scene: bool | None = None

    def as_json(self) -> JsonObject:
        """Return the values of `--json`: nothing of the scene where it is unknown."""
        file = {"file": self.file, "bytes": self.bytes, "sha256": self.sha256}
        known = {} if self.same_scene is None else {"same_scene": self.same_scene}
        return {**file, **self.evaluation.as_json(), **known}


def evaluate_file(
    path: str | Path,
    data: str | Path,
    *,
    split: str = "test",
    downscale: int = 1,
    teacher: str | Path | None = None,
    device: str = "auto",
    on_image: OnCount = lambda _done, _total: None,
) -> EvalResult:
    """Evaluate the field in a file on a split of a scene; the log has a warning if it was trained on another one.

    Args:
        data: the scene's folder; its images may have another size than those the field was trained on.
        downscale: factor by which they are shrunk.
        teacher: file of a field to compare with, too.

    Raises:
        SettingError, InputError: before anything is rendered.
    """
    place = choose_device(device)
    stored = open_field(path)
    stored.field.to(place)
    reference = None if teacher is None else open_field(teacher)
    if reference is not None:
        reference.field.to(place)
    views = open_scene(data, split, downscale=downscale, aabb=stored.field.box()).splits[split]
    same_scene = warn_of_other_scene(path, stored.provenance, data)
    return EvalResult(
        file=str(path),
        bytes=Path(path).stat().st_size,
        sha256=file_sha256(path),
        evaluation=evaluate(stored, views, reference, on_image),
        same_scene=same_scene,
    )


def evaluate(
    stored: RenderableField,
    views: Split,
    teacher: RenderableField | None = None,
    on_image: OnCount = lambda _done, _total: None,
) -> Evaluation:
    """Render every view over white, with colours clamped to [0, 1], and compare in sRGB.

    Args:
        teacher: also compare with its renderings.
        on_image: called after each view.

    Raises:
        SettingError: views smaller than SSIM's window, before anything is rendered.
    """
    width, height = views.cameras.width, views.cameras.height
    if min(width, height) < SSIM_WINDOW:
        raise SettingError(
            f"SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels; the views have {width} x {height}"
        )
    compile_for(stored)
    psnr, similarity = list[float](), list[float]()
    psnr_to_teacher, ssim_to_teacher = list[float](), list[float]()
    spent = Spent()
    for i, camera in enumerate(views.cameras):
        start = now()
        image = stored.render(camera)["colors"]
        spent += now() - start
        truth = views.view_over(i, torch.ones(3))
        psnr.append(capped_psnr(image, truth))
        similarity.append(ssim(image, truth))
        if teacher is not None:
            expected = teacher.render(camera)["colors"]
            psnr_to_teacher.append(capped_psnr(image, expected))
            ssim_to_teacher.append(ssim(image, expected))
        on_image(i + 1, len(views))
    return Evaluation(
        psnr=_mean(psnr),
        ssim=_mean(similarity),
        psnr_to_teacher=None if teacher is None else _mean(psnr_to_teacher),
        ssim_to_teacher=None if teacher is None else _mean(ssim_to_teacher),
        psnr_per_view=tuple(psnr),
        ssim_per_view=tuple(similarity),
        psnr_to_teacher_per_view=None if teacher is None else tuple(psnr_to_teacher),
        ssim_to_teacher_per_view=None if teacher is None else tuple(ssim_to_teacher),
        views=tuple(views.names),
        image_size=(width, height),
        field=stored.field.name,
        params=stored.field.n_parameters(),
        seconds_per_image=spent.seconds / len(views),
        core_seconds_per_image=spent.core_seconds / len(views),
    )


def evaluation_table(result: EvalResult) -> str:
    """Format an evaluation as a table with a row for each view."""
    found = result.evaluation
    columns = {"psnr": (found.psnr_per_view, found.psnr), "ssim": (found.ssim_per_view, found.ssim)}
    if found.psnr_to_teacher_per_view is not None and found.psnr_to_teacher is not None:
        columns["psnr to teacher"] = (found.psnr_to_teacher_per_view, found.psnr_to_teacher)
    if found.ssim_to_teacher_per_view is not None and found.ssim_to_teacher is not None:
        columns["ssim to teacher"] = (found.ssim_to_teacher_per_view, found.ssim_to_teacher)
    width = max(len(name) for name in ("mean", *found.views))
    lines = ["  ".join([f"{'view':<{width}}", *(f"{name:>15}" for name in columns)])]
    for i, view in enumerate((*found.views, "mean")):
        shown = [
            f"{(*per_view, mean)[i]:15.{4 if 'ssim' in name else 2}f}"
            for name, (per_view, mean) in columns.items()
        ]
        lines.append("  ".join([f"{view:<{width}}", *shown]))
    lines.append(
        f"{found.field}, {found.params} parameters, {result.bytes} bytes, "
        f"{found.seconds_per_image:.3f} s ({found.core_seconds_per_image:.3f} core-seconds) an image of "
        f"{found.image_size[0]} x {found.image_size[1]}"
    )
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
