"""How good a field is: PSNR and SSIM against photographs and against its teacher, size and speed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fieldmorph.apps.jobs.train import open_scene
from fieldmorph.fields.budget import Spent, now
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.metrics import SSIM_WINDOW, capped_psnr, ssim
from fieldmorph.fields.renderable import RenderableField, picture, resize
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import load_field

OnPicture = Callable[[int, int], None]


def evaluate_file(
    path: str | Path,
    data: str | Path,
    *,
    split: str = "test",
    downscale: int = 1,
    teacher: str | Path | None = None,
    device: str = "auto",
    on_picture: OnPicture = lambda _done, _total: None,
) -> dict[str, Any]:
    """`evaluate` for files; the views may have another size than those the field was trained on."""
    place = choose_device(device)
    stored = load_field(path)
    stored.field.to(place)
    taught_by = None if teacher is None else load_field(teacher)
    if taught_by is not None:
        taught_by.field.to(place)
    views = open_scene(data, split, downscale=downscale, aabb=stored.field.box()).splits[split]
    file = {"file": str(path), "bytes": Path(path).stat().st_size, "sha256": file_sha256(path)}
    return {**file, **evaluate(stored, views, taught_by, on_picture)}


def evaluate(
    stored: RenderableField,
    views: Split,
    teacher: RenderableField | None = None,
    on_picture: OnPicture = lambda _done, _total: None,
) -> dict[str, Any]:
    """Every view rendered over white, colours clamped to [0, 1], compared in sRGB; JSON values.

    `psnr` and `ssim` are means over the views, at most 100 dB each. With a teacher the same is said of the
    student's pictures against the teacher's. Seconds are those of the field's own pictures alone.

    Raises:
        SettingError: views smaller than SSIM's window, before anything is rendered.
    """
    width, height = views.cameras.width, views.cameras.height
    if min(width, height) < SSIM_WINDOW:
        raise SettingError(
            f"SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels; the views have {width} x {height}"
        )
    picture(stored, resize(views.cameras[0], 16, 16))  # kernels compile at their first use
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "psnr_to_teacher": [], "ssim_to_teacher": []}
    spent = Spent()
    for i, camera in enumerate(views.cameras):
        start = now()
        image = picture(stored, camera)
        spent += now() - start
        photograph = views.view_over(i, torch.ones(3))
        scores["psnr"].append(capped_psnr(image, photograph))
        scores["ssim"].append(ssim(image, photograph))
        if teacher is not None:
            taught = picture(teacher, camera)
            scores["psnr_to_teacher"].append(capped_psnr(image, taught))
            scores["ssim_to_teacher"].append(ssim(image, taught))
        on_picture(i + 1, len(views))
    scores = {name: values for name, values in scores.items() if values}
    return {
        **{name: sum(values) / len(values) for name, values in scores.items()},
        **{f"{name}_per_view": values for name, values in scores.items()},
        "views": list(views.names),
        "image_size": [width, height],
        "field": stored.field.name,
        "params": stored.field.n_parameters(),
        "seconds_per_image": spent.seconds / len(views),
        "core_seconds_per_image": spent.core_seconds / len(views),
    }


def evaluation_table(result: dict[str, Any]) -> str:
    """What `evaluate_file` returned, for people."""
    names = [n for n in ("psnr", "ssim", "psnr_to_teacher", "ssim_to_teacher") if n in result]
    width = max(len(name) for name in ("mean", *result["views"]))
    lines = ["  ".join([f"{'view':<{width}}", *(f"{n.replace('_', ' '):>15}" for n in names)])]
    columns = [result[f"{n}_per_view"] for n in names]
    for view_name, *values in [
        *zip(result["views"], *columns, strict=True),
        ("mean", *(result[n] for n in names)),
    ]:
        shown = (f"{v:15.4f}" if "ssim" in n else f"{v:15.2f}" for n, v in zip(names, values, strict=True))
        lines.append("  ".join([f"{view_name:<{width}}", *shown]))
    lines.append(
        f"{result['field']}, {result['params']} parameters, {result['bytes']} bytes, "
        f"{result['seconds_per_image']:.3f} s ({result['core_seconds_per_image']:.3f} core-seconds) an image of "
        f"{result['image_size'][0]} x {result['image_size'][1]}"
    )
    return "\n".join(lines)
