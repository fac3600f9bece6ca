"""The side of a conversion's child process: it converts and sends progress, warnings and images of its student."""

import base64
import io
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image

from fieldmorph.apps.jobs.convert import ConversionRun, ConvertResult
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.jobs.worker import Report
from fieldmorph.apps.media import to_8bit
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.cameras import resize
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.types import JsonObject

REPORT_SECONDS = 0.3  # minimum time between two progress messages
IMAGE_SIDE = 160  # pixels of the longer side
IMAGE_SECONDS = 4.0  # minimum time between two images of the student
IMAGE_FRACTION = 0.03  # of the time that images of the student may take


def convert_reporting(teacher: str, output: str, request: Mapping[str, Any], report: Report) -> ConvertResult:
    """Convert in the child process, and send what happens.

    Args:
        teacher, output: paths of files.
        request: attributes of a `ConversionRequest` as JSON values.
        report: sends a message.
    """
    logging.getLogger("fieldmorph").addHandler(_WarningHandler(report))
    report({"activity": "Reading the teacher"})
    budget, active = Budget(**request["budget"]), tuple(request["active"])
    settings = ConversionRequest(**{**request, "budget": budget, "active": active})
    reporter = _ProgressReporter(report)
    run = reporter.run = ConversionRun(
        teacher,
        output,
        settings,
        data=None,
        downscale=1,
        device="auto",
        resume=False,
        force=False,
        on_progress=reporter.training,
        on_image=reporter.measuring,
        on_expected=None,
    )
    reporter.send_image("teacher", run.teacher)
    report({"activity": "Drawing samples from the teacher, and solving for a start where that helps"})
    return run.run()


class _WarningHandler(logging.Handler):
    """Handler that sends warnings of the library as messages."""

    def __init__(self, report: Report):
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report({"warning": record.getMessage()})


class _ProgressReporter:
    """Sender of messages about a run, which leaves out those that follow too soon.

    Attributes:
        run: the conversion, once it is made.
    """

    def __init__(self, report: Report):
        self.run: ConversionRun | None = None
        self._report, self._sent_at = report, 0.0
        self._psnr: float | None = None
        self._started = self._drawn_at = time.monotonic()
        self._drawing_seconds = 0.0

    def training(self, now: Progress) -> None:
        psnr = now.psnr if now.psnr is not None and math.isfinite(now.psnr) else None
        if psnr != self._psnr or self._is_due():
            self._psnr = psnr
            message = {"fraction": now.fraction, "step": now.step, "psnr": psnr, "activity": now.activity}
            self._send({**message, **asdict(now.spent)})
        self._draw_student()

    def measuring(self, role: str, done: int, total: int) -> None:
        if done == total or self._is_due():
            self._send({"fraction": done / total, "measuring": role})

    def send_image(self, role: str, stored: RenderableField) -> None:
        """Send a small image of a field from the first training camera."""
        if not len(stored.cameras):
            return
        camera = stored.cameras[0]
        scale = IMAGE_SIDE / max(camera.width, camera.height)
        camera = resize(camera, round(scale * camera.width) or 1, round(scale * camera.height) or 1)
        with torch.no_grad():
            pixels = to_8bit(stored.render(camera)["colors"])
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        self._report({"image": role, "png": base64.b64encode(png.getvalue()).decode()})

    def _draw_student(self) -> None:
        """Send an image of the student as it is, every few seconds and for a small part of the time."""
        run, began = self.run, time.monotonic()
        allowed = IMAGE_FRACTION * (began - self._started)
        is_due = began - self._drawn_at > IMAGE_SECONDS and self._drawing_seconds < allowed
        if run is None or run.student is None or not is_due:
            return
        teacher = run.teacher
        self.send_image(
            "student",
            RenderableField(run.student, teacher.occupancy, teacher.render_step_size, teacher.cameras),
        )
        self._drawn_at = time.monotonic()
        self._drawing_seconds += self._drawn_at - began

    def _send(self, message: JsonObject) -> None:
        self._sent_at = time.monotonic()
        self._report(message)

    def _is_due(self) -> bool:
        return time.monotonic() - self._sent_at > REPORT_SECONDS
