import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import imageio.v3 as iio
import numpy as np
import pytest
from helpers.view_fields import VIEWER, ball_field, request_of, save_ball, served
from PIL import Image

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.media import to_8bit
from fieldmorph.apps.viewer.app import Viewer, make_viewer
from fieldmorph.apps.viewer.scenes import byte_text, quality_facts
from fieldmorph.apps.viewer.server import listen, page_url
from fieldmorph.apps.viewer.tiles import read_messages
from fieldmorph.fields.cameras import resize
from fieldmorph.fields.errors import InputError, SettingError

pytest.importorskip("gradio")

STORED = ball_field()
CAMERA = resize(STORED.cameras[1], 64, 48)
WAIT = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Viewer]]:
    """A viewer of two fields, one of them with a receipt, without their bakes."""
    folder = tmp_path_factory.mktemp("view")
    files = [save_ball(folder / "teacher.fm"), save_ball(folder / "student.fm", psnr=31.239)]
    with served(files, bake=False) as (url, viewer), httpx.Client(base_url=url, timeout=WAIT) as client:
        yield client, viewer


def assembled(content: bytes, n: int = 1) -> list[np.ndarray]:
    images = [np.zeros((48, 64, 3), np.uint8) for _ in range(n)]
    for which, tile, png in read_messages(content):
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        images[which][tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = pixels
    return images


def test_an_image_comes_in_tiles_and_is_the_renderer_s(server: Any) -> None:
    client, viewer = server
    answer = client.post("/tiles", json=request_of(CAMERA, scenes=[s.id for s in viewer.scenes]))
    expected = to_8bit(STORED.render(CAMERA)["colors"])
    for found in assembled(answer.content, 2):
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_of_two_scenes_each_gives_the_columns_that_are_seen(server: Any) -> None:
    client, viewer = server
    body = request_of(CAMERA, scenes=[s.id for s in viewer.scenes], spans=[[0, 0.25], [0.25, 1]])
    columns: list[set[int]] = [set(), set()]
    for which, tile, _ in read_messages(client.post("/tiles", json=body).content):
        columns[which] |= set(range(tile.x, tile.x + tile.width))
    assert columns == [set(range(16)), set(range(16, 64))]


def test_of_one_viewer_only_the_latest_image_is_rendered(server: Any) -> None:
    """The first answer ends early, without an error, once the same viewer has requested another."""
    client, viewer = server
    scene = viewer.scenes[0]
    gate, begun = threading.Event(), threading.Event()
    density = type(scene.stored.field).query_density

    def waiting(positions: Any) -> Any:
        begun.set()
        assert gate.wait(WAIT)
        return density(scene.stored.field, positions)

    scene.stored.field.query_density = waiting
    large = resize(STORED.cameras[1], 320, 240)
    first: list[bytes] = []
    requesting = threading.Thread(
        target=lambda: first.append(client.post("/tiles", json=request_of(large, scenes=[scene.id])).content)
    )
    requesting.start()
    try:
        assert begun.wait(WAIT)
        viewer.pool.submit(f"viewer {VIEWER}", [], print, lambda _: None)
    finally:
        gate.set()
        requesting.join(WAIT)
        del scene.stored.field.query_density
    area = sum(tile.width * tile.height for _, tile, _ in read_messages(first[0]))
    assert area < 320 * 240 / 2


def test_a_field_that_fails_says_so_and_does_not_disturb_others(server: Any) -> None:
    client, viewer = server
    good, bad = viewer.scenes

    def fail(_: Any) -> Any:
        raise RuntimeError("out of order\nsecret second line")

    bad.stored.field.query_density = fail
    try:
        answer = client.post("/tiles", json=request_of(CAMERA, scenes=[bad.id]))
        (which, _, text) = read_messages(answer.content)[-1]
    finally:
        del bad.stored.field.query_density
    assert (which, text.decode()) == (0xFFFF, "The field could not be rendered: out of order")
    found = assembled(client.post("/tiles", json=request_of(CAMERA, scenes=[good.id])).content)[0]
    assert found.min() < 200


def test_facts_of_a_scene_come_from_file_and_receipt(server: Any) -> None:
    client, viewer = server
    scene = client.get(f"/scenes/{viewer.scenes[1].id}").json()
    facts = dict(scene["facts"])
    assert scene["name"] == "student"
    assert facts["architecture"] == "voxels"
    assert facts["PSNR to the teacher"] == "31.24 dB"
    assert facts["parameters"] == f"{STORED.field.n_parameters():,}"
    assert scene["bake"] == {"state": "absent"}
    assert set(scene["camera"]) == {"eye", "target", "up", "focal"}


def test_a_video_passes_through_its_keyframes_and_is_fetched_by_its_id(server: Any) -> None:
    client, viewer = server
    plan = video_plan(viewer, keyframes=[0, 2])
    lines = [json.loads(line) for line in client.post("/videos", json=plan).text.splitlines()]
    assert lines[0] == {"done": 0, "total": 15, "fraction": 0}
    steps = [(line["done"], line["fraction"]) for line in lines[:-1]]
    assert steps == sorted(steps)
    assert {done for done, _ in steps} == set(range(16))
    assert steps[-1] == (15, 1)
    video = client.get(f"/videos/{lines[-1]['video']}")
    assert video.headers["content-type"] == "video/mp4"
    frames = iio.imread(video.content, extension=".mp4")
    assert frames.shape == (15, 48, 64, 3)
    for at, which in ((0, 0), (-1, 2)):
        expected = to_8bit(STORED.render(resize(STORED.cameras[which], 64, 48))["colors"])
        assert np.abs(frames[at].astype(int) - expected).mean() < 8


def test_a_video_that_is_cancelled_leaves_nothing(server: Any) -> None:
    client, viewer = server
    folder = Path(viewer.videos._folder.name)
    before = set(folder.iterdir())
    with client.stream("POST", "/videos", json=video_plan(viewer, keyframes=[0], seconds=20)) as answer:
        next(answer.iter_lines())
    for _ in range(600):
        if viewer.videos._rendering == 0:
            break
        time.sleep(0.05)
    assert viewer.videos._rendering == 0
    assert set(folder.iterdir()) == before


def video_plan(viewer: Viewer, keyframes: list[int], **others: Any) -> dict[str, Any]:
    poses = STORED.cameras.camera_to_world[keyframes]
    requested = [{"eye": p[:, 3].tolist(), "target": [0.0, 0.0, 0.0]} for p in poses]
    focal = float(STORED.cameras.intrinsics[0, 0]) / 48
    plan = {
        "keyframes": requested,
        "up": [0, 0, 1],
        "focal": focal,
        "seconds": 0.5,
        "width": 64,
        "height": 48,
    }
    return {**plan, "scenes": [viewer.scenes[0].id], **others}


@pytest.mark.parametrize(
    "wrong",
    [
        {"keyframes": []},
        {"keyframes": "ab"},
        {"keyframes": [{"eye": [0, 0, 0], "target": [0, 0, 0]}]},
        {"seconds": 1e9},
        {"seconds": -1},
        {"width": 10**6},
        {"height": 1},
        {"up": [0, 0, 0]},
        {"focal": 0},
        {"split": 2},
        {"scenes": []},
        {"scenes": ["x"] * 3},
    ],
)
def test_a_bad_video_is_refused_in_one_line(server: Any, wrong: dict[str, Any]) -> None:
    client, viewer = server
    answer = client.post("/videos", json={**video_plan(viewer, keyframes=[0]), **wrong})
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_the_page_has_the_scenes_on_it_and_names_no_other_host(server: Any) -> None:
    client, viewer = server
    page = client.get("/").text
    assert all(scene.id in page for scene in viewer.scenes)
    assert "31.24 dB" in page
    for path in ("/viewport", "/viewport.js", "/viewport.css"):
        content = client.get(path)
        assert content.status_code == 200
        assert "http://" not in content.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in content.text


def test_two_hundred_visits_leave_no_thread_and_no_work_behind(server: Any) -> None:
    client, viewer = server
    body = request_of(CAMERA, scenes=[viewer.scenes[0].id])
    client.post("/tiles", json=body)
    before = threading.active_count()
    for i in range(200):
        visit = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=WAIT)
        visit.request("POST", "/tiles", json.dumps({**body, "viewer": f"visitor {i:08}"}))
        if i % 2:
            visit.getresponse().read(20)  # half of them leave in mid-image, the others before
        visit.close()
    for _ in range(600):
        if not viewer.pool._tasks:
            break
        time.sleep(0.05)
    assert not viewer.pool._tasks
    assert not viewer.pool._spent
    assert threading.active_count() <= before + 1


def test_a_bake_is_made_in_the_background_and_served_by_its_parts(tmp_path: Path) -> None:
    with (
        served([save_ball(tmp_path / "ball.fm")], resolution=32) as (url, viewer),
        httpx.Client(base_url=url) as client,
    ):
        place = f"/scenes/{viewer.scenes[0].id}"
        for _ in range(1200):
            state = client.get(place).json()["bake"]["state"]
            if state not in ("waiting", "working"):
                break
            time.sleep(0.05)
        assert state == "ready"
        header = client.get(f"{place}/bake/scene.json").json()
        for part in header["parts"]:
            assert client.get(f"{place}/bake/{part['file']}").status_code == 200
        assert client.get(f"{place}/bake/index.html").status_code == 404


def test_a_taken_port_gives_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    try:
        assert main(["view", str(save_ball(tmp_path / "a.fm")), "--port", str(port), "--no-browser"]) == 2
    finally:
        taken.close()
    assert capsys.readouterr().err == (
        f"fieldmorph: port {port} is taken; choose another with --port, or any with --port 0\n"
    )


def test_mistakes_are_reported_before_anything_is_served(tmp_path: Path) -> None:
    files = [save_ball(tmp_path / "a.fm")]
    with pytest.raises(SettingError, match="at most 16 fields and one tensor model; got 17 and 0"):
        make_viewer(files * 17)
    with pytest.raises(SettingError, match="none was given"):
        make_viewer(files[:1], data="rows.csv")
    with pytest.raises(InputError, match="nothere"):
        make_viewer([tmp_path / "nothere.fm"])
    with pytest.raises(SettingError, match="host"):
        listen("no.such.host.invalid", 0)


def test_a_tensor_model_has_a_tab_of_its_own(tensor_model: Path) -> None:
    viewer = make_viewer([tensor_model], threads=1)
    viewer.close()
    with served([tensor_model]) as (url, _):
        config = httpx.get(f"{url}config").json()
    tabs = [part["props"]["label"] for part in config["components"] if part["type"] == "tabitem"]
    assert tabs == ["Tensor model"]


def test_words_for_people() -> None:
    assert [byte_text(n) for n in (5, 3_733_776, 2.5e9)] == ["5 bytes", "3.73 MB", "2.5 GB"]
    assert [page_url(h, 80) for h in ("127.0.0.1", "0.0.0.0", "fe80::1")] == [
        "http://localhost:80/",
        "http://localhost:80/",
        "http://[fe80::1]:80/",
    ]
    for strange in ({}, {"quality": 3}, {"quality": {"held_out": {"mean": {"psnr_to_teacher": "x"}}}}):
        assert quality_facts(strange) == []
