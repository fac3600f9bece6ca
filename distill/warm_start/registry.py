"""The table of closed-form warm starts: a student is solved from its teacher before it is distilled."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fieldmorph.distill.warm_start.hashgrid import start_hashgrid
from fieldmorph.distill.warm_start.lowrank import start_cp, start_vm
from fieldmorph.distill.warm_start.voxels import start_voxels
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.renderable import RenderableField


@dataclass(frozen=True)
class Start:
    """A line of `STARTS`: the closed form of a kind of student.

    Attributes:
        solve: fills the student in place.
        helps: whether a conversion is better off with it by default, as `fieldmorph bench starts` has it.
        lr_share: factor of the learning rates afterwards.
    """

    solve: Callable[[RenderableField, VolumeField, torch.Generator], None]
    helps: bool
    lr_share: float = 1.0


STARTS: dict[str, Start] = {
    # At the full rates of a fresh one it first loses 3 dB.
    "voxels": Start(start_voxels, helps=True, lr_share=0.1),
    "cp": Start(start_cp, helps=True),
    # From coarse to fine these are soon further than their start: it pays for half a minute, then costs half a dB.
    "vm": Start(start_vm, helps=False),
    "hashgrid": Start(start_hashgrid, helps=False),
}
