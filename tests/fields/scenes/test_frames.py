"""Poses, lenses and images of the frames that a scene lists."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmorph.fields.cameras import project
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.scene import load_scene

pytestmark = pytest.mark.numerical

POSE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]  # OpenGL: at (0, 0, 4), looking at the origin
BOX = (-1, -1, -1, 1, 1, 1)


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def solid(height: int = 6, width: int = 8, value=(200, 100, 50, 255)) -> np.ndarray:
    return np.full((height, width, len(value)), value, dtype=np.uint8)


def write_scene(
    folder: Path, image: np.ndarray | None = None, n: int = 1, name="transforms.json", **values
) -> Path:
    """`n` equal frames, images/00.png and so on; values named frame_... go into each frame."""
    per_frame = {key[6:]: values.pop(key) for key in list(values) if key.startswith("frame_")}
    listed = []
    for i in range(n):
        save_image(folder / f"images/{i:02}.png", solid() if image is None else image)
        listed.append({"file_path": f"images/{i:02}.png", "transform_matrix": POSE, **per_frame})
    folder.joinpath(name).write_text(json.dumps({"fl_x": 10.0, "frames": listed, **values}))
    return folder


def test_opengl_pose_becomes_opencv_once(tmp_path):
    camera = load_scene(write_scene(tmp_path)).splits["train"].cameras
    expected = torch.tensor([[[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4]]])
    torch.testing.assert_close(camera.camera_to_world, expected)
    points, depths = project(camera, torch.tensor([[0.4, 0.8, 0.0]]))  # right and up of the origin
    torch.testing.assert_close(points, torch.tensor([[4 + 1.0, 3 - 2.0]]))
    assert depths.tolist() == [4.0]


def test_intrinsics_come_from_frame_file_or_angle(tmp_path):
    def intrinsics(name: str, **values) -> list[float]:
        scene = load_scene(write_scene(tmp_path / name, aabb_scale=1, **values))
        return scene.splits["train"].cameras.intrinsics[0].tolist()

    assert intrinsics("a") == [10, 10, 4, 3]
    assert intrinsics("b", fl_y=12, cx=3.5, cy=2.5, w=8.0, h=6) == [10, 12, 3.5, 2.5]
    assert intrinsics("c", frame_fl_x=20, fl_y=12, frame_cx=1) == [20, 20, 1, 3]
    right_angle = math.pi / 2  # half the width over tan(45 degrees)
    assert intrinsics("d", fl_x=None, camera_angle_x=right_angle) == pytest.approx([4, 4, 4, 3])
    both = intrinsics("e", fl_x=None, camera_angle_x=right_angle, camera_angle_y=right_angle)
    assert both == pytest.approx([4, 3, 4, 3])


def test_images_are_premultiplied_and_composited(tmp_path):
    split = load_scene(write_scene(tmp_path, solid(value=(200, 100, 50, 102))), aabb=BOX).splits["train"]
    assert split.images[0, 0, 0].tolist() == [80, 40, 20, 102]  # alpha is 0.4
    white = split.view_over(0, torch.ones(3))
    assert white.shape == (6, 8, 3)
    expected = torch.tensor([80.0, 40, 20]) / 255 + 0.6
    torch.testing.assert_close(white[5, 7], expected)
    one = split.pixels_over(
        torch.tensor([0, 0]), torch.tensor([[7, 5], [0, 0]]), torch.tensor([[1.0] * 3, [0] * 3])
    )
    torch.testing.assert_close(one, torch.stack([expected, expected - 0.6]))


def test_pixels_are_x_then_y(tmp_path):
    pixels = solid()
    pixels[2, 5] = (0, 255, 0, 255)
    split = load_scene(write_scene(tmp_path, pixels), aabb=BOX).splits["train"]
    color = split.pixels_over(torch.tensor([0]), torch.tensor([[5, 2]]), torch.zeros(1, 3))
    assert color.tolist() == [[0, 1, 0]]


def test_downscale_averages_premultiplied_boxes_and_crops(tmp_path):
    pixels = np.zeros((5, 7, 4), dtype=np.uint8)
    pixels[:2, :2] = [[(200, 0, 0, 255), (0, 100, 0, 255)], [(255, 255, 255, 0), (40, 40, 40, 51)]]
    pixels[4], pixels[:, 6] = 255, 255  # left-over row and column
    scene = load_scene(write_scene(tmp_path, pixels, cx=3.0, cy=2.0, fl_y=20), downscale=2, aabb=BOX)
    split = scene.splits["train"]
    assert split.images.shape == (1, 2, 3, 4)
    # red (200 + 0 + 0 + 8) / 4, green (0 + 100 + 0 + 8) / 4, blue (8) / 4, alpha (255 + 255 + 0 + 51) / 4
    assert split.images[0, 0, 0].tolist() == [52, 27, 2, 140]
    assert not split.images[0, 1:].any()
    assert split.cameras.intrinsics[0].tolist() == [5, 10, 1.5, 1]
    assert (split.cameras.width, split.cameras.height) == (3, 2)


@pytest.mark.parametrize(
    "distortion", [{"k1": 0.25}, {"k1": -0.2, "k2": 0.1}, {"p1": 0.03, "p2": -0.05}, {"k3": 0.4, "k1": 0.1}]
)
def test_undistorted_images_show_points_where_a_pinhole_camera_does(tmp_path, distortion):
    k1, k2, k3, p1, p2 = (distortion.get(key, 0.0) for key in ("k1", "k2", "k3", "p1", "p2"))
    fl, cx, cy = 90.0, 61.3, 44.8
    for x, y in [(0.45, 0.3), (-0.5, 0.25), (0.1, -0.35), (0.0, 0.0)]:  # on the plane at distance 1
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        # Brown (1966): the pixel where the lens puts the point, pixel centres at + 0.5
        u = fl * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + cx
        v = fl * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + cy
        columns, rows = np.meshgrid(np.arange(128) + 0.5, np.arange(96) + 0.5)
        blob = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 2.5**2))
        image = np.repeat(blob.astype(np.uint8)[..., None], 3, axis=-1)
        folder = write_scene(tmp_path / f"{x}{y}", image, fl_x=fl, cx=cx, cy=cy, **distortion)
        split = load_scene(folder, aabb=BOX).splits["train"]
        loaded = split.images[0, ..., 0].numpy().astype(float)
        found = (loaded * columns).sum() / loaded.sum(), (loaded * rows).sum() / loaded.sum()
        pinhole = split.cameras.intrinsics[0].tolist()
        assert found == pytest.approx((pinhole[0] * x + pinhole[2], pinhole[1] * y + pinhole[3]), abs=0.25)


@pytest.mark.parametrize("k1", [0.3, -0.15])
def test_undistortion_is_exact_on_a_gradient_and_shows_only_what_the_lens_saw(tmp_path, k1):
    fl, cx, cy = 40.0, 30.0, 20.0
    columns, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    image = np.repeat(np.rint(4 * (columns - 0.5)).astype(np.uint8)[..., None], 3, axis=-1)
    split = load_scene(write_scene(tmp_path, image, fl_x=fl, cx=cx, cy=cy, k1=k1), aabb=BOX).splits["train"]
    loaded, pinhole = split.images[0].numpy(), split.cameras.intrinsics[0].tolist()
    x, y = (columns - pinhole[2]) / pinhole[0], (rows - pinhole[3]) / pinhole[1]
    radial = 1 + k1 * (x * x + y * y)
    across, down = fl * x * radial + cx, fl * y * radial + cy  # in the stored image
    assert across.min() > 0
    assert across.max() < 64
    assert down.min() > 0
    assert down.max() < 48
    assert min(across.min(), 64 - across.max(), down.min(), 48 - down.max()) < 1  # no more is lost than must
    np.testing.assert_allclose(loaded[..., 0], 4 * (across.clip(0.5, 63.5) - 0.5), atol=0.7)
    assert (loaded[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", (10, 20, 30), [10, 20, 30, 255]),
        ("L", 77, [77, 77, 77, 255]),
        ("LA", (100, 51), [20, 20, 20, 51]),
        ("I;16", 0x8080, [128, 128, 128, 255]),
        ("P", 1, None),
    ],
)
def test_png_modes_become_rgba(tmp_path, mode, value, expected):
    folder = write_scene(tmp_path)
    image = Image.new(mode, (8, 6), value)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 8, 7])
        expected = [9, 8, 7, 255]
    image.save(folder / "images/00.png")
    assert load_scene(folder, aabb=BOX).splits["train"].images[0, 3, 3].tolist() == expected


@pytest.mark.parametrize("extension", ["png", "jpg", "jpeg"])
def test_missing_extension_is_found_and_exif_is_ignored(tmp_path, extension):
    folder = write_scene(tmp_path, frame_file_path="./train/r_0")
    (folder / "train").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.new("RGB", (8, 6), (120, 120, 120)).save(folder / f"train/r_0.{extension}", exif=exif)
    split = load_scene(folder).splits["train"]
    assert split.names == (f"train/r_0.{extension}",)
    assert split.images.shape == (1, 6, 8, 4)
    assert split.images[0, 0, 0, :3].tolist() == pytest.approx([120] * 3, abs=2)


def test_images_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    folder = write_scene(tmp_path, n=2)
    whole = (folder / "images/01.png").read_bytes()
    (folder / "images/01.png").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"images/01.png.*not a readable PNG or JPEG"):
        load_scene(folder)
    (folder / "images/01.png").write_bytes(whole[: whole.index(b"IDAT") + 6])
    with pytest.raises(InputError, match=r"images/01.png: image is damaged"):
        load_scene(folder)
    save_image(folder / "images/01.png", solid(6, 9))
    write_scene(tmp_path, n=1, name="unused.json")
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms_train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"images/01.png: 9 x 6 pixels, but images/00.png has 8 x 6"):
        load_scene(folder)
    Image.new("1", (8200, 8200)).save(folder / "images/00.png")
    with pytest.raises(InputError, match=r"images/00.png.*8200 x 8200 pixels; at most 67108864"):
        load_scene(folder)


def test_all_transparent_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="every pixel of every image is transparent"):
        load_scene(write_scene(tmp_path, solid(value=(9, 9, 9, 0)), n=2))
