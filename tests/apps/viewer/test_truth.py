"""What the viewer shows under a field's name is that field's, from the present camera, or visibly nothing.

The teacher is red and the student blue, and larger, so that every pixel shows whose it is.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.chromium import WITHOUT_RASTER, artefact, chromium, new_page, until
from helpers.gate import Gate
from helpers.view_fields import served
from helpers.voxel_fields import CUBE, fresh
from PIL import Image

from fieldmorph.apps.media import DIFFERENCE_GAIN
from fieldmorph.apps.viewer import routes
from fieldmorph.fields.cameras import orbit_box
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import save_field

pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

VIEWPORT = "window.fieldmorph"
SIZE = (320, 240)
RED, BLUE = 0, 2
THREADS = 16  # of the server: those that the gate holds back leave some for the teacher
# What lies over the fields; the page's policy forbids style sheets from elsewhere.
HIDE = "for (const e of document.querySelectorAll('.viewport > :not(.layers)')) e.style.opacity = 0"
SH_0 = 0.28209479  # the constant spherical harmonic


def save_ball(path: Path, radius: float, channel: int) -> Path:
    """A ball that is bright in one channel and black in the others, seen from cameras around it."""
    field, occupancy = fresh(16, CUBE), OccupancyGrid(16)
    with torch.no_grad():
        away = field.node_positions().norm(dim=-1)
        field.density_values[:, 0] = (5 - 40 * (away - radius)).clamp(-6, 5)
        field.sh_values.zero_()
        for c in range(3):
            field.sh_values[:, 9 * c] = (3.0 if c == channel else -3.0) / SH_0
    occupancy.rebuild(field, 0.05, torch.Generator().manual_seed(0))
    save_field(
        path,
        RenderableField(field, occupancy, 0.05, orbit_box(CUBE, 8, width=64, height=48), {"job": "test"}),
    )
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(WITHOUT_RASTER) as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("colours")
    return [save_ball(folder / "teacher.fm", 0.5, RED), save_ball(folder / "student.fm", 0.8, BLUE)]


class Recording:
    """A page with both fields, and what each of its frames shows."""

    def __init__(self, page: Any, url: str, viewer: Any):
        self.page = page
        page.goto(f"{url}viewport?scenes={','.join(scene.id for scene in viewer.scenes)}")
        until(page, f"{VIEWPORT}?.root?.dataset.state === 'ready'")
        page.evaluate(HIDE)
        self.frames: list[np.ndarray] = []

    def frame(self) -> np.ndarray:
        """Take a screenshot, as integers (height, width, 3)."""
        png = self.page.screenshot()
        self.frames.append(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int))
        return self.frames[-1]

    def drag(self, steps: int) -> Iterator[int]:
        """Drag a little further in each step."""
        mouse, (x, y) = self.page.mouse, (SIZE[0] * 0.3, SIZE[1] * 0.5)
        mouse.move(x, y)
        mouse.down()
        for i in range(steps):
            mouse.move(x + 12 * i, y + 3 * i)
            yield i
        mouse.up()


@contextmanager
def recording(browser: Any, files: list[Path], monkeypatch: Any, slow: bool, bake: bool) -> Iterator[Any]:
    """The page, and the gate in front of the student; a slow student's is closed."""
    gate = Gate()
    monkeypatch.setattr(routes, "render_tile", gate.render_tile)
    with served(files, resolution=16, bake=bake, threads=THREADS) as (url, viewer):
        gate.scene = viewer.scenes[1]
        if slow:
            gate.open.clear()
        page = new_page(browser, viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        try:
            yield Recording(page, url, viewer), gate
        finally:
            gate.open.set()
            page.context.close()


def colored(frame: np.ndarray, channel: int, least: int = 60) -> np.ndarray:
    """Whether a pixel is brighter in this channel than in the others."""
    others = [c for c in range(3) if c != channel]
    return frame[..., channel] - frame[..., others].max(axis=-1) > least


def is_gray(frame: np.ndarray) -> bool:
    return bool((frame.max(axis=-1) - frame.min(axis=-1) <= 2).all())


def assert_each_in_its_half(frame: np.ndarray, split: float = 0.5) -> None:
    cut = round(split * frame.shape[1])
    assert not colored(frame[:, : cut - 2], BLUE).any()
    assert not colored(frame[:, cut + 2 :], RED).any()


@pytest.mark.parametrize(
    ("slow", "bake"), [(True, False), (True, True), (False, True)], ids=["slow", "slow, baked", "bad, baked"]
)
def test_no_frame_shows_a_field_under_another_name(
    browser: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch, slow: bool, bake: bool
) -> None:
    with recording(browser, files, monkeypatch, slow, bake) as (shown, gate):
        page = shown.page
        for _ in shown.drag(10):  # the first frames come before any tile or bake
            assert_each_in_its_half(shown.frame())
        for i in range(6):
            page.mouse.wheel(0, -120 if i < 3 else 120)
            assert_each_in_its_half(shown.frame())
        for split in (0.25, 0.4, 0.75):
            page.evaluate(f"{VIEWPORT}.setSplit({split})")
            assert_each_in_its_half(shown.frame(), split)
        page.evaluate(f"{VIEWPORT}.setSplit(0.5)")
        page.click("button[data-compare=b]")
        for _ in shown.drag(5):
            assert not colored(shown.frame(), RED).any()
        page.click("button[data-compare=a]")
        for _ in shown.drag(5):
            assert not colored(shown.frame(), BLUE).any()
        page.click("button[data-compare=split]")
        gate.open.set()
        until(page, "document.querySelector('.state').dataset.kind === 'done'")
        frame = shown.frame()
        assert_each_in_its_half(frame)
        assert colored(frame, RED).sum() > 500
        assert colored(frame, BLUE).sum() > 500
        assert len(shown.frames) == 30


def test_a_difference_is_shown_only_where_both_were_drawn(
    browser: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording(browser, files, monkeypatch, slow=True, bake=False) as (shown, gate):
        page = shown.page
        page.click("button[data-compare=difference]")
        until(page, f"{VIEWPORT}.layers[0].coarse.version >= 0")  # the teacher alone is there
        for _ in shown.drag(6):
            assert is_gray(shown.frame())
        assert page.inner_text(".state").startswith(f"Difference × {DIFFERENCE_GAIN:g}")
        page.screenshot(path=artefact("view_difference_of_one.png"))
        gate.open.set()
        until(page, "document.querySelector('.state').dataset.kind === 'done'")
        frame = shown.frame()
        height, width = frame.shape[:2]
        # over white, red and blue differ in both channels by all, and in green by nothing
        assert (frame[height // 2, width // 2] - [0, 255, 0]).__abs__().max() <= 12
        assert (frame[4, 4] == 255).all()  # both white
        page.screenshot(path=artefact("view_difference_of_two.png"))


DIFFERENCE_OF_BAKES = """
(isMoved) => {
  const { layers, difference } = window.fieldmorph;
  for (const layer of layers)
    for (const kind of ["coarse", "medium", "fine"]) layer[kind].version = -2; // of no view: bakes alone are left
  const { loop } = layers[1].drawing;
  const { pose } = loop.shown;
  if (isMoved) loop.shown = { ...loop.shown, pose: { ...pose, eye: pose.eye.map((x) => x + 0.01) } };
  difference.draw();
  const { canvas } = difference;
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0);
}
"""


def test_bakes_seen_by_two_cameras_have_no_difference(
    browser: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording(browser, files, monkeypatch, slow=False, bake=True) as (shown, _):
        page = shown.page
        page.click("button[data-compare=difference]")
        until(page, f"{VIEWPORT}.layers.every((layer) => layer.drawing?.loop.shown)")
        until(page, "document.querySelector('.state').dataset.kind === 'done'")
        assert page.evaluate(DIFFERENCE_OF_BAKES, False)
        assert not page.evaluate(DIFFERENCE_OF_BAKES, True)


def test_a_screenshot_obeys_the_same_rules(
    browser: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot(page: Any, first: str = "") -> np.ndarray:
        # One script, so that no image of the server comes between what it does first and the screenshot.
        text = page.evaluate(f"(() => {{ {first}; return {VIEWPORT}.snapshot(300, 200).toDataURL(); }})()")
        data = base64.b64decode(text.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    with recording(browser, files, monkeypatch, slow=False, bake=False) as (shown, _):
        page = shown.page
        until(page, "document.querySelector('.state').dataset.kind === 'done'")
        page.click("button[data-compare=difference]")
        until(page, f"{VIEWPORT}.stats.images > 1")
        taken = snapshot(page)
        assert (taken[100, 150] - [0, 255, 0]).__abs__().max() <= 12
        assert (taken[-24:, :110] < 200).any()  # the gain is written there
        page.click("button[data-compare=split]")
        assert colored(snapshot(page)[:, 152:], BLUE).any()
        # as if the student had drawn an earlier camera only
        earlier = (
            f"clearTimeout({VIEWPORT}.images.timer);"
            f"for (const kind of ['coarse', 'medium', 'fine']) {VIEWPORT}.layers[1][kind].version = 0"
        )
        taken = snapshot(page, earlier)
        assert colored(taken[:, :149], RED).any()
        assert is_gray(taken[:, 152:])
        assert not (taken[:, 152:] == 255).all()  # but the pattern
        assert is_gray(snapshot(page, f"{VIEWPORT}.comparison.choose('difference'); {earlier}"))


def test_what_an_old_camera_saw_is_marked_until_the_new_one_has_an_image(
    browser: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = f"{VIEWPORT}.layers.map((layer) => layer.element.dataset.stale)"
    with recording(browser, files, monkeypatch, slow=False, bake=False) as (shown, gate):
        page = shown.page
        until(page, "document.querySelector('.state').dataset.kind === 'done'")
        assert page.evaluate(stale) == ["false", "false"]
        before = shown.frame()
        gate.open.clear()
        for _ in shown.drag(3):
            pass
        assert page.evaluate(stale)[1] == "true"
        veiled = shown.frame()
        cut = SIZE[0] // 2
        middle = slice(SIZE[1] // 2 - 20, SIZE[1] // 2 + 20), slice(cut + 10, cut + 40)
        saturation = [np.ptp(frame[middle], axis=-1).mean() for frame in (before, veiled)]
        assert saturation[1] < 0.6 * saturation[0]
        page.screenshot(path=artefact("view_stale.png"))
        gate.open.set()
        until(page, f"{stale}.every((text) => text === 'false')")


def test_a_bake_that_comes_while_one_drags_takes_the_place_of_a_stale_image(
    browser: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = f"{VIEWPORT}.layers[1]"
    with recording(browser, files, monkeypatch, slow=False, bake=True) as (shown, _):
        page = shown.page
        until(page, f"{VIEWPORT}.layers.every((layer) => layer.hasBake)")
        # as if the bake had not come yet, and the small image were of an earlier camera
        page.evaluate(
            f"{layer}.drawing = null; {layer}.coarse.version = 0; {layer}.coarse.canvas.hidden = false"
        )
        page.evaluate(f"{layer}.watch()")
        assert page.evaluate(f"{layer}.hasBake && {layer}.coarse.canvas.hidden")
