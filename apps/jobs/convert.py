"""Conversion from file to file, with a receipt: distil, save, measure, and go on where a quality was asked for."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fieldmorph.apps.jobs.quality_gate import PARTS, Measured, extend
from fieldmorph.apps.jobs.resume import Outcome, convert_once, interruptible, state_paths
from fieldmorph.apps.jobs.train import (
    UNIT_BOX,
    OnProgress,
    check_settings,
    claim,
    digest,
    finish,
    forget,
    open_scene,
)
from fieldmorph.apps.receipt.page import receipt_paths, write_receipt
from fieldmorph.distill.active import LEVELS
from fieldmorph.distill.conversion import ConvertConfig, ConvertReport
from fieldmorph.distill.fidelity import Exhibit, measure, reference
from fieldmorph.distill.receipt import describe_field, receipt
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.loop import LoopReport
from fieldmorph.fields.registry import FIELDS, field_settings, make_field, settings_within
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import load_field
from fieldmorph.fields.voxels import Voxels

FILE_OVERHEAD = 1 << 12  # bytes of a file's header beside its table of arrays and the teacher's provenance
ARRAY_OVERHEAD = 128  # bytes of an entry in that table, at most
_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

OnPicture = Callable[[str, int, int], None]  # "teacher" or "student", how many pictures are done, of how many


@dataclass(frozen=True)
class ConvertOptions:
    """What a user asks of a conversion, beside the student's settings.

    Attributes:
        active: levels of active learning that are on.
        start: whether the student starts from a closed form, if it has one; None: where that helps.
        max_bytes: the file's size; it picks the largest of the student's sizes that fits.
        max_psnr_drop: in dB against the photographs; a student that misses it goes on for up to its budget again.
        receipt: whether to measure the student and write the receipt.
    """

    active: tuple[str, ...] = LEVELS
    start: bool | None = None
    max_bytes: int | None = None
    max_psnr_drop: float | None = None
    receipt: bool = True


def convert_file(
    teacher: str | Path,
    output: str | Path,
    budget: Budget,
    *,
    to: str = "mlp",
    preset: str = "small",
    overrides: dict[str, Any] | None = None,
    options: ConvertOptions | None = None,
    data: str | Path | None = None,
    downscale: int = 1,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
    on_picture: OnPicture = lambda _whose, _done, _total: None,
) -> dict[str, Any]:
    """Teach a new field what the one in a file is, save it and its receipt; what came out, as JSON values.

    Args:
        data: scene whose test photographs the receipt measures against; none are needed to convert.

    State, `resume` and errors are `train_scene`'s.
    """
    options = options or ConvertOptions()
    check_settings(to, preset, overrides)
    if options.max_psnr_drop is not None and (data is None or not options.receipt):
        raise SettingError(
            "a PSNR drop is measured against photographs: --max-psnr-drop needs --data and a receipt"
        )
    if options.max_bytes is not None and to == Voxels.name and options.start is False:
        raise SettingError(
            "without a start the size of voxels is not known beforehand: leave out --no-start or --max-bytes"
        )
    config = ConvertConfig(start=options.start, active=options.active, seed=seed)
    place = choose_device(device)
    if Path(output).resolve() == Path(teacher).resolve():
        raise SettingError(f"the output {output} is the teacher itself; choose another name")
    claim(output, resume, force)
    states = state_paths(output, PARTS)
    for path in receipt_paths(output) if options.receipt else ():
        check_output(path, force=True)
    taught_by, sha256 = _load_teacher(teacher), file_sha256(teacher)
    origin = {"field": taught_by.field.name, "sha256": sha256, "provenance": taught_by.provenance}
    overrides = _sized(taught_by, origin, to, preset, overrides or {}, options.max_bytes)
    check_settings(to, preset, overrides, taught_by.occupancy.occupied)
    views = (
        None
        if data is None
        else open_scene(data, "test", downscale=downscale, aabb=taught_by.field.box()).splits["test"]
    )
    photographs = None if views is None else _photographs(data, views, downscale)
    taught_by.field.to(place)
    resume = resume and states[0].exists()
    if not resume:
        _forget(states)
    asked = {"teacher_sha256": sha256, "steps": budget.steps}

    def learn(part: int, field: VolumeField, budget: Budget, config: ConvertConfig) -> Outcome:
        # Which student goes on was told by the photographs: with others a part would not be the same one.
        settings = asked if part == 0 else asked | {"photographs": photographs}
        return convert_once(
            taught_by, field, budget, config, state=states[part], resume=resume, keep=options.receipt,
            settings=settings, on_progress=on_progress,
        )  # fmt: skip

    def save(stored: RenderableField, made_by: Sequence[ConvertReport]) -> tuple[RenderableField, dict[str, Any]]:
        stages = [stage.name for report in made_by for stage in report.stages]
        told = {"stages": stages, "dropped": made_by[0].dropped}
        job = {"job": "convert", "teacher": origin, "preset": preset, **told}
        stored, result = finish(stored, _sum(made_by), output, job, preset, seed)
        return stored, {**result, **told, "teacher": str(teacher), "teacher_sha256": sha256}

    with interruptible(states[0]):
        student = make_field(to, preset, aabb=taught_by.field.box(), seed=seed, **overrides).to(place)
        stored, report = learn(0, student, budget, config)
        for path in receipt_paths(output):
            path.unlink(missing_ok=True)  # of the file that is replaced
        saved = save(stored, [report])
        n_bytes = saved[1]["bytes"]
        if options.max_bytes is not None and n_bytes > options.max_bytes:
            _forget(states)
            raise InputError(
                f"{output} has {n_bytes} bytes, more than the {options.max_bytes} asked for; it is kept"
            )
        if not options.receipt:
            _forget(states)
            return saved[1]

        against = reference(taught_by, views, partial(on_picture, "teacher"))

        def assess(stored: RenderableField) -> tuple[dict[str, Any], list[Exhibit]]:
            return measure(against, stored, partial(on_picture, "student"))

        def on_better(student: Measured) -> None:
            nonlocal saved
            saved = save(student.stored, student.made_by)

        first = Measured(stored, (report,), *assess(stored))
        done = extend(first, budget, config, options.max_psnr_drop, learn, assess, on_better)
        stored, result = saved
        told = receipt(
            teacher=describe_field(taught_by, teacher, Path(teacher).stat().st_size, sha256),
            student=describe_field(stored, output, result["bytes"], result["sha256"], preset),
            quality=done.best.quality, settings=config, budget=budget, runs=done.runs, seed=seed,
            photographs=photographs, device=place,
            gate=None if options.max_psnr_drop is None else done.gate(options.max_psnr_drop),
        )  # fmt: skip
        write_receipt(output, told, done.best.pictures)
        _forget(states)
    spent = told["budget"]["used"]
    means = {name: told["quality"][name]["mean"] for name in ("held_out", "off_trajectory")}
    files = [str(path) for path in receipt_paths(output)]
    return {**result, **spent, "quality": means, "gate": told["gate"], "receipt": files}


def parse_bytes(text: str) -> int:
    """`2MB`, `500kB`, `1.5MiB` or a plain number of bytes.

    Raises:
        SettingError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMG]?i?B)?", text.strip())
    n = int(float(match[1]) * _UNITS[match[2] or ""]) if match and (match[2] or "") in _UNITS else 0
    if n < 1:
        raise SettingError(f"a size looks like 500kB, 2MB or 1.5MiB; got {text!r}")
    return n


def _load_teacher(path: str | Path) -> RenderableField:
    """Raises InputError where there is nothing to teach, before anything is spent."""
    teacher = load_field(path)
    if not teacher.occupancy.occupied.any():
        raise InputError(f"the teacher {path} is empty: none of its cells is occupied")
    return teacher


def _sized(
    teacher: RenderableField,
    origin: dict[str, Any],
    to: str,
    preset: str,
    overrides: dict[str, Any],
    max_bytes: int | None,
) -> dict[str, Any]:
    """The student's settings, of the largest size that fits where a size is asked for."""
    if max_bytes is None:
        return overrides
    arrays = FIELDS[to](aabb=UNIT_BOX, **field_settings(to, preset, **overrides)).state_dict()
    # A chain of conversions is told in full: JSON within JSON.
    header = len(json.dumps(json.dumps(origin))) + ARRAY_OVERHEAD * len(arrays) + FILE_OVERHEAD
    beside = teacher.occupancy.to_bits().numel() + 64 * len(teacher.cameras) + header
    settings = settings_within(to, max_bytes, teacher.occupancy.occupied, beside, preset, **overrides)
    return {
        key: value for key, value in settings.items() if value != field_settings(to, preset).get(key)
    } | overrides


def _sum(made_by: Sequence[ConvertReport]) -> LoopReport:
    """One report of conversions one after another."""
    loops = [report.loop for report in made_by]
    spent = sum((loop.spent for loop in loops), Spent())
    return LoopReport(sum(loop.steps for loop in loops), spent, loops[-1].psnr, [])


def _forget(states: Sequence[Path]) -> None:
    """The conversion's own state goes last: the others are looked for only where it is."""
    for path in reversed(states):
        forget(path, resume=False)


def _photographs(data: str | Path | None, views: Split, downscale: int) -> dict[str, Any]:
    return {"scene": Path(str(data)).name, "split": "test", "downscale": downscale, "sha256": digest(views)}
