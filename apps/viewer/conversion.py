"""A conversion in a process of its own: it can be ended at any moment, and its files go with it."""

import asyncio
import json
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.console.exits import explain
from fieldmorph.apps.jobs.convert import ConvertOptions, convert_file
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.receipt.page import receipt_paths
from fieldmorph.apps.viewer.render_pool import BusyError
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.loop import Progress
from fieldmorph.fields.registry import FIELDS, field_settings
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import use_threads
from fieldmorph.fields.store import save_field

CHILD = "from fieldmorph.apps.viewer.conversion import work; work()"
MOST_SECONDS, MOST_CORE_SECONDS = 900.0, 1800.0
MOST_BYTES = 64_000_000  # of the field that is made
TELL_SECONDS = 0.3  # between two words of how far it is
NICE = 5  # whoever looks at something comes first
LINE = 1 << 20  # bytes of a message


@dataclass(frozen=True)
class Wish:
    """What is asked of a conversion; `check` says whether it can be had here."""

    to: str = "mlp"
    preset: str = "small"
    budget: Budget = field(default_factory=lambda: Budget(seconds=120.0))
    options: ConvertOptions = field(default_factory=ConvertOptions)
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def check(self, teacher: RenderableField) -> None:
        """See that it takes no longer, and makes nothing larger, than a server can bear.

        Raises:
            SettingError: it does, or names what does not exist.
        """
        budget, most = self.budget, self.options.max_bytes
        if (budget.seconds or 0) > MOST_SECONDS or (budget.core_seconds or 0) > MOST_CORE_SECONDS:
            raise SettingError(
                f"a conversion takes at most {MOST_SECONDS / 60:g}m here, or {MOST_CORE_SECONDS:g}cs"
            )
        settings = field_settings(self.to, self.preset, **self.settings)
        if most is None:
            most = FIELDS[self.to].storage_bytes(settings, teacher.occupancy.occupied)
        if most > MOST_BYTES:
            raise SettingError(
                f"a field made here has at most {MOST_BYTES / 1e6:g} MB; this one would have about {most / 1e6:.0f} MB"
            )


@dataclass
class Course:
    """How far a conversion is.

    Attributes:
        share: of the part that runs.
        measuring: "teacher" or "student" once it has learned and pictures of these are compared.
        looks: at the quality on the way, `core_seconds` and `psnr`.
    """

    share: float = 0.0
    step: int = 0
    seconds: float = 0.0
    psnr: float | None = None
    measuring: str | None = None
    looks: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take in a message."""
        self.share, self.measuring = told["share"], told.get("measuring")
        if self.measuring is None:
            self.step, self.seconds, psnr = told["step"], told["seconds"], told["psnr"]
            if psnr is not None and psnr != self.psnr:
                self.looks.append({"core_seconds": told["core_seconds"], "psnr": psnr, "stage": None})
            self.psnr = psnr


class Ended(Exception):
    """Somebody ended the conversion."""


class Job:
    """One conversion: teacher and output in a temporary folder, a process that works on them.

    Attributes:
        output: the new field's file, once `run` came to its end.
        result: what `convert_file` returned, then.
    """

    def __init__(self, teacher: RenderableField, name: str, wish: Wish):
        """Write what the process needs; `end` frees it again.

        Raises:
            SettingError: as `Wish.check`.
        """
        wish.check(teacher)
        self.wish, self.result = wish, dict[str, Any]()
        self._folder = tempfile.TemporaryDirectory(prefix="fieldmorph-convert-", ignore_cleanup_errors=True)
        stem = re.sub(r"[^\w-]+", "-", name)[:60].strip("-") or "field"
        self.teacher = Path(self._folder.name) / f"{stem}.fm"
        self.output = Path(self._folder.name) / f"{stem}-{wish.to}.fm"
        self._process: asyncio.subprocess.Process | None = None
        self._ended = False
        save_field(self.teacher, teacher)

    @property
    def over(self) -> bool:
        """Whether it needs no more time: ended, or its process is."""
        return self._ended or (self._process is not None and self._process.returncode is not None)

    @property
    def receipts(self) -> tuple[Path, Path]:
        """JSON and page."""
        return receipt_paths(self.output)

    async def run(self) -> AsyncIterator[Course]:
        """Work, and tell now and then how far it is.

        Raises:
            Ended: by `end`.
            InputError: it came to nothing, in a line.
        """
        if self._ended:
            raise Ended
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", CHILD,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        wish = {**asdict(self.wish), "budget": asdict(self.wish.budget), "options": asdict(self.wish.options)}
        call = {"teacher": str(self.teacher), "output": str(self.output), **wish}
        process.stdin.write(json.dumps(call).encode() + b"\n")
        course, told = Course(), dict[str, Any]()
        async for line in process.stdout:
            told = json.loads(line)
            if "share" in told:
                course.hear(told)
                yield course
        await process.wait()
        if self._ended:
            raise Ended
        if "result" not in told:
            raise InputError(told.get("error") or f"the conversion broke off with {process.returncode}")
        self.result = told["result"]

    def end(self) -> None:
        """Stop if it runs, remove its files."""
        self._ended = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._folder.cleanup()


class Desk:
    """Where one conversion is worked on at a time, whoever asked for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: str | None = None
        self._job: Job | None = None

    def begin(self, owner: str, teacher: RenderableField, name: str, wish: Wish) -> Job:
        """A job that may run.

        Raises:
            BusyError: another one does.
            SettingError: as `Wish.check`.
        """
        with self._lock:
            if self._job is not None and not self._job.over:
                raise BusyError("another conversion is running on this server; try again when it is done")
            job = self._job = Job(teacher, name, wish)
            self._owner = owner
        return job

    def leave(self, owner: str) -> None:
        """End the owner's job, if it has one."""
        with self._lock:
            if self._job is not None and self._owner == owner:
                self._job.end()

    def close(self) -> None:
        """End whatever is there."""
        if self._owner is not None:
            self.leave(self._owner)


def work() -> None:
    """The other side of `Job.run`: reads what is asked, writes how far it is and what came out."""
    answer, sys.stdout = sys.stdout, sys.stderr
    call = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_server, args=(Path(call["teacher"]).parent,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(NICE)
    use_threads()
    tell = _Teller(answer)
    options = {**call["options"], "active": tuple(call["options"]["active"])}
    request = ConversionRequest(
        Budget(**call["budget"]),
        to=call["to"],
        preset=call["preset"],
        overrides=call["settings"],
        seed=call["seed"],
        **options,
    )
    try:
        result = convert_file(
            call["teacher"], call["output"], request, on_progress=tell.progress, on_image=tell.picture
        )
        tell.say({"result": result.as_json()})
    except Exception as error:
        if (known := explain(error)) is None:
            traceback.print_exc()
        tell.say({"error": known.message if known else f"{type(error).__name__}: {error}".splitlines()[0]})


class _Teller:
    """Messages as lines of JSON, not too many of them."""

    def __init__(self, answer: Any):
        self._answer, self._told_at = answer, 0.0
        self._psnr: float | None = None

    def progress(self, now: Progress) -> None:
        psnr = now.psnr if now.psnr is not None and math.isfinite(now.psnr) else None
        if psnr != self._psnr or self._due():
            self._psnr = psnr
            self.say({"share": now.share, "step": now.step, "psnr": psnr, **asdict(now.spent)})

    def picture(self, whose: str, done: int, total: int) -> None:
        if done == total or self._due():
            self.say({"share": done / total, "measuring": whose})

    def say(self, message: dict[str, Any]) -> None:
        self._told_at = time.monotonic()
        print(json.dumps(message, allow_nan=False, default=str), file=self._answer, flush=True)

    def _due(self) -> bool:
        return time.monotonic() - self._told_at > TELL_SECONDS


def _leave_with_the_server(folder: Path) -> None:
    """Standard input ends when the server does, however that was ended."""
    if not os.read(0, 1):
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
