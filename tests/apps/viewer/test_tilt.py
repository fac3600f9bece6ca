"""A training camera that is tilted sideways is shown as it is: in the viewport, its address, videos and path files."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.chromium import chromium, new_page, until
from helpers.view_fields import ball_field, served

from fieldmorph.apps.viewer.camera_paths import path_json
from fieldmorph.apps.viewer.videos import camera_path, read_plan
from fieldmorph.fields.store import save_field

VIEWPORT = "window.fieldmorph"
TILT = math.radians(40)  # to the right, of every training camera
PLAN = {
    "keyframes": [
        {"eye": [0, -3, 1], "target": [0, 0, 0], "roll": TILT},
        {"eye": [3, 0, 1], "target": [0, 0, 0]},
    ],
    "up": [0, 0, 1],
    "focal": 1.0,
    "seconds": 0.5,
    "width": 64,
    "height": 48,
}


def save_tilted(path: Path) -> Path:
    """The ball, its training cameras rolled by 40 degrees."""
    stored = ball_field()
    pose = stored.cameras.camera_to_world.clone()
    right, down = pose[:, :, 0].clone(), pose[:, :, 1].clone()
    pose[:, :, 0] = math.cos(TILT) * right + math.sin(TILT) * down
    pose[:, :, 1] = math.cos(TILT) * down - math.sin(TILT) * right
    save_field(path, replace(stored, cameras=replace(stored.cameras, camera_to_world=pose)))
    return path


def axes(page: Any) -> dict[str, Any]:
    return page.evaluate(f"{VIEWPORT}.camera.pose(64, 48)")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The viewport of that ball."""
    pytest.importorskip("gradio")
    with chromium() as browser, served([save_tilted(tmp_path / "ball.fm")], bake=False) as (url, viewer):
        page = new_page(browser, viewport={"width": 640, "height": 480}, color_scheme="light")
        page.goto(f"{url}viewport?scenes={viewer.scenes[0].id}")
        until(page, f"{VIEWPORT}?.root?.dataset.state === 'ready'")
        yield page


@pytest.mark.browser
def test_a_tilted_camera_is_shown_tilted_and_levels_off_as_it_is_turned(page: Any) -> None:
    page.keyboard.press("t")
    until(page, f"{VIEWPORT}.trainingCameras.cameras.length")
    page.get_by_role("button", name="Next").click()
    seen = page.evaluate(f"{VIEWPORT}.trainingCameras.cameras[1]")
    for name in ("right", "down", "forward", "eye"):
        assert axes(page)[name] == pytest.approx(seen[name], abs=1e-3), name
    until(page, "location.hash.split(',').length === 8")
    shared = page.evaluate("location.hash")
    roll = page.evaluate(f"{VIEWPORT}.camera.roll")
    page.evaluate(f"{VIEWPORT}.moveCamera(() => {VIEWPORT}.camera.orbit(0.3, 0))")
    assert abs(roll) > 0.1
    assert page.evaluate(f"{VIEWPORT}.camera.roll / {roll}") == pytest.approx(math.exp(-0.6))
    page.evaluate(f"{VIEWPORT}.followAddress({json.dumps(shared)})")
    assert axes(page)["right"] == pytest.approx(seen["right"], abs=1e-3)
    page.keyboard.press("r")
    assert page.evaluate(f"{VIEWPORT}.camera.roll") == 0


@pytest.mark.browser
def test_a_path_keeps_the_tilt_of_its_keyframes(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("t")
    until(page, f"{VIEWPORT}.trainingCameras.cameras.length")
    page.get_by_role("button", name="Go to camera").click()
    page.keyboard.press("m")
    page.click("[data-act=addkey]")
    roll = page.evaluate(f"{VIEWPORT}.video.keyframes[0].roll")
    assert abs(roll) > 0.1
    with page.expect_download() as download:
        page.click("[data-act=savepath]")
    download.value.save_as(tmp_path / "camera_path.json")
    page.click("[data-act=clearkeys]")
    page.set_input_files("[name=path]", tmp_path / "camera_path.json")
    until(page, "document.querySelector('.path-status').textContent === '1 keyframes loaded.'")
    assert page.evaluate(f"{VIEWPORT}.video.keyframes[0].roll") == pytest.approx(roll, abs=1e-3)


def test_a_video_begins_tilted_and_ends_upright() -> None:
    plan = read_plan(PLAN)
    poses = camera_path(plan).camera_to_world
    assert (poses[:, :, :3].transpose(1, 2) @ poses[:, :, :3] - torch.eye(3)).abs().max() < 1e-5
    eye = torch.tensor([0.0, -3.0, 1.0])
    forward = -eye / eye.norm()
    level = torch.tensor([1.0, 0.0, 0.0])
    down = torch.linalg.cross(forward, level)
    assert torch.allclose(poses[0, :, 0], math.cos(TILT) * level + math.sin(TILT) * down, atol=1e-5)
    heights = poses[:, 2, 0]  # of the axis to the right, which falls where a camera is tilted to the right
    assert float(heights[0]) < -0.5
    assert float(heights[-1]) == pytest.approx(0, abs=1e-5)
    first = np.reshape(path_json(plan)["keyframes"][0]["matrix"], (4, 4))
    assert first[:3, 0] == pytest.approx(poses[0, :, 0].numpy(), abs=1e-5)
