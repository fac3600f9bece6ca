"""The conversion tab offers what there is, shows progress and result, and runs nothing of what it shows."""

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
from helpers.receipts import a_receipt
from helpers.small_conversions import shrink_conversions
from helpers.view_fields import ball_field

gr = pytest.importorskip("gradio")

from fieldmorph.apps.jobs.request import ConversionRequest  # noqa: E402
from fieldmorph.apps.viewer.baker import Baker  # noqa: E402
from fieldmorph.apps.viewer.conversion import ConversionProgress, ConversionSlot  # noqa: E402
from fieldmorph.apps.viewer.convert_card import (  # noqa: E402
    CANCELLED,
    done_html,
    failed_html,
    mistakes_html,
    running_html,
)
from fieldmorph.apps.viewer.convert_form import (  # noqa: E402
    ANY_SIZE,
    CHECKED,
    LEVEL_TEXTS,
    PRESETS,
    SIZES,
    WARM_STARTS,
    form_mistakes,
    marked,
    read_form,
)
from fieldmorph.apps.viewer.errors import BusyError  # noqa: E402
from fieldmorph.apps.viewer.scenes import MAX_EVICTABLE, OpenScene, SceneStore  # noqa: E402
from fieldmorph.apps.viewer.tab_convert import DOWNLOADS, Converted, add_convert_tab, convert  # noqa: E402
from fieldmorph.apps.viewer.tab_scene import add_scene_tab  # noqa: E402
from fieldmorph.distill.levels import LEVELS  # noqa: E402
from fieldmorph.fields.budget import Budget  # noqa: E402
from fieldmorph.fields.errors import SettingError  # noqa: E402
from fieldmorph.fields.registry import FIELDS  # noqa: E402
from fieldmorph.fields.store import load_field  # noqa: E402

VALUES = {
    "to": "mlp",
    "preset": "small",
    "budget": "2m",
    "max_size": ANY_SIZE,
    "active": ["pose"],
    "warm_start": "yes",
    "seed": 7.0,
}
TINY = {"width": 16, "depth": 2, "n_frequencies": 4}


@pytest.fixture(autouse=True, scope="module")
def _small_conversions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_conversions(patch)
        yield


@pytest.fixture
def store() -> SceneStore:
    return SceneStore("cpu")


@pytest.fixture
def scene(store: SceneStore, teacher: Path) -> OpenScene:
    return store.add("<b>spot</b> `${1}`", load_field(teacher), ())


@pytest.fixture
def baker() -> Iterator[Baker]:
    baker = Baker(16)
    yield baker
    baker.close()


def test_an_evicted_scene_takes_its_bake_with_it(store: SceneStore, baker: Baker) -> None:
    stored, bakes = ball_field(), []
    for number in range(MAX_EVICTABLE + 1):
        opened = store.add(f"scene {number}", stored, (), evictable=True)
        baker.add(opened)
        while opened.bake.state["state"] in ("waiting", "working"):
            time.sleep(0.01)
        assert opened.bake.state["state"] == "ready"
        bakes.append(weakref.ref(opened.bake))
    del opened
    gc.collect()
    assert [bake() is None for bake in bakes] == [True] + [False] * MAX_EVICTABLE


def test_a_scene_evicted_while_it_waits_is_not_baked(store: SceneStore, baker: Baker, teacher: Path) -> None:
    scene, last = store.add("evicted", load_field(teacher), ()), store.add("last", load_field(teacher), ())
    scene.is_open = False
    baker.add(scene)
    baker.add(last)
    while last.bake.state["state"] in ("waiting", "working"):
        time.sleep(0.01)
    assert (scene.bake.files, last.bake.state["state"]) == ({}, "ready")


def test_form_offers_what_there_is() -> None:
    assert len({field.title for field in FIELDS.values()}) == len(FIELDS)
    assert all(set(PRESETS) == set(field.presets) for field in FIELDS.values())
    for size in SIZES:
        read_form(**{**VALUES, "max_size": size})


def test_form_is_read() -> None:
    request = read_form(**{**VALUES, "max_size": "1.5MB", "budget": "150cs"})
    assert request == ConversionRequest(
        Budget(core_seconds=150.0), to="mlp", active=("pose",), start=True, max_bytes=1_500_000, seed=7
    )
    assert read_form(**VALUES).max_bytes is None
    assert [read_form(**{**VALUES, "warm_start": start}).start for start in WARM_STARTS] == [
        None,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget", "soon", "a budget looks like 90s"),
        ("max_size", "some", "a size looks like 500kB"),
        ("seed", -1.0, "a seed is a whole number"),
        ("seed", None, "a seed is a whole number"),
    ],
)
def test_mistakes_in_the_form_are_reported(name: str, value: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_form(**{**VALUES, name: value})


def test_progress_is_shown_in_words() -> None:
    evaluations = [
        {"core_seconds": 3.0, "psnr": 20.0, "stage": None},
        {"core_seconds": 6.0, "psnr": 24.24, "stage": None},
    ]
    shown = running_html("a to b", ConversionProgress(0.25, 1234, 20.0, 24.24, None, evaluations))
    assert 'value="0.2500"' in shown
    assert "Training: 25% · step 1,234 · 0:20 · about 1:00 left" in shown
    assert "<b>24.2</b> dB" in shown
    assert 'class="chart"' in shown
    measured = running_html("a to b", ConversionProgress(0.5, 9, 9.0, 24.24, "student", evaluations))
    assert "Rendering the student for the receipt: 50%" in measured
    assert "<progress max" in running_html("a to b", None)
    assert "Starting a process" in running_html("a to b", None)


def test_progress_names_what_is_done_and_warns() -> None:
    reading = ConversionProgress(activity="Reading the teacher")
    assert "Reading the teacher …" in running_html("a to b", reading)
    assert " value=" not in running_html("a to b", reading)  # the bar has no end yet
    training = ConversionProgress(0.5, 9, 4.0, activity="render", warnings=["a <longer> budget is better"])
    training.images["student"] = b"png"
    shown = running_html("a to b", training)
    assert "comparing rendered pixels" in shown
    assert "<li>A &lt;longer&gt; budget is better.</li>" in shown
    assert '<img alt="student" src="data:image/png;base64,cG5n">' in shown


def test_messages_of_the_process_are_taken_in() -> None:
    progress = ConversionProgress()
    for message in (
        {"activity": "Reading the teacher"},
        {"warning": "too short"},
        {"image": "student", "png": "cG5n"},
        {"fraction": 0.5, "step": 3, "seconds": 1.0, "core_seconds": 2.0, "psnr": 20.0, "activity": "volume"},
        {"fraction": 0.1, "measuring": "teacher"},
    ):
        progress.update(message)
    assert (progress.activity, progress.warnings, progress.images) == (
        "volume",
        ["too short"],
        {"student": b"png"},
    )
    assert (progress.step, progress.measuring, len(progress.evaluations)) == (3, "teacher", 1)


def test_warnings_of_a_conversion_stay_on_the_page() -> None:
    receipt = {**a_receipt(), "dropped": {"features": "no decoder in common"}}
    shown = done_html("a to b", receipt, "<p>page</p>", ["the budget is short"])
    assert "<li>The budget is short.</li>" in shown
    assert "<li>Stage left out: features, no decoder in common.</li>" in shown
    assert 'class="warnings"' not in done_html("a to b", {**receipt, "dropped": {}}, "")


def test_each_mistake_is_at_its_field(teacher: Path) -> None:
    stored = load_field(teacher)
    assert form_mistakes(VALUES, stored) == {}
    wrong = {"budget": "soon", "max_size": "some", "seed": -1.0}
    mistakes = form_mistakes({**VALUES, **wrong}, stored)
    assert list(mistakes) == list(wrong)
    updates = dict(zip(CHECKED, marked(mistakes), strict=True))
    assert updates["budget"]["info"].startswith("A budget looks like 90s")
    assert updates["budget"]["elem_classes"] == ["invalid"]
    assert updates["preset"] == {"__type__": "update", "info": CHECKED["preset"].info, "elem_classes": []}
    assert "<li><b>Random seed</b>: a seed is a whole number" in mistakes_html(mistakes)
    assert "at most 15m here" in form_mistakes({**VALUES, "budget": "1h"}, stored)["budget"]
    large = {**VALUES, "to": "hashgrid", "preset": "paper", "budget": "2m"}
    monstrous = form_mistakes({**large, "max_size": "900MB"}, stored)
    assert "at most 64 MB" in monstrous["max_size"]


def test_levels_have_names_for_people() -> None:
    assert tuple(LEVEL_TEXTS) == LEVELS


def test_mistakes_are_one_line_and_faults_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert "no such &lt;thing&gt;" in failed_html(SettingError("no such <thing>"))
    assert "another" in failed_html(BusyError("another conversion is running"))
    assert not caplog.records
    assert "ZeroDivisionError" in failed_html(ZeroDivisionError())
    assert caplog.records[0].exc_info


def test_tab_starts_hidden_results_and_a_button_to_cancel(
    store: SceneStore, scene: OpenScene, baker: Baker
) -> None:
    with gr.Blocks() as blocks, gr.Tabs() as tabs:
        add_convert_tab(blocks, add_scene_tab(tabs, [scene]), [scene], store, baker, ConversionSlot())
    buttons = {b.value: b for b in blocks.blocks.values() if isinstance(b, gr.Button)}
    assert buttons["Convert"].interactive
    assert not buttons["Cancel"].interactive
    triggers = [(target[1], fn.concurrency_limit) for fn in blocks.fns.values() for target in fn.targets]
    assert sorted(name for name, _ in triggers) == [*["blur"] * 3, *["click"] * 3, *["input"] * 2, "unload"]
    assert all(limit is None for name, limit in triggers if name != "unload")
    assert not any(
        fn.api_visibility == "public" for fn in blocks.fns.values() if fn.targets[0][1] != "unload"
    )
    downloads = [one.label for one in blocks.blocks.values() if isinstance(one, gr.DownloadButton)]
    assert downloads == list(DOWNLOADS)


@pytest.mark.slow
def test_conversion_is_shown_from_its_begin_to_what_it_made(
    store: SceneStore, scene: OpenScene, baker: Baker
) -> None:
    request = ConversionRequest(Budget(steps=40), overrides=TINY)
    files = []

    async def watch() -> list[tuple[str, Converted | None]]:
        seen = []
        async for shown, made in convert("ann", scene, request, store, baker, ConversionSlot()):
            seen.append((shown, made))
            files.extend(path.read_bytes() for path in (made.files if made else ()))
        return seen

    seen = asyncio.run(watch())
    assert all("&lt;b&gt;spot&lt;/b&gt; `${1}` to MLP (NeRF)" in shown for shown, _ in seen)
    assert "Starting a process" in seen[0][0]
    assert any("Reading the teacher" in text for text, _ in seen)
    assert any('<img alt="teacher"' in text for text, _ in seen)
    *_, (shown, made) = seen
    assert made is not None
    assert store.get(made.student.id).stored.field.name == "mlp"
    assert baker.state(made.student)["state"] != "absent"
    assert any(name == "PSNR to the teacher" for name, _ in made.student.facts)
    assert [path.suffix for path in made.files] == [".fm", ".html", ".json"]
    assert html.escape(files[1].decode(), quote=True) in shown
    assert '<iframe sandbox title="Receipt"' in shown
    assert not any(path.exists() for path in made.files)


def test_conversion_that_is_left_is_cancelled(store: SceneStore, scene: OpenScene, baker: Baker) -> None:
    slot, request = ConversionSlot(), ConversionRequest(Budget(seconds=600.0), overrides=TINY)

    async def watch() -> list[str]:
        seen = []
        async for shown, _ in convert("ann", scene, request, store, baker, slot):
            seen.append(shown)
            if "Training" in shown:
                slot.cancel("bob")
                slot.cancel("ann")
        return seen

    assert asyncio.run(watch())[-1] == CANCELLED


def test_second_conversion_has_to_wait(store: SceneStore, scene: OpenScene, baker: Baker) -> None:
    slot, request = ConversionSlot(), ConversionRequest(Budget(steps=40), overrides=TINY)
    slot.start("ann", scene.stored, "t", request)

    async def watch() -> None:
        async for _ in convert("bob", scene, replace(request, seed=1), store, baker, slot):
            pass

    with pytest.raises(BusyError, match="another conversion is running on this server; try again"):
        asyncio.run(watch())
    slot.close()
