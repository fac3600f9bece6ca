"""Fields by name: their settings, fresh ones, and those of files."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.errors import SettingError, known
from fieldmorph.fields.kinds import FIELDS as FIELDS
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.types import FieldSettings


def field_settings(name: str, preset: str = "small", **overrides: Any) -> FieldSettings:
    """Return the constructor arguments of a preset with some replaced, without building anything.

    Args:
        name: a key of `FIELDS`.
        preset: `small` or `paper`.
        overrides: constructor arguments that replace the preset's.

    Raises:
        SettingError: unknown field, preset or key, listing the known ones.
    """
    if name not in FIELDS:
        raise known("field", name, FIELDS)
    presets = FIELDS[name].presets
    if preset not in presets:
        raise known(f"preset of {name}", preset, presets)
    keys = [key for key in inspect.signature(FIELDS[name]).parameters if key != "aabb"]
    for key in overrides:
        if key not in keys:
            raise known(f"setting of {name}", key, keys)
    return {**presets[preset], **overrides}


def settings_within(
    name: str, max_bytes: int, occupied: Tensor, other_bytes: int = 0, preset: str = "small", **overrides: Any
) -> FieldSettings:
    """Return the settings of the largest of a field's sizes that takes at most `max_bytes`.

    The size replaces the preset's settings, `overrides` replace both.

    Args:
        name: a key of `FIELDS`.
        max_bytes: of the whole file.
        other_bytes: bytes that a file takes in addition to the field's arrays.
        occupied: (x, y, z) bool, cells of the box that have something in them: a sparse field's size depends on it.

    Raises:
        SettingError: unknown names, as `field_settings`; not even the smallest fits.
    """
    best = None
    sizes: list[FieldSettings] = FIELDS[name].sizes if name in FIELDS else [{}]
    for size in sizes:  # from small to large: the finest are expensive to count
        settings = field_settings(name, preset, **{**size, **overrides})
        n_bytes = other_bytes + FIELDS[name].storage_bytes(settings, occupied)
        if n_bytes > max_bytes:
            if best is None:
                raise SettingError(f"no {name} fits into {max_bytes} bytes; the smallest takes {n_bytes}")
            break
        best = settings
    assert best is not None
    return best


def make_field(
    name: str,
    preset: str = "small",
    *,
    aabb: Sequence[float],
    seed: int = 0,
    **overrides: Any,
) -> VolumeField:
    """Return a freshly initialized field.

    Args:
        name: a key of `FIELDS`: `hashgrid`, `mlp`, `vm`, `cp` or `voxels`.
        preset: `small`, for CPUs, or `paper`, as published.
        aabb: the box in world units, min then max.
        seed: of the initial parameters.
        overrides: constructor arguments of the field, over the preset's.

    Raises:
        SettingError: unknown names, as `field_settings`; a bad box or size.
    """
    settings = field_settings(name, preset, **overrides)
    field = FIELDS[name](aabb=aabb, **settings)
    field.reset_parameters(seeded(seed, "parameters"))
    return field


def rebuild_field(name: str, config: FieldSettings) -> VolumeField:
    """Return a field from its own `config()`, parameters not yet filled in.

    Raises:
        SettingError: the configuration names no field of this version or does not fit it.
    """
    if name not in FIELDS:
        raise known("field", name, FIELDS)
    try:
        return FIELDS[name](**config)
    except TypeError as error:
        raise SettingError(f"settings of {name} do not fit this version: {error}") from None
