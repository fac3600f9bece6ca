"""Splits and boxes of scenes, and what is refused in one line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import SHARED_DATA
from PIL import Image

from fieldmorph.fields.cameras import image_rays, orbit_cameras, project
from fieldmorph.fields.errors import InputError, SettingError, UnsafeError
from fieldmorph.fields.lazy import LazyTable, Line
from fieldmorph.fields.scene import Scene, load_scene
from fieldmorph.fields.scenes.table import READERS
from fieldmorph.fields.scenes.transforms import TransformsReader

NERF_DATA = SHARED_DATA / "nerf"
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


def box_scene(folder: Path, elevations=(0, 40, -30), per_ring: int = 8, top: float = 0.6) -> np.ndarray:
    """Silhouettes of 4000 points in a box; returns the points."""
    points = np.random.default_rng(0).uniform((-0.9, -0.5, -0.2), (0.7, 0.4, top), (4000, 3))
    listed = []
    for elevation in elevations:
        lens = {"intrinsics": (100, 100, 32, 32), "width": 64, "height": 64}
        cameras = orbit_cameras((0, 0, 0), 4.0, per_ring, elevation=elevation, **lens)
        for camera in cameras:
            xy = project(camera, torch.from_numpy(points).float())[0].long()
            pixels = np.zeros((64, 64, 4), dtype=np.uint8)
            pixels[xy[:, 1], xy[:, 0]] = 255
            name = f"train/r_{len(listed)}"
            save_image(folder / f"{name}.png", pixels)
            pose = camera.camera_to_world[0].double().numpy() * (1, -1, -1, 1)
            listed.append({"file_path": f"./{name}", "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]]})
    angle = 2 * math.atan(32 / 100)
    content = {"camera_angle_x": angle, "frames": listed}
    folder.joinpath("transforms_train.json").write_text(json.dumps(content))
    return points


def assert_foreground_rays_hit(scene: Scene, split: str) -> None:
    """Every ray through visible content must cross the box (slab test)."""
    box = torch.tensor(scene.aabb)
    views = scene.splits[split]
    for camera, image in zip(views.cameras, views.images, strict=True):
        rays = image_rays(camera)[image[..., 3].flatten() > 5]
        t = torch.stack([(box[:3] - rays.rays_o) / rays.rays_d, (box[3:] - rays.rays_o) / rays.rays_d])
        assert (t.amin(0).amax(-1) <= t.amax(0).amin(-1)).all()


def test_every_eighth_view_by_name_is_held_out(tmp_path):
    folder = write_scene(tmp_path, n=17)
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"].reverse()
    (folder / "transforms.json").write_text(json.dumps(content))
    scene = load_scene(folder)
    assert scene.splits["test"].names == ("images/00.png", "images/08.png", "images/16.png")
    assert len(scene.splits["train"]) == len(scene.splits["train"].cameras) == 14
    assert scene.name == tmp_path.name
    assert list(load_scene(folder / "transforms.json", splits=["test"]).splits) == ["test"]


def test_named_split_of_the_file_is_kept(tmp_path):
    names = {"train_filenames": ["./images/02.png", "images/00.png"], "test_filenames": ["images/01.png"]}
    scene = load_scene(write_scene(tmp_path, n=3, **names))
    assert {k: v.names for k, v in scene.splits.items()} == {
        "train": ("images/02.png", "images/00.png"),
        "test": ("images/01.png",),
    }
    folder = write_scene(tmp_path, n=3, test_filenames=["images/9.png"])
    with pytest.raises(InputError, match=r"split lists 'images/9.png'"):
        load_scene(folder)


def test_split_files_win_over_the_single_file_and_val_stands_in_for_test(tmp_path):
    write_scene(tmp_path, n=9)
    write_scene(tmp_path, n=2, name="transforms_train.json")
    assert {k: len(v) for k, v in load_scene(tmp_path).splits.items()} == {"train": 2}
    write_scene(tmp_path, n=3, name="transforms_val.json")
    assert {k: len(v) for k, v in load_scene(tmp_path).splits.items()} == {"train": 2, "test": 3}
    write_scene(tmp_path, n=4, name="transforms_test.json")
    scene = load_scene(tmp_path)
    assert {k: len(v) for k, v in scene.splits.items()} == {"train": 2, "val": 3, "test": 4}
    (tmp_path / "transforms_train.json").write_text("damaged, and not needed for the test views")
    assert len(load_scene(tmp_path, splits=["test"]).splits["test"]) == 4


def test_unlisted_files_are_not_read(tmp_path):
    folder = write_scene(tmp_path)
    (folder / "images/00_depth.png").write_bytes(b"not an image")
    assert len(load_scene(folder).splits["train"]) == 1


def test_mask_box_holds_the_content_and_little_more(tmp_path):
    points = box_scene(tmp_path)
    scene = load_scene(tmp_path)
    box = np.array(scene.aabb)
    assert (box[:3] <= points.min(0)).all()
    assert (box[3:] >= points.max(0)).all()
    np.testing.assert_allclose(box, [-0.9, -0.5, -0.2, 0.7, 0.4, 0.6], atol=0.3)
    assert_foreground_rays_hit(scene, "train")


def test_mask_box_of_a_flat_thing_is_not_flat(tmp_path):
    box_scene(tmp_path, top=-0.19)
    box = np.array(load_scene(tmp_path).aabb)
    sides = box[3:] - box[:3]
    assert sides.min() >= 0.24 * sides.max()


def test_mask_box_keeps_content_that_the_images_cut_off(tmp_path):
    box_scene(tmp_path)
    content = json.loads((tmp_path / "transforms_train.json").read_text())
    for frame in content["frames"]:
        path = tmp_path / f"{frame['file_path']}.png"
        save_image(path, np.asarray(Image.open(path))[20:44, 20:44].copy())
    content["camera_angle_x"] = 2 * math.atan(12 / 100)
    (tmp_path / "transforms_train.json").write_text(json.dumps(content))
    box = np.array(load_scene(tmp_path).aabb)
    assert (box[:3] <= (-0.9, -0.5, -0.2)).all()
    assert (box[3:] >= (0.7, 0.4, 0.6)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"aabb_scale": 2, "scale": 0.5, "offset": [0.5, 0.0, 1.0]}, (-2, -1, -3, 2, 3, 1)),
        ({"aabb_scale": 4}, (-2 / 0.33,) * 3 + (2 / 0.33,) * 3),
        ({}, (-4, -4, -4, 4, 4, 4)),
    ],
)
def test_box_without_masks(tmp_path, values, expected):
    # instant-ngp's cube [-0.5, 1.5]^3 with scale 0.5 and offset (0.5, 0, 1) is (ngp - offset) / 0.5
    assert load_scene(write_scene(tmp_path, **values)).aabb == pytest.approx(expected, abs=1e-3)


def test_given_box_wins(tmp_path):
    assert load_scene(write_scene(tmp_path, aabb_scale=2), aabb=[-1, -2, -3, 1, 2, 3]).aabb == (
        -1,
        -2,
        -3,
        1,
        2,
        3,
    )


def test_cameras_without_a_common_point_need_a_box(tmp_path):
    away = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -4], [0, 0, 0, 1]]
    folder = write_scene(tmp_path, frame_transform_matrix=away)
    with pytest.raises(InputError, match=r"do not look at a common point.*give aabb"):
        load_scene(folder)
    assert load_scene(folder, aabb=BOX).aabb == BOX


def pose_with(**changes: float) -> list[list[float]]:
    matrix = [list(map(float, row)) for row in POSE]
    for key, value in changes.items():
        matrix[int(key[1])][int(key[2])] = value
    return matrix


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frame_file_path": None}, "frame 0 has no file_path"),
        ({"frame_file_path": 3}, "frame 0 has no file_path; got 3"),
        ({"frame_file_path": "images/99"}, r"frame 0 \('images/99'\): image not found"),
        ({"frame_file_path": "a\0b"}, "not a usable path"),
        ({"frame_transform_matrix": None}, "images/00.png.*transform_matrix must be 4 x 4 numbers; got None"),
        ({"frame_transform_matrix": [[1, 2], [3]]}, "transform_matrix must be 4 x 4"),
        ({"frame_transform_matrix": pose_with(m03=math.nan)}, "images/00.png.*not finite"),
        ({"frame_transform_matrix": pose_with(m11=math.inf)}, "not finite"),
        ({"frame_transform_matrix": pose_with(m11=1.2)}, "not a rigid pose"),
        ({"frame_transform_matrix": pose_with(m11=-1)}, "not a rigid pose.*determinant -1"),
        ({"frame_transform_matrix": pose_with(m33=2)}, "not a rigid pose"),
        ({"fl_x": 0}, "images/00.png.*fl_x must be positive; got 0"),
        ({"fl_x": -3}, "fl_x must be positive; got -3"),
        ({"fl_x": math.nan}, "fl_x must be a finite number; got nan"),
        ({"fl_x": "wide"}, "fl_x must be a finite number; got 'wide'"),
        ({"fl_x": 10**400}, "fl_x must be a finite number"),
        ({"fl_x": None}, "no focal length"),
        ({"fl_x": None, "camera_angle_x": 4}, "camera_angle_x must lie between 0 and pi"),
        ({"w": 9}, "image is 8 x 6 pixels, but w, h say 9 x 6"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera model 'OPENCV_FISHEYE' is not supported"),
        ({"is_fisheye": True}, "camera model is_fisheye is not supported"),
        ({"k1": 0.1, "fl_x": 1e-300}, "images/00.png: lens distortion .* cannot be undone"),
        ({"frame_file_path": "a" * 5000}, "not a usable path"),
        ({"k4": 0.1}, "distortion k4 is not supported"),
        ({"aabb_scale": -1}, "aabb_scale and scale must be positive"),
        ({"aabb_scale": 1, "offset": [1, 2]}, "offset must be 3 numbers"),
        ({"frames": []}, "'frames' must be a non-empty list"),
        ({"frames": [3]}, "'frames' must be a non-empty list"),
        ({"train_filenames": "all"}, "a split must be a list of file names"),
    ],
)
def test_bad_values_are_refused_in_one_line(tmp_path, values, message):
    folder = write_scene(tmp_path, **values)
    with pytest.raises(InputError, match=message) as caught:
        load_scene(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "fl_x": 1,\n "frames": [,]\n}', "transforms.json: not valid JSON, line 3"),
        ("[]", "a JSON object with 'frames' expected; got list"),
        ("{}", "'frames' must be a non-empty list of objects; got None"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
    ],
)
def test_bad_json_is_refused(tmp_path, text, message):
    (tmp_path / "transforms.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        load_scene(tmp_path)


def test_missing_folder_and_missing_transforms_are_distinguished(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load_scene(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"transforms_train.json or transforms.json expected"):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    "file_path", ["/etc/hostname", "../outside.png", "images/../../outside.png", "../outside"]
)
def test_paths_that_leave_the_folder_are_unsafe(tmp_path, file_path):
    save_image(tmp_path / "outside.png", solid())
    with pytest.raises(UnsafeError, match="leaves the data folder"):
        load_scene(write_scene(tmp_path / "data", frame_file_path=file_path))


@pytest.mark.parametrize("listed", ["images/link.png", "images/link"])
def test_symlinks_that_leave_the_folder_are_unsafe(tmp_path, listed):
    save_image(tmp_path / "outside.png", solid())
    folder = write_scene(tmp_path / "data", frame_file_path=listed)
    (folder / "images/link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UnsafeError, match=f"{listed}.*leaves the data folder"):
        load_scene(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"downscale": 0}, "downscale must be a whole number of at least 1; got 0"),
        ({"downscale": 1.5}, "downscale must be a whole number"),
        ({"downscale": 7}, "downscale 7 is larger than the 8 x 6 images"),
        ({"aabb": [0, 0, 0, 1, 1]}, "aabb must be 6 finite numbers"),
        ({"aabb": [0, 0, 0, 1, 1, 0]}, "min then max"),
        ({"aabb": [0, 0, 0, 1, 1, math.nan]}, "aabb must be 6 finite numbers"),
        ({"aabb": "box"}, "aabb must be 6 finite numbers"),
        ({"splits": ["validation"]}, "unknown split 'validation'; known: test, train"),
        ({"splits": []}, "splits must name at least one split"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(SettingError, match=message):
        load_scene(write_scene(tmp_path, n=2), **settings)


def data(name: str) -> Path:
    if not (NERF_DATA / name).is_dir():
        pytest.skip(f"the optional data set {name} is not in {NERF_DATA}")
    return NERF_DATA / name


def test_lego_box_holds_the_model_tightly():
    scene = load_scene(data("lego200"))
    assert {name: len(split) for name, split in scene.splits.items()} == {"train": 100, "test": 25}
    assert_foreground_rays_hit(scene, "test")
    box = np.array(scene.aabb)
    assert (box[:3] <= (-0.63, -1.1, -0.4)).all()
    assert (box[3:] >= (0.63, 1.1, 1.0)).all()
    assert (np.abs(box) < 1.5).all()


def test_spot_box_holds_the_model_tightly():
    scene = load_scene(data("spot200"))
    assert {name: len(split) for name, split in scene.splits.items()} == {"train": 60, "test": 20}
    assert_foreground_rays_hit(scene, "test")
    assert (np.abs(scene.aabb) < 1.5).all()


def test_fox_has_instant_ngps_box_and_a_given_split():
    scene = load_scene(data("fox270"), downscale=2)
    assert {name: len(split) for name, split in scene.splits.items()} == {"train": 44, "test": 6}
    assert scene.splits["test"].images.shape == (6, 240, 135, 4)
    assert scene.aabb == pytest.approx((-2 / 0.33,) * 3 + (2 / 0.33,) * 3)
    assert (scene.splits["train"].images[..., 3] == 255).all()


class Renamed(TransformsReader):
    file_name = "views.json"


def test_one_more_format_is_one_more_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(tmp_path / "spot", name="views.json", aabb_scale=2)
    with pytest.raises(InputError, match=r"transforms_train\.json or transforms\.json expected; found none$"):
        load_scene(tmp_path / "spot")
    more = LazyTable([*READERS.lines, Line("renamed", "views.json", f"{__name__}:Renamed")])
    monkeypatch.setattr("fieldmorph.fields.scene.READERS", more)
    assert load_scene(tmp_path / "spot").name == "spot"
    with pytest.raises(InputError, match=r"or transforms\.json or views\.json expected; found none$"):
        load_scene(tmp_path)
