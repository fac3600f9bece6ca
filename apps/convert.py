"""Conversion from file to file, with a receipt: distil, save, measure, and go on where a quality was asked for."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.jobs import OnProgress, check_settings, claim, digest, finish, forget, open_scene
from fieldmorph.apps.outputs import file_sha256
from fieldmorph.apps.receipt_page import receipt_paths, write_receipt
from fieldmorph.distill.active import LEVELS
from fieldmorph.distill.convert import ConvertConfig, ConvertReport, convert
from fieldmorph.distill.fidelity import measure
from fieldmorph.distill.receipt import describe_field, receipt
from fieldmorph.distill.stages import PVD_STAGES
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.catalog import field_settings, make_field, settings_within
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import StoredField, load_field
from fieldmorph.fields.voxels import Voxels

EXTENSION = 4  # parts of a budget's length by which a conversion that misses its quality goes on
EXTENSION_LR = 0.2  # of the learning rates: what is there is to be kept
FILE_OVERHEAD = 1 << 13  # bytes for a header that tells where the field came from
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

OnPicture = Callable[[int, int], None]


@dataclass(frozen=True)
class ConvertOptions:
    """What a user asks of a conversion, beside the student's settings.

    Attributes:
        active: levels of active learning that are on.
        start: whether an explicit student starts from a closed form.
        max_bytes: the file's size; it picks the largest of the student's sizes that fits.
        max_psnr_drop: in dB against the photographs; a student that misses it goes on for up to its budget again.
        receipt: whether to measure the student and write the receipt.
    """

    active: tuple[str, ...] = LEVELS
    start: bool = True
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
    on_picture: OnPicture = lambda _done, _total: None,
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
    if options.max_bytes is not None and to == Voxels.name and not options.start:
        raise SettingError(
            "without a start the size of voxels is not known beforehand: leave out --no-start or --max-bytes"
        )
    stages = tuple(stage for stage in PVD_STAGES if options.start or stage.source != "solve")
    config = ConvertConfig(stages=stages, active=options.active, seed=seed)
    place = choose_device(device)
    if Path(output).resolve() == Path(teacher).resolve():
        raise SettingError(f"the output {output} is the teacher itself; choose another name")
    state = claim(output, resume, force)
    for path in receipt_paths(output) if options.receipt else ():
        check_output(path, force=True)
    taught_by = _load_teacher(teacher)
    overrides = _sized(taught_by, to, preset, overrides or {}, options.max_bytes)
    check_settings(to, preset, overrides, taught_by.occupancy.occupied)
    views = (
        None if data is None else open_scene(data, "test", downscale=downscale, aabb=taught_by.field.box())
    )
    taught_by.field.to(place)
    sha256 = file_sha256(teacher)
    student = make_field(to, preset, aabb=taught_by.field.box(), seed=seed, **overrides).to(place)
    forget(state, resume)
    stored, report = convert(
        taught_by, student, budget, config,
        state_path=state, resume=resume,
        settings={"teacher_sha256": sha256, "steps": budget.steps}, on_progress=on_progress,
    )  # fmt: skip
    origin = {"field": taught_by.field.name, "sha256": sha256, "provenance": taught_by.provenance}

    def save(stored: StoredField, report: ConvertReport) -> tuple[StoredField, dict[str, Any]]:
        names = {"stages": [stage.name for stage in report.stages], "dropped": report.dropped}
        job = {"job": "convert", "teacher": origin, **names, "preset": preset}
        stored, result = finish(stored, report.loop, output, job, preset, seed)
        return stored, {**result, **names, "teacher": str(teacher), "teacher_sha256": sha256}

    for path in receipt_paths(output):
        path.unlink(missing_ok=True)  # of the file that is replaced
    stored, result = save(stored, report)
    state.unlink(missing_ok=True)
    if options.max_bytes is not None and result["bytes"] > options.max_bytes:
        raise InputError(
            f"{output} has {result['bytes']} bytes, more than the {options.max_bytes} asked for; it is kept"
        )
    if not options.receipt:
        return result
    source = None if views is None else views.splits["test"]
    quality, pictures = measure(taught_by, stored, source, on_picture)
    for part in range(EXTENSION if not _gate(quality, options.max_psnr_drop)["met"] else 0):
        kept = {name: value.clone() for name, value in stored.field.state_dict().items()}
        try:
            longer, report = _go_on(taught_by, stored, budget, config, report, part, on_progress)
        except SettingError:  # a part too short to do anything
            break
        quality_then, pictures_then = measure(taught_by, longer, source, on_picture)
        if _drop(quality_then) < _drop(quality):
            quality, pictures = quality_then, pictures_then
            stored, result = save(longer, report)
        else:
            stored.field.load_state_dict(kept)
        if _gate(quality, options.max_psnr_drop)["met"]:
            break
    told = receipt(
        teacher=describe_field(taught_by, teacher, Path(teacher).stat().st_size, sha256),
        student=describe_field(stored, output, result["bytes"], result["sha256"], preset),
        quality=quality, settings=config, budget=budget, steps=report.loop.steps, spent=report.loop.spent,
        stages=report.stages, dropped=report.dropped, curve=report.loop.curve, seed=seed,
        photographs=None if source is None else _photographs(data, source, downscale),
        gate=None if options.max_psnr_drop is None else _gate(quality, options.max_psnr_drop), device=place,
    )  # fmt: skip
    write_receipt(output, told, pictures)
    means = {name: quality[name]["mean"] for name in ("held_out", "off_trajectory")}
    return {
        **result,
        "quality": means,
        "gate": told["gate"],
        "receipt": [str(p) for p in receipt_paths(output)],
    }


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


def _load_teacher(path: str | Path) -> StoredField:
    """Raises InputError where there is nothing to teach, before anything is spent."""
    teacher = load_field(path)
    if not teacher.occupancy.occupied.any():
        raise InputError(f"the teacher {path} is empty: none of its cells is occupied")
    return teacher


def _sized(
    teacher: StoredField, to: str, preset: str, overrides: dict[str, Any], max_bytes: int | None
) -> dict[str, Any]:
    """The student's settings, of the largest size that fits where a size is asked for."""
    if max_bytes is None:
        return overrides
    beside = teacher.occupancy.to_bits().numel() + 64 * len(teacher.cameras) + FILE_OVERHEAD
    settings = settings_within(to, max_bytes, teacher.occupancy.occupied, beside, preset, **overrides)
    return {
        key: value for key, value in settings.items() if value != field_settings(to, preset).get(key)
    } | overrides


def _go_on(
    teacher: StoredField,
    stored: StoredField,
    budget: Budget,
    config: ConvertConfig,
    report: ConvertReport,
    part: int,
    on_progress: OnProgress,
) -> tuple[StoredField, ConvertReport]:
    """One of the parts of the budget's length more, on pixels alone, with small steps; the report of all so far."""
    last = replace(config.stages[-1], name=f"longer {part + 1}")
    config = replace(config, stages=(last,), lr_share=EXTENSION_LR, fresh=False, seed=config.seed + 1 + part)
    longer, more = convert(
        teacher, stored.field, budget.nth_part(part, EXTENSION), config, on_progress=on_progress
    )
    before = report.loop
    curve = [(at + before.spent.core_seconds, psnr) for at, psnr in more.loop.curve]
    loop = replace(
        more.loop, steps=before.steps + more.loop.steps, spent=before.spent + more.loop.spent,
        curve=before.curve + curve,
    )  # fmt: skip
    return longer, ConvertReport(loop, report.stages + more.stages, report.dropped)


def _drop(quality: dict[str, Any]) -> float:
    drop = quality["held_out"]["mean"].get("psnr_drop")
    return math.inf if drop is None else drop


def _gate(quality: dict[str, Any], max_psnr_drop: float | None) -> dict[str, Any]:
    """What was asked for and whether it is met; nothing asked is met."""
    return {"max_psnr_drop": max_psnr_drop, "met": max_psnr_drop is None or _drop(quality) <= max_psnr_drop}


def _photographs(data: str | Path | None, views: Split, downscale: int) -> dict[str, Any]:
    return {"scene": Path(str(data)).name, "split": "test", "downscale": downscale, "sha256": digest(views)}
