"""The table of closed-form warm starts: a student is solved from its teacher before it is distilled.

A line's function is imported when it is used: the command line reads the table without importing torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldmorph.fields.lazy import load

if TYPE_CHECKING:
    import torch

    from fieldmorph.fields.base import VolumeField
    from fieldmorph.fields.renderable import RenderableField

HERE = "fieldmorph.distill.warm_start"


@dataclass(frozen=True)
class Start:
    """A line of `STARTS`: the closed form of a kind of student.

    Attributes:
        function: of teacher, student and generator, `module:function`; fills the student in place.
        helps: whether a conversion is better off with it by default, as `fieldmorph bench starts` has it.
        lr_share: factor of the learning rates afterwards.
    """

    function: str
    helps: bool
    lr_share: float = 1.0

    def solve(self, teacher: "RenderableField", student: "VolumeField", generator: "torch.Generator") -> None:
        """Fill the student in place from its teacher."""
        load(self.function)(teacher, student, generator)


STARTS: dict[str, Start] = {
    # At the full learning rates of an untrained field it first loses 3 dB.
    "voxels": Start(f"{HERE}.voxels:start_voxels", helps=True, lr_share=0.1),
    "cp": Start(f"{HERE}.lowrank:start_cp", helps=True),
    # Trained from coarse to fine these soon do better than from the closed form: it helps for budgets up to half a
    # minute and costs half a dB beyond.
    "vm": Start(f"{HERE}.lowrank:start_vm", helps=False),
    "hashgrid": Start(f"{HERE}.hashgrid:start_hashgrid", helps=False),
}
