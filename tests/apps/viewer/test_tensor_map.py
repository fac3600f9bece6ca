"""The map of the tensor tab with a mask, coastlines and data points, in Debian's chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.chromium import artefact, chromium, new_page, wait
from helpers.view_fields import served

from fieldmorph.apps.tensor.map_layers import MapSettings

pytest.importorskip("gradio")
pytest.importorskip("global_land_mask", reason="needs the extra maps")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(tensor_model: Path, tensor_csv: Path) -> Iterator[str]:
    with served([tensor_model], maps=MapSettings("sea", tensor_csv), bake=False) as found:
        yield found[0]


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Any]:
    with chromium() as browser:
        page = new_page(browser, viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.wait_for_selector(".explorer .drawn svg")
        wait(lambda: page.get_attribute(".over .dots", "d"), "data points")
        yield page


def alpha(page: Any, longitude: float, latitude: float) -> int:
    """Opacity of the map at a place; the map reaches from 20°W to 20°E and from 30°S to 30°N."""
    x, y = (longitude + 20) / 40, (30 - latitude) / 60
    return page.evaluate(
        "([x, y]) => { const c = document.querySelector('.plot canvas');"
        " return c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[3]; }",
        [x, y],
    )


def test_land_has_no_value_and_a_coast(page: Any) -> None:
    wait(lambda: alpha(page, -15, -15) == 255, "the Atlantic")
    assert alpha(page, 18, 10) == 0  # Chad
    assert page.get_attribute(".over .coasts", "d").startswith("M")
    box = page.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 3)
    page.wait_for_selector(".tip:has-text('No value (mask: sea) at ')")
    page.screenshot(path=artefact("tensor_sea.png"))


def test_title_names_quantity_and_date(page: Any) -> None:
    day = page.inner_text(".slider output")
    page.wait_for_selector(f".map .title:has-text('temp (K), {day}')")
    page.locator(".slider input").fill("10")
    other = page.inner_text(".slider output")
    assert other != day
    page.wait_for_selector(f".map .title:has-text('temp (K), {other}')")


def test_data_points_can_be_hidden(page: Any) -> None:
    dots = page.locator(".over .dots")
    assert dots.get_attribute("d").count("M") > 400  # of 480 measurements
    toggle = page.get_by_label("data points")
    assert dots.is_visible()
    toggle.uncheck()
    assert not dots.is_visible()
    toggle.check()
    assert dots.is_visible()


def test_next_places_are_in_the_sea(page: Any) -> None:
    page.get_by_role("radio", name="Where to measure next").click()
    page.wait_for_selector(".pins button")
    assert page.inner_text(".picks p").endswith("Only places that the mask keeps count: sea.")
    for pin in page.locator(".pins button").all():
        latitude, longitude = (text.strip() for text in pin.get_attribute("title").split(","))
        signed = [
            float(text.rstrip("°NSEW")) * (-1 if text[-1] in "SW" else 1) for text in (longitude, latitude)
        ]
        assert alpha(page, *signed) == 255, pin.get_attribute("title")
    page.screenshot(path=artefact("tensor_sea_next.png"))
