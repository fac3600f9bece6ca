"""The viewer in Debian's chromium: it is loaded, dragged, compared, filmed; screenshots are kept as artefacts."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers.chromium import artefact, chromium, new_page, until, wait
from helpers.view_fields import ball_field, save_ball, served
from PIL import Image

from fieldmorph.apps.media import to_8bit
from fieldmorph.apps.viewer.app import Viewer
from fieldmorph.fields.renderable import picture, resize

pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

STAGE = "window.fieldmorph"
OUTSIDE = """
[...document.querySelectorAll(".bar button, .title:not([hidden]), .state")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.left < 0 || box.right > innerWidth || box.bottom > innerHeight;
}).length"""
SHORT = """
for (const [name, value] of [["seconds", 1], ["size", 240]]) document.querySelector(`[name=${name}]`).value = value;
"""
GLIDE = """
window.targets = new Set();
const record = () => (targets.add(fieldmorph.camera.target.join()), requestAnimationFrame(record));
record();
"""
DESK, PHONE = (1280, 800), (390, 844)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Viewer]]:
    """Two fields, the second with a receipt, both baked."""
    folder = tmp_path_factory.mktemp("browser")
    files = [save_ball(folder / "teacher.fm"), save_ball(folder / "student.fm", psnr=33.21)]
    with served(files, resolution=16) as (url, viewer):
        wait(lambda: all(viewer.baker.state(s)["state"] == "ready" for s in viewer.scenes), "baked")
        yield url, viewer


def stage_of(page: Any) -> Any:
    frame = page.wait_for_selector("iframe").content_frame()
    frame.wait_for_url("**/stage*")
    return frame


class Visit:
    """A page, its stage, and what went wrong on it."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int] = DESK, dark: bool = False):
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
        self.page.goto(url)
        self.stage = stage_of(self.page)
        until(self.stage, f"!!{STAGE} && document.querySelector('.viewport').dataset.state !== 'loading'")

    def drawn(self) -> None:
        """Wait until proxies and the true fields are on the stage."""
        until(self.stage, f"{STAGE}.layers.every((layer) => layer.hasBake)")
        until(self.stage, "document.querySelector('.state').dataset.kind === 'done'")

    def refined(self, act: Any) -> None:
        """Do something after which the true fields are drawn anew."""
        before = self.stage.evaluate(f"{STAGE}.stats.images")
        act()
        until(self.stage, f"{STAGE}.stats.images > {before}")

    def drag(self, dx: int) -> None:
        box = self.page.locator("iframe").bounding_box()
        x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for i in range(1, 11):
            self.page.mouse.move(x + dx * i / 10, y)
        self.page.mouse.up()

    def pixels(self, of: str = ".server") -> np.ndarray:
        """What is on one of the first layer's sheets, as the browser has it."""
        text = self.stage.evaluate(
            f"(async () => {{ const layer = {STAGE}.layers[0]; layer.drawing?.loop.refresh(); "
            f"return layer.element.querySelector('{of}').toDataURL('image/png'); }})()"
        )
        return np.asarray(Image.open(io.BytesIO(_data(text))))

    def end(self) -> None:
        self.page.context.close()
        assert self.wrong == []


def _data(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (DESK, True), (PHONE, False), (PHONE, True)])
def test_two_fields_stand_side_by_side(browser: Any, server: Any, size: tuple[int, int], dark: bool) -> None:
    visit = Visit(browser, server[0], size, dark)
    visit.drawn()
    look = f"{'phone' if size == PHONE else 'desk'}_{'dark' if dark else 'light'}"
    visit.page.screenshot(path=artefact(f"view_{look}.png"))
    frame = visit.page.locator("iframe").bounding_box()
    assert frame["width"] > 0.9 * size[0]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    outside = visit.stage.evaluate(OUTSIDE)
    assert outside == 0
    assert "33.21 dB" in visit.page.content()
    visit.end()


def test_what_the_server_drew_is_on_the_stage(browser: Any, server: Any) -> None:
    url, viewer = server
    visit = Visit(browser, url)
    visit.drawn()
    visit.refined(lambda: visit.stage.click("button[data-compare=a]"))
    found = visit.pixels()[..., :3]
    pose = visit.stage.evaluate(f"{STAGE}.camera.pose({found.shape[1]}, {found.shape[0]})")
    camera = resize(ball_field().cameras[0], found.shape[1], found.shape[0])
    for i, name in enumerate(("right", "down", "forward", "eye")):
        camera.camera_to_world[0, :, i] = camera.camera_to_world.new_tensor(pose[name])
    camera.intrinsics[0] = camera.intrinsics.new_tensor(pose["intrinsics"])
    expected = to_8bit(picture(viewer.scenes[0].stored, camera))
    assert np.abs(found.astype(int) - expected).max() <= 1
    proxy = Image.fromarray(visit.pixels(".bake")[..., :3]).resize(found.shape[1::-1])
    assert np.abs(np.asarray(proxy).astype(int) - expected).mean() < 6
    visit.end()


def test_dragging_shows_the_proxy_and_resting_the_true_field(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0])
    visit.drawn()
    yaw, previews = (visit.stage.evaluate(f"{STAGE}.{what}") for what in ("camera.yaw", "stats.previews"))
    shown: list[str] = []

    def drag() -> None:
        visit.drag(80)
        shown.append(visit.stage.evaluate(f"{STAGE}.layers[0].element.dataset.shows"))

    visit.refined(drag)
    assert shown == ["bake"]
    assert visit.stage.evaluate(f"{STAGE}.layers[0].element.dataset.shows") == "server"
    assert abs(visit.stage.evaluate(f"{STAGE}.camera.yaw") - yaw) > 0.1
    # those that there are were drawn before the bakes were here
    assert visit.stage.evaluate(f"{STAGE}.stats.previews") == previews
    visit.end()


def test_the_pivot_glides_to_the_surface_under_a_double_click(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0])
    visit.drawn()
    visit.stage.evaluate(GLIDE)
    box = visit.page.locator("iframe").bounding_box()
    visit.page.mouse.dblclick(box["x"] + 0.02 * box["width"], box["y"] + 0.5 * box["height"])
    until(visit.stage, "document.querySelector('.announcement').textContent === 'No surface at this point'")
    assert visit.stage.evaluate("[...targets]") == ["0,0,0"]
    visit.page.mouse.dblclick(box["x"] + 0.48 * box["width"], box["y"] + 0.5 * box["height"])
    until(visit.stage, f"Math.hypot(...{STAGE}.camera.target) > 0.3 && {STAGE}.gestures.animation === null")
    assert visit.stage.evaluate("targets.size") > 2  # places between the old pivot and the new one
    assert visit.stage.evaluate("document.querySelector('.announcement').textContent") == "Pivot moved"
    visit.end()


def test_equal_fields_have_no_difference_and_the_split_line_moves(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0])
    visit.drawn()
    visit.stage.focus(".split")
    visit.page.keyboard.press("ArrowRight")
    assert visit.stage.get_attribute(".split", "aria-valuenow") == "55"
    visit.refined(lambda: visit.stage.click("button[data-compare=difference]"))
    assert visit.stage.inner_text(".state").startswith("Difference × 5")
    data = visit.stage.evaluate(f"{STAGE}.snapshot(64, 48).toDataURL()")
    assert np.asarray(Image.open(io.BytesIO(_data(data))))[..., :3].max() <= 2
    visit.page.screenshot(path=artefact("view_difference.png"))
    visit.end()


def test_a_film_is_made_and_can_be_cancelled(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0])
    visit.drawn()
    visit.stage.click("button[data-act=video]")
    visit.stage.click("button[data-act=addkey]")
    visit.stage.evaluate(SHORT)
    visit.stage.click("button[data-act=render]")
    until(visit.stage, "!document.querySelector('.result').hidden")
    visit.page.screenshot(path=artefact("view_film.png"))
    film = httpx.get(visit.url + visit.stage.get_attribute(".result a", "href").lstrip("/"))
    assert film.content[4:8] == b"ftyp"
    visit.stage.evaluate("document.querySelector('[name=seconds]').value = 20")
    visit.stage.click("button[data-act=render]")
    until(visit.stage, "/Frame \\d/.test(document.querySelector('.rendering p').textContent)")
    visit.stage.click("button[data-act=cancel]")
    assert visit.stage.inner_text(".rendering p") == "Cancelled."
    visit.wrong = [text for text in visit.wrong if "ERR_ABORTED" not in text]
    visit.end()


def test_without_a_field_the_page_says_what_to_do(browser: Any) -> None:
    with served([], bake=False) as (url, _):
        visit = Visit(browser, url)
        assert visit.stage.inner_text(".notice h2") == "No scene is open"
        assert "fieldmorph view FILE" in visit.page.content()
        visit.page.screenshot(path=artefact("view_empty.png"))
        visit.end()


def test_a_scene_that_is_gone_and_a_name_that_is_a_script_are_told_as_text(
    browser: Any, tmp_path: Path
) -> None:
    script = "<img src=x onerror=document.title='run'>"
    with served([save_ball(tmp_path / f"{script}.fm")], bake=False) as (url, viewer):
        visit = Visit(browser, url)
        until(visit.stage, "document.querySelector('.state').dataset.kind === 'done'")
        assert visit.stage.inner_text(".title.first h1") == script
        assert visit.page.title() == "fieldmorph"
        assert visit.stage.evaluate("document.title") == "fieldmorph"
        viewer.shelf._scenes.clear()
        visit.page.reload()
        gone = stage_of(visit.page)
        until(gone, "document.querySelector('.viewport')?.dataset.state === 'failed'")
        assert "load the page again" in gone.inner_text(".notice p")
        visit.page.screenshot(path=artefact("view_gone.png"))
        visit.wrong = [text for text in visit.wrong if "404" not in text]
        visit.end()
