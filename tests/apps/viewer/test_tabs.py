"""The viewer's tabs for conversions and tensor models in Debian's chromium; screenshots are kept as artefacts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.chromium import artefact, chromium, new_page, wait
from helpers.small_conversions import shrink_conversions
from helpers.view_fields import save_ball, served

from fieldmorph.apps.viewer.app import Viewer

pytest.importorskip("gradio")

from fieldmorph.apps.viewer.tab_convert import DOWNLOADS

pytestmark = pytest.mark.browser

DESK, PHONE = (1280, 800), (390, 844)
TABS = ["Scene", "Convert", "Tensor model"]


@pytest.fixture(autouse=True, scope="module")
def _small_conversions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_conversions(patch)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tensor_model: Path, tensor_csv: Path
) -> Iterator[tuple[str, Viewer]]:
    """A field and a tensor model, with rows for its calibration."""
    ball = save_ball(tmp_path_factory.mktemp("tabs") / "ball.fm")
    with served([ball, tensor_model], data=tensor_csv, bake=False, resolution=16) as found:
        yield found


class Visit:
    """A page turned to one of its tabs, and the errors on it."""

    def __init__(self, browser: Any, url: str, tab: str, size: tuple[int, int] = DESK, dark: bool = False):
        self.wrong = list[str]()
        self.page = new_page(
            browser,
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
        )
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "request", lambda r: r.url.startswith((url, "data:", "blob:")) or self.wrong.append(r.url)
        )
        self.page.goto(url)
        self.page.get_by_role("tab", name=tab).click()
        self.page.wait_for_timeout(1500)  # Gradio gives the fields of a tab their values after they are shown

    def fits(self) -> bool:
        """Whether nothing sticks out at the side."""
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def end(self) -> None:
        self.page.context.close()
        assert [text for text in self.wrong if "GPU stall" not in text] == []


def sheet(visit: Visit) -> str:
    """The map as the browser has it."""
    return visit.page.evaluate("document.querySelector('.plot canvas').toDataURL()")


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (PHONE, True)])
def test_tensor_tab_is_there_at_a_glance(
    browser: Any, server: Any, size: tuple[int, int], dark: bool
) -> None:
    visit = Visit(browser, server[0], "Tensor model", size, dark)
    visit.page.wait_for_selector(".explorer .drawn svg")
    visit.page.wait_for_selector(".explorer .figures svg")
    visit.page.screenshot(path=artefact(f"tensor_{'phone_dark' if dark else 'desk_light'}.png"))
    assert visit.fits()
    assert [tab.inner_text() for tab in visit.page.get_by_role("tab").all()] == TABS
    assert visit.page.locator(".explorer .figures svg").count() == 5
    assert "480 test measurements" in visit.page.inner_text(".explorer .figures")
    visit.end()


def test_map_follows_the_slider_and_a_click_shows_the_curve_there(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], "Tensor model")
    page = visit.page
    page.wait_for_selector(".explorer .drawn svg")
    page.wait_for_selector(".explorer .figures svg")
    before, where = sheet(visit), page.inner_text(".curve .where")
    page.locator(".slider input").fill("10")
    day = page.inner_text(".slider output")
    page.wait_for_selector(f".reading:has-text('{day}: ')")
    assert day.startswith("2020-01-1")
    wait(lambda: sheet(visit) != before, "another map")
    box = page.locator(".plot").bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.wait_for_selector(f".curve .where:not(:has-text('{where}'))")
    latitude, longitude = page.inner_text(".curve .where").split(", ")
    assert float(latitude.removesuffix("°N")) == pytest.approx(15, abs=1)
    assert float(longitude.removesuffix("°W")) == pytest.approx(10, abs=1)
    page.focus(".plot")
    page.keyboard.press("Shift+ArrowUp")
    page.wait_for_selector(f".curve .where:not(:has-text('{latitude}'))")
    visit.end()


def test_next_places_are_pinned_on_the_map(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], "Tensor model")
    page = visit.page
    page.get_by_role("radio", name="Where to measure next").click()
    page.wait_for_selector(".pins button")
    assert page.locator(".pins button").count() == page.locator(".picks li").count() == 5
    first = page.locator(".pins button").first.get_attribute("title")
    page.click(".picks li:first-child button")
    page.wait_for_selector(f".curve .where:has-text('{first}')")
    page.screenshot(path=artefact("tensor_next.png"))
    visit.end()


def test_a_conversion_is_watched_downloaded_and_compared_with_its_teacher(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], "Convert")
    page = visit.page
    page.get_by_label("Time").fill("6cs")
    page.get_by_role("button", name="Convert", exact=True).click()
    page.wait_for_selector(".converter .chart")
    page.screenshot(path=artefact("convert_runs.png"))
    page.wait_for_selector(".converter .figures")
    assert "ball to MLP" in page.inner_text(".converter h2")
    for name, file in zip(DOWNLOADS, ("ball-mlp.fm", "ball-mlp.fm.receipt.html"), strict=False):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        assert download.value.suggested_filename == file
        assert download.value.path().stat().st_size > 10_000
    page.screenshot(path=artefact("convert_done.png"))
    page.get_by_role("button", name="Compare with teacher").click()
    page.wait_for_selector("iframe[src*=viewport][src*='%2C']")  # two scenes
    page.wait_for_selector("text=PSNR to the teacher")
    page.wait_for_timeout(3000)
    page.screenshot(path=artefact("convert_compared.png"))
    visit.end()


def test_a_conversion_is_refused_to_a_second_visitor_cancelled_and_ends_with_its_page(
    browser: Any, server: Any
) -> None:
    first, second = (Visit(browser, server[0], "Convert", PHONE) for _ in range(2))
    assert first.fits()
    first.page.get_by_role("button", name="Convert", exact=True).click()
    first.page.wait_for_selector(".converter p:has-text('Training')")
    second.page.get_by_role("button", name="Convert", exact=True).click()
    second.page.wait_for_selector(".converter .failed")
    assert "another conversion is running" in second.page.inner_text(".converter .failed").lower()
    first.page.screenshot(path=artefact("convert_phone.png"))
    first.page.get_by_role("button", name="Cancel").press("Enter")  # wherever the progress moves it
    first.page.wait_for_selector("text=Nothing was saved")
    second.page.get_by_role("button", name="Convert", exact=True).click()
    second.page.wait_for_selector(".converter p:has-text('Training')")
    job = server[1].slot._job
    second.end()
    wait(lambda: job.is_over, "the conversion ends with its page")
    first.end()


def test_a_mistake_is_shown_in_a_line(browser: Any, server: Any) -> None:
    visit = Visit(browser, server[0], "Convert", PHONE, dark=True)
    visit.page.get_by_label("Time").fill("soon")
    visit.page.get_by_role("button", name="Convert", exact=True).click()
    visit.page.wait_for_selector(".converter .failed")
    assert "a budget looks like 90s" in visit.page.inner_text(".converter .failed").lower()
    assert "A budget looks like 90s" in visit.page.inner_text(".convert-tab .invalid")
    visit.page.screenshot(path=artefact("convert_mistake.png"))
    visit.page.get_by_label("Training time").fill("90s")
    visit.page.get_by_label("Training time").blur()
    wait(lambda: visit.page.locator(".convert-tab .invalid").count() == 0, "the mark is gone")
    visit.end()
