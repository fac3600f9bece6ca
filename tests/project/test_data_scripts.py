"""The scripts that make and fetch data, and the bundled set that one of them made."""

import importlib
import json
import stat
import sys
import zipfile

import numpy as np
import pytest
from helpers.paths import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "data_scripts"))

import fetch_nerf_synthetic as fetch
import render_mesh

SPOT = ROOT / "apps" / "data" / "spot"
COUNTS = {"train": 60, "test": 20}


def read_set(folder, split):
    """Poses (n, 4, 4), images (n, h, w, 4) and the focal length in pixels."""
    meta = json.loads((folder / f"transforms_{split}.json").read_text())
    poses = np.array([frame["transform_matrix"] for frame in meta["frames"]])
    images = np.stack([np.array(Image.open(folder / f"{f['file_path']}.png")) for f in meta["frames"]])
    return poses, images, images.shape[2] / 2 / np.tan(meta["camera_angle_x"] / 2)


def project_ref(points, pose, focal, size):
    """Pinhole camera looking along -z with y up; pixel (0, 0) has its corner at the image's upper left."""
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    return np.stack([size / 2 + focal * x / -z, size / 2 - focal * y / -z], -1)


def assert_upper_cameras(poses, radius):
    rotation, position = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(
        rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    np.testing.assert_allclose(poses[:, 3], np.tile([0.0, 0, 0, 1], (len(poses), 1)))
    np.testing.assert_allclose(np.linalg.norm(position, axis=-1), radius)
    np.testing.assert_allclose(position - radius * rotation[..., 2], 0.0, atol=1e-9)  # -z hits the origin
    assert (position[:, 2] >= 0).all()
    np.testing.assert_allclose(rotation[:, 2, 0], 0.0, atol=1e-12)  # level horizon
    assert (rotation[:, 2, 1] >= 0).all()  # not upside down


@pytest.mark.parametrize("n", [1, 2, 60])
def test_cameras_are_rigid_upper_and_look_at_origin(n):
    assert_upper_cameras(render_mesh.random_cameras(n, 4.0, np.random.default_rng(0)), 4.0)
    assert_upper_cameras(render_mesh.spiral_cameras(n, 3.0), 3.0)


def test_camera_straight_above_is_rigid():
    assert_upper_cameras(render_mesh.look_at_origin(np.array([[0.0, 0.0, 2.0]])), 2.0)


def test_random_cameras_are_uniform_in_area_and_seeded():
    one, same, other = (render_mesh.random_cameras(4000, 1.0, np.random.default_rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    # Uniform on the unit hemisphere: the mean is (0, 0, 1/2), the second moments are 1/3 each.
    np.testing.assert_allclose(one[:, :3, 3].mean(0), [0, 0, 0.5], atol=0.04)
    np.testing.assert_allclose((one[:, :3, 3] ** 2).mean(0), 1 / 3, atol=0.03)


def test_spiral_never_repeats_a_view():
    positions = render_mesh.spiral_cameras(20, 4.0)[:, :3, 3]
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 9 * np.eye(20)
    assert gaps.min() > 0.3


def test_normalisation_turns_y_up_and_fits_the_box():
    vertices = np.array([[10.0, 5, 1], [12, 13, 2], [11, 9, 5]])
    matrix = render_mesh.normalisation(vertices, "y")
    moved = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.abs(moved).max() == pytest.approx(0.95)
    assert moved[1, 2] == pytest.approx(0.95)  # the highest in y is the highest in z
    assert np.linalg.det(matrix[:3, :3]) > 0  # not mirrored
    with pytest.raises(render_mesh.InputError, match="one point"):
        render_mesh.normalisation(np.ones((4, 3)), "z")


def test_fitting_angle_frames_every_view_tightly():
    vertices = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    poses = render_mesh.spiral_cameras(9, 4.0)
    focal = 50 / np.tan(render_mesh.fitting_angle(vertices, poses, margin=1.0) / 2)
    reach = [np.abs(project_ref(vertices, pose, focal, 100) - 50).max() for pose in poses]
    assert max(reach) == pytest.approx(50)


def test_straight_srgb_keeps_the_colour_of_a_rim_pixel():
    # Linear 0.5 is sRGB 0.7354 = 187.5 / 255; a half-covered pixel has the same colour and alpha 127.5.
    linear = np.array([[[0.5, 0.5, 0.5, 1.0], [0.25, 0.25, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0], [2, 0, 0, 1]]])
    image = render_mesh.to_straight_srgb(linear)
    assert image.dtype == np.uint8
    assert image[0].tolist() == [[188] * 3 + [255], [188] * 3 + [128], [0] * 4, [255, 0, 0, 255]]


def test_render_mesh_bad_input_is_one_line_and_code_3(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x")
    for mesh in ("a.txt", "none.obj"):
        assert render_mesh.main([str(tmp_path / mesh), "-o", str(tmp_path / "out")]) == 3
        assert len(capsys.readouterr().err.splitlines()) == 1
    (tmp_path / "b.obj").write_text("v 0 0 0\n")
    assert render_mesh.main([str(tmp_path / "b.obj"), "-o", str(tmp_path)]) == 3
    assert "not an empty folder" in capsys.readouterr().err


def test_rendering_agrees_with_its_cameras(tmp_path):
    pytest.importorskip(
        "mitsuba", reason="mitsuba is not installed; data_scripts/render_mesh.py alone needs it"
    )
    # A lopsided tetrahedron, so that no mirrored or rolled camera can pass.
    vertices = np.array([[-0.4, -0.6, 0.2], [1.0, -0.5, 0.0], [0.0, 0.9, -0.3], [-0.1, -0.2, 0.7]])
    lines = ["v {} {} {}".format(*v) for v in vertices] + ["f 1 3 2", "f 1 2 4", "f 2 3 4", "f 1 4 3"]
    (tmp_path / "m.obj").write_text("\n".join(lines) + "\n")
    argv = [str(tmp_path / "m.obj"), "--train", "4", "--test", "2", "--size", "64", "--spp", "16"]
    for out in ("one", "two"):
        assert render_mesh.main([*argv, "-o", str(tmp_path / out)]) == 0
    matrix = render_mesh.normalisation(vertices, "y")
    moved = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    for split in COUNTS:
        poses, images, focal = read_set(tmp_path / "one", split)
        np.testing.assert_array_equal(images, read_set(tmp_path / "two", split)[1])
        assert_upper_cameras(poses, 4.0)
        for pose, image in zip(poses, images, strict=True):
            pixels = project_ref(moved, pose, focal, 64)
            rows, columns = np.nonzero(image[..., 3])
            np.testing.assert_allclose([columns.min(), rows.min()], pixels.min(0), atol=2)
            np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], pixels.max(0), atol=2)


def make_scene(pack, name, top="nerf_synthetic", counts=fetch.COUNTS):
    for split, n in counts.items():
        frames = [{"file_path": f"./{split}/r_{i}"} for i in range(n)]
        pack.writestr(f"{top}/{name}/transforms_{split}.json", json.dumps({"frames": frames}))
        for i in range(n):
            pack.writestr(f"{top}/{name}/{split}/r_{i}.png", b"png")


def run_fetch(archive, output, *more):
    return fetch.main(["--zip", str(archive), "-o", str(output), *more])


def test_fetch_accepts_a_good_zip(tmp_path, capsys):
    archive, out = tmp_path / "good.zip", tmp_path / "out"
    with zipfile.ZipFile(archive, "w") as pack:
        make_scene(pack, "lego")
        pack.writestr("__MACOSX/nerf_synthetic/._lego", b"shadow")
    assert run_fetch(archive, out) == 0
    assert "100 train, 100 val, 200 test" in capsys.readouterr().out
    assert [p.name for p in out.iterdir()] == ["nerf_synthetic"]
    assert run_fetch(archive, out) == 3
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_fetch_refuses_paths_outside_its_folder(tmp_path, name):
    archive, out = tmp_path / "slip.zip", tmp_path / "deep" / "out"
    with zipfile.ZipFile(archive, "w") as pack:
        pack.writestr("ok.txt", b"fine")
        pack.writestr(name, b"evil")
    assert run_fetch(archive, out) == 4
    assert not out.exists()
    assert not list(tmp_path.rglob("*evil*"))


def test_fetch_refuses_links_and_too_large(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as pack:
        pack.writestr(link, "/etc/passwd")
    assert run_fetch(tmp_path / "link.zip", tmp_path / "out") == 4
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("big", bytes(10_000))
    with pytest.raises(fetch.UnsafeError, match="10000 bytes"):
        fetch.extract(tmp_path / "big.zip", tmp_path / "out", max_bytes=9_999)
    assert not (tmp_path / "out").exists()


def test_fetch_damaged_or_short_archives_are_code_3(tmp_path, capsys):
    archive = tmp_path / "short.zip"
    with zipfile.ZipFile(archive, "w") as pack:
        make_scene(pack, "lego", counts={**fetch.COUNTS, "train": 99})
    assert run_fetch(archive, tmp_path / "short") == 3
    assert "99 views; 100 are published" in capsys.readouterr().err
    damaged = tmp_path / "damaged.zip"
    data = bytearray(archive.read_bytes())
    data[60] ^= 255  # inside the first entry: its checksum fails
    damaged.write_bytes(data)
    (tmp_path / "text.zip").write_text("<html>")
    for bad in ("damaged.zip", "text.zip", "none.zip"):
        assert run_fetch(tmp_path / bad, tmp_path / "bad") == 3
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not any((tmp_path / "bad").iterdir())
    for url in ("file:///etc/hosts", "http://[bad"):
        assert fetch.main(["--url", url, "-o", str(tmp_path / "bad")]) == 3


def test_spot_is_whole_small_and_licensed():
    for split, n in COUNTS.items():
        poses, images, _ = read_set(SPOT, split)
        assert images.shape == (n, 256, 256, 4)
        assert_upper_cameras(poses, 4.0)
        alpha = images[..., 3]
        assert not alpha[:, [0, -1]].any()  # nothing is cut
        assert not alpha[:, :, [0, -1]].any()
        assert ((alpha > 250).mean((1, 2)) > 0.1).all()
        assert len(list((SPOT / split).iterdir())) == n
    assert sum(p.stat().st_size for p in SPOT.rglob("*") if p.is_file()) < 4_000_000
    assert "CC0" in (SPOT / "LICENSE.md").read_text()


def test_spot_masks_carve_one_solid_that_fills_them():
    # The visual hull of the training masks covers every mask; wrong poses would carve it away.
    axis = np.linspace(-1, 1, 64)
    points = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    views = [read_set(SPOT, split) for split in COUNTS]
    for poses, images, focal in views:
        for pose, image in zip(poses, images, strict=True):
            column, row = np.floor(project_ref(points, pose, focal, 256)).astype(int).T
            inside = (column >= 0) & (column < 256) & (row >= 0) & (row < 256)
            points = points[inside][image[row[inside], column[inside], 3] > 0]
    assert len(points) > 5000
    for poses, images, focal in views:
        for pose, image in zip(poses, images, strict=True):
            pixels = project_ref(points, pose, focal, 256)
            rows, columns = np.nonzero(image[..., 3] > 127)
            np.testing.assert_allclose(pixels.min(0), [columns.min(), rows.min()], atol=4)
            np.testing.assert_allclose(pixels.max(0), [columns.max() + 1, rows.max() + 1], atol=4)


def test_screenshots_need_what_the_demo_wrote(tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setattr("sys.argv", ["screenshots.py", str(tmp_path)])
    assert importlib.import_module("screenshots").main() == 3
    assert "teacher.fm: no such file; `fieldmorph demo -o" in capsys.readouterr().err


def test_states_are_chosen_by_the_beginnings_of_their_names(tmp_path):
    pytest.importorskip("gradio")
    taker = importlib.import_module("screenshots").ScreenshotTaker(None, tmp_path, ["two.split", "page."])
    wanted = {"two.": True, "two.split": True, "two.depth": False, "page.crop": True, "one.": False}
    assert {state: taker.wants(state) for state in wanted} == wanted


def test_a_sheet_has_a_row_for_each_scheme(tmp_path, monkeypatch, capsys):
    sheets = importlib.import_module("screenshot_sheets")
    colors = {("desk", "light"): "red", ("phone", "light"): "lime", ("desk", "dark"): "blue"}
    for (size, scheme), color in colors.items():
        Image.new("RGB", (20, 10), color).save(tmp_path / f"two.split_{size}_{scheme}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "some_other_image.png")
    found = sheets.screenshots(tmp_path)
    assert {state: set(files) for state, files in found.items()} == {"two.split": set(colors)}
    made = sheets.sheet(found["two.split"], height=10)
    assert made.size == (20 + sheets.GAP + 20, 10 + sheets.GAP + 10)
    assert [made.getpixel(place) for place in ((0, 0), (47, 9), (0, 27))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    ]

    out = tmp_path / "sheets"
    monkeypatch.setattr("sys.argv", ["screenshot_sheets.py", str(tmp_path), "-o", str(out)])
    assert sheets.main() == 0
    assert [path.name for path in out.iterdir()] == ["two.split.webp"]
    monkeypatch.setattr("sys.argv", ["screenshot_sheets.py", str(out), "-o", str(out)])
    assert sheets.main() == 3
    assert "no screenshots in" in capsys.readouterr().err
