"""The page opens anywhere, offline; it shows the receipt's figures and runs nothing that a file or a name says."""

import base64
import copy
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.receipts import a_receipt, examples
from PIL import Image

from fieldmorph.apps.media import DIFFERENCE_GAIN
from fieldmorph.apps.receipt.curve import curve_html, nice_ticks
from fieldmorph.apps.receipt.page import headline, receipt_html, receipt_paths, write_receipt
from fieldmorph.distill.fidelity import ExampleView

HOSTILE = "<script>alert(1)</script>\" onload='x' & https://evil.example/"


class Reader(HTMLParser):
    """Tags with their attributes, text, and whether tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "path", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def images_in(page: str) -> list[Image.Image]:
    sources = [attrs["src"] or "" for tag, attrs in Reader(page).tags if tag == "img"]
    return [Image.open(io.BytesIO(base64.b64decode(s.partition(",")[2]))) for s in sources]


def test_nothing_outside_is_requested() -> None:
    page = receipt_html(a_receipt(), examples())
    read = Reader(page)
    assert not read.open  # well formed
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    assert {"script", "link", "iframe", "object", "a", "form", "base"}.isdisjoint(tag for tag, _ in read.tags)
    for tag, attrs in read.tags:
        assert not any(name.startswith("on") for name in attrs), tag
        for name in ("src", "href", "srcset", "action", "xlink:href", "data"):
            assert (attrs.get(name) or "data:").startswith("data:")
    policy = next(a["content"] for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_every_figure_is_on_the_page() -> None:
    receipt = a_receipt()
    text = Reader(receipt_html(receipt, examples())).text
    for poses in ("held_out", "off_trajectory"):
        figures_of_set = receipt["quality"][poses]
        for kind in ("mean", "worst"):
            for name, value in figures_of_set[kind].items():
                assert (
                    f"{value:.4f}" in text if re.search("ssim|opacity", name) else f"{value:.2f}" in text
                ), name
        for name, values in figures_of_set["per_view"].items():
            places = 4 if re.search("ssim|opacity", name) else 3 if "distance" in name else 2
            assert all(f" {value:.{places}f} " in text for value in values), name
    expected_texts = """
        923,248 | 66,128 | 3,733,776 | 306,152 | 13.96 | 12.20 | 12.2 × smaller | 0.071 | 0.203
        6,912 | 234.7 | 181.3 | 3,455 | 113.4 | 87.6 | 180.5 core-seconds
        4711 | 0.55 | density 1.25 | 0.02 | 13 | 129 | no decoder in common | a slow one
        teacher.fm | student.fm | 2030-01-02 03:04 UTC | max psnr drop 1.5; psnr drop 1.25 | Met.
        extended 2 times | Student kept: longer 1 | selected on the test images below
        could not be extended further: longer 3: too short.
        longer 1 4712 0.23 1.25 yes | longer 2 4713 0.23 – no | 40 × 30
    """
    digests = ["a" * 64, "b" * 64, "d" * 64]
    for expected in [
        *re.split(r" *[|\n] *", expected_texts.strip()),
        *digests,
        f"difference × {DIFFERENCE_GAIN:g}",
    ]:
        assert expected in text, expected
    for point in receipt["curve"]:
        assert f" {point['core_seconds']:.1f} {point['psnr']:.2f} " in text
    # start, evaluations and end: what the stages leave of the whole
    assert f"{234.7 - 113.4:.1f} {181.3 - 87.6:.1f}" in text


def test_chain_is_in_order() -> None:
    text = Reader(receipt_html(a_receipt(), examples())).text
    assert text.index("train : hashgrid") < text.index("convert : mlp")


@pytest.mark.parametrize(("met", "word"), [(True, "Met."), (False, "Missed."), (None, "Unknown.")])
def test_gate_says_its_verdict(met: bool | None, word: str) -> None:
    assert word in Reader(receipt_html({**a_receipt(), "gate": {"max_psnr_drop": 1, "met": met}}, [])).text


def test_a_gate_that_was_met_at_once_names_no_extensions() -> None:
    gate = {
        "max_psnr_drop": 1,
        "met": True,
        "kept": "the conversion itself",
        "extensions": [],
        "stopped": None,
    }
    text = Reader(receipt_html({**a_receipt(), "gate": gate}, [])).text
    assert "Met." in text
    assert not re.search("extended|kept|selected", text)


def poisoned(value: Any) -> Any:
    """Every text of a receipt, keys included where they are free, made hostile."""
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_texts_stay_texts() -> None:
    receipt = poisoned(a_receipt())
    for free in (
        receipt["provenance"][0],
        receipt["environment"],
        receipt["dropped"],
        receipt["gate"],
        receipt["teacher"]["config"],
        receipt["settings"],
        receipt["photographs"],
        receipt["settings"]["stages"][0],
        receipt["budget"]["asked"],
    ):
        free[HOSTILE] = HOSTILE if free is not receipt["budget"]["asked"] else 1.0
    receipt["student"]["field"] = {"job": [HOSTILE]}  # not even a text
    shown = [copy.copy(e) for e in examples()]
    for example in shown:
        object.__setattr__(example, "view", HOSTILE)
    page = receipt_html(receipt, shown)
    read = Reader(page)
    assert not read.open
    names = {tag for tag, _ in read.tags}
    assert names == {tag for tag, _ in Reader(receipt_html(a_receipt(), examples())).tags}
    assert "<script" not in page
    for tag, attrs in read.tags:
        assert not any(name.startswith("on") for name in attrs), tag
    assert read.text.count("<script>alert(1)</script>") > 15


def test_missing_values_are_dashes() -> None:
    receipt = a_receipt(with_test_images=False)
    receipt["teacher"] |= {"params": None, "bytes": None, "file": None, "sha256": None}
    receipt["ratio"] = {"params": None, "bytes": None}
    receipt |= {"gate": None, "curve": [], "dropped": {}}
    receipt["quality"]["held_out"]["mean"]["psnr_to_teacher"] = None
    receipt["provenance"][0] = {"job": None, "field": "callable", "sha256": None}
    read = Reader(receipt_html(receipt, []))
    assert "PSNR to the teacher – dB" in read.text
    assert "unknown origin" in read.text
    assert "None" not in read.text
    assert not re.search("photographs?|test image", read.text)


def test_images_are_those_of_the_views() -> None:
    shown = images_in(receipt_html(a_receipt(), examples()))
    assert len(shown) == 4 + 3
    levels = [int(np.asarray(image)[0, 0, 0]) for image in shown]
    apart = round(255 * (1 - DIFFERENCE_GAIN * 0.05))
    assert levels == [0, 128, 140, apart, 128, 140, apart]
    images = [attrs for tag, attrs in Reader(receipt_html(a_receipt(), examples())).tags if tag == "img"]
    assert all(attrs["alt"] and attrs["width"] == "40" and attrs["height"] == "30" for attrs in images)


def test_a_page_of_large_noise_stays_small() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(800, 800, 3, generator=generator) for _ in range(3)]
    example = ExampleView("held_out", "worst", "noise", 9.0, *noise)
    page = receipt_html(a_receipt(), [example] * 3)
    assert len(page) < 2_000_000  # nothing is worse than noise
    assert max(image.width for image in images_in(page)) == 360


def test_both_files_lie_next_to_the_field(tmp_path: Path) -> None:
    receipt = a_receipt()
    write_receipt(tmp_path / "a.fm", receipt, examples())
    data, page = receipt_paths(tmp_path / "a.fm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fm.receipt.html", "a.fm.receipt.json"]
    assert json.loads(data.read_text()) == receipt
    assert page.read_text(encoding="utf-8") == receipt_html(receipt, examples())


def test_a_receipt_that_is_not_json_leaves_the_old_one(tmp_path: Path) -> None:
    write_receipt(tmp_path / "a.fm", a_receipt(), [])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="JSON"):
        write_receipt(tmp_path / "a.fm", {**a_receipt(), "seed": float("nan")}, [])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def points(*values: tuple[float, float | None, str]) -> list[dict[str, Any]]:
    return [dict(zip(("core_seconds", "psnr", "stage"), value, strict=True)) for value in values]


def test_curve_shades_stages_where_they_end() -> None:
    curve = curve_html(
        points((10, 20, "first"), (20, 24, "first"), (30, None, "first"), (40, 30, "<second>"))
    )
    bands = [(a["x"], a["width"]) for tag, a in Reader(curve).tags if tag == "rect"]
    assert bands == [("0.00", "50.00"), ("50.00", "50.00")]
    assert "&lt;second&gt;" in curve
    line = next(a["d"] for tag, a in Reader(curve).tags if a.get("class") == "line")
    assert line is not None
    heights = [float(pair.split()[1]) for pair in line[1:].split("L")]
    assert [pair.split()[0] for pair in line[1:].split("L")] == ["25.00", "50.00", "100.00"]
    assert heights == sorted(heights, reverse=True)  # up the image is down the numbers
    assert (heights[0] - heights[1]) / (heights[0] - heights[2]) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    "values", [[(0.0, 20.0, "a")], [(1e-3, 30.0, "a"), (2e-3, 30.0, "a")], [(1.0, None, "a")], []]
)
def test_short_and_flat_curves_are_drawn_or_left_out(values: list[tuple[float, float | None, str]]) -> None:
    drawn = curve_html(points(*values))
    assert ("<svg" in drawn) == any(psnr is not None for _, psnr, _ in values)
    assert "nan" not in drawn


def test_a_single_evaluation_is_in_the_middle_and_says_its_value() -> None:
    curve = curve_html(points((12.5, 24.24, "volume")))
    dot = next(a["d"] for tag, a in Reader(curve).tags if a.get("class") == "dot")
    assert dot is not None
    x, y = map(float, dot[1:].removesuffix("h0").split())
    assert x == 50
    assert 40 < y < 75
    assert ">24.2 dB</span>" in curve
    assert "24.2 dB after 12.5 core-seconds" in curve
    assert "at first" not in curve


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 180, [0, 50, 100, 150]),
        (22.6, 34.3, [24, 26, 28, 30, 32, 34]),
        (0, 0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_window_in_a_browser(tmp_path: Path, width: int) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    write_receipt(tmp_path / "a.fm", a_receipt(), examples())
    shot = tmp_path / "shot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/profile",
        "--blink-settings=preferredColorScheme=1",
    ]
    page = receipt_paths(tmp_path / "a.fm")[1].as_uri()
    subprocess.run(
        [chromium, *options, f"--window-size={width},1600", f"--screenshot={shot}", page],
        capture_output=True,
        timeout=120,
        check=True,
    )
    seen = np.asarray(Image.open(shot).convert("RGB"))
    assert seen.shape[1] == width
    assert (seen[:, :8] == 255).all()  # margins stay empty: nothing runs over
    assert (seen[:, -8:] == 255).all()
    accent = np.abs(seen.astype(int) - (15, 107, 116)).sum(-1) < 20  # styles apply under the policy
    assert accent.sum() > 100


@pytest.mark.parametrize(
    ("drop", "words"), [(1.25, "PSNR drop on test images"), (-1.25, "PSNR gain on test images")]
)
def test_a_student_better_than_its_teacher_has_a_gain(drop: float, words: str) -> None:
    receipt = a_receipt()
    receipt["quality"]["held_out"]["mean"]["psnr_drop"] = drop
    text = Reader(headline(receipt)).text
    assert f"{words} 1.25 dB" in text
