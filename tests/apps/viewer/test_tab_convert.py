"""The conversion tab says what it can do, what it does and what came out, and nothing of what it shows is run."""

import asyncio
import gc
import html
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from fieldmorph.apps.jobs.convert import ConvertOptions  # noqa: E402
from fieldmorph.apps.viewer.baker import Baker  # noqa: E402
from fieldmorph.apps.viewer.conversion import Course, Desk, Wish  # noqa: E402
from fieldmorph.apps.viewer.render_pool import BusyError  # noqa: E402
from fieldmorph.apps.viewer.scenes import MOST_SCENES, Scene, Shelf  # noqa: E402
from fieldmorph.apps.viewer.tab_convert import (  # noqa: E402
    ANY_SIZE,
    CANCELLED,
    FIELDS,
    PRESETS,
    SIZES,
    STARTS,
    Made,
    add_convert_tab,
    convert,
    failed_html,
    read_wish,
    running_html,
)
from fieldmorph.apps.viewer.tab_scene import add_scene_tab  # noqa: E402
from fieldmorph.fields import registry as catalog  # noqa: E402
from fieldmorph.fields.budget import Budget  # noqa: E402
from fieldmorph.fields.errors import SettingError  # noqa: E402
from fieldmorph.fields.store import load_field  # noqa: E402

SAID = {
    "to": "mlp", "preset": "small", "budget": "2m", "largest": ANY_SIZE, "active": ["pose"], "start": "yes",
    "seed": 7.0,
}  # fmt: skip
TINY = {"width": 16, "depth": 2, "n_frequencies": 4}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf("cpu")


@pytest.fixture
def scene(shelf: Shelf, teacher: Path) -> Scene:
    return shelf.add("<b>spot</b> `${1}`", load_field(teacher), ())


@pytest.fixture
def baker() -> Iterator[Baker]:
    baker = Baker(16)
    yield baker
    baker.close()


def test_an_evicted_scene_takes_its_bake_with_it(shelf: Shelf, baker: Baker, teacher: Path) -> None:
    stored = load_field(teacher)
    bakes = []
    for number in range(MOST_SCENES + 1):
        opened = shelf.add(f"scene {number}", stored, (), passing=True)
        baker.add(opened)
        while opened.bake.state["state"] in ("waiting", "working"):
            time.sleep(0.01)
        assert opened.bake.state["state"] == "ready"
        bakes.append(weakref.ref(opened.bake))
    del opened
    gc.collect()
    assert [bake() is None for bake in bakes] == [True] + [False] * MOST_SCENES


def test_a_scene_evicted_while_it_waits_is_not_baked(shelf: Shelf, baker: Baker, teacher: Path) -> None:
    scene, last = shelf.add("evicted", load_field(teacher), ()), shelf.add("last", load_field(teacher), ())
    scene.is_open = False
    baker.add(scene)
    baker.add(last)
    while last.bake.state["state"] in ("waiting", "working"):
        time.sleep(0.01)
    assert (scene.bake.files, last.bake.state["state"]) == (None, "ready")


def test_form_offers_what_there_is() -> None:
    assert set(FIELDS) == set(catalog.FIELDS)
    assert all(set(PRESETS) == set(field.presets) for field in catalog.FIELDS.values())
    for size in SIZES:
        read_wish(**{**SAID, "largest": size})


def test_form_is_read() -> None:
    wish = read_wish(**{**SAID, "largest": "1.5MB", "budget": "150cs"})
    assert wish == Wish(
        "mlp", "small", Budget(core_seconds=150.0), ConvertOptions(("pose",), True, 1_500_000), 7
    )
    assert read_wish(**SAID).options.max_bytes is None
    assert [read_wish(**{**SAID, "start": start}).options.start for start in STARTS] == [None, True, False]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("budget", "soon", "a budget looks like 90s"),
        ("largest", "some", "a size looks like 500kB"),
        ("seed", -1.0, "a seed is a whole number"),
        ("seed", None, "a seed is a whole number"),
    ],
)
def test_mistakes_in_the_form_are_told(name: str, value: Any, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        read_wish(**{**SAID, name: value})


def test_course_is_told_in_words() -> None:
    looks = [
        {"core_seconds": 3.0, "psnr": 20.0, "stage": None},
        {"core_seconds": 6.0, "psnr": 24.24, "stage": None},
    ]
    shown = running_html("a becomes b", Course(0.25, 1234, 20.0, 24.24, None, looks))
    assert 'value="0.2500"' in shown
    assert "Learning: 25% · step 1,234 · 0:20 · about 1:00 to go" in shown
    assert "<b>24.2</b> dB" in shown
    assert 'class="chart"' in shown
    measured = running_html("a becomes b", Course(0.5, 9, 9.0, 24.24, "student", looks))
    assert "Measuring pictures of the student for the receipt: 50%" in measured
    assert "<progress max" in running_html("a becomes b", None)


def test_mistakes_are_one_line_and_faults_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert "no such &lt;thing&gt;" in failed_html(SettingError("no such <thing>"))
    assert "another" in failed_html(BusyError("another conversion is running"))
    assert not caplog.records
    assert "ZeroDivisionError" in failed_html(ZeroDivisionError())
    assert caplog.records[0].exc_info


def test_tab_starts_hidden_results_and_a_button_to_cancel(shelf: Shelf, scene: Scene, baker: Baker) -> None:
    with gr.Blocks() as blocks, gr.Tabs() as tabs:
        add_convert_tab(blocks, add_scene_tab(tabs, [scene]), [scene], shelf, baker, Desk())
    buttons = {b.value: b for b in blocks.blocks.values() if isinstance(b, gr.Button)}
    assert buttons["Convert"].interactive
    assert not buttons["Cancel"].interactive
    triggers = [(target[1], fn.concurrency_limit) for fn in blocks.fns.values() for target in fn.targets]
    assert sorted(name for name, _ in triggers) == ["click", "click", "click", "unload"]
    assert all(limit is None for name, limit in triggers if name == "click")
    assert not any(fn.api_visibility == "public" for fn in blocks.fns.values() if fn.targets[0][1] == "click")


@pytest.mark.slow
def test_conversion_is_shown_from_its_begin_to_what_it_made(shelf: Shelf, scene: Scene, baker: Baker) -> None:
    wish = Wish(budget=Budget(steps=40), settings=TINY)
    files = []

    async def watch() -> list[tuple[str, Made | None]]:
        seen = []
        async for shown, made in convert("ann", scene, wish, shelf, baker, Desk()):
            seen.append((shown, made))
            files.extend(path.read_bytes() for path in (made.files if made else ()))
        return seen

    seen = asyncio.run(watch())
    assert all("&lt;b&gt;spot&lt;/b&gt; `${1}` becomes MLP (NeRF)" in shown for shown, _ in seen)
    assert "Getting ready" in seen[0][0]
    *_, (shown, made) = seen
    assert made is not None
    assert shelf.get(made.student.id).stored.field.name == "mlp"
    assert baker.state(made.student)["state"] != "absent"
    assert any(name == "PSNR to its teacher" for name, _ in made.student.facts)
    assert [path.suffix for path in made.files] == [".fm", ".html", ".json"]
    assert html.escape(files[1].decode(), quote=True) in shown
    assert '<iframe sandbox title="Receipt"' in shown
    assert not any(path.exists() for path in made.files)


def test_conversion_that_is_left_is_cancelled(shelf: Shelf, scene: Scene, baker: Baker) -> None:
    desk, wish = Desk(), Wish(budget=Budget(seconds=600.0), settings=TINY)

    async def watch() -> list[str]:
        seen = []
        async for shown, _ in convert("ann", scene, wish, shelf, baker, desk):
            seen.append(shown)
            if "Learning" in shown:
                desk.leave("bob")
                desk.leave("ann")
        return seen

    assert asyncio.run(watch())[-1] == CANCELLED


def test_second_conversion_is_told_to_wait(shelf: Shelf, scene: Scene, baker: Baker) -> None:
    desk, wish = Desk(), Wish(budget=Budget(steps=40), settings=TINY)
    desk.begin("ann", scene.stored, "t", wish)

    async def watch() -> None:
        async for _ in convert("bob", scene, replace(wish, seed=1), shelf, baker, desk):
            pass

    with pytest.raises(BusyError, match="another conversion is running on this server; try again"):
        asyncio.run(watch())
    desk.close()
