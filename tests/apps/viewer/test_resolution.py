"""A whole coarse image first, which no timer cuts off, then the screen's real pixels, which the badge names."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.chromium import artefact, chromium, new_page, until, wait
from helpers.gate import Gate
from helpers.view_fields import save_ball, served

from fieldmorph.apps.viewer import routes, tiles

pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

VIEWPORT = "window.fieldmorph"
LAYER = f"{VIEWPORT}.layers[0]"
SIZE, RATIO, MAX_PIXELS = (240, 200), 2, 150_000  # the screen has 480 x 400
COARSE_PIXELS = 40 * 30  # of the first image, when nothing is known of the field's speed
COUNT_TURNS = f"""
(() => {{
  window.drawing = {{ tiles: 0, turns: new Set(), start: performance.now() }};
  for (const image of [{LAYER}.coarse, {LAYER}.medium, {LAYER}.fine]) {{
    const add = image.add;
    image.add = function (...tile) {{
      const {{ drawing }} = window;
      drawing.tiles++;
      drawing.now ??= drawing.tiles; // the same until the turn ends
      drawing.turns.add(drawing.now);
      void Promise.resolve().then(() => (drawing.now = null));
      return add.apply(this, tile);
    }};
  }}
}})()
"""
DONE = "document.querySelector('.state').dataset.kind === 'done'"


class Slow:
    """A page of a field whose tiles come one by one."""

    def __init__(self, page: Any, gate: Gate):
        self.page, self.gate = page, gate
        self.requests: list[dict[str, Any]] = []
        page.on("request", lambda r: r.url.endswith("/tiles") and self.requests.append(r.post_data_json))

    def image(self, level: str) -> tuple[int, int, bool]:
        """Width, height, and whether the present view is in it."""
        image = f"{LAYER}.{level}"
        width, height, is_shown = self.page.evaluate(
            f"[{image}.canvas.width, {image}.canvas.height, "
            f"{image}.version === {VIEWPORT}.images.version && !{image}.canvas.hidden]"
        )
        return width, height, is_shown


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    gate, patch = Gate(), pytest.MonkeyPatch()
    patch.setattr(routes, "render_tile", gate.render_tile)
    patch.setattr(tiles, "TILE_SIDES", (8, 40))
    file = save_ball(tmp_path_factory.mktemp("slow") / "ball.fm")
    with chromium() as browser, served([file], bake=False, max_pixels=MAX_PIXELS) as (url, viewer):
        gate.scene = viewer.scenes[0]
        gate.open.clear()
        page = new_page(
            browser,
            viewport={"width": SIZE[0], "height": SIZE[1]},
            device_scale_factor=RATIO,
            color_scheme="light",
        )
        slow = Slow(page, gate)
        page.goto(f"{url}viewport?scenes={viewer.scenes[0].id}")
        until(page, f"{VIEWPORT}?.root?.dataset.state === 'ready'")
        yield slow
        gate.open.set()
    patch.undo()


def test_no_timer_cuts_off_the_first_whole_image(slow: Slow) -> None:
    page = slow.page
    until(page, f"{VIEWPORT}.images.isResting")  # the time after which tiles with more pixels are requested
    wait(lambda: slow.requests, "requested")
    assert [request["quick"] for request in slow.requests] == [True]
    assert page.inner_text(".state") == "Preview"
    slow.gate.open.set()
    until(page, DONE)
    assert [request["quick"] for request in slow.requests] == [True, *[False] * (len(slow.requests) - 1)]
    pixels = [request["width"] * request["height"] for request in slow.requests]
    assert pixels == sorted(pixels)
    scale = math.sqrt(COARSE_PIXELS / (SIZE[0] * SIZE[1]))
    assert pixels[0] == math.floor(SIZE[0] * scale) * math.floor(SIZE[1] * scale)
    assert 0.98 * MAX_PIXELS < pixels[-1] <= MAX_PIXELS
    assert slow.requests[0]["spans"] == [[0, 1]]
    times = page.evaluate(f"{VIEWPORT}.stats")
    assert min(times[name] for name in ("coarseMs", "firstTileMs", "refinedMs")) > 0


def test_the_screen_s_pixels_are_drawn_up_to_the_bound_and_named(slow: Slow) -> None:
    until(slow.page, DONE)
    width, height, is_shown = slow.image("fine")
    assert is_shown
    assert width / height == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)
    assert 0.99 * MAX_PIXELS < width * height <= MAX_PIXELS
    text = f"Field at {width} × {height} of {SIZE[0] * RATIO} × {SIZE[1] * RATIO}"
    assert slow.page.inner_text(".state") == text
    slow.page.screenshot(path=artefact("view_resolution.png"))


def test_a_coarse_image_is_shown_whole_or_not_at_all(slow: Slow) -> None:
    """While its tiles come, the image of the view before stays, marked as such."""
    page = slow.page
    before = slow.image("coarse")
    slow.gate.open.clear()
    page.evaluate(f"{VIEWPORT}.moveCamera(() => {VIEWPORT}.camera.yaw += 0.3)")
    assert page.evaluate(f"{LAYER}.element.dataset.stale") == "true"
    assert slow.image("coarse")[:2] == before[:2]
    assert not slow.image("fine")[2]
    slow.gate.open.set()
    until(page, f"{LAYER}.coarse.version === {VIEWPORT}.images.version")
    assert page.evaluate(f"{LAYER}.coarse.missing") == 0
    assert page.evaluate(f"{LAYER}.element.dataset.stale") == "false"


def test_tiles_that_come_soon_after_each_other_are_drawn_together(slow: Slow) -> None:
    """A browser composites its page whenever something was drawn: without graphics hardware most of its work."""
    page, gate = slow.page, slow.gate
    gate.open.set()
    until(page, DONE)
    page.evaluate(COUNT_TURNS)
    page.evaluate(f"{VIEWPORT}.moveCamera(() => {VIEWPORT}.camera.yaw += 0.3)")
    until(page, DONE)
    count, turns, ms = page.evaluate("[drawing.tiles, drawing.turns.size, performance.now() - drawing.start]")
    assert count > 50
    assert turns <= ms / 100 + 2 * 3 + 1  # of each of three images also the first and the last
