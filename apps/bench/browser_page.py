"""Speed of an exported page in a browser: until the first image, while dragging, until the image at rest."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldmorph.apps.bench.runner import Row, markdown
from fieldmorph.apps.jobs.exports.web import export_web

CHROMIUM = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
TIMEOUT = 60.0  # seconds

# The pointer moves 125 times a second; events made in the page do not wait for the browser's driver.
DRAG = """
(() => {
  const image = document.querySelector(".image, .touch");
  image.setPointerCapture = () => {}; // there is no such pointer
  const mouse = { pointerId: 1, pointerType: "mouse", isPrimary: true, button: 0, buttons: 1, bubbles: true };
  const send = (type, clientX, clientY) =>
    image.dispatchEvent(new PointerEvent(type, { ...mouse, clientX, clientY }));
  let turn = 0;
  send("pointerdown", innerWidth / 2, innerHeight / 2);
  window.dragging = setInterval(() => {
    turn++;
    send("pointermove", innerWidth * (0.5 + 0.3 * Math.sin(turn / 60)), innerHeight / 2 + 20 * Math.sin(turn / 45));
  }, 8);
  window.dropped = () => {
    clearInterval(dragging);
    send("pointerup", innerWidth / 2, innerHeight / 2);
    fieldmorph.gestures.stop();
  };
})()
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield Debian's chromium, drawn by the CPU.

    Raises:
        RuntimeError: no playwright, or no chromium.
    """
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        raise RuntimeError("a browser is measured where playwright and chromium are installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield browser
        browser.close()


def drag_page(
    file: str,
    sizes: Sequence[tuple[int, int]] = ((640, 480), (1280, 800)),
    openings: int = 3,
    drag_seconds: float = 5.0,
    resolution: int = 256,
) -> Row:
    """Open, drag and leave alone a field's page in Debian's chromium, drawn by the CPU; return a row.

    Args:
        file: of the field.
        sizes: of the window, in CSS pixels.
        openings: of the page, of which figures are medians.
        drag_seconds: during which frames are counted.
        resolution: of the page's volume.

    Raises:
        RuntimeError: no playwright, or no chromium.
    """
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = Path(folder) / "scene.html"
        row: Row = {"bytes": export_web(file, page, resolution=resolution).bytes, "windows": []}
        for size in sizes:
            opened = [_opened(browser, page.as_uri(), size, drag_seconds) for _ in range(openings)]
            row["windows"].append(
                {"size": size, **{n: sorted(o[n] for o in opened)[openings // 2] for n in opened[0]}}
            )
    return row


def page_table(row: Row) -> str:
    """Format what `drag_page` returned as a Markdown table."""
    head = [f"Page of {row['bytes'] / 1e6:.1f} MB", "first image ms", "frames/s dragged", "at rest ms"]
    names = ("first_ms", "frames_per_second", "still_ms")
    return markdown(
        head, [[" x ".join(map(str, w["size"])), *(f"{w[n]:.0f}" for n in names)] for w in row["windows"]]
    )


def _opened(browser: Any, url: str, size: tuple[int, int], drag_seconds: float) -> Row:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.goto(url)
    first = known_value(page, "window.fieldmorph?.drawing?.loop.stats.firstMs")
    page.evaluate(DRAG)
    time.sleep(1)  # until the resolution fits
    before = page.evaluate("fieldmorph.stats")
    time.sleep(drag_seconds)
    known_value(
        page, f"fieldmorph.stats.movingFrames > {before['movingFrames']} || null"
    )  # a busy machine draws none
    after = page.evaluate("fieldmorph.stats")
    page.evaluate("(fieldmorph.drawing.loop.stats.restMs = null, dropped())")
    still = known_value(page, "fieldmorph.stats.restMs")
    page.close()
    frames, ms = (after[name] - before[name] for name in ("movingFrames", "movingMs"))
    return {"first_ms": first, "frames_per_second": 1000 * frames / ms, "still_ms": still}


def known_value(page: Any, expression: str, timeout: float = TIMEOUT) -> Any:
    """Return the value of an expression once it has one; the page's policy forbids the driver's own way to wait.

    Args:
        timeout: in seconds.

    Raises:
        RuntimeError: there is none after that time.
    """
    end = time.monotonic() + timeout
    while (value := page.evaluate(expression)) is None:
        if time.monotonic() > end:
            raise RuntimeError(f"no value after {timeout:g} s: {expression}")
        time.sleep(0.05)
    return value
