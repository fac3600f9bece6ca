"""Estimates of how long the receipt of a conversion takes, for the remaining time that is shown."""

import time

from fieldmorph.distill.fidelity import FidelityConfig, evaluation_pixels
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import resize
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split

SIDE = 48  # pixels of the image that is timed


def receipt_seconds(
    teacher: RenderableField,
    student: VolumeField,
    test_images: Split | None,
    config: FidelityConfig | None = None,
) -> dict[str, float]:
    """Return about how many seconds the images of `teacher` and of `student` take, from a small one of each.

    An untrained student is rendered in the cells that its teacher occupies. Nothing random is drawn.

    Args:
        test_images: those that the receipt measures on, where there are any.
        config: number and sizes of the receipt's images.
    """
    compile_kernels(teacher.field, student)
    pixels = evaluation_pixels(teacher, test_images, config)
    untrained = RenderableField(student, teacher.occupancy, teacher.render_step_size, teacher.cameras)
    fields = {"teacher": teacher, "student": untrained}
    return {role: pixels * _seconds_per_pixel(stored) for role, stored in fields.items()}


def _seconds_per_pixel(stored: RenderableField) -> float:
    camera = resize(stored.cameras[0], SIDE, SIDE)
    stored.render(resize(camera, 16, 16))  # what is left to compile
    start = time.monotonic()
    stored.render(camera)
    return (time.monotonic() - start) / SIDE**2
