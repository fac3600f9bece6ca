"""Images and videos as files: PNG, 16-bit depth, MP4, animated WebP and GIF, and labelled sheets of images."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fieldmorph.fields.errors import SettingError

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
DEPTH_LEVELS = 65535
DIFFERENCE_GAIN = 5.0  # that differences are multiplied by, wherever they are shown
MARGIN = 12  # pixels around every image of a sheet
MAX_FPS = {".gif": 50}  # players show shorter frames for longer
PALETTE_FRAMES = 16  # of a GIF, from which its colors are taken
NO_FRAMES = "a video needs at least one frame; got none"

ByteImage = np.ndarray  # uint8 of shape (h, w, 3) or (h, w)


def to_8bit(values: Any) -> ByteImage:
    """Return values in [0, 1], a tensor or an array of any shape, as bytes from 0 to 255, rounded and clipped."""
    return np.rint(np.clip(np.asarray(values, dtype=np.float64), 0, 1) * 255).astype(np.uint8)


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write a uint8 or uint16 array of shape (h, w) or (h, w, 3) as a PNG, atomically."""
    part = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(pixels).save(part, format="PNG")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def depth_16bit(depths: Any, scale: float) -> np.ndarray:
    """Return depths as multiples of `scale`, both in world units, rounded and clipped to 65535; 0 is no surface."""
    return np.rint(np.clip(np.asarray(depths) / scale, 0, DEPTH_LEVELS)).astype(np.uint16)


def save_video(path: Path, frames: Iterable[ByteImage], fps: int = 30) -> None:
    """Write a video of frames, which may be generated one by one, as `open_video` does."""
    with open_video(path, fps) as add_frame:
        for frame in frames:
            add_frame(frame)


@contextmanager
def open_video(path: Path, fps: int = 30) -> Iterator[Callable[[ByteImage], None]]:
    """Yield a function that adds a frame to a video, of the kind that the name's ending stands for.

    `.mp4` is H.264 in yuv420p, which every player reads; frames of odd size get one more row or column, equal to the
    last. `.webp` and `.gif` are animations that repeat; the colors of a GIF are 256 for all frames together, and its
    frames last a multiple of 10 ms. The file appears under its name once the video is complete.

    Args:
        path: ends in one of `VIDEOS`.

    Raises:
        SettingError: there is no frame, `fps` < 1, or more than a GIF can have.
    """
    if fps < 1:
        raise SettingError(f"fps must be at least 1; got {fps}")
    ending = path.suffix.lower()
    if fps > MAX_FPS.get(ending, fps):
        raise SettingError(f"a {ending} has at most {MAX_FPS[ending]} frames per second; got {fps}")
    with VIDEOS[ending](path, fps) as add_frame:
        yield add_frame


@contextmanager
def _open_mp4(path: Path, fps: int) -> Iterator[Callable[[ByteImage], None]]:
    part, empty = path.with_name(f".{path.stem}.part.mp4"), True
    writer = imageio.get_writer(
        str(part),
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        macro_block_size=2,
        quality=8,
        ffmpeg_log_level="error",
    )

    def add_frame(frame: ByteImage) -> None:
        nonlocal empty
        writer.append_data(_even(frame))
        empty = False

    try:
        yield add_frame
        if empty:
            raise SettingError(NO_FRAMES)
        writer.close()
        os.replace(part, path)
    finally:
        writer.close()
        part.unlink(missing_ok=True)


@contextmanager
def _open_animation(path: Path, fps: int, save: "SaveAnimation") -> Iterator[Callable[[ByteImage], None]]:
    """Yield a function that adds a frame to a file next to `path`; they are encoded together at the end."""
    part, n_frames = path.with_name(f".{path.name}.part"), 0
    with TemporaryFile(dir=path.parent) as waiting:

        def add_frame(frame: ByteImage) -> None:
            nonlocal n_frames
            np.save(waiting, frame)
            n_frames += 1

        def frames() -> Iterator[Image.Image]:
            waiting.seek(0)
            for _ in range(n_frames):
                yield Image.fromarray(np.load(waiting)).convert("RGB")

        yield add_frame
        if not n_frames:
            raise SettingError(NO_FRAMES)
        try:
            save(part, frames, n_frames, fps)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


Frames = Callable[[], Iterator[Image.Image]]  # each call begins anew
SaveAnimation = Callable[[Path, Frames, int, int], None]  # path, frames, their number, fps


def _save_webp(path: Path, frames: Frames, n_frames: int, fps: int) -> None:
    images, durations = frames(), _durations(n_frames, fps, 1)
    next(images).save(
        path,
        format="WEBP",
        save_all=True,
        append_images=images,
        duration=durations,
        loop=0,
        quality=90,
        method=4,
    )


def _save_gif(path: Path, frames: Frames, n_frames: int, fps: int) -> None:
    """Save with one palette for all, so that colors of what does not move do not flicker."""
    step = -(-n_frames // PALETTE_FRAMES)
    sample = [np.asarray(frame) for i, frame in enumerate(frames()) if i % step == 0]
    palette = Image.fromarray(np.concatenate(sample)).quantize(254, dither=Image.Dither.NONE)
    colors = (palette.getpalette() or [])[: 3 * 254]
    palette.putpalette(
        colors + [0] * (3 * 255 - len(colors)) + [255, 255, 255]
    )  # backgrounds stay what they are
    mapped = (frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames())
    next(mapped).save(
        path,
        format="GIF",
        save_all=True,
        append_images=mapped,
        duration=_durations(n_frames, fps, 10),
        loop=0,
        disposal=1,
        optimize=False,
    )


def _durations(n_frames: int, fps: int, unit: int) -> list[int]:
    """Return the milliseconds of each frame, multiples of a unit that add up to the video's length."""
    ends = [round(1000 * i / (fps * unit)) * unit for i in range(n_frames + 1)]
    return [end - start for start, end in pairwise(ends)]


VIDEOS: dict[str, Callable[[Path, int], AbstractContextManager[Callable[[ByteImage], None]]]] = {
    ".mp4": _open_mp4,
    ".webp": partial(_open_animation, save=_save_webp),
    ".gif": partial(_open_animation, save=_save_gif),
}


def sheet(
    rows: Sequence[Sequence[ByteImage]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    width: int = 256,
) -> ByteImage:
    """Return rows of images of one size under column titles, each scaled to `width` pixels, with captions below."""
    height = round(width * rows[0][0].shape[0] / rows[0][0].shape[1])
    title_font, caption_font = ImageFont.load_default(max(14, width // 14)), ImageFont.load_default(14)
    head, foot = 2 * MARGIN + width // 14, 26 if captions else 0
    cell_w, cell_h = width + MARGIN, height + foot + MARGIN
    page = Image.new("RGB", (len(titles) * cell_w + MARGIN, head + len(rows) * cell_h), PAPER)
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        x = MARGIN + column * cell_w
        draw.text((x + width // 2, head // 2), title, fill=INK, font=title_font, anchor="mm")
        for row, images in enumerate(rows):
            y = head + row * cell_h
            scaled = Image.fromarray(images[column]).convert("RGB")
            page.paste(scaled.resize((width, height), Image.Resampling.LANCZOS), (x, y))
            if captions and captions[row][column]:
                at = (x + width // 2, y + height + foot // 2)
                draw.text(at, captions[row][column], fill=FAINT, font=caption_font, anchor="mm")
    return np.asarray(page)


def difference(a: Any, b: Any, gain: float = DIFFERENCE_GAIN) -> ByteImage:
    """Return the absolute difference of two images in [0, 1], times `gain`, as bytes: white where they are equal."""
    return to_8bit(1 - gain * np.abs(np.asarray(a) - np.asarray(b)))


def _even(frame: ByteImage) -> ByteImage:
    frame = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=-1)
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
