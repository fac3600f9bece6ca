"""The viewer in Debian's chromium: load, drag, compare, render a video; screenshots are kept as artefacts."""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers.chromium import WITHOUT_RASTER, artefact, chromium, new_page, until, wait
from helpers.view_fields import ball_field, save_ball, served
from PIL import Image

from fieldmorph.apps.media import to_8bit
from fieldmorph.apps.viewer.app import Viewer
from fieldmorph.apps.viewer.scenes import OpenScene
from fieldmorph.fields.cameras import resize

pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

VIEWPORT = "window.fieldmorph"
OUTSIDE = """
[...document.querySelectorAll(".bar button, .title:not([hidden]), .state")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.left < 0 || box.right > innerWidth || box.bottom > innerHeight;
}).length"""
SHORT = """
Object.assign(document.querySelector("[name=seconds]"), { min: 0.2, step: 0.1, value: 0.2 });
const size = document.querySelector("[name=size]");
size.add(new Option("smaller than any", 60));
size.value = 60;
"""
LONG = """
for (const [name, value] of [["seconds", 20], ["size", 240]]) document.querySelector(`[name=${name}]`).value = value;
"""
GLIDE = """
const request = requestAnimationFrame;
window.requestAnimationFrame = (draw) => request((now) => draw(now / 8));  // a glide has frames on a busy machine, too
window.targets = new Set();
const record = () => (targets.add(fieldmorph.camera.target.join()), requestAnimationFrame(record));
record();
"""
CHANGED = """
(() => {
  const move = () => fieldmorph.moveCamera(() => (fieldmorph.camera.yaw += 0.01));
  move();  // from rest to movement
  const observer = new MutationObserver(() => {});
  const what = { subtree: true, attributes: true, childList: true, characterData: true };
  observer.observe(document.body, what);
  for (let i = 0; i < 5; i++) move();
  return observer.takeRecords().map(({ target, attributeName }) => `${target.className} ${attributeName}`);
})()
"""
DESK, PHONE = (1280, 800), (390, 844)
WINDOW = (720, 540)  # where the layout does not matter


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(WITHOUT_RASTER) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Viewer]]:
    """Two fields, the second with a receipt, both baked."""
    folder = tmp_path_factory.mktemp("browser")
    files = [save_ball(folder / "teacher.fm"), save_ball(folder / "student.fm", psnr=33.21)]
    with served(files, resolution=16) as (url, viewer):
        wait(lambda: all(viewer.baker.state(s)["state"] == "ready" for s in viewer.scenes), "baked")
        yield url, viewer


def viewport_of(page: Any) -> Any:
    frame = page.wait_for_selector("iframe").content_frame()
    frame.wait_for_url("**/viewport*")
    return frame


class Visit:
    """A page, its viewport, and the errors on it; only the viewport, where its scenes are given."""

    def __init__(
        self,
        browser: Any,
        url: str,
        size: tuple[int, int] = WINDOW,
        dark: bool = False,
        only: Sequence[OpenScene] = (),
    ):
        self.url, self.wrong = url, list[str]()
        scheme = "dark" if dark else "light"
        self.page = new_page(
            browser,
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            has_touch=size == PHONE,
        )
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "request", lambda r: r.url.startswith((url, "data:", "blob:")) or self.wrong.append(r.url)
        )
        self.page.goto(f"{url}viewport?scenes={','.join(scene.id for scene in only)}" if only else url)
        self.viewport = self.page if only else viewport_of(self.page)
        self.box = ".viewport" if only else "iframe"
        until(
            self.viewport, f"!!{VIEWPORT} && document.querySelector('.viewport').dataset.state !== 'loading'"
        )

    def drawn(self) -> None:
        """Wait until bakes and images of the fields are drawn."""
        until(self.viewport, f"{VIEWPORT}.layers.every((layer) => layer.hasBake)")
        until(self.viewport, "document.querySelector('.state').dataset.kind === 'done'")

    def refined(self, act: Any) -> None:
        """Do something after which the fields are drawn anew."""
        before = self.viewport.evaluate(f"{VIEWPORT}.stats.images")
        act()
        until(self.viewport, f"{VIEWPORT}.stats.images > {before}")

    def drag(self, dx: int) -> None:
        box = self.page.locator(self.box).bounding_box()
        x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for i in range(1, 11):
            self.page.mouse.move(x + dx * i / 10, y)
        self.page.mouse.up()

    def pixels(self, of: str = ".fine") -> np.ndarray:
        """What is on one of the first layer's sheets, as the browser has it."""
        text = self.viewport.evaluate(
            f"(async () => {{ const layer = {VIEWPORT}.layers[0]; layer.drawing?.loop.refresh(); "
            f"return layer.element.querySelector('{of}').toDataURL('image/png'); }})()"
        )
        return np.asarray(Image.open(io.BytesIO(_data(text))))

    def end(self) -> None:
        self.page.context.close()
        assert self.wrong == []


def _data(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (DESK, True), (PHONE, False), (PHONE, True)])
def test_two_fields_are_shown_side_by_side(
    browser: Any, server: Any, size: tuple[int, int], dark: bool
) -> None:
    visit = Visit(browser, server[0], size, dark)
    visit.drawn()
    name = f"{'phone' if size == PHONE else 'desk'}_{'dark' if dark else 'light'}"
    visit.page.screenshot(path=artefact(f"view_{name}.png"))
    frame = visit.page.locator("iframe").bounding_box()
    assert frame["width"] > 0.9 * size[0]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    outside = visit.viewport.evaluate(OUTSIDE)
    assert outside == 0
    assert "33.21 dB" in visit.page.content()
    visit.end()


def test_image_of_the_server_is_in_the_viewport(browser: Any, server: Any) -> None:
    url, viewer = server
    visit = Visit(browser, url, only=viewer.scenes)
    visit.drawn()
    visit.refined(lambda: visit.viewport.click("button[data-compare=a]"))
    found = visit.pixels()[..., :3]
    pose = visit.viewport.evaluate(f"{VIEWPORT}.camera.pose({found.shape[1]}, {found.shape[0]})")
    camera = resize(ball_field().cameras[0], found.shape[1], found.shape[0])
    for i, name in enumerate(("right", "down", "forward", "eye")):
        camera.camera_to_world[0, :, i] = camera.camera_to_world.new_tensor(pose[name])
    camera.intrinsics[0] = camera.intrinsics.new_tensor(pose["intrinsics"])
    expected = to_8bit(viewer.scenes[0].stored.render(camera)["colors"])
    assert np.abs(found.astype(int) - expected).max() <= 1
    bake = Image.fromarray(visit.pixels(".bake")[..., :3]).resize(found.shape[1::-1])
    assert np.abs(np.asarray(bake).astype(int) - expected).mean() < 6
    visit.end()


def test_dragging_shows_the_bake_and_resting_the_field(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], only=server[1].scenes)
    visit.drawn()
    yaw, previews = (
        visit.viewport.evaluate(f"{VIEWPORT}.{what}") for what in ("camera.yaw", "stats.previews")
    )
    shown: list[str] = []

    def drag() -> None:
        visit.drag(80)
        shown.append(visit.viewport.evaluate(f"{VIEWPORT}.layers[0].element.dataset.shows"))

    visit.refined(drag)
    assert shown == ["bake"]
    assert visit.viewport.evaluate(f"{VIEWPORT}.layers[0].element.dataset.shows") == "server"
    assert abs(visit.viewport.evaluate(f"{VIEWPORT}.camera.yaw") - yaw) > 0.1
    # those that there are were drawn before the bakes were here
    assert visit.viewport.evaluate(f"{VIEWPORT}.stats.previews") == previews
    visit.end()


def test_dragging_changes_nothing_on_the_page_but_the_image(browser: Any, server: Any) -> None:
    """Else the browser would draw all of the page again: without graphics hardware most of its work."""
    visit = Visit(browser, server[0])
    visit.drawn()
    changed = visit.viewport.evaluate(CHANGED)
    assert changed == []


def test_the_pivot_glides_to_the_surface_under_a_double_click(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], only=server[1].scenes)
    visit.drawn()
    visit.viewport.evaluate(GLIDE)
    box = visit.page.locator(visit.box).bounding_box()
    visit.page.mouse.dblclick(box["x"] + 0.02 * box["width"], box["y"] + 0.5 * box["height"])
    until(
        visit.viewport, "document.querySelector('.announcement').textContent === 'No surface at this point'"
    )
    assert visit.viewport.evaluate("[...targets]") == ["0,0,0"]
    visit.page.mouse.dblclick(box["x"] + 0.45 * box["width"], box["y"] + 0.5 * box["height"])
    until(
        visit.viewport,
        f"Math.hypot(...{VIEWPORT}.camera.target) > 0.3 && {VIEWPORT}.gestures.animation === null",
    )
    assert visit.viewport.evaluate("targets.size") > 2  # places between the old pivot and the new one
    assert visit.viewport.evaluate("document.querySelector('.announcement').textContent") == "Pivot moved"
    visit.end()


def test_equal_fields_have_no_difference_and_the_split_line_moves(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], only=server[1].scenes)
    visit.drawn()
    visit.viewport.focus(".split")
    visit.page.keyboard.press("ArrowRight")
    assert visit.viewport.get_attribute(".split", "aria-valuenow") == "55"
    visit.refined(lambda: visit.viewport.click("button[data-compare=difference]"))
    assert visit.viewport.inner_text(".state").startswith("Difference × 5")
    data = visit.viewport.evaluate(f"{VIEWPORT}.snapshot(160, 120).toDataURL()")
    shown = np.asarray(Image.open(io.BytesIO(_data(data))))[:90, :, :3]  # the gain is written below
    assert shown.min() >= 253  # white where they are equal
    visit.page.screenshot(path=artefact("view_difference.png"))
    visit.end()


def test_a_video_is_rendered_and_can_be_cancelled(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], only=server[1].scenes)
    visit.drawn()
    visit.viewport.click("button[data-act=video]")
    visit.viewport.click("button[data-act=addkey]")
    visit.viewport.evaluate(SHORT)
    visit.viewport.click("button[data-act=render]")
    until(visit.viewport, "!document.querySelector('.result').hidden")
    visit.page.screenshot(path=artefact("view_video.png"))
    video = httpx.get(visit.url + visit.viewport.get_attribute(".result a", "href").lstrip("/"))
    assert video.content[4:8] == b"ftyp"
    visit.viewport.evaluate(LONG)
    visit.viewport.click("button[data-act=render]")
    until(visit.viewport, "/Frame \\d/.test(document.querySelector('.rendering p').textContent)")
    visit.viewport.click("button[data-act=cancel]")
    assert visit.viewport.inner_text(".rendering p") == "Cancelled."
    visit.wrong = [text for text in visit.wrong if "ERR_ABORTED" not in text]
    visit.end()


def test_without_a_field_the_page_says_what_to_do(browser: Any) -> None:
    with served([], bake=False) as (url, _):
        visit = Visit(browser, url)
        assert visit.viewport.inner_text(".notice h1") == "No scene is open"
        assert "fieldmorph view FILE" in visit.page.content()
        visit.page.screenshot(path=artefact("view_empty.png"))
        visit.end()


def test_a_scene_that_is_gone_and_a_name_that_is_a_script_are_shown_as_text(
    browser: Any, tmp_path: Path
) -> None:
    script = "<img src=x onerror=document.title='run'>"
    with served([save_ball(tmp_path / f"{script}.fm")], bake=False) as (url, viewer):
        visit = Visit(browser, url)
        until(visit.viewport, "document.querySelector('.state').dataset.kind === 'done'")
        assert visit.viewport.inner_text(".title.first h1") == script
        assert visit.page.title() == "fieldmorph"
        assert visit.viewport.evaluate("document.title") == "fieldmorph"
        viewer.store._scenes.clear()
        visit.page.reload()
        gone = viewport_of(visit.page)
        until(gone, "document.querySelector('.viewport')?.dataset.state === 'failed'")
        assert "reload the page" in gone.inner_text(".notice p")
        visit.page.screenshot(path=artefact("view_gone.png"))
        visit.wrong = [text for text in visit.wrong if "404" not in text]
        visit.end()
