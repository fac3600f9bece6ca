"""Ways to show a mesh: wires, a medium, a landscape, and views from near and far."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "data_scripts"))

import mesh_looks
import render_mesh

PYRAMID = "v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nv 0.2 0 1\nf 1 2 5\nf 2 3 5\nf 3 4 5\nf 4 1 5\nf 3 2 1\nf 4 3 1\n"


def test_wires_join_the_means_of_cells() -> None:
    # The first two vertices lie in one cell; the edge between them goes, and one edge occurs in both triangles.
    vertices = np.array([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [2.5, 0.5, 0.5], [0.5, 2.5, 0.5]])
    edges = mesh_looks.wires(vertices, np.array([[0, 1, 2], [1, 2, 3], [3, 2, 1]]), cell=1.0)
    merged, right, top = [0.2, 0.1, 0.1], [2.5, 0.5, 0.5], [0.5, 2.5, 0.5]
    found = {tuple(sorted(map(tuple, np.round(edge, 9).tolist()))) for edge in edges}
    assert found == {
        tuple(sorted(map(tuple, edge))) for edge in ([merged, right], [right, top], [merged, top])
    }
    assert len(edges) == 3


def test_pixel_rays_agree_with_the_camera() -> None:
    pose = render_mesh.random_cameras(1, 4.0, np.random.default_rng(0))[0]
    rays = mesh_looks.pixel_rays(pose, 0.6, 4)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1)
    x, y, z = (rays[0, 3] @ pose[:3, :3]).tolist()  # upper right
    assert (x / -z, y / -z) == pytest.approx((0.75 * np.tan(0.3), 0.75 * np.tan(0.3)))


def test_the_medium_is_that_of_its_chord() -> None:
    # From (0, 0, 5) downwards a ball of radius 1 is 2 long; a white half-covered surface lies in its middle.
    image = np.array([[[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    directions = np.array([[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])
    found = mesh_looks.add_medium(
        image, np.full((1, 3), 5.0), np.array([0.0, 0.0, 5.0]), directions, radius=1.0
    )
    to_surface, through = np.exp(-mesh_looks.MEDIUM_SIGMA * np.array([1.0, 2.0]))
    glow = np.array(mesh_looks.MEDIUM_COLOR)
    np.testing.assert_allclose(found[0, 0], [*((1 - through) * glow), 1 - through])
    half = (1 - to_surface) / 2 + (1 - through) / 2
    np.testing.assert_allclose(found[0, 1], [*(to_surface * 0.5 + half * glow), to_surface / 2 + half])
    np.testing.assert_allclose(found[0, 2], 0.0)  # a ray that misses


def test_pooling_keeps_the_mean() -> None:
    image = np.random.default_rng(0).uniform(size=(6, 4, 2))
    pooled = mesh_looks.pooled(image, 2)
    np.testing.assert_allclose(pooled[2, 1], image[4:6, 2:4].mean((0, 1)))


def test_the_landscape_has_a_sky_above_and_a_ground_below() -> None:
    image = mesh_looks.landscape(32)
    assert image.shape == (32, 64, 3)
    assert (image > 0).all()
    assert (image[:16, :, 2] > 0.5).all()  # blue
    assert len(np.unique(image[-8].round(3), axis=0)) < 10  # tiles far from the sun
    sun = np.unravel_index(image.sum(-1).argmax(), image.shape[:2])
    assert sun[0] < 16


def test_wide_views_are_near_and_far_above_and_below() -> None:
    poses = render_mesh.wide_cameras(500, 4.0, np.random.default_rng(0))
    distances = np.linalg.norm(poses[:, :3, 3], axis=1)
    assert 2.2 <= distances.min() < 2.4
    assert 6.8 < distances.max() <= 7.2
    assert np.median(distances) == pytest.approx(4 * np.sqrt(0.55 * 1.8), rel=0.1)  # even in the logarithm
    assert (poses[:, 2, 3] < 0).mean() == pytest.approx(0.5, abs=0.1)
    back = poses[:, :3, 3] / distances[:, None]
    np.testing.assert_allclose(poses[:, :3, 2], back, atol=1e-9)  # all look at the origin


def test_the_medium_is_within_every_view() -> None:
    vertices = np.array([[0.5, 0.5, 0.0], [-0.5, 0.0, 0.1]])
    ball = mesh_looks.extent(vertices, mesh_looks.LOOKS["fog"])
    np.testing.assert_allclose(np.linalg.norm(ball, axis=1), 1.02 * np.sqrt(0.5))
    assert mesh_looks.extent(vertices, mesh_looks.LOOKS["dark"]) is vertices


@pytest.mark.parametrize("look", mesh_looks.LOOKS)
def test_looks_are_what_they_say(look: str, tmp_path: Path) -> None:
    pytest.importorskip("mitsuba", reason="mitsuba is not installed; the scripts that render meshes need it")
    (tmp_path / "m.obj").write_text(PYRAMID)
    sizes = ["--train", "2", "--test", "1", "--size", "32", "--spp", "32"]
    argv = [str(tmp_path / "m.obj"), "--up", "z", "--look", look, *sizes, "-o", str(tmp_path / look)]
    assert render_mesh.main(argv) == 0
    for path in (tmp_path / look).rglob("*.png"):
        image = np.array(Image.open(path)) / 255.0
        alpha, shown = image[..., 3], image[image[..., 3] > 0.9][:, :3]
        assert (((alpha > 0.05) & (alpha < 0.95)).mean() > 0.3) == (look == "fog")
        assert ((alpha > 0.95).mean() < 0.05) == (look == "wire")
        if look == "dark":
            assert shown.mean() < 0.25
        if look == "mirror":
            assert shown.std() > 0.05
