"""Conversions in child processes: each can be cancelled at any moment, and its files are removed with it."""

import asyncio
import base64
import json
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.jobs.worker import COMMAND, WorkerCall, no_result
from fieldmorph.apps.receipt.page import receipt_paths
from fieldmorph.apps.viewer.convert_child import convert_reporting
from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.registry import FIELDS, field_settings
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import save_field
from fieldmorph.fields.types import JsonObject

MAX_SECONDS, MAX_CORE_SECONDS = 900.0, 1800.0
MAX_BYTES = 64_000_000  # of the student's file
NICE = 10  # added to the child's nice value, so that rendering comes first
MAX_LINE_BYTES = 1 << 20  # of a message


def check_limits(request: ConversionRequest, teacher: RenderableField) -> None:
    """Check that a conversion stays within the server's limits on time and file size.

    Raises:
        SettingError: it does not, or a name is unknown.
    """
    check_time(request.budget)
    check_size(request.to, request.preset, request.overrides, request.max_bytes, teacher)


def check_time(budget: Budget) -> None:
    """Check that a budget stays within the server's limit.

    Raises:
        SettingError: it does not.
    """
    if (budget.seconds or 0) > MAX_SECONDS or (budget.core_seconds or 0) > MAX_CORE_SECONDS:
        raise SettingError(
            f"a conversion takes at most {MAX_SECONDS / 60:g}m here, or {MAX_CORE_SECONDS:g}cs"
        )


def check_size(
    to: str, preset: str, overrides: Mapping[str, Any], max_bytes: int | None, teacher: RenderableField
) -> None:
    """Check that a student's file stays within the server's limit; arguments as those of a `ConversionRequest`.

    Raises:
        SettingError: it does not, or a name is unknown.
    """
    settings = field_settings(to, preset, **overrides)
    n_bytes = max_bytes
    if n_bytes is None:
        n_bytes = FIELDS[to].storage_bytes(settings, teacher.occupancy.occupied)
    if n_bytes > MAX_BYTES:
        raise SettingError(
            f"a field made here has at most {MAX_BYTES / 1e6:g} MB; this one would have about "
            f"{n_bytes / 1e6:.0f} MB"
        )


@dataclass
class ConversionProgress:
    """State of a conversion that runs.

    Attributes:
        fraction: of the running phase that is done.
        step, seconds: of training.
        psnr: latest PSNR to the teacher in dB.
        measuring: "teacher" or "student" once training is over and images of these are rendered for the receipt.
        evaluations: every change of the PSNR, with `core_seconds` and `psnr`.
        activity: before the first step a text for people, then the name of the stage.
        warnings: of the conversion, texts for people.
        images: PNG files of the teacher and of the student as it is now, from one camera.
    """

    fraction: float = 0.0
    step: int = 0
    seconds: float = 0.0
    psnr: float | None = None
    measuring: str | None = None
    evaluations: list[JsonObject] = field(default_factory=list)
    activity: str | None = None
    warnings: list[str] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)

    def update(self, message: Mapping[str, Any]) -> None:
        """Take in a message of the child process: progress, an image, a warning or an activity."""
        if "warning" in message:
            self.warnings.append(message["warning"])
        if "image" in message:
            self.images[message["image"]] = base64.b64decode(message["png"])
        self.activity = message.get("activity", self.activity)
        if "fraction" not in message:
            return
        self.fraction, self.measuring = message["fraction"], message.get("measuring")
        if self.measuring is None:
            self.step, self.seconds, psnr = message["step"], message["seconds"], message["psnr"]
            if psnr is not None and psnr != self.psnr:
                point = {"core_seconds": message["core_seconds"], "psnr": psnr, "stage": None}
                self.evaluations.append(point)
            self.psnr = psnr


class ConversionJob:
    """One conversion: teacher and output in a temporary folder, and a child process that works on them.

    Attributes:
        teacher: file of the teacher.
        output: file of the student, which exists once `run` has ended.
        result: what `convert_file` returned, as JSON values, then.
    """

    def __init__(self, teacher: RenderableField, name: str, request: ConversionRequest):
        """Write the teacher's file; `close` removes it.

        Args:
            name: of the teacher, which the names of the files are derived from.

        Raises:
            SettingError: as `check_limits`.
        """
        check_limits(request, teacher)
        self.request = request
        self.result: JsonObject = {}
        self._folder = tempfile.TemporaryDirectory(prefix="fieldmorph-convert-", ignore_cleanup_errors=True)
        stem = re.sub(r"[^\w-]+", "-", name)[:60].strip("-") or "field"
        self.teacher = Path(self._folder.name) / f"{stem}.fm"
        self.output = Path(self._folder.name) / f"{stem}-{request.to}.fm"
        self._process: asyncio.subprocess.Process | None = None
        self._closed = False
        save_field(self.teacher, teacher)

    @property
    def is_over(self) -> bool:
        """Return whether the job is closed or its process has ended."""
        return self._closed or (self._process is not None and self._process.returncode is not None)

    @property
    def receipts(self) -> tuple[Path, Path]:
        """Paths of the receipt: JSON file and HTML page."""
        return receipt_paths(self.output)

    async def run(self) -> AsyncIterator[ConversionProgress]:
        """Convert, and yield the progress whenever it changes.

        Raises:
            Cancelled: the job was closed.
            InputError: the conversion failed; the message is one line.
        """
        if self._closed:
            raise Cancelled
        self._process = process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_LINE_BYTES
        )
        assert process.stdin is not None
        assert process.stdout is not None
        settings = {"teacher": self.teacher, "output": self.output, "request": asdict(self.request)}
        call = WorkerCall.of(
            convert_reporting, settings, reports=True, nice=NICE, folder=str(self.teacher.parent)
        )
        process.stdin.write(call.line().encode())
        progress, message = ConversionProgress(), dict[str, Any]()
        async for line in process.stdout:
            message = json.loads(line)
            if not message.keys() & {"result", "error"}:
                progress.update(message)
                yield progress
        await process.wait()
        if self._closed:
            raise Cancelled
        if "result" not in message:
            raise InputError(message.get("message") or no_result(process.returncode))
        self.result = message["result"]

    def close(self) -> None:
        """Stop the process if it runs, and remove all files."""
        self._closed = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._folder.cleanup()


class ConversionSlot:
    """The place for the one conversion that a server runs at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: str | None = None
        self._job: ConversionJob | None = None

    def start(
        self, owner: str, teacher: RenderableField, name: str, request: ConversionRequest
    ) -> ConversionJob:
        """Return a new job, which its owner may run.

        Raises:
            BusyError: another one is running.
            SettingError: as `check_limits`.
        """
        with self._lock:
            if self._job is not None and not self._job.is_over:
                raise BusyError("another conversion is running on this server; try again when it is done")
            job = self._job = ConversionJob(teacher, name, request)
            self._owner = owner
        return job

    def cancel(self, owner: str) -> None:
        """Close the owner's job, if it has one."""
        with self._lock:
            if self._job is not None and self._owner == owner:
                self._job.close()

    def close(self) -> None:
        """Close the job of any owner."""
        if self._owner is not None:
            self.cancel(self._owner)
