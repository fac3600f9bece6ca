"""The tensor tab's answers to its page: maps and curves of the model, with texts for people."""

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

gr = pytest.importorskip("gradio")

from fieldmorph.apps.tensor.explorer import Explorer  # noqa: E402
from fieldmorph.apps.tensor.jobs import read_measurements  # noqa: E402
from fieldmorph.apps.tensor.map_layers import MapLayers  # noqa: E402
from fieldmorph.apps.tensor.masks import GridMask  # noqa: E402
from fieldmorph.apps.viewer.render_pool import FairRenderPool  # noqa: E402
from fieldmorph.apps.viewer.tab_tensor import (  # noqa: E402
    about,
    add_tensor_tab,
    curve_answer,
    figure_sections,
    map_layers,
    page_model,
    tensor_answers,
)
from fieldmorph.bayes.core import CPCore  # noqa: E402
from fieldmorph.bayes.store import load_posterior  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def explorer(tensor_model: Path) -> Explorer:
    return Explorer(load_posterior(tensor_model))


@pytest.fixture(scope="module")
def served(explorer: Explorer) -> Iterator[Any]:
    """The tab's component on a page, its functions answered by a pool."""
    pool = FairRenderPool(2)
    with gr.Blocks() as blocks, gr.Tabs():
        add_tensor_tab(explorer, pool)
    yield next(block for block in blocks.blocks.values() if isinstance(block, gr.HTML))
    pool.close()


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_page_learns_of_modes_scales_and_ticks(explorer: Explorer) -> None:
    model = json.loads(json.dumps(page_model(explorer)))
    assert model["title"] == "temp (K)"
    assert [mode["name"] for mode in model["modes"]] == ["lat", "lon", "time"]
    assert (model["across"], model["up"], model["sliders"], model["along"]) == (1, 0, [2], 2)
    assert model["map"]["size"] == [len(explorer.stops[1]), len(explorer.stops[0])]
    assert len(model["map"]["scales"]["mean"]["colors"]) == 3 * 256
    fractions = {text: fraction for fraction, text in model["map"]["ticks"]["y"]}
    assert fractions["0°"] == pytest.approx(0.5, abs=0.02)
    assert {"15°S", "15°N"} <= set(fractions)
    sd = model["map"]["scales"]["sd"]
    assert sd["low"] == 0
    assert sd["ticks"][0] == [0, "0"]


def test_model_is_summed_up_in_a_line(explorer: Explorer) -> None:
    line = about(explorer.posterior)
    assert line.startswith("over lat, lon and time · Tucker 2 × 2 × 2 · 480 measurements · noise 0.0")
    assert line.endswith(" K")


def test_map_comes_as_an_image(served: Any, explorer: Explorer) -> None:
    answer = served.tensor_map([{"show": "sd", "place": [0, 0, 3]}])
    with Image.open(io.BytesIO(base64.b64decode(answer["png"]))) as image:
        gray = np.asarray(image)[::-1].astype(float)
    sd = explorer.map([0, 0, 3]).latent_sd.numpy()
    low, high = explorer.limits["sd"]
    np.testing.assert_allclose(low + gray / 255 * (high - low), sd.clip(low, high), atol=(high - low) / 500)


def test_curve_says_what_the_model_says_there(explorer: Explorer) -> None:
    place = [100, 50, 30]
    answer = curve_answer(explorer, place, 2, 700)
    found = explorer.posterior.predict(explorer.coordinates(place)[None])
    date, numbers = answer["reading"].split(": ")
    assert date == explorer.words(2)[30]
    mean, spread, low, high = (float(text) for text in re.findall(r"-?\d+\.\d+", numbers))
    ends = [float(end) for end in found.interval(0.95)]
    assert [mean, low, high] == pytest.approx([float(found.mean), *ends], abs=0.006)
    assert spread == pytest.approx(float(found.latent_sd), abs=0.0006)
    assert answer["where"] == f"{explorer.words(0)[100]}, {explorer.words(1)[50]}"
    axis = answer["axis"]
    assert axis["stops"][0] == 0
    assert axis["stops"][-1] == 1
    assert 0 < axis["left"] < axis["right"] <= 1
    assert "temp (K)" in texts(answer["svg"])


def test_curve_follows_the_width_of_the_page(explorer: Explorer) -> None:
    widths = [
        float(re.search(r'viewBox="0 0 ([\d.]+)', curve_answer(explorer, [0, 0, 0], 2, w)["svg"])[1])
        for w in (500, 5, 1e9)
    ]
    assert widths == [375, 210, 1200]


def test_next_places_are_given_in_words(served: Any, explorer: Explorer) -> None:
    answer = served.tensor_next([{"place": [0, 0, 8], "n": 2}])
    picks = explorer.where_next([0, 0, 8], 2)
    assert answer["places"] == picks.places
    up, across, _ = picks.places[0]
    assert answer["words"][0] == f"{explorer.words(0)[up]}, {explorer.words(1)[across]}"
    assert f"from {picks.sd[0]:.3g} to {picks.sd[-1]:.3g} K" in answer["summary"]


def test_layers_of_the_map_come_in_its_own_units(explorer: Explorer) -> None:
    """Africa's coast crosses the map; a place in the middle of a cell is in the middle of it."""
    across, up = explorer.stops[1].numpy(), explorer.stops[0].numpy()
    measured = across[[0, 80, 0]], up[[0, 120, 0]]
    layers = MapLayers(measured=measured, area=(-20.0, 20.0, -30.0, 30.0))
    found = map_layers(Explorer(explorer.posterior, layers))
    nx, ny = len(across), len(up)
    assert found["dots"] == pytest.approx(
        [500 / nx, 1000 - 500 / ny, 80.5 * 1000 / nx, 1000 - 120.5 * 1000 / ny], abs=0.06
    )
    assert re.fullmatch(r"(M-?[\d.]+ -?[\d.]+(L-?[\d.]+ -?[\d.]+)+)+", found["coasts"])
    assert map_layers(explorer) == {"coasts": "", "dots": []}


def test_page_and_choice_say_which_mask_there_is(explorer: Explorer) -> None:
    kept = np.ones((2, 2), bool)
    mask = GridMask("coast.nc", kept, np.array([-15.0, 15.0]), np.array([-10.0, 10.0]))
    masked = Explorer(explorer.posterior, MapLayers(mask))
    assert page_model(masked)["map"]["mask"] == "coast.nc"
    assert page_model(explorer)["map"]["mask"] == ""
    [chosen] = [answer for answer in tensor_answers(masked) if answer.__name__ == "tensor_next"]
    summary = chosen({"place": masked.middle(), "n": 1})["summary"]
    assert summary.endswith(" Only places that the mask keeps count: coast.nc.")


def test_figures_are_drawn_once_for_all(served: Any) -> None:
    (functions,) = served.tensor_figures([{}])["sections"]
    assert functions["title"] == "Functions of each mode"
    assert len(functions["figures"]) == 3
    assert "lat" in texts(functions["figures"][0])
    assert served.tensor_figures([{}])["sections"][0] is functions


def test_calibration_is_shown_on_measurements_not_seen(explorer: Explorer, tensor_csv: Path) -> None:
    measured = read_measurements(tensor_csv, explorer.posterior)
    _, calibration = figure_sections(explorer.posterior, measured)
    assert "480 test measurements" in texts(calibration["figures"][0])
    assert len(calibration["figures"]) == 2


def test_figures_take_the_colours_of_the_page(explorer: Explorer) -> None:
    svg = curve_answer(explorer, explorer.middle(), 2, 600)["svg"]
    assert "var(--plot-line)" in svg
    assert "var(--plot-band)" in svg
    assert "var(--plot-soft)" in svg
    assert not re.search(r"#(20557a|c3d3de|444444|ffffff)", svg)
    assert ' id="axes' not in svg


def test_text_of_a_model_is_escaped(tensor_model: Path) -> None:
    posterior = load_posterior(tensor_model)
    object.__setattr__(posterior, "value_name", "<script>alert(1)</script>")
    svg = curve_answer(Explorer(posterior), [0, 0, 0], 2, 400)["svg"]
    assert "<script" not in svg
    assert "<script>alert(1)</script> (K)" in texts(svg)


BAD = [
    ("tensor_map", None),
    ("tensor_map", []),
    ("tensor_map", [{}]),
    ("tensor_map", [{"show": "sd"}]),
    ("tensor_map", [{"show": "../x", "place": [0, 0, 0]}]),
    ("tensor_map", [{"show": "sd", "place": [0, 0, 999999]}]),
    ("tensor_curve", [{"place": [0, 0, 0], "along": 7, "width": 300}]),
    ("tensor_curve", [{"place": [0, 0, 0], "along": 2, "width": "wide"}]),
    ("tensor_curve", [{"place": [0, 0, 0], "along": 2, "width": float("nan")}]),
    ("tensor_next", [{"place": [0, 0, 0], "n": 10**6}]),
    ("tensor_next", ["place"]),
]


@pytest.mark.parametrize(("name", "requested"), BAD)
def test_bad_questions_get_one_line(served: Any, unchecked: None, name: str, requested: Any) -> None:
    answer = getattr(served, name)(requested)
    assert list(answer) == ["error"]
    assert len(answer["error"].splitlines()) == 1


def test_answers_are_the_pool_s_work(explorer: Explorer) -> None:
    pool = FairRenderPool(1)
    with gr.Blocks() as blocks, gr.Tabs():
        add_tensor_tab(explorer, pool)
    tab = next(block for block in blocks.blocks.values() if isinstance(block, gr.HTML))
    pool.close()
    answer = tab.tensor_map([{"show": "sd", "place": [0, 0, 0]}])
    assert "try again" in answer["error"]


def test_model_of_one_mode_has_no_map(explorer: Explorer) -> None:
    whole = explorer.posterior
    time = {name: getattr(whole, name)[2:] for name in ("modes", "kernels", "processes")}
    one = Explorer(replace(whole, **time, core=CPCore(2)))
    model = page_model(one)
    assert model["map"] is None
    assert (model["sliders"], model["along"]) == ([], 0)
    (answer,) = [answer for answer in tensor_answers(one) if answer.__name__ == "tensor_curve"]
    curve = answer({"place": [3], "along": 0, "width": 400})
    found = one.posterior.predict(one.stops[0][3:4, None])
    assert curve["reading"].startswith(f"{one.words(0)[3]}: ")
    assert float(re.search(r": (-?[\d.]+) K", curve["reading"])[1]) == pytest.approx(
        float(found.mean), abs=0.06
    )
