"""Images of a field: the views of a scene or an orbit, to a folder of PNGs or to a video."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch

from fieldmorph.apps.jobs.inputs import compile_for, open_field
from fieldmorph.apps.jobs.scenes import open_scene
from fieldmorph.apps.media import DEPTH_LEVELS, VIDEOS, depth_16bit, open_video, save_png, save_video, to_8bit
from fieldmorph.fields.cameras import Cameras, orbit_like, resize
from fieldmorph.fields.checkpoint import check_output
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.files import check_ending, check_folder, write_json
from fieldmorph.fields.progress import OnCount
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.runtime import choose_device
from fieldmorph.fields.types import JsonObject

SOLID = 0.5  # opacity from which a pixel has a depth
BACKGROUNDS = {"white": 1.0, "black": 0.0}
MAX_PIXELS = 1 << 26  # of one image
MAX_FRAMES = 3600  # of one orbit

Images = dict[str, np.ndarray]  # by kind: "colors", "depth", "opacity"


@dataclass(frozen=True)
class RenderResult:
    """Rendered images, or a video of them.

    Attributes:
        output: folder or video.
        images: number of cameras.
        image_size: width and height in pixels.
        kinds: `colors` and, where they were requested, `depth` and `opacity`.
        depth_scale: world units of one step of a 16-bit depth image; None without depth.
    """

    output: str
    images: int
    image_size: tuple[int, int]
    kinds: tuple[str, ...]
    depth_scale: float | None

    def as_json(self) -> JsonObject:
        """Return the values of `--json`."""
        values = {
            "output": self.output,
            "pictures": self.images,
            "image_size": list(self.image_size),
            "kinds": list(self.kinds),
        }
        return values if self.depth_scale is None else {**values, "depth_scale": self.depth_scale}


def render_file(
    path: str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    downscale: int = 1,
    orbit: int | None = None,
    size: tuple[int, int] | None = None,
    depth: bool = False,
    opacity: bool = False,
    fps: int = 30,
    background: str = "white",
    device: str = "auto",
    force: bool = False,
    on_image: OnCount = lambda _done, _total: None,
) -> RenderResult:
    """Render the views of `data`, or `orbit` frames of a full orbit.

    An output that ends in .mp4, .webp or .gif becomes a video, any other a folder with one PNG per view, named after
    it. With `depth` the folder gets 16-bit `<name>_depth.png` and `depth.json`, which states their scale, and a video
    gets `<name>_depth.mp4` (or .webp, .gif), near bright and far dark; `opacity` likewise, in 8 bits. It has an
    argument for each option of `fieldmorph render`, which is why they are more than ten.

    Args:
        path: file of the field.
        output: folder or video to write.
        data, split, downscale: scene whose views are rendered, which of them, and how much smaller.
        orbit: number of frames of a full orbit around the scene, in place of views.
        size: width and height in pixels; by default the views' own.
        fps: frames per second of a video.
        background: a key of `BACKGROUNDS`.
        on_image: called after each image.

    Raises:
        SettingError, InputError: before anything is written.
    """
    check_ending(output, list(VIDEOS))
    output, place = Path(output), choose_device(device)
    if orbit is not None and orbit > MAX_FRAMES:
        raise SettingError(f"an orbit has at most {MAX_FRAMES} frames; got {orbit}")
    is_video = output.suffix.lower() in VIDEOS
    kinds = ["colors", *(["depth"] if depth else []), *(["opacity"] if opacity else [])]
    targets = {kind: output.with_name(_suffixed(output.stem, kind) + output.suffix) for kind in kinds}
    if is_video:
        for target in targets.values():
            check_output(target, force)
    else:
        check_folder(output, force)
    stored = open_field(path)
    stored.field.to(place)
    if data is not None:
        views = open_scene(data, split, downscale=downscale, aabb=stored.field.box()).splits[split]
        cameras, names = views.cameras, image_names(views.names)
    else:
        cameras = orbit_like(stored.cameras, stored.field.box(), orbit or 0)
        names = [f"orbit_{i:03}" for i in range(len(cameras))]
    if size is not None:
        if size[0] * size[1] > MAX_PIXELS:
            raise SettingError(f"an image has at most {MAX_PIXELS} pixels; got {size[0]} x {size[1]}")
        cameras = resize(cameras, *size)
    compile_for(stored)
    scale = depth_scale(stored, cameras)
    frames = _frames(stored, cameras, BACKGROUNDS[background], scale, on_image)
    if is_video:
        _save_videos(targets, frames, fps)
    else:
        output.mkdir(parents=True, exist_ok=True)
        for name, images in zip(names, frames, strict=True):
            for kind in kinds:
                save_png(output / f"{_suffixed(name, kind)}.png", images[kind])
        if depth:
            write_json(output / "depth.json", _depth_note(scale))
    return RenderResult(
        output=str(output),
        images=len(cameras),
        image_size=(cameras.width, cameras.height),
        kinds=tuple(kinds),
        depth_scale=scale if depth else None,
    )


def image_names(names: tuple[str, ...]) -> list[str]:
    """Return file names without folder and extension, or whole paths with underscores where these would clash."""
    stems = [Path(name).stem for name in names]
    if len(set(stems)) == len(stems):
        return stems
    return [Path(name).with_suffix("").as_posix().replace("/", "_") for name in names]


def depth_scale(stored: RenderableField, cameras: Cameras) -> float:
    """Return the world units of one step of a 16-bit depth image, such that the far corner of the box fits."""
    box = stored.field.aabb.cpu()
    centre, diagonal = (box[:3] + box[3:]) / 2, float((box[3:] - box[:3]).norm())
    farthest = float((cameras.camera_to_world[:, :, 3].cpu() - centre).norm(dim=-1).max()) + diagonal / 2
    return farthest / DEPTH_LEVELS


def _frames(
    stored: RenderableField,
    cameras: Cameras,
    background: float,
    scale: float,
    on_image: OnCount,
) -> Iterator[Images]:
    for i, camera in enumerate(cameras):
        seen = stored.render(camera, background)
        depths = torch.where(
            seen["opacities"] > SOLID, seen["depths"] / seen["opacities"].clamp(min=SOLID), 0.0
        )
        yield {
            "colors": to_8bit(seen["colors"]),
            "depth": depth_16bit(depths, scale),
            "opacity": to_8bit(seen["opacities"]),
        }
        on_image(i + 1, len(cameras))


def _save_videos(targets: dict[str, Path], frames: Iterator[Images], fps: int) -> None:
    """Write all videos at once, frame by frame; depths wait on disk, since their range over all sets their grey."""
    near, far, n_frames = float(DEPTH_LEVELS), 0.0, 0
    with TemporaryFile(dir=targets["colors"].parent) as waiting:
        with ExitStack() as videos:
            add = {
                k: videos.enter_context(open_video(path, fps)) for k, path in targets.items() if k != "depth"
            }
            for images in frames:
                for kind, add_frame in add.items():
                    add_frame(images[kind])
                if "depth" in targets:
                    depths = images["depth"]
                    near = min(near, float(depths[depths > 0].min(initial=DEPTH_LEVELS)))
                    far = max(far, float(depths.max()))
                    np.save(waiting, depths)
                    n_frames += 1
        if "depth" in targets:
            waiting.seek(0)
            again = (np.load(waiting) for _ in range(n_frames))
            save_video(targets["depth"], (_near_is_bright(depths, near, far) for depths in again), fps)


def _near_is_bright(depths: np.ndarray, near: float, far: float) -> np.ndarray:
    """Map depths to 8-bit grey from white (nearest in the video) to dark (farthest); black where nothing was hit."""
    grey = to_8bit(1 - 0.8 * (depths - near) / max(far - near, 1.0))
    return np.where(depths > 0, grey, 0).astype(np.uint8)


def _suffixed(name: str, kind: str) -> str:
    return name if kind == "colors" else f"{name}_{kind}"


def _depth_note(scale: float) -> JsonObject:
    return {
        "scale": scale,
        "meaning": "pixel value x scale = distance from the camera along the pixel's ray, world units; "
        f"0 where opacity is at most {SOLID}",
    }
