"""Debian's chromium for tests, drawing WebGL in software, and what they keep of it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fieldmorph.apps.bench.browser_page import CHROMIUM

WITHOUT_RASTER = "--disable-gpu-rasterization"  # pages are drawn in half the time where a CPU is the GPU
PATIENCE = 240.0  # seconds, on a machine that is busy with other things


def chromium_program() -> str:
    """Its path; the test is skipped, with the reason, where it or its driver is missing."""
    pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("apt-get install chromium")
    return program


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A browser with further arguments; the test is skipped, with the reason, where there is none."""
    program = chromium_program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=[*CHROMIUM, *arguments])
        yield browser
        browser.close()


def new_page(browser: Any, **options: Any) -> Any:
    """A page in a context of its own, with patience."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.set_default_navigation_timeout(1000 * PATIENCE)
    return page


def until(frame: Any, expression: str) -> None:
    """Wait for something to be true in a frame, whose policy forbids Playwright's own way."""
    wait(lambda: frame.evaluate(expression), expression)


def wait(true: Callable[[], Any], what: str) -> None:
    """Until something is true, or the test has failed."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"never true: {what}"
        time.sleep(0.1)


class Tab:
    """A page, what it said to the console and what it requested."""

    def __init__(self, browser: Any, width: int = 320, height: int = 240, **options: Any):
        self.page = new_page(browser, viewport={"width": width, "height": height}, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url: str, state: str = "ready") -> "Tab":
        self.page.goto(url)
        until(self.page, f"window.fieldmorph?.root.dataset.state === {state!r}")
        return self

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)


def artefact(name: str) -> Path:
    """Where a screenshot is kept: FIELDMORPH_ARTEFACTS, or build/screenshots."""
    folder = Path(os.environ.get("FIELDMORPH_ARTEFACTS", "build/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
