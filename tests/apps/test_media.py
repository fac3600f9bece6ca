"""Images and videos: what is written can be read again and means what it should."""

import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from fieldmorph.apps.jobs.render import Images, _save_videos, image_names, render_file
from fieldmorph.apps.media import depth_16bit, difference, save_png, save_video, sheet, to_8bit
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)


@pytest.fixture
def sphere_file(monkeypatch: pytest.MonkeyPatch, soft_sphere: VolumeField, tmp_path: Path) -> Path:
    """A path whose field is the soft sphere, with 8 cameras of 24 x 20 pixels round it."""
    cameras = orbit_box(BOX, 8, width=24, height=20)
    stored = RenderableField(soft_sphere, OccupancyGrid(8), 0.02, cameras)
    monkeypatch.setattr("fieldmorph.apps.jobs.render.open_field", lambda _path: stored)
    return tmp_path / "sphere.fm"


def frames_of(path: Path) -> list[np.ndarray]:
    with imageio.get_reader(path) as reader:
        return [np.asarray(frame) for frame in reader]


def test_bytes_are_rounded_and_clamped() -> None:
    assert to_8bit(torch.tensor([-1.0, 0.0, 0.5, 0.999, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255, 255]


def test_png_is_lossless_and_leaves_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, pixels in (
        ("rgb", rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)),
        ("gray", rng.integers(0, 256, (5, 7), dtype=np.uint8)),
        ("depth", rng.integers(0, 65536, (5, 7), dtype=np.uint16)),
    ):
        save_png(tmp_path / f"{name}.png", pixels)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), pixels)
    assert {path.name for path in tmp_path.iterdir()} == {"rgb.png", "gray.png", "depth.png"}


def test_depth_is_a_multiple_of_its_scale() -> None:
    assert depth_16bit(torch.tensor([0.0, 1.0, 2.5, 1e9]), 0.5).tolist() == [0, 2, 5, 65535]


def test_video_plays_everywhere(tmp_path: Path) -> None:
    frames = [np.full((33, 47, 3), level, dtype=np.uint8) for level in (0, 128, 255)]
    save_video(tmp_path / "a.mp4", frames, fps=10)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))
    assert (count, round(seconds, 2)) == (3, 0.3)
    with imageio.get_reader(tmp_path / "a.mp4") as reader:
        reported = reader.get_meta_data()
    assert reported["codec"] == "h264"
    assert reported["pix_fmt"].startswith("yuv420p")
    assert tuple(reported["size"]) == (48, 34)
    means = [frame.mean() for frame in frames_of(tmp_path / "a.mp4")]
    assert means == pytest.approx([0, 128, 255], abs=4)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_video_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("old")

    def frames():
        yield np.zeros((16, 16, 3), dtype=np.uint8)
        raise RuntimeError("out of images")

    with pytest.raises(RuntimeError, match="out of images"):
        save_video(path, frames())
    with pytest.raises(SettingError, match="at least one frame"):
        save_video(path, [])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("ending", "fps", "durations"), [(".webp", 30, [33, 34, 33]), (".gif", 30, [30, 40, 30])]
)
def test_an_animation_repeats_and_has_its_length(
    tmp_path: Path, ending: str, fps: int, durations: list[int]
) -> None:
    colors = [(250, 20, 30), (20, 200, 60), (10, 30, 240)]
    frames = [np.full((33, 47, 3), color, dtype=np.uint8) for color in colors]
    path = tmp_path / f"a{ending}"
    save_video(path, frames, fps=fps)
    with Image.open(path) as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"]) == (3, (47, 33), 0)
        for i, color in enumerate(colors):
            animation.seek(i)
            animation.load()
            assert animation.info["duration"] == durations[i]
            assert np.asarray(animation.convert("RGB")).mean((0, 1)) == pytest.approx(color, abs=4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".webp", ".gif"])
def test_an_animation_that_fails_leaves_the_old_one(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_text("old")

    def frames() -> Iterator[np.ndarray]:
        yield np.zeros((16, 16, 3), dtype=np.uint8)
        raise RuntimeError("out of images")

    with pytest.raises(RuntimeError, match="out of images"):
        save_video(path, frames())
    with pytest.raises(SettingError, match="at least one frame"):
        save_video(path, [])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_gif_has_one_palette_and_a_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    still[-1] = np.array([255, 0])[np.arange(20) % 4 // 2, None]  # backgrounds are exact
    frames = [still.copy() for _ in range(19)]
    for i, frame in enumerate(frames):
        frame[i] = (255, 0, 0)
    save_video(tmp_path / "a.gif", frames, fps=25)
    with Image.open(tmp_path / "a.gif") as animation:
        palettes = set()
        for i in range(animation.n_frames):
            animation.seek(i)
            palettes.add(bytes(animation.global_palette.palette))
            corner = np.asarray(animation.convert("RGB"))[-1, -4:]
            assert corner.tolist() == [[255, 255, 255], [255, 255, 255], [0, 0, 0], [0, 0, 0]]
    assert len(palettes) == 1
    with pytest.raises(SettingError, match="at most 50 frames per second; got 60"):
        save_video(tmp_path / "b.gif", frames, fps=60)
    assert not (tmp_path / "b.gif").exists()


def test_difference_is_white_where_images_agree() -> None:
    a = torch.tensor([0.2, 0.5, 0.9])
    assert difference(a, a + torch.tensor([0.0, 0.1, -0.9]), gain=5).tolist() == [255, 127, 0]


def test_sheet_has_its_images_in_order() -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    red, green, blue, yellow = (np.full((10, 20, 3), c, dtype=np.uint8) for c in colors)
    page = sheet([[red, green], [blue, yellow]], ["one", "two"], [["a", "b"], ["c", ""]], width=100)
    found = [
        [i for i, c in enumerate(colors) if (page[y, x] == c).all()] for y, x in np.ndindex(page.shape[:2])
    ]
    at = {
        i: np.array([divmod(n, page.shape[1]) for n, hit in enumerate(found) if i in hit])
        for i in range(len(colors))
    }
    assert all(len(points) == 100 * 50 for points in at.values())
    centres = {i: points.mean(0) for i, points in at.items()}
    assert centres[0][0] == centres[1][0] < centres[2][0] == centres[3][0]
    assert centres[0][1] == centres[2][1] < centres[1][1] == centres[3][1]
    bare = sheet([[red, green]], ["", ""], width=100)
    assert (sheet([[red, green]], ["one", ""], width=100) != bare).any()  # the title is written


def test_views_keep_their_names() -> None:
    assert image_names(("test/r_0.png", "test/r_1.jpg")) == ["r_0", "r_1"]
    assert image_names(("a/0.png", "b/0.png")) == ["a_0", "b_0"]


def test_depth_images_state_distances(sphere_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = render_file(sphere_file, out, orbit=2, size=(41, 41), depth=True, opacity=True, device="cpu")
    names = ["orbit_000", "orbit_001"]
    kinds = ("", "_depth", "_opacity")
    assert {p.name for p in out.iterdir()} == {"depth.json"} | {f"{n}{k}.png" for n in names for k in kinds}
    scale = json.loads(out.joinpath("depth.json").read_text())["scale"]
    assert scale == result.depth_scale
    depth = np.asarray(Image.open(out / "orbit_000_depth.png")) * scale
    opacity = np.asarray(Image.open(out / "orbit_000_opacity.png")) / 255
    distance = float(orbit_box(BOX, 1).camera_to_world[0, :, 3].norm())
    # Light from outside is half stopped near the radius at which exp(-integral of sigma) is a half.
    assert depth[20, 20] == pytest.approx(distance - 0.5, abs=0.06)
    assert opacity[20, 20] > 0.99
    assert depth[0, 0] == opacity[0, 0] == 0
    color = np.asarray(Image.open(out / "orbit_000.png"))
    assert color.shape == (41, 41, 3)
    assert (color[0, 0] == 255).all()


@pytest.mark.parametrize("ending", [".webp", ".gif"])
def test_an_orbit_becomes_an_animation(sphere_file: Path, tmp_path: Path, ending: str) -> None:
    render_file(sphere_file, tmp_path / f"o{ending}", orbit=3, depth=True, device="cpu")
    assert {p.name for p in tmp_path.iterdir()} == {f"o{ending}", f"o_depth{ending}"}
    for name, n_frames in (("o", 3), ("o_depth", 1)):  # the depth is the same from everywhere
        with Image.open(tmp_path / f"{name}{ending}") as animation:
            assert (animation.n_frames, animation.size) == (n_frames, (24, 20))


def test_orbit_video_and_its_companions(sphere_file: Path, tmp_path: Path) -> None:
    result = render_file(
        sphere_file, tmp_path / "o.mp4", orbit=3, background="black", depth=True, opacity=True, device="cpu"
    )
    assert result.images == 3
    assert result.as_json()["pictures"] == 3
    assert {p.name for p in tmp_path.iterdir()} == {"o.mp4", "o_depth.mp4", "o_opacity.mp4"}
    video, depth, opacity = (frames_of(tmp_path / f"o{k}.mp4") for k in ("", "_depth", "_opacity"))
    assert len(video) == len(depth) == len(opacity) == 3
    assert video[0].shape == (20, 24, 3)
    assert video[0][0, 0].max() < 16  # black behind
    assert depth[0][10, 12].mean() > depth[0][10, 10].mean() > depth[0][0, 0].mean()  # nearest in the middle
    assert opacity[0][10, 12].min() > 235


def test_a_turn_goes_round(sphere_file: Path, tmp_path: Path) -> None:
    render_file(sphere_file, tmp_path / "out", orbit=4, device="cpu")
    middle = [
        np.asarray(Image.open(tmp_path / f"out/orbit_00{i}.png"))[10, 12].astype(float) for i in range(4)
    ]
    # The soft sphere's colour is the direction: opposite cameras see x and y mirrored about 0.5, z alike.
    np.testing.assert_allclose(middle[0][:2] + middle[2][:2], 255, atol=12)
    np.testing.assert_allclose(middle[0][2], middle[2][2], atol=6)
    assert abs(middle[0] - middle[1]).max() > 60


def test_size_is_bounded(sphere_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="at most"):
        render_file(sphere_file, tmp_path / "out", orbit=1, size=(99999, 99999), device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_turn_is_bounded(sphere_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="at most 3600 frames; got 3601"):
        render_file(sphere_file, tmp_path / "out", orbit=3601, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_video_keeps_its_suffix(sphere_file: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.MP4"
    taken.write_text("mine")
    with pytest.raises(SettingError, match="--force"):
        render_file(sphere_file, taken, orbit=1, device="cpu")
    result = render_file(sphere_file, tmp_path / "o.MP4", orbit=2, depth=True, device="cpu")
    assert result.output == str(tmp_path / "o.MP4")
    assert {p.name for p in tmp_path.iterdir()} == {"taken.MP4", "o.MP4", "o_depth.MP4"}
    assert [len(frames_of(tmp_path / name)) for name in ("o.MP4", "o_depth.MP4")] == [2, 2]


def test_frames_are_written_as_they_come_and_depths_share_one_grey(tmp_path: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def frames() -> Iterator[Images]:
        for i in range(12):
            frame = np.full((16, 16), 100 * i, dtype=np.uint16)  # nothing is hit in the first
            alive.append(weakref.ref(frame))
            yield {"colors": frame.astype(np.uint8), "depth": frame}
            del frame
            assert sum(ref() is not None for ref in alive) <= 2

    _save_videos({kind: tmp_path / f"{kind}.mp4" for kind in ("colors", "depth")}, frames(), 30)
    assert {path.name for path in tmp_path.iterdir()} == {"colors.mp4", "depth.mp4"}
    assert len(frames_of(tmp_path / "colors.mp4")) == 12
    greys = [frame.mean() for frame in frames_of(tmp_path / "depth.mp4")]
    np.testing.assert_allclose(greys, [0, *np.linspace(255, 51, 11)], atol=3)


def test_videos_that_fail_leave_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[Images]:
        image = np.ones((16, 16), dtype=np.uint16)
        yield {"colors": image.astype(np.uint8), "opacity": image.astype(np.uint8), "depth": image}
        raise RuntimeError("out of images")

    with pytest.raises(RuntimeError, match="out of images"):
        _save_videos(
            {kind: tmp_path / f"{kind}.mp4" for kind in ("colors", "opacity", "depth")}, frames(), 30
        )
    assert list(tmp_path.iterdir()) == []
