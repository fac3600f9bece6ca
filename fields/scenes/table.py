"""The table of scene readers: the first one that matches a path reads it."""

from typing import TYPE_CHECKING

from fieldmorph.fields.lazy import LazyTable, Line

if TYPE_CHECKING:
    from fieldmorph.fields.scenes.frames import SceneReader

READERS: "LazyTable[type[SceneReader]]" = LazyTable(
    [
        Line(
            "blender",
            "NeRF-Synthetic (transforms_train.json)",
            "fieldmorph.fields.scenes.blender:BlenderReader",
        ),
        Line(
            "transforms",
            "instant-ngp or nerfstudio (transforms.json)",
            "fieldmorph.fields.scenes.transforms:TransformsReader",
        ),
    ]
)
