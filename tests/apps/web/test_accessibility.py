"""No page breaks a rule of axe-core of moderate or higher impact, WCAG AA contrast among them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.chromium import chromium, new_page, until
from helpers.receipts import a_receipt, examples
from helpers.view_fields import ball_field, save_ball, served

from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import write_web
from fieldmorph.apps.jobs.demo_page import demo_page
from fieldmorph.apps.receipt.page import receipt_html
from fieldmorph.apps.viewer.loading import STEPS, LoadingPage, LoadingState
from fieldmorph.apps.viewer.server import Server, listen, page_url
from fieldmorph.fields.budget import Spent

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

SCHEMES = ("light", "dark")
GRAVE = ("moderate", "serious", "critical")
PANELS = ("view", "cameras", "video", "about")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def violations(frame: Any, scheme: str) -> list[str]:
    """What axe-core finds on a page or in a frame: rule, and the first element that breaks it.

    A dark page has the elements of a light one in other colors, so that contrast alone is looked at.
    """
    options = {"resultTypes": ["violations"]} | ({"runOnly": ["color-contrast"]} if scheme == "dark" else {})
    found = axe.Axe().run(frame, options=options).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}: {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in GRAVE
    ]


def viewport_of(page: Any) -> Any:
    frame = page.wait_for_selector("iframe").content_frame()
    frame.wait_for_url("**/viewport*")
    until(frame, "(document.querySelector('.viewport')?.dataset.state ?? 'loading') !== 'loading'")
    return frame


def open_page(browser: Any, url: str, scheme: str) -> Any:
    page = new_page(browser, viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page.goto(url)
    return page


@pytest.mark.parametrize("scheme", SCHEMES)
def test_empty_viewer(browser: Any, scheme: str) -> None:
    with served([], bake=False) as (url, _):
        page = open_page(browser, url, scheme)
        frame = viewport_of(page)
        assert violations(page, scheme) + violations(frame, scheme) == []
        page.context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_tab_and_panel(
    browser: Any, tmp_path: Path, tensor_model: Path, tensor_csv: Path, scheme: str
) -> None:
    files = [save_ball(tmp_path / "a.fm"), save_ball(tmp_path / "b.fm", psnr=33.2), tensor_model]
    with served(files, bake=False, data=tensor_csv) as (url, _):
        page = open_page(browser, url, scheme)
        frame = viewport_of(page)
        found = violations(page, scheme) + violations(frame, scheme)
        for panel in PANELS:
            if frame.query_selector(f"[data-act={panel}]") is None:
                continue
            frame.click(f"[data-act={panel}]")
            found += violations(frame, scheme)
        page.get_by_role("tab", name="Convert").click()
        page.get_by_text("More settings").click()
        page.get_by_label("Training time").fill("soon")
        page.get_by_role("button", name="Convert", exact=True).click()
        page.wait_for_selector(".convert-tab .invalid")
        found += violations(page, scheme)
        page.get_by_role("tab", name="Tensor model").click()
        page.wait_for_selector(".explorer .figures svg")
        assert found + violations(page, scheme) == []
        page.context.close()


def test_exported_page_receipt_and_demo(browser: Any, tmp_path: Path) -> None:
    write_web(tmp_path / "page.html", bake(ball_field(), BakeConfig(16), name="ball", facts=(("a", "b"),)))
    (tmp_path / "receipt.html").write_text(receipt_html(a_receipt(), examples()), encoding="utf-8")
    exported = (tmp_path / "page.html").read_text(encoding="utf-8")
    demo = demo_page(
        a_receipt(), examples(), [exported] * 2, {"train": Spent(2.0, 3.0)}, "demo_output", "DATA"
    )
    (tmp_path / "index.html").write_text(demo, encoding="utf-8")
    for scheme in SCHEMES:
        page = open_page(browser, (tmp_path / "page.html").as_uri(), scheme)
        until(page, "window.fieldmorph?.root?.dataset.state === 'ready'")
        page.keyboard.press("h")
        assert violations(page, scheme) == []
        for name in ("receipt.html", "index.html"):
            page.goto((tmp_path / name).as_uri())
            assert violations(page, scheme) == []
        page.context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_page_of_loading(browser: Any, scheme: str) -> None:
    listening = listen("127.0.0.1", 0)
    state = LoadingState()
    state.begin(STEPS[0])
    server = Server(listening, LoadingPage(state))
    server.start()
    try:
        page = open_page(browser, page_url("127.0.0.1", listening.getsockname()[1]), scheme)
        page.wait_for_selector("li.current")
        assert violations(page, scheme) == []
        page.context.close()
    finally:
        server.stop()
