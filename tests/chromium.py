"""Debian's chromium for tests, drawing WebGL in software, and what they keep of it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fieldmorph.apps.bench_page import CHROMIUM

PATIENCE = 240.0  # seconds


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped, with the reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=CHROMIUM)
        yield browser
        browser.close()


def until(frame: Any, expression: str) -> None:
    """Wait for something to be true in a frame, whose policy forbids Playwright's own way."""
    end = time.monotonic() + PATIENCE
    while not frame.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        time.sleep(0.1)


def artefact(name: str) -> Path:
    """Where a screenshot is kept: FIELDMORPH_ARTEFACTS, or build/screenshots."""
    folder = Path(os.environ.get("FIELDMORPH_ARTEFACTS", "build/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
