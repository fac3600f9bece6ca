"""Export as a web page: the field is baked into a volume that a browser draws."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fieldmorph.apps.bake.baked_field import baked_field
from fieldmorph.apps.bake.bricks import Bake
from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import PAGES, is_page, write_web
from fieldmorph.apps.jobs.inputs import compile_for, open_field
from fieldmorph.fields.cameras import resize
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.files import check_ending, check_folder
from fieldmorph.fields.metrics import capped_psnr
from fieldmorph.fields.progress import OnPart
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.types import JsonObject

CHECKED_VIEWS = 4  # in which a bake is compared with its field
CHECKED_PIXELS = 1 << 14  # of each
MAX_NAME = 200  # characters


@dataclass(frozen=True)
class WebExport:
    """A field as web files.

    Attributes:
        output: page or folder.
        name: title of the page.
        bytes: of all files.
        cells: of the volume along x, y and z.
        bricks, nodes: number of bricks that are not empty and of their nodes.
        degree: of the spherical harmonics.
        psnr_to_field: mean PSNR of the baked volume against its field, in dB.
    """

    output: str
    name: str
    bytes: int
    cells: tuple[int, ...]
    bricks: int
    nodes: int
    degree: int
    psnr_to_field: float

    def as_json(self) -> JsonObject:
        """Return the values of `--json`."""
        return {**asdict(self), "cells": list(self.cells)}

    def summary(self) -> str:
        """Return the lines that people read."""
        return (
            f"{self.output}: {self.bytes / 1e6:.1f} MB, {self.nodes:,} nodes in {self.bricks:,} bricks "
            f"of {' x '.join(map(str, self.cells))} cells\n"
            f"PSNR to the field: {self.psnr_to_field:.2f} dB"
        )


def export_web(
    path: str | Path,
    output: str | Path,
    *,
    resolution: int = BakeConfig.resolution,
    degree: int = BakeConfig.degree,
    name: str | None = None,
    device: str = "auto",
    force: bool = False,
    on_progress: OnPart = lambda _what, _done, _total: None,
) -> WebExport:
    """Bake the field in a file and write it as a page (`output` ends in .html) or a folder.

    Args:
        path: file of the field.
        resolution: cells along the longest side of the volume, a multiple of 8.
        degree: of the spherical harmonics.
        name: title of the page; by default the file's name.
        on_progress: called with the name of the part, how much of it is done, of how much.

    Raises:
        SettingError, InputError: before anything is written.
    """
    config = BakeConfig(resolution, degree)
    check_ending(output, PAGES)
    if is_page(output):
        check_output(output, force)
    else:
        check_folder(output, force)
    place = choose_device(device)
    stored = open_field(path)
    stored.field.to(place)
    compile_for(stored)
    shown = (name or Path(path).stem)[:MAX_NAME]
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
    return WebExport(
        output=str(output),
        name=shown,
        bytes=write_web(output, baked),
        cells=tuple(baked.lattice.cells),
        bricks=int(baked.occupied.sum()),
        nodes=baked.colour.shape[1],
        degree=config.degree,
        psnr_to_field=likeness,
    )


def fidelity(
    baked: Bake, stored: RenderableField, on_progress: OnPart = lambda _what, _done, _total: None
) -> float:
    """Return the mean PSNR in dB of a baked volume against its field, over a few training views at reduced size."""
    cameras = stored.cameras.to("cpu")
    shrink = min(1.0, (CHECKED_PIXELS / (cameras.width * cameras.height)) ** 0.5)
    size = (max(1, round(cameras.width * shrink)), max(1, round(cameras.height * shrink)))
    chosen = torch.linspace(0, len(cameras) - 1, min(CHECKED_VIEWS, len(cameras))).round().long()
    views = resize(cameras[chosen], *size)
    other = baked_field(baked, views)
    scores = []
    for i, view in enumerate(views):
        scores.append(capped_psnr(other.render(view)["colors"], stored.render(view)["colors"]))
        on_progress("comparison with the field", i + 1, len(views))
    return sum(scores) / len(scores)
