"""One transforms file per split, as Blender's NeRF data sets have them, and the box of masked scenes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fieldmorph.fields.cameras import Cameras, look_at_point, project
from fieldmorph.fields.scenes.frames import Frame, SceneFiles, choose_splits, read_frames, read_transforms
from fieldmorph.fields.types import JsonObject

FOREGROUND = 5  # alpha above this, of 255, is content
MAX_VIEWS = 40  # as many carve the hull
RESOLUTION = 48  # cells along each side of the carved box
MISSES = 0.05  # fraction of the views that judge a cell and may find it empty before it goes
PADDING = 0.03  # fraction of the box's sides added all around


class BlenderReader:
    """A folder with `transforms_train.json` and, where there are held-out views, `transforms_test.json` or `_val`.

    Only the files of the requested splits are read. Held-out views are under `test`: where there is no
    `transforms_test.json`, `transforms_val.json` stands in for it.
    """

    file_name = "transforms_train.json"

    def matches(self, path: Path) -> bool:
        return (path / self.file_name).is_file()

    def read(self, path: Path, splits: Sequence[str] | None = None) -> SceneFiles:
        frames, values = split_frames(path, splits)
        return SceneFiles(path / self.file_name, frames, values)


def split_frames(
    folder: Path, splits: Sequence[str] | None = None
) -> tuple[dict[str, list[Frame]], JsonObject]:
    """Return the frames of each split, and the first file's other values."""
    files = {name: folder / f"transforms_{name}.json" for name in ("train", "val", "test")}
    files = {name: file for name, file in files.items() if file.exists()}
    if "test" not in files and "val" in files:
        files["test"] = files.pop("val")
    contents = {name: read_transforms(files[name]) for name in choose_splits(files, splits)}
    frames = {name: read_frames(content, files[name]) for name, content in contents.items()}
    return frames, next(iter(contents.values()), {})


def mask_box(cameras: Cameras, alpha: UInt8[Tensor, "n height width"]) -> tuple[float, ...] | None:
    """Return a box around the visual hull of the masks, or None where they show no object.

    A cube round the cameras' look-at point is carved twice, the second time inside the first result. A cell
    goes when more than a few views find only background where it may be. A view whose content keeps clear
    of the image's edge shows all there is, so it finds background outside the image too; any other
    view judges only what it sees. The hull holds all that the masks hold, so the box clips nothing.

    Args:
        cameras: one per image.
        alpha: opacity of the images, 0 to 255.
    """
    step = -(-len(cameras) // MAX_VIEWS)
    cameras, foreground = cameras[::step], alpha[::step] > FOREGROUND
    if not 0.0 < foreground.float().mean() < 0.98:
        return None
    centre = look_at_point(cameras)
    reach = (cameras.camera_to_world[:, :, 3] - centre).norm(dim=-1).max()
    lower, upper = centre - reach, centre + reach
    for _ in range(2):
        corners = _carve(cameras, foreground, lower, upper)
        if corners is None:
            return None
        lower, upper = corners
    sides = upper - lower
    thickness = (sides.max() / 4 - sides).clamp(min=0)  # no side is under a quarter of another
    pad = PADDING * sides + thickness / 2
    return (*(lower - pad).tolist(), *(upper + pad).tolist())


def _carve(
    cameras: Cameras,
    foreground: Bool[Tensor, "n height width"],
    lower: Float[Tensor, "3"],
    upper: Float[Tensor, "3"],
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]] | None:
    """Return the corners of the cells that stay."""
    cell = (upper - lower) / RESOLUTION
    ticks = torch.arange(RESOLUTION) + 0.5
    indices = torch.cartesian_prod(ticks, ticks, ticks)
    judged, empty = torch.zeros(len(indices)), torch.zeros(len(indices))
    n_left = len(cameras)
    for camera, mask in zip(cameras, foreground, strict=True):
        judges, finds_nothing = _judge(camera, mask, lower + indices * cell, float(cell.norm()) / 2)
        judged += judges
        empty += judges & finds_nothing
        n_left -= 1
        # A cell stays a candidate if it could still be kept: all views that are left judge it, and find content.
        may_stay = empty <= MISSES * (judged + n_left)
        indices, judged, empty = indices[may_stay], judged[may_stay], empty[may_stay]
    kept = indices[judged > 0]
    if len(kept) == 0:
        return None
    return lower + (kept.amin(0) - 0.5) * cell, lower + (kept.amax(0) + 0.5) * cell


def _judge(
    camera: Cameras, mask: Bool[Tensor, "height width"], positions: Float[Tensor, "n 3"], radius: float
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Return which balls this view can judge, and which touch none of its foreground."""
    points, depths = project(camera, positions)
    near = depths.abs() <= 2 * radius  # around the camera: too large in the image to say
    in_front = depths > 2 * radius
    margin = camera.intrinsics[0, :2] * radius / (depths[:, None] - radius)
    size = torch.tensor([camera.width, camera.height])
    low, high = (points - margin).floor(), (points + margin).ceil()
    inside = in_front & ((low >= 0) & (high <= size)).all(-1)
    x0, y0 = torch.minimum(low.clamp(min=0), size).nan_to_num().long().unbind(-1)
    x1, y1 = torch.minimum(high.clamp(min=0), size).nan_to_num().long().unbind(-1)
    sums = torch.nn.functional.pad(mask.int().cumsum(0).cumsum(1), (1, 0, 1, 0))  # a rectangle in four reads
    content = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    shows_all = bool(mask.any()) and not bool(edge)
    return ~near if shows_all else inside, ~(in_front & (content > 0))
