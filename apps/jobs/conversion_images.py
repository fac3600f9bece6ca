"""The images that a conversion uses: test images measure the student, training images finish it."""

from dataclasses import dataclass
from pathlib import Path

from fieldmorph.apps.jobs.scenes import digest, open_scene, warn_of_other_scene
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split, camera_digests
from fieldmorph.fields.types import JsonObject


@dataclass(frozen=True)
class ConversionImages:
    """Images of a scene.

    Attributes:
        test: views that the receipt measures on.
        training: views that the student is trained on at the end; None where it is not.
        identity: what identifies the test images: `scene`, `split`, `downscale`, `sha256`.
        same_scene: whether the teacher was trained on this scene; None where that is unknown.
    """

    test: Split | None = None
    training: Split | None = None
    identity: JsonObject | None = None
    same_scene: bool | None = None

    def described(self) -> JsonObject | None:
        """Return what the receipt says of the test images."""
        if self.identity is None or self.same_scene is None:
            return self.identity
        return {**self.identity, "same_scene": self.same_scene}


def open_images(
    data: str | Path, downscale: int, teacher_file: str | Path, teacher: RenderableField, train: bool
) -> ConversionImages:
    """Read the images of a scene; training images only where the teacher is not known to be of another one.

    Args:
        data: the scene's folder.
        downscale: factor by which the images are shrunk.
        teacher_file, teacher: the teacher, whose provenance says what it was trained on.
        train: whether training images are wanted.

    Raises:
        InputError, SettingError: as `open_scene`.
    """
    same = warn_of_other_scene(teacher_file, teacher.provenance, data)
    train = train and same is not False and "train" in camera_digests(data)
    splits = ("train", "test") if train else ("test",)
    loaded = open_scene(data, *splits, downscale=downscale, aabb=teacher.field.box()).splits
    test = loaded["test"]
    identity: JsonObject = {
        "scene": Path(data).name,
        "split": "test",
        "downscale": downscale,
        "sha256": digest(test),
    }
    return ConversionImages(test, loaded.get("train"), identity, same)
