"""Requests of conversions, and the student's settings that follow from one."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fieldmorph.apps.jobs.lifecycle import UNIT_BOX
from fieldmorph.distill.config import LEARNING, ConvertConfig
from fieldmorph.distill.fidelity import FidelityConfig
from fieldmorph.distill.levels import LEVELS
from fieldmorph.distill.stages import change_stages
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError, known
from fieldmorph.fields.registry import FIELDS, field_settings, settings_within
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.types import FieldSettings
from fieldmorph.fields.voxels import Voxels

HEADER_BYTES = 1 << 12  # of a file's header, without its table of arrays and the teacher's provenance
ARRAY_BYTES = 128  # of an entry in that table, at most
CAMERA_BYTES = 64  # of a training camera
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True)
class ConversionRequest:
    """Settings of a conversion as a user gives them, without the files.

    Attributes:
        budget: of the conversion; a quality that is missed may take as much again.
        to, preset, overrides: the student's representation, its preset, and constructor arguments that replace the
            preset's.
        stages: settings of the stages that replace PVD's, as `change_stages` takes them.
        learning: learning rates and samples that replace the defaults of `ConvertConfig`, by names in `LEARNING`.
        active: levels of active learning that are on.
        start: whether the student begins with its closed-form warm start, if it has one; None: where that helps.
        max_bytes: of the student's file; picks the largest of the student's sizes that fits.
        max_psnr_drop: below the teacher on test images, in dB; a student that misses it trains for up to the
            budget's length again.
        extra_parts: of that further training, after each of which the student is measured.
        finish: fraction of the budget in which the student trains on the scene's images at the end, where there are
            some; 0 for none, None: where that helps.
        receipt: whether to measure the student and write the receipt.
        fidelity: number and sizes of the receipt's images; None takes the defaults.
        seed: of all random numbers.
    """

    budget: Budget
    to: str = "mlp"
    preset: str = "small"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Any] = field(default_factory=dict)
    learning: Mapping[str, Any] = field(default_factory=dict)
    active: tuple[str, ...] = LEVELS
    start: bool | None = None
    max_bytes: int | None = None
    max_psnr_drop: float | None = None
    extra_parts: int = 4
    finish: float | None = None
    receipt: bool = True
    fidelity: FidelityConfig | None = None
    seed: int = 0

    @property
    def uses_images(self) -> bool:
        """Return whether training images, where there are some, may train the student at the end."""
        return bool(FIELDS[self.to].finish_fraction if self.finish is None else self.finish)

    def config(self) -> ConvertConfig:
        """Return the settings of the conversion.

        Raises:
            SettingError: an unknown name, or a value that its setting does not take.
        """
        for name, value in self.learning.items():
            if name not in LEARNING:
                raise known("setting of learning", name, LEARNING)
            LEARNING[name](name, value)
        return ConvertConfig(
            stages=change_stages(self.stages),
            start=self.start,
            active=self.active,
            seed=self.seed,
            finish=self.finish,
            **self.learning,
        )

    def check(self, has_images: bool) -> None:
        """Check that the settings go together.

        Args:
            has_images: whether there are test images to measure against.

        Raises:
            SettingError: they do not.
        """
        if self.max_psnr_drop is not None and not (has_images and self.receipt):
            raise SettingError(
                "a PSNR drop is measured on test images: --max-psnr-drop needs --data and a receipt"
            )
        if self.finish and not has_images:
            raise SettingError("the student trains on images of its scene: --finish needs --data")
        if self.max_bytes is not None and self.to == Voxels.name and self.start is False:
            raise SettingError(
                "without a warm start the size of voxels is not known in advance: remove --no-start or --max-bytes"
            )

    def student_settings(self, teacher: RenderableField, origin: FieldSettings) -> FieldSettings:
        """Return the constructor arguments over the preset's: of the largest size that fits in `max_bytes`.

        Args:
            origin: what the student's provenance says of the teacher.

        Raises:
            SettingError: not even the smallest size fits.
        """
        overrides = dict(self.overrides)
        if self.max_bytes is None:
            return overrides
        arrays = FIELDS[self.to](
            aabb=UNIT_BOX, **field_settings(self.to, self.preset, **overrides)
        ).state_dict()
        # The header holds the provenance as JSON within JSON.
        header = len(json.dumps(json.dumps(origin))) + ARRAY_BYTES * len(arrays) + HEADER_BYTES
        others = teacher.occupancy.to_bits().numel() + CAMERA_BYTES * len(teacher.cameras) + header
        occupied = teacher.occupancy.occupied
        settings = settings_within(self.to, self.max_bytes, occupied, others, self.preset, **overrides)
        preset = field_settings(self.to, self.preset)
        return {key: value for key, value in settings.items() if value != preset.get(key)} | overrides


def parse_bytes(text: str) -> int:
    """Parse a file size: `2MB`, `500kB`, `1.5MiB` or a plain number of bytes, in capitals or small letters.

    Raises:
        SettingError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    n = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if n < 1:
        raise SettingError(f"a size looks like 500kB, 2MB or 1.5MiB; got {text!r}")
    return n
