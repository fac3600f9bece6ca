"""Exporting a stored field: so far for the browser."""

from pathlib import Path
from typing import Any

import torch

from fieldmorph.apps.bake.baked_field import baked_field
from fieldmorph.apps.bake.bricks import Bake
from fieldmorph.apps.bake.build import BakeConfig, OnProgress, bake
from fieldmorph.apps.bake.web_export import is_page, write_web
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.files import check_folder
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.renderable import RenderableField, picture, resize
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.store import load_field

CHECKED_VIEWS = 4  # in which a bake is held against its field
CHECKED_PIXELS = 1 << 14  # of each
MOST_NAME = 200  # characters


def export_web(
    path: str | Path,
    output: str | Path,
    config: BakeConfig | None = None,
    *,
    name: str | None = None,
    device: str = "auto",
    force: bool = False,
    on_progress: OnProgress = lambda _what, _done, _total: None,
) -> dict[str, Any]:
    """Bake the field in a file and write it as a page (`output` ends in .html) or a folder; JSON values.

    Args:
        name: shown on the page, as text; by default the file's.

    Raises:
        SettingError, InputError: before anything is written.
    """
    config = config or BakeConfig()
    if is_page(output):
        check_output(output, force)
    else:
        check_folder(output, force)
    place = choose_device(device)
    stored = load_field(path)
    stored.field.to(place)
    shown = (name or Path(path).stem)[:MOST_NAME]
    facts = (
        ("Field", stored.field.name),
        ("Size", f"{stored.field.n_parameters():,} parameters, {Path(path).stat().st_size / 1e6:.1f} MB"),
    )
    baked = bake(stored, config, name=shown, facts=facts, on_progress=on_progress)
    likeness = fidelity(baked, stored, on_progress)
    baked = baked.with_facts(
        ("Baked", f"{baked.colour.shape[1]:,} nodes, colour of degree {config.degree}"),
        ("Likeness", f"{likeness:.1f} dB PSNR to the field"),
    )
    return {
        "output": str(output),
        "name": shown,
        "bytes": write_web(output, baked),
        "cells": list(baked.lattice.cells),
        "bricks": int(baked.occupied.sum()),
        "nodes": baked.colour.shape[1],
        "degree": config.degree,
        "psnr_to_field": likeness,
    }


def fidelity(
    baked: Bake, stored: RenderableField, on_progress: OnProgress = lambda _what, _done, _total: None
) -> float:
    """Mean PSNR in dB of a bake's pictures against its field's, over a few of the scene's own views, reduced."""
    cameras = stored.cameras.to("cpu")
    shrink = min(1.0, (CHECKED_PIXELS / (cameras.width * cameras.height)) ** 0.5)
    size = (max(1, round(cameras.width * shrink)), max(1, round(cameras.height * shrink)))
    chosen = torch.linspace(0, len(cameras) - 1, min(CHECKED_VIEWS, len(cameras))).round().long()
    views = resize(cameras[chosen], *size)
    other = baked_field(baked, views)
    scores = []
    for i, view in enumerate(views):
        scores.append(capped_psnr(picture(other, view), picture(stored, view)))
        on_progress("comparison with the field", i + 1, len(views))
    return sum(scores) / len(scores)


def export_table(result: dict[str, Any]) -> str:
    """What `export_web` returned, for people."""
    return (
        f"{result['output']}: {result['bytes'] / 1e6:.1f} MB, {result['nodes']:,} nodes in {result['bricks']:,} bricks "
        f"of {' x '.join(map(str, result['cells']))} cells\n"
        f"PSNR to the field: {result['psnr_to_field']:.2f} dB"
    )
