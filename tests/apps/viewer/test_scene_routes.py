"""Receipts, training cameras and camera paths of open scenes, and files that are dropped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers.view_fields import ball_field, save_ball, served

from fieldmorph.apps.viewer import scene_routes
from fieldmorph.apps.viewer.app import Viewer
from fieldmorph.apps.viewer.scene_routes import describe_cameras
from fieldmorph.apps.viewer.setting_names import PHRASES, settings_text
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.registry import FIELDS, field_settings

pytest.importorskip("gradio")

PLAN = {
    "keyframes": [{"eye": [0, -3, 1], "target": [0, 0, 0]}, {"eye": [3, 0, 1], "target": [0, 0, 0]}],
    "up": [0, 0, 1],
    "focal": 1.0,
    "seconds": 0.5,
    "width": 64,
    "height": 48,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Viewer]]:
    """Two fields, the second with a receipt."""
    folder = tmp_path_factory.mktemp("scenes")
    files = [save_ball(folder / "teacher.fm"), save_ball(folder / "student.fm", psnr=31.239)]
    Path(f"{files[1]}.receipt.html").write_text("<h1>ok</h1><script>1</script>", encoding="utf-8")
    with served(files, bake=False) as (url, viewer), httpx.Client(base_url=url, timeout=60) as client:
        yield client, viewer


def test_the_receipt_is_next_to_its_field_and_runs_nothing(server: Any) -> None:
    client, viewer = server
    teacher, student = (client.get(f"/scenes/{scene.id}").json() for scene in viewer.scenes)
    assert (teacher["quality"], teacher["has_receipt"]) == (None, False)
    assert (student["quality"], student["has_receipt"]) == ("31.24 dB to the teacher", True)
    page = client.get(f"/scenes/{student['id']}/receipt")
    assert "<h1>ok</h1>" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert client.get(f"/scenes/{teacher['id']}/receipt").status_code == 404


def test_training_cameras_are_described(server: Any) -> None:
    client, viewer = server
    found = client.get(f"/scenes/{viewer.scenes[0].id}/cameras").json()["cameras"]
    cameras = ball_field().cameras
    assert len(found) == len(cameras)
    pose = cameras.camera_to_world[2].numpy()
    for i, name in enumerate(("right", "down", "forward", "eye")):
        assert found[2][name] == pytest.approx(pose[:, i].tolist(), abs=1e-5)
    assert found[0]["across"] == pytest.approx(64 / float(cameras.intrinsics[0, 0]))
    assert found[0]["along"] == pytest.approx(48 / float(cameras.intrinsics[0, 1]))
    many = orbit_box((-1, -1, -1, 1, 1, 1), 1000, width=8, height=8)
    assert 300 < len(describe_cameras(many)) <= scene_routes.MAX_CAMERAS


def test_a_camera_path_has_the_layout_of_nerfstudio(server: Any) -> None:
    client, _ = server
    path = client.post("/camera_path", json=PLAN).json()
    assert (path["camera_type"], path["render_width"], path["render_height"]) == ("perspective", 64, 48)
    assert len(path["camera_path"]) == round(path["fps"] * path["seconds"])
    assert path["keyframes"][0]["fov"] == pytest.approx(np.degrees(2 * np.arctan(0.5)))
    for frame, keyframe in ((0, 0), (-1, 1)):
        matrix = np.reshape(path["camera_path"][frame]["camera_to_world"], (4, 4))
        assert matrix == pytest.approx(np.reshape(path["keyframes"][keyframe]["matrix"], (4, 4)), abs=1e-5)
        assert np.linalg.det(matrix) == pytest.approx(1)
        eye = np.array(PLAN["keyframes"][keyframe]["eye"], dtype=float)
        assert matrix[:3, 3] == pytest.approx(eye, abs=1e-5)
        assert matrix[:3, 2] == pytest.approx(
            eye / np.linalg.norm(eye), abs=1e-5
        )  # OpenGL's z points backwards
        assert matrix[2, 1] > 0  # and its y up
    assert client.post("/camera_path", json={**PLAN, "seconds": -1}).status_code == 400


def test_a_dropped_file_is_opened_where_nothing_is_open(
    tmp_path: Path, tensor_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ball = save_ball(tmp_path / "ball.fm").read_bytes()
    with served([], resolution=16) as (url, viewer), httpx.Client(base_url=url, timeout=60) as client:

        def post(name: str, content: bytes) -> tuple[int, dict[str, str]]:
            answer = client.post("/files", params={"name": name}, content=content)
            return answer.status_code, answer.json()

        status, opened = post("../my ball.fm", ball)
        assert status == 200
        described = client.get(f"/scenes/{opened['scene']}").json()
        assert described["name"] == "my ball"
        assert described["bake"]["state"] != "absent"
        status, refused = post("odd.fm", b"not a field")
        assert status == 400
        assert refused["error"].startswith("odd.fm")
        status, refused = post("sea.fm", tensor_model.read_bytes())
        assert refused["error"] == "sea.fm is a tensor model: open it with `fieldmorph view sea.fm`"
        monkeypatch.setattr(scene_routes, "MAX_FILE_BYTES", 1000)
        assert post("ball.fm", ball)[0] == 400
        assert (
            client.post("/files", content=b"x", headers={"origin": "http://evil.example"}).status_code == 403
        )
        assert len(viewer.store._scenes) == 1
    with served([save_ball(tmp_path / "a.fm")], bake=False) as (url, _):
        assert httpx.post(f"{url}files", content=b"x").status_code in (404, 405)


def test_several_files_are_in_a_list(tmp_path: Path) -> None:
    files = [save_ball(tmp_path / f"{name}.fm") for name in "abc"]
    with served(files, bake=False) as (url, viewer):
        config = httpx.get(f"{url}config").json()
        choosers = [c["props"] for c in config["components"] if c["type"] == "dropdown"]
        assert [props["label"] for props in choosers][:2] == ["First", "Second, to compare"]
        assert [name for name, _ in choosers[0]["choices"]] == ["a", "b", "c"]
        first_two = "%2C".join(scene.id for scene in viewer.scenes[:2])
        assert f"viewport?scenes={first_two}" in json.dumps(config)


def test_settings_have_names_for_people() -> None:
    for name, kind in FIELDS.items():
        text = settings_text(field_settings(name, "small"))
        assert text
        assert "_" not in text
        assert set(field_settings(name, "small")) <= {*PHRASES, "aabb"}, kind
    assert settings_text(
        {"aabb": [0], "n_levels": 8, "log2_hashmap_size": 15, "skip": None, "odd_one": 3}
    ) == ("8 levels, tables of 2^15 entries, odd one 3")
