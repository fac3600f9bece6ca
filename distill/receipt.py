"""The receipt of a conversion, as JSON values: figures, settings and provenance, enough to repeat it."""

import importlib.metadata
import math
import platform
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from fieldmorph.distill.conversion import ConvertReport, StageReport
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import bf16_on_cpu
from fieldmorph.fields.types import JsonObject

FORMAT = 1


def receipt(
    *,
    teacher: Mapping[str, Any],
    student: Mapping[str, Any],
    quality: Mapping[str, Any],
    settings: Any,
    budget: Budget,
    runs: Sequence[ConvertReport],
    seed: int,
    test_images: Mapping[str, Any] | None = None,
    gate: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> JsonObject:
    """Return the receipt as one object, whose values `json.dumps(..., allow_nan=False)` takes.

    Numbers that are not finite become None; dataclasses become objects.

    Args:
        teacher, student: as `describe_field` returns them.
        quality: the figures of `fidelity.measure`; under `training_images` those of `compare_pixels` for the student
            `before` and `after` it was trained on images, where it was.
        settings: of the conversion, a dataclass or a mapping.
        budget: the requested length.
        runs: the conversion and, where it was extended, every part, whether its student was kept or not.
        seed: of the conversion.
        test_images: their identity: `scene`, `split`, `downscale`, `sha256`, and `same_scene` where that is known.
        gate: the requested quality, whether it was `met`, and what was done for it.
        device: on which the conversion ran.
    """
    used = sum((run.loop.spent for run in runs), Spent())
    steps = sum(run.loop.steps for run in runs)
    sizes = {name: (teacher.get(name), student.get(name)) for name in ("params", "bytes")}
    values: JsonObject = plain(
        {
            "format": FORMAT,
            "fieldmorph": importlib.metadata.version("fieldmorph"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "teacher": teacher,
            "student": student,
            "ratio": {name: a / b if a and b else None for name, (a, b) in sizes.items()},
            "quality": quality,
            "gate": gate,
            "photographs": test_images,
            "settings": settings,
            "seed": seed,
            "budget": {
                "asked": {name: value for name, value in asdict(budget).items() if value is not None},
                "used": {"steps": steps, "seconds": used.seconds, "core_seconds": used.core_seconds},
            },
            "stages": [stage for run in runs for stage in run.stages],
            "dropped": runs[0].dropped,
            "curve": curve_of(runs),
            "provenance": provenance_chain(student),
            "environment": environment(device),
        }
    )
    return values


def describe_field(
    stored: RenderableField,
    file: str | Path | None = None,
    n_bytes: int | None = None,
    sha256: str | None = None,
    preset: str | None = None,
) -> JsonObject:
    """Return the entry of a receipt for one field.

    A field without parameters, such as a function, has None of them rather than 0.

    Args:
        stored: the field with its provenance.
        file: where it is saved; only the name is kept, because folders identify the machine.
        n_bytes: size of the file.
        sha256: of the file, hexadecimal.
        preset: of the settings it was made with.
    """
    return {
        "field": stored.field.name,
        "preset": preset,
        "config": stored.field.config(),
        "params": stored.field.n_parameters() or None,
        "bytes": n_bytes,
        "file": None if file is None else Path(file).name,
        "sha256": sha256,
        "provenance": stored.provenance,
    }


def provenance_chain(described: Mapping[str, Any]) -> list[JsonObject]:
    """Return every job that led to a field, oldest first, each with the field and the sha256 of what it made.

    A field of unknown origin still gives one entry.

    Args:
        described: the field, as `describe_field` returns it.
    """
    chain: list[JsonObject] = []
    node: Any = described
    while isinstance(node, Mapping):
        made_by = node.get("provenance")
        job = dict(made_by) if isinstance(made_by, Mapping) else {}
        teacher = job.pop("teacher", None)
        chain.append(
            {"job": job.pop("job", None), "field": node.get("field"), "sha256": node.get("sha256"), **job}
        )
        node = teacher
    return chain[::-1]


def curve_of(runs: Sequence[ConvertReport]) -> list[JsonObject]:
    """Return every evaluation: core-seconds since the first run began, PSNR in dB, and the stage at whose end it is.

    Args:
        runs: the conversion and its extensions, in order.
    """
    evaluations: list[JsonObject] = []
    before = 0.0
    for run in runs:
        names = stages_of(run.loop.curve, run.stages)
        evaluations += [
            {"core_seconds": before + at, "psnr": psnr, "stage": name}
            for (at, psnr), name in zip(run.loop.curve, names, strict=True)
        ]
        before += run.loop.spent.core_seconds
    return evaluations


def stages_of(curve: Sequence[tuple[float, float]], stages: Sequence[StageReport]) -> list[str | None]:
    """Return the name of the stage of one run that each evaluation belongs to, from the stages' own times.

    These lack the start and the evaluations, all of which are counted with the start; that is right as long as the
    evaluations together take less time than lies between two of them. None without stages.

    Args:
        curve: core-seconds and PSNR of each evaluation of the run.
        stages: reports of its stages, in order.
    """
    if not (curve and stages):
        return [None] * len(curve)
    start = curve[-1][0] - sum(stage.core_seconds for stage in stages)
    ends = [start + spent for spent in accumulate(stage.core_seconds for stage in stages)]
    within = [bisect_left(ends, seconds - 1e-6) for seconds, _ in curve]
    return [stages[min(i, len(stages) - 1)].name for i in within]


def environment(device: torch.device | str = "cpu") -> JsonObject:
    """Return the versions and hardware that times depend on, and nothing that identifies the machine's owner."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu",
        "bf16": bf16_on_cpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def plain(value: Any) -> Any:
    """Return the value in JSON's types; a value without such a form becomes its name, one not finite None."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return getattr(value, "__qualname__", type(value).__qualname__)


def _processor() -> str | None:
    """Return the processor's model, as far as the system states it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return next(iter(models), platform.processor() or None)
