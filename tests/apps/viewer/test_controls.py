"""What a visitor does with the viewport, in Debian's chromium: field of view, image modes, cameras, address, files."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.chromium import WITHOUT_RASTER, artefact, chromium, new_page, until
from helpers.view_fields import ball_field, save_ball, served
from helpers.voxel_fields import ball

from fieldmorph.apps.viewer.app import Viewer
from fieldmorph.fields.store import save_field

pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

VIEWPORT = "window.fieldmorph"
DONE = "document.querySelector('.state').dataset.kind === 'done'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(WITHOUT_RASTER) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Viewer]]:
    """Two fields, the second with a receipt."""
    folder = tmp_path_factory.mktemp("controls")
    files = [save_ball(folder / "teacher.fm"), save_ball(folder / "student.fm", psnr=33.21)]
    Path(f"{files[1]}.receipt.html").write_text("<h1>Receipt</h1>", encoding="utf-8")
    with served(files, bake=False) as found:
        yield found


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = new_page(browser, viewport={"width": 640, "height": 480}, color_scheme="light")
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.context.close()
    assert wrong == []


def open_viewport(page: Any, server: tuple[str, Viewer], fragment: str = "") -> None:
    url, viewer = server
    page.goto(f"{url}viewport?scenes={','.join(scene.id for scene in viewer.scenes)}{fragment}")
    until(page, f"{VIEWPORT}?.root?.dataset.state === 'ready'")


def test_field_of_view_has_keys_a_slider_and_a_place_in_the_address(page: Any, server: Any) -> None:
    open_viewport(page, server)
    first = page.evaluate(f"{VIEWPORT}.camera.fov")
    page.keyboard.press("]")
    assert page.evaluate(f"{VIEWPORT}.camera.fov") == pytest.approx(first + 5)
    page.keyboard.press("v")
    page.get_by_label("Field of view in degrees").fill("90")
    assert page.evaluate(f"{VIEWPORT}.camera.focal") == pytest.approx(0.5)
    assert page.inner_text("[data-panel=view] output") == "90°"
    until(page, "location.hash.endsWith(',90.00')")
    page.keyboard.press("r")
    assert page.evaluate(f"{VIEWPORT}.camera.fov") == pytest.approx(first)


def test_depth_and_opacity_are_images_of_another_view(page: Any, server: Any) -> None:
    """As after a movement, what was drawn before is stale until the server has drawn the new image."""
    open_viewport(page, server)
    until(page, DONE)
    before = page.evaluate(f"{VIEWPORT}.images.version")
    page.keyboard.press("v")
    page.get_by_role("radio", name="Depth").click()
    assert page.evaluate(f"{VIEWPORT}.images.version") > before
    until(page, DONE)
    page.screenshot(path=artefact("view_depth.png"))
    middle = f"[...{VIEWPORT}.snapshot(64, 48).getContext('2d').getImageData(30, 24, 1, 1).data]"
    red, green, blue, _ = page.evaluate(middle)
    assert max(red, green, blue) - min(red, green, blue) > 30  # of the color scale, the ball is not
    page.keyboard.press("i")
    until(page, DONE)
    red, green, blue, _ = page.evaluate(middle)
    assert red == green == blue
    until(page, "location.hash.endsWith('&image=opacity')")
    page.get_by_label("X from").fill("190")
    until(page, DONE)
    assert page.evaluate(f"{VIEWPORT}.viewPanel.crop.box[0]") == pytest.approx(0.9)
    assert page.evaluate(middle)[:3] != [red, green, blue]
    assert page.locator(".outline:not(.frusta) path").get_attribute("d")


def test_depths_of_two_fields_have_one_scale(browser: Any, tmp_path: Path) -> None:
    """That of the box around both, for the server's images and for bakes."""
    stored = ball_field()
    large = ball(16, (-1.0, -1.0, -2.0, 1.5, 1.0, 1.0))
    save_field(tmp_path / "large.fm", replace(stored, field=large))
    files = [save_ball(tmp_path / "small.fm"), tmp_path / "large.fm"]
    with served(files, bake=False) as server:
        page = new_page(browser, viewport={"width": 320, "height": 240})
        boxes = list[Any]()
        page.on(
            "request",
            lambda r: r.url.endswith("/tiles") and boxes.append(json.loads(r.post_data)["depth_box"]),
        )
        open_viewport(page, server, "#image=depth")
        until(page, DONE)
        around = [-1.0, -1.0, -2.0, 1.5, 1.0, 1.0]
        assert page.evaluate(f"{VIEWPORT}.layers.map((layer) => layer.view.depthBox)") == [around] * 2
        assert boxes
        assert all(box == pytest.approx(around) for box in boxes)
        page.context.close()


def test_psnr_and_receipt_are_next_to_the_image(page: Any, server: Any) -> None:
    open_viewport(page, server)
    assert page.inner_text(".title.second .quality") == "33.21 dB to the teacher"
    assert page.locator(".title.first a").is_hidden()
    with page.expect_popup() as popup:
        page.click(".title.second a")
    assert popup.value.url.endswith("/receipt")


def test_training_cameras_are_shown_and_gone_to(page: Any, server: Any) -> None:
    open_viewport(page, server)
    page.keyboard.press("t")
    until(page, "document.querySelector('.frusta .all').getAttribute('d')")
    assert page.inner_text("[data-panel=cameras] output") == "1 of 8"
    page.screenshot(path=artefact("view_cameras.png"))
    page.get_by_role("button", name="Next").click()
    eye = f"{VIEWPORT}.camera.eye()"
    seen = page.evaluate(f"{VIEWPORT}.trainingCameras.cameras[1]")
    assert page.evaluate(eye) == pytest.approx(seen["eye"], abs=1e-4)
    assert page.evaluate(f"{VIEWPORT}.camera.pose(64, 48).forward") == pytest.approx(
        seen["forward"], abs=1e-3
    )
    page.get_by_label("Show the training cameras").uncheck()
    assert not page.locator(".frusta .all").get_attribute("d")


def test_the_address_of_the_whole_page_holds_the_view(browser: Any, page: Any, server: Any) -> None:
    page.goto(server[0])
    frame = page.wait_for_selector("iframe").content_frame()
    frame.wait_for_url("**/viewport*")
    until(frame, f"{VIEWPORT}?.root?.dataset.state === 'ready'")
    frame.evaluate(f"{VIEWPORT}.moveCamera(() => {VIEWPORT}.camera.orbit(0.5, 0.1))")
    frame.click("button[data-compare=difference]")
    until(page, "location.hash.endsWith('&compare=difference')")
    shared = page.evaluate("location.href")
    other = new_page(browser, viewport={"width": 640, "height": 480})
    other.goto(shared)
    opened = other.wait_for_selector("iframe").content_frame()
    opened.wait_for_url("**/viewport*")
    until(opened, f"{VIEWPORT}?.root?.dataset.state === 'ready'")
    for value in ("camera.toFragment()", "comparison.value"):
        assert opened.evaluate(f"{VIEWPORT}.{value}") == frame.evaluate(f"{VIEWPORT}.{value}")
    other.context.close()


def test_a_camera_path_is_saved_and_loaded(page: Any, server: Any, tmp_path: Path) -> None:
    open_viewport(page, server)
    page.keyboard.press("m")
    page.click("[data-act=addkey]")
    page.evaluate(f"{VIEWPORT}.moveCamera(() => {VIEWPORT}.camera.orbit(0.7, 0.2))")
    page.click("[data-act=addkey]")
    eyes = page.evaluate(f"{VIEWPORT}.video.keyframes.map((key) => key.eye)")
    with page.expect_download() as download:
        page.click("[data-act=savepath]")
    assert download.value.suggested_filename == "camera_path.json"
    file = tmp_path / "camera_path.json"
    download.value.save_as(file)
    assert len(json.loads(file.read_text())["keyframes"]) == 2
    page.click("[data-act=clearkeys]")
    page.set_input_files("[name=path]", file)
    until(page, "document.querySelector('.path-status').textContent === '2 keyframes loaded.'")
    loaded = page.evaluate(f"{VIEWPORT}.video.keyframes.map((key) => key.eye)")
    assert [pytest.approx(eye, abs=1e-3) for eye in eyes] == loaded
    (tmp_path / "other.json").write_text('{"frames": []}')
    page.set_input_files("[name=path]", tmp_path / "other.json")
    until(page, "document.querySelector('.path-status').textContent.includes('no camera path')")


def test_a_file_is_opened_from_the_empty_page(browser: Any, tmp_path: Path) -> None:
    file = save_ball(tmp_path / "ball.fm")
    with served([], bake=False) as (url, _):
        page = new_page(browser, viewport={"width": 640, "height": 480})
        page.goto(url)
        frame = page.wait_for_selector("iframe").content_frame()
        frame.wait_for_selector(".drop")
        (tmp_path / "bad.fm").write_text("no field")
        frame.set_input_files(".drop input", tmp_path / "bad.fm")
        until(frame, "document.querySelector('.drop').dataset.state === 'failed'")
        assert "bad.fm" in frame.inner_text(".drop-status")
        frame.set_input_files(".drop input", file)
        frame.wait_for_url(re.compile(r"viewport\?scenes=.+"))
        until(frame, f"{VIEWPORT}?.root?.dataset?.state === 'ready'")
        assert frame.inner_text(".title.first h1") == "ball"
        assert page.locator(".facts-empty").count() == 0
        page.context.close()


def test_any_two_of_several_files_are_compared(browser: Any, tmp_path: Path) -> None:
    files = [save_ball(tmp_path / f"{name}.fm") for name in "abc"]
    with served(files, bake=False) as (url, viewer):
        page = new_page(browser, viewport={"width": 640, "height": 480})
        page.goto(url)
        page.get_by_label("Second, to compare").click()
        page.get_by_role("option", name="c", exact=True).click()
        chosen = f"{viewer.scenes[0].id}%2C{viewer.scenes[2].id}"
        page.wait_for_selector(f"iframe[src*='{chosen}']")
        page.context.close()


def test_help_on_a_phone_names_fingers(browser: Any, server: Any) -> None:
    page = new_page(browser, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_viewport(page, server)
    page.click("[data-act=about]")
    controls = page.inner_text("[data-panel=about]")
    assert "drag with two fingers" in controls
    assert "right button" not in controls
    assert "Keys" not in controls
    page.screenshot(path=artefact("view_phone_controls.png"))
    page.context.close()
