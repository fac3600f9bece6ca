"""Comparison of students over a sample of pixels, which takes the time of about one image."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.distill.fidelity import EvaluationViews
from fieldmorph.fields.cameras import Rays, camera_rays
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import render_rays
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.types import JsonObject

N_PIXELS = 1 << 16
RAYS_PER_CHUNK = 1 << 12


def compare_pixels(views: EvaluationViews, student: RenderableField, n_pixels: int = N_PIXELS) -> JsonObject:
    """Return the PSNR of a student over random pixels of the views, the same ones for all students, as JSON values.

    `psnr_to_teacher` in dB, with test images `psnr` as well, and the number of `pixels`. None stands for what is not
    finite.

    Args:
        student: rendered on its own device.
        n_pixels: at most; all where there are fewer.
    """
    cameras = views.cameras
    height, width = cameras.height, cameras.width
    which = torch.randperm(len(cameras) * height * width, generator=seeded(0, "pixels"))[:n_pixels]
    view, row, column = which // (height * width), which // width % height, which % width
    colors = _render(student, camera_rays(cameras, view, torch.stack([column, row], dim=-1)))
    references = {"psnr_to_teacher": [shot["colors"].cpu() for shot in views.teacher_views]}
    if views.test_images is not None:
        references["psnr"] = views.test_images
    found: JsonObject = {"pixels": len(which)}
    for name, images in references.items():
        value = capped_psnr(colors[None], torch.stack(images)[None, view, row, column])
        found[name] = value if math.isfinite(value) else None
    return found


def _render(student: RenderableField, rays: Rays) -> Float[Tensor, "n_rays 3"]:
    """Return the colors of rays over white, on the CPU."""
    device, colors = student.field.aabb.device, []
    with torch.no_grad():
        for start in range(0, len(rays), RAYS_PER_CHUNK):
            part = rays[start : start + RAYS_PER_CHUNK]
            part = Rays(part.rays_o.to(device), part.rays_d.to(device))
            white = torch.ones_like(part.rays_o)
            rendered = render_rays(student.field, part, student.occupancy, student.render_step_size, white)
            colors.append(rendered.colors.clamp(0, 1).cpu())
    return torch.cat(colors)
