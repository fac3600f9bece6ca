"""The tables of representations and of presets: names and titles are there without importing torch."""

from typing import TYPE_CHECKING

from fieldmorph.fields.lazy import LazyTable, Line

if TYPE_CHECKING:
    from fieldmorph.fields.base import VolumeField

FIELDS: "LazyTable[type[VolumeField]]" = LazyTable(
    [
        Line("hashgrid", "Hash grid (Instant-NGP)", "fieldmorph.fields.hashgrid:HashGrid"),
        Line("mlp", "MLP (NeRF)", "fieldmorph.fields.mlp:MLP"),
        Line("vm", "Planes and lines (TensoRF-VM)", "fieldmorph.fields.tensorf:VM"),
        Line("cp", "Lines (TensoRF-CP)", "fieldmorph.fields.tensorf:CP"),
        Line("voxels", "Voxels (Plenoxels)", "fieldmorph.fields.voxels:Voxels"),
    ]
)

# What every field's `presets` has, by name; the first is the default.
PRESETS = {"small": "small, for CPUs", "paper": "as published"}
