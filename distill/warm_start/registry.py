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
    # At the full learning rates of an untrained field it first loses 3 dB.
    "voxels": Start(start_voxels, helps=True, lr_share=0.1),
    "cp": Start(start_cp, helps=True),
    # Trained from coarse to fine these soon do better than from the closed form: it helps for budgets up to half a
    # minute and costs half a dB beyond.
    "vm": Start(start_vm, helps=False),
    "hashgrid": Start(start_hashgrid, helps=False),
}
