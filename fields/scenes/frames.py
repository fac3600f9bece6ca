"""The common part of the readers: transforms files in, checked cameras and premultiplied images out.

The files hold OpenGL camera-to-world matrices (x right, y up, z backward); they become OpenCV's here
and nowhere else. World units stay those of the file. Every refusal is one line that names the frame.
"""

import json
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.errors import InputError, SettingError, UnsafeError, known
from fieldmorph.fields.types import JsonObject

MAX_PIXELS = 2**26  # one image; more is a mistake or a decompression bomb
MAX_ZOOM = 10.0  # by which undoing a lens's distortion may change a focal length
EXTENSIONS = ("", ".png", ".jpg", ".jpeg")
PINHOLE_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Frame:
    """One listed image, checked but not decoded.

    Attributes:
        name: the file's path inside the data folder.
        camera_to_world: OpenCV axes, 3 x 4, world units of the file.
        intrinsics: fl_x, fl_y, cx, cy in pixels of the stored image.
        distortion: k1, k2, p1, p2, k3, in OpenCV's order.
    """

    name: str
    path: Path
    camera_to_world: np.ndarray
    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, float, float, float, float]
    width: int
    height: int


@dataclass(frozen=True)
class SceneFiles:
    """The contents of a scene's files, images not decoded.

    Attributes:
        source: the file that messages name; its folder gives the scene its name.
        frames: by split.
        values: the other values of the file, such as `aabb_scale`.
    """

    source: Path
    frames: dict[str, list[Frame]]
    values: JsonObject


@runtime_checkable
class SceneReader(Protocol):
    """A reader of one data format; a class in the table `READERS`, made without arguments."""

    @property
    def file_name(self) -> str:
        """Name of the file by which a folder of this format is known."""

    def matches(self, path: Path) -> bool:
        """Return whether a path, a folder or a file that exists, has this format."""

    def read(self, path: Path, splits: Sequence[str] | None = None) -> SceneFiles:
        """Return the frames of the given splits, by default of all there are.

        Raises:
            InputError: a file that cannot be used.
            UnsafeError: a frame's file lies outside the folder.
            SettingError: a split that does not exist.
        """


def read_transforms(path: Path) -> JsonObject:
    """Return the JSON object in a transforms file, with a non-empty list of objects under `frames`.

    Raises:
        InputError: it is missing, malformed (the message says on which line) or has no frames.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON, line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({_one_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON object with 'frames' expected; got {type(content).__name__}")
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{path}: 'frames' must be a non-empty list of objects; got {reprlib.repr(frames)}")
    return content


def read_frames(content: JsonObject, path: Path) -> list[Frame]:
    """Return the frames of the transforms file `path`, in its order; its images are opened, not decoded.

    Args:
        content: as `read_transforms` returns it.

    Raises:
        InputError: a value or an image that cannot be used.
        UnsafeError: a `file_path` leaves the folder of `path`.
    """
    return [_read_frame(frame, content, path, i) for i, frame in enumerate(content["frames"])]


def read_images(frames: Sequence[Frame], downscale: int) -> tuple[Cameras, UInt8[Tensor, "n height width 4"]]:
    """Return undistorted cameras and premultiplied sRGB RGBA images, both smaller by `downscale`.

    Raises:
        InputError: an image is damaged or of another size than the first.
        SettingError: `downscale` is larger than the images.
    """
    first = frames[0]
    for frame in frames:
        if (frame.width, frame.height) != (first.width, first.height):
            raise InputError(
                f"{frame.name}: {frame.width} x {frame.height} pixels, but {first.name} has "
                f"{first.width} x {first.height}; one size expected"
            )
    if downscale > min(first.width, first.height):
        raise SettingError(f"downscale {downscale} is larger than the {first.width} x {first.height} images")
    height, width = first.height // downscale, first.width // downscale
    images = torch.empty(len(frames), height, width, 4, dtype=torch.uint8)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for row, pixels in zip(images, pool.map(lambda f: _read_image(f, downscale), frames), strict=True):
            row.copy_(torch.from_numpy(pixels))
    poses = torch.from_numpy(np.stack([f.camera_to_world for f in frames])).float()
    intrinsics = torch.tensor([_undistorted(f) for f in frames]) / downscale  # corners stay, so cx scales too
    return Cameras(poses, intrinsics, width, height), images


def choose_splits(available: Iterable[str], splits: Sequence[str] | None) -> list[str]:
    """Return the splits to read: the requested ones, else all."""
    names = list(available)
    requested = names if splits is None else [splits] if isinstance(splits, str) else list(splits)
    for name in requested:
        if name not in names:
            raise known("split", name, names)
    return requested


def number(values: JsonObject, key: str, where: str, default: float = 0.0) -> float:
    """Return a finite number, or `default` where there is none.

    Args:
        values: JSON object that may have it.
        key: its name.
        where: the file or frame that messages name.
        default: where there is none.
    """
    value = values.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise InputError(f"{where}: {key} must be a finite number; got {reprlib.repr(value)}")
    return float(value)


def _read_frame(frame: JsonObject, content: JsonObject, source: Path, index: int) -> Frame:
    file_path = frame.get("file_path")
    if not isinstance(file_path, str) or not file_path:
        raise InputError(f"{source}: frame {index} has no file_path; got {reprlib.repr(file_path)}")
    where = f"{source.name}, frame {index} ({reprlib.repr(file_path)})"
    root = source.parent.resolve()
    path = _find_image(root, file_path, where)
    width, height = _image_size(path, where)
    values = {**content, **frame}
    declared = number(values, "w", where, width), number(values, "h", where, height)
    if declared != (width, height):
        raise InputError(
            f"{where}: image is {width} x {height} pixels, but w, h say {declared[0]:g} x {declared[1]:g}"
        )
    _require_pinhole(values, where)
    fl_x, fl_y = _focal_lengths((frame, content), width, height, where)
    k1, k2, p1, p2, k3 = (number(values, key, where) for key in ("k1", "k2", "p1", "p2", "k3"))
    return Frame(
        path.relative_to(root).as_posix(),
        path,
        _opencv_pose(frame.get("transform_matrix"), where),
        (fl_x, fl_y, number(values, "cx", where, width / 2), number(values, "cy", where, height / 2)),
        (k1, k2, p1, p2, k3),
        width,
        height,
    )


def _find_image(root: Path, file_path: str, where: str) -> Path:
    for extension in EXTENSIONS:
        try:
            path = (root / (file_path + extension)).resolve()
            found = path.is_file()
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{where}: not a usable path ({_one_line(error)})") from None
        if not path.is_relative_to(root):
            raise UnsafeError(f"{where}: file_path leaves the data folder {root}")
        if found:
            return path
    raise InputError(f"{where}: image not found in {root}")


def _image_size(path: Path, where: str) -> tuple[int, int]:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            width, height = image.size
    except DECODE_ERRORS as error:
        raise InputError(f"{where}: not a readable PNG or JPEG ({_one_line(error)})") from None
    if width * height > MAX_PIXELS:
        raise InputError(f"{where}: {width} x {height} pixels; at most {MAX_PIXELS} are read")
    return width, height


def _require_pinhole(values: JsonObject, where: str) -> None:
    model = values.get("camera_model") or "OPENCV"
    if model not in PINHOLE_MODELS or values.get("is_fisheye"):
        name = "is_fisheye" if model in PINHOLE_MODELS else reprlib.repr(model)
        raise InputError(f"{where}: camera model {name} is not supported; known: {', '.join(PINHOLE_MODELS)}")
    for key in ("k4", "k5", "k6"):
        if number(values, key, where) != 0:
            raise InputError(f"{where}: distortion {key} is not supported; known: k1, k2, k3, p1, p2")


def _focal_lengths(scopes: Sequence[JsonObject], width: int, height: int, where: str) -> tuple[float, float]:
    """Return fl_x, fl_y in pixels from the first scope that has any; one alone serves for both."""
    for scope in scopes:
        fl_x, fl_y = _focal_length(scope, "x", width, where), _focal_length(scope, "y", height, where)
        if fl_x or fl_y:
            return fl_x or fl_y, fl_y or fl_x
    raise InputError(f"{where}: no focal length; fl_x or camera_angle_x expected")


def _focal_length(scope: JsonObject, axis: str, size: int, where: str) -> float:
    """Return the focal length along an axis in pixels; 0 where the scope has none."""
    if scope.get(f"fl_{axis}") is not None:
        focal = number(scope, f"fl_{axis}", where)
        if focal <= 0:
            raise InputError(f"{where}: fl_{axis} must be positive; got {focal:g}")
        return focal
    if scope.get(f"camera_angle_{axis}") is None:
        return 0.0
    angle = number(scope, f"camera_angle_{axis}", where)
    if not 0 < angle < math.pi:
        raise InputError(f"{where}: camera_angle_{axis} must lie between 0 and pi radians; got {angle:g}")
    return 0.5 * size / math.tan(angle / 2)


def _opencv_pose(value: Any, where: str) -> np.ndarray:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise InputError(f"{where}: transform_matrix must be 4 x 4 numbers; got {reprlib.repr(value)}")
    if not (np.abs(matrix) < 1e30).all():
        raise InputError(f"{where}: transform_matrix has values that are not finite")
    rotation, last = matrix[:3, :3], matrix[3:]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > 1e-2 or np.linalg.det(rotation) < 0 or not np.allclose(last, (0, 0, 0, 1), atol=1e-6):
        raise InputError(
            f"{where}: transform_matrix is not a rigid pose (a rotation of determinant +1 and last row "
            f"0 0 0 1 expected; off by {error:.2g}, determinant {np.linalg.det(rotation):.3g})"
        )
    return matrix[:3] * (1.0, -1.0, -1.0, 1.0)  # OpenGL's y up and z backward become y down and z forward


def _read_image(frame: Frame, downscale: int) -> np.ndarray:
    """Return premultiplied RGBA: undistorted, then averaged over boxes of `downscale` x `downscale` pixels."""
    rgba = _decode(frame).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    if any(frame.distortion):
        maps = _undistortion_maps(
            frame.intrinsics, frame.distortion, frame.width, frame.height, _undistorted(frame)
        )
        # Half a pixel of the edge repeats; treated as empty it would be trained as empty space.
        rgba = cv2.remap(rgba, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if downscale > 1:
        height, width = frame.height // downscale, frame.width // downscale
        rgba = rgba[: height * downscale, : width * downscale]
        rgba = rgba.reshape(height, downscale, width, downscale, 4).mean((1, 3))
    return np.rint(rgba).astype(np.uint8)


def _decode(frame: Frame) -> np.ndarray:
    try:
        with Image.open(frame.path, formats=("PNG", "JPEG")) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip instead of scale
                grey = np.rint(np.asarray(image, dtype=np.float32) / 257).astype(np.uint8)
                return np.asarray(Image.fromarray(grey).convert("RGBA"))
            return np.asarray(image.convert("RGBA"))
    except DECODE_ERRORS as error:
        raise InputError(f"{frame.name}: image is damaged ({_one_line(error)})") from None


def _undistorted(frame: Frame) -> tuple[float, ...]:
    """Return intrinsics of a pinhole camera that sees only what the lens saw, and as much of it as possible."""
    if not any(frame.distortion):
        return frame.intrinsics
    size = frame.width, frame.height
    matrix, _ = cv2.getOptimalNewCameraMatrix(
        _matrix(frame.intrinsics), np.array(frame.distortion), size, alpha=0
    )
    zoom = np.diag(matrix)[:2] / frame.intrinsics[:2]
    if not (np.isfinite(matrix).all() and (zoom > 1 / MAX_ZOOM).all() and (zoom < MAX_ZOOM).all()):
        raise InputError(f"{frame.name}: lens distortion {frame.distortion} cannot be undone")
    return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]) + 0.5, float(matrix[1, 2]) + 0.5


@lru_cache(maxsize=8)
def _undistortion_maps(
    intrinsics: tuple[float, ...],
    distortion: tuple[float, ...],
    width: int,
    height: int,
    pinhole: tuple[float, ...],
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """Return where in the stored image each pixel of an ideal pinhole camera lies."""
    return cv2.initUndistortRectifyMap(
        _matrix(intrinsics), np.array(distortion), None, _matrix(pinhole), (width, height), cv2.CV_32FC1
    )


def _matrix(intrinsics: tuple[float, ...]) -> np.ndarray:
    """Return the camera matrix as OpenCV takes it, whose pixel centres lie at whole numbers."""
    fl_x, fl_y, cx, cy = intrinsics
    return np.array([[fl_x, 0, cx - 0.5], [0, fl_y, cy - 0.5], [0, 0, 1]])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
