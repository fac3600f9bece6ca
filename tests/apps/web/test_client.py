"""The client in a real browser: its shader against our own renderer, the page's behaviour, and what it must not do."""

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.chromium import Tab, chromium, until
from torch import Tensor

from fieldmorph.apps.bake.baked_field import baked_field
from fieldmorph.apps.bake.bricks import Bake
from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import page, write_web
from fieldmorph.apps.bench.load_clients import request_of
from fieldmorph.fields.blackbox import callable_teacher
from fieldmorph.fields.cameras import Cameras, resize
from fieldmorph.fields.metrics import psnr

pytestmark = pytest.mark.browser

INTRUDERS = """
window.refused = new Set();
document.addEventListener("securitypolicyviolation", (event) => refused.add(event.effectiveDirective));
const add = (tag, values) => document.body.append(Object.assign(document.createElement(tag), values));
add("script", { textContent: "window.ran = true" });
add("style", { textContent: "body { display: none }" });
add("img", { src: "http://127.0.0.1:9/x.png" });
void fetch("http://127.0.0.1:9/").catch(() => {});
"""
WIDTH, HEIGHT = 96, 72
VIEWS = (1, 14, 29, 43)
AROUND = [-2.0, -1.5, -1.0, 2.0, 1.0, 3.0]  # every scene
HOSTILE = '<img src=x onerror="document.title=1"></script><script>document.title="run"</script>'


def ball(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """A soft ball whose colour goes with place and direction."""
    return 0.1 + 0.3 * (d + 1) + 0.1 * p.clamp(-1, 1) + 0.1, 60 * torch.sigmoid((0.6 - p.norm(dim=-1)) / 0.03)


def rods(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
    """A lattice of thin rods."""
    u = (2.5 * p) % 1 - 0.5
    off = torch.stack([u[:, :2].norm(dim=-1), u[:, 1:].norm(dim=-1), u[:, ::2].norm(dim=-1)]).amin(0)
    return 0.5 + 0.5 * torch.sin(4 * p), 80.0 * (off < 0.12) * (p.abs().amax(-1) < 0.9)


def medium(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
    """Low density below, and a wall that stands in it."""
    wall = ((p[:, 0] - 0.2).abs() < 0.1) & (p.norm(dim=-1) < 0.9)
    return p / 2.02 + 0.5, 1.5 * (p[:, 2] < 0) + 40.0 * wall


SCENES: dict[str, tuple[Callable[..., Any], tuple[float, ...], int]] = {
    "ball": (ball, (-1, -1, -1, 1, 1, 1), 2),
    "rods": (rods, (-1, -1, -0.5, 1, 1, 0.5), 0),
    "medium": (medium, (-1, -1, -1, 1, 1, 1), 1),
}


@pytest.fixture(scope="module")
def bakes() -> dict[str, tuple[Bake, Cameras]]:
    made = {}
    for name, (function, box, degree) in SCENES.items():
        stored = callable_teacher(function, box, resolution=32, render_step_size=0.03)
        made[name] = (bake(stored, BakeConfig(32, degree), name=name), stored.cameras)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    tabs: list[Tab] = []

    def make(**options: Any) -> Tab:
        tabs.append(Tab(browser, **options))
        return tabs[-1]

    yield make
    for each in tabs:
        each.page.context.close()


@pytest.fixture(scope="module")
def pages(bakes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    for name, (baked, _) in bakes.items():
        write_web(folder / f"{name}.html", baked)
    return {name: (folder / f"{name}.html").as_uri() for name in bakes}


def drawn(tab: Tab, camera: Cameras, **options: Any) -> Tensor:
    """The shader's RGBA in [0, 1]."""
    arguments = f"{json.dumps(request_of(camera))}, {json.dumps(options)}"
    text = tab(f"btoa(String.fromCharCode(...fieldmorph.drawing.renderer.image({arguments})))")
    content = bytearray(base64.b64decode(text))
    return torch.frombuffer(content, dtype=torch.uint8).reshape(camera.height, camera.width, 4) / 255


@pytest.mark.parametrize("name", SCENES)
def test_shader_agrees_with_our_own_renderer(
    name: str, bakes: dict[str, tuple[Bake, Cameras]], pages: dict[str, str], tab: Callable[..., Tab]
) -> None:
    baked, prior = bakes[name]
    opened = tab().open(pages[name])
    stored, cameras = baked_field(baked, prior), resize(prior, WIDTH, HEIGHT)
    near, far = float("inf"), 0.0
    for i in VIEWS:
        truth = stored.render(cameras[i])
        got = drawn(opened, cameras[i], background="white")[..., :3]
        assert psnr(got, truth["colors"]) > 50
        solid = truth["opacities"] > 0.5
        assert 0.02 < solid.float().mean() < 0.98  # there is something to compare
        measured = drawn(opened, cameras[i], mode="measure")
        assert (measured[..., 3] - truth["opacities"]).abs().max() < 0.02
        for box in (None, AROUND):  # whose depths the scale spans
            measured = drawn(opened, cameras[i], mode="measure", depthBox=box)
            arguments = f"{json.dumps(request_of(cameras[i]))}, {json.dumps(box)}"
            near, far = opened(f"fieldmorph.drawing.renderer.depthRange({arguments})")
            fraction = (measured[..., :3] * torch.tensor([1.0, 1 / 256, 1 / 65536])).sum(-1)
            depths = near + fraction * (far - near)
            assert (depths - truth["depths"] / truth["opacities"].clamp(min=1e-6))[solid].abs().max() < 0.01
    assert opened.complaints == []


@pytest.mark.parametrize("name", SCENES)
def test_a_rough_image_lets_as_much_light_through(
    name: str, bakes: dict[str, Any], pages: dict[str, str], tab: Callable[..., Tab]
) -> None:
    opened, camera = tab().open(pages[name]), resize(bakes[name][1], WIDTH, HEIGHT)[VIEWS[0]]
    fine, rough = (drawn(opened, camera, rough=rough) for rough in (False, True))
    assert not torch.equal(fine, rough)
    assert psnr(rough[..., :3], fine[..., :3]) > 25
    assert float(rough[..., 3].mean()) == pytest.approx(float(fine[..., 3].mean()), rel=0.05)


def test_the_page_answers_hand_and_keys(pages: dict[str, str], tab: Callable[..., Tab]) -> None:
    opened = tab().open(pages["ball"])
    page, state = opened.page, lambda: opened("JSON.stringify(fieldmorph.camera.toFragment())")
    assert opened.requests == [pages["ball"]]  # nothing is fetched

    def changes(act: Callable[[], Any]) -> None:
        before = state()
        act()
        assert state() != before

    changes(partial(page.keyboard.press, "ArrowLeft"))  # nothing was touched before
    page.mouse.move(160, 120)
    page.mouse.down()
    changes(lambda: page.mouse.move(190, 130, steps=3))
    page.mouse.up()
    opened("fieldmorph.gestures.stop()")
    changes(lambda: page.mouse.wheel(0, 300))
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "+", "-"):
        changes(partial(page.keyboard.press, key))
    page.keyboard.press("r")
    first = state()
    page.mouse.dblclick(5, 5)
    assert page.inner_text(".announcement") == "No surface at this point"
    assert state() == first
    page.mouse.dblclick(160, 120)
    until(
        opened.page, "Math.hypot(...fieldmorph.camera.target) > 0.3"
    )  # from the middle of the ball to its surface
    assert state() != first
    page.keyboard.press("b")
    page.keyboard.press("2")
    assert opened("[fieldmorph.background, fieldmorph.modes.value]") == ["black", "depth"]
    page.keyboard.press("c")
    assert opened("fieldmorph.crop.box") is None
    page.get_by_label("X from").fill("150")
    assert opened("fieldmorph.crop.box[0]") == pytest.approx(0.5)
    assert page.locator(".outline path").get_attribute("d")
    page.get_by_role("button", name="Show all").click()
    assert opened("fieldmorph.crop.box") is None
    with page.expect_download() as download:
        page.get_by_label("Save an image").click()
    assert download.value.suggested_filename == "ball.png"
    assert opened.complaints == []


def test_a_slow_device_draws_fewer_pixels_while_something_moves(
    pages: dict[str, str], tab: Callable[..., Tab]
) -> None:
    loop = "fieldmorph.drawing.loop"
    opened = tab(width=640, height=480).open(pages["ball"])
    for ms_per_pixel, expected in ((1e-3, 30_000), (7e-3, 6000), (1e-2, 5000), (1.0, 1200)):
        opened(f"{loop}.msPerPixel.rough = {ms_per_pixel}")
        assert opened(f"{loop}.movingPixels('rough')") == pytest.approx(expected)


def test_slow_frames_count_and_pauses_do_not(pages: dict[str, str], tab: Callable[..., Tab]) -> None:
    """The page's clock runs 100 times as fast, so that no frame takes less than a second."""
    opened = tab().open(pages["ball"])
    frames, stats = "fieldmorph.drawing.loop.stats.movingFrames", "fieldmorph.drawing.loop.stats"
    opened(
        "(() => { const now = performance.now.bind(performance); performance.now = () => 100 * now(); })()"
    )
    opened(
        "window.turning = setInterval(() => fieldmorph.moveCamera(() => (fieldmorph.camera.yaw += 0.1)), 1)"
    )
    opened("fieldmorph.drawing.loop.drawStrip = () => {}")  # a view that turns late would seem to rest
    before = opened(f"[{frames}, {stats}.frames]")
    until(opened.page, f"{stats}.frames >= {before[1]} + 12")
    assert opened(frames) - before[0] >= 9  # the first one follows none, and two may not be finished
    opened(f"(clearInterval(turning), delete fieldmorph.drawing.loop.drawStrip, {stats}.restMs = null)")
    opened("fieldmorph.drawing.loop.invalidate()")
    until(opened.page, f"{stats}.restMs !== null")
    before = opened(f"[{frames}, {stats}.frames]")
    opened("fieldmorph.moveCamera(() => (fieldmorph.camera.yaw += 0.1))")
    until(opened.page, f"{stats}.frames > {before[1]}")
    assert opened(frames) == before[0]  # the first one after a pause


def test_fingers_turn_and_pinch(pages: dict[str, str], tab: Callable[..., Tab]) -> None:
    opened = tab(width=390, height=844, has_touch=True, is_mobile=True).open(pages["ball"])
    fingers = opened.page.context.new_cdp_session(opened.page)

    def touch(kind: str, *points: tuple[int, int]) -> None:
        fingers.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]},
        )

    yaw, distance = opened("[fieldmorph.camera.yaw, fieldmorph.camera.distance]")
    touch("touchStart", (100, 300))
    touch("touchMove", (160, 300))
    touch("touchEnd")
    opened("fieldmorph.gestures.stop()")
    turned = opened("fieldmorph.camera.yaw")
    assert turned != yaw
    touch("touchStart", (150, 300), (250, 300))
    touch("touchMove", (100, 300), (300, 300))
    touch("touchEnd")
    assert opened("fieldmorph.camera.distance") == pytest.approx(distance / 2, rel=0.1)
    inside = "(({left, right, top, bottom}) => left >= 0 && right <= 390 && top >= 0 && bottom <= 844)"
    assert opened(
        f"[...document.querySelectorAll('.bar button')].every(b => {inside}(b.getBoundingClientRect()))"
    )
    assert opened.complaints == []


def test_camera_is_kept_in_the_address(pages: dict[str, str], tab: Callable[..., Tab]) -> None:
    opened = tab().open(pages["medium"] + "#view=0.1,0.2,0.3,2.5,30,-10")
    assert opened("fieldmorph.camera.toFragment()") == "view=0.10000,0.20000,0.30000,2.5000,30.00,-10.00"
    opened("fieldmorph.moveCamera(() => fieldmorph.camera.orbit(0.1, 0))")
    until(opened.page, "location.hash === '#' + fieldmorph.camera.toFragment()")
    opened("void (location.hash = '#view=nonsense')")  # is left alone
    assert opened("fieldmorph.camera.distance") == 2.5


def test_crop_cuts_the_image(bakes: dict[str, Any], pages: dict[str, str], tab: Callable[..., Tab]) -> None:
    opened, camera = tab().open(pages["ball"]), resize(bakes["ball"][1], WIDTH, HEIGHT)[1]
    whole, none = drawn(opened, camera), drawn(opened, camera, crop=[0.8, 0.8, 0.8, 1, 1, 1])
    assert whole[..., 3].max() > 0.9
    assert none[..., 3].max() == 0


def test_a_lost_context_comes_back(pages: dict[str, str], tab: Callable[..., Tab]) -> None:
    opened = tab().open(pages["rods"])
    opened(
        "window.loss = fieldmorph.drawing.renderer.gl.getExtension('WEBGL_lose_context'), loss.loseContext()"
    )
    until(opened.page, "fieldmorph.root.dataset.state === 'waiting'")
    frames = opened("fieldmorph.drawing.loop.stats.frames")
    opened("loss.restoreContext()")
    until(
        opened.page,
        f"fieldmorph.root.dataset.state === 'ready' && fieldmorph.drawing.loop.stats.frames > {frames}",
    )
    assert opened("fieldmorph.drawing.renderer.image(fieldmorph.camera.pose(64, 48)).some(v => v > 200)")


def test_what_cannot_be_shown_is_reported(
    pages: dict[str, str], tab: Callable[..., Tab], tmp_path: Path
) -> None:
    without = tab()
    without.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    without.open(pages["medium"], "failed")
    assert "WebGL2" in without.page.get_by_role("alert").inner_text()
    text = Path(pages["medium"].removeprefix("file://")).read_text()
    start = text.index('id="bake-colour">') + len('id="bake-colour">')
    at = (start + text.index("<", start)) // 2
    (tmp_path / "damaged.html").write_text(f"{text[:at]}{'A' if text[at] != 'A' else 'B'}{text[at + 1 :]}")
    damaged = tab().open((tmp_path / "damaged.html").as_uri(), "failed")
    assert (
        "the checksum of its part “colour” does not match" in damaged.page.get_by_role("alert").inner_text()
    )


def test_a_name_is_text(bakes: dict[str, Any], tab: Callable[..., Tab], tmp_path: Path) -> None:
    hostile = replace(bakes["medium"][0], name=HOSTILE, facts=((HOSTILE, HOSTILE),))
    (tmp_path / "hostile.html").write_text(page(hostile))
    opened = tab().open((tmp_path / "hostile.html").as_uri())
    assert opened("document.querySelector('h1').textContent") == HOSTILE
    assert opened("document.title") == HOSTILE
    assert opened("document.querySelectorAll('img').length") == 0
    assert opened.complaints == []
    opened(INTRUDERS)
    until(opened.page, "window.refused.size === 4")
    assert opened("[...window.refused].sort()") == [
        "connect-src",
        "img-src",
        "script-src-elem",
        "style-src-elem",
    ]
    assert not opened("window.ran")


def test_a_folder_is_shown_by_a_web_server(
    bakes: dict[str, Any], tab: Callable[..., Tab], tmp_path: Path
) -> None:
    write_web(tmp_path, bakes["rods"][0])
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            base = f"http://127.0.0.1:{server.server_port}/"
            opened = tab().open(base)
            assert {url.removeprefix(base).split("#")[0] for url in opened.requests} <= {
                *("", "viewer.css", "viewer.js", "scene.json", "favicon.ico"),
                *("bricks.bin", "density.bin", "colour.bin"),
            }
            assert [c for c in opened.complaints if "404" not in c] == []  # there is no favicon
        finally:
            server.shutdown()


def test_a_folder_that_no_server_serves_says_so(
    bakes: dict[str, Any], tab: Callable[..., Tab], tmp_path: Path
) -> None:
    write_web(tmp_path, bakes["rods"][0])
    opened = tab().open((tmp_path / "index.html").as_uri(), "failed")
    assert "from a web server only" in opened.page.get_by_role("alert").inner_text()
