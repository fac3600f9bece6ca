"""The tab that converts a field: a form, the progress of the conversion, and its result next to the teacher."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.receipt.html_parts import escaped
from fieldmorph.apps.receipt.page import parts_style
from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.conversion import ConversionSlot
from fieldmorph.apps.viewer.convert_card import (
    CANCELLED,
    EMPTY,
    done_html,
    failed_html,
    mistakes_html,
    running_html,
)
from fieldmorph.apps.viewer.convert_form import CHECKED, add_form, form_mistakes, marked, read_form
from fieldmorph.apps.viewer.errors import Cancelled
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.tab_scene import SceneTab
from fieldmorph.apps.web import assets
from fieldmorph.fields.kinds import FIELDS

DOWNLOADS = ("Download student (.fm)", "Download receipt (.html)", "Download receipt (.json)")


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        student: the open scene.
        files: checkpoint, receipt as a page, and receipt as JSON.
    """

    student: OpenScene
    files: tuple[Path, Path, Path]


class _Components(NamedTuple):
    """What the tab holds: inputs by name, buttons, the card of a conversion, and the row that follows its end."""

    form: dict[str, Any]
    start: gr.Button
    stop: gr.Button
    card: gr.HTML
    done: gr.Row
    compare: gr.Button
    files: list[gr.DownloadButton]
    pair: gr.State


def _components(scenes: Sequence[OpenScene]) -> _Components:
    with gr.Tab("Convert", id="convert"), gr.Row(elem_classes="convert-tab"):
        with gr.Column(scale=2, min_width=300):
            form = add_form(scenes)
            with gr.Row():
                start = gr.Button("Convert", variant="primary", min_width=120)
                stop = gr.Button("Cancel", interactive=False, min_width=100)
        with gr.Column(scale=3, min_width=320):
            card = gr.HTML(
                EMPTY,
                html_template='<div class="converter">${value}</div>',
                css_template=_style(),
                js_on_load=None,
                apply_default_css=False,
                padding=False,
            )
            with gr.Row(visible=False) as done:
                compare = gr.Button("Compare with teacher", variant="primary", min_width=200)
                files = [gr.DownloadButton(text, size="md", min_width=200) for text in DOWNLOADS]
            pair = gr.State(())  # within the tab: Gradio counts a tab's siblings of every kind
    return _Components(form, start, stop, card, done, compare, files, pair)


def add_convert_tab(
    blocks: gr.Blocks,
    scene_tab: SceneTab,
    scenes: Sequence[OpenScene],
    store: SceneStore,
    baker: Baker,
    slot: ConversionSlot,
) -> None:
    """Add the tab to the page that is being built.

    Args:
        blocks: the page; when a visitor leaves it, the conversion of that session is cancelled.
        scene_tab: shows the result.
        scenes: that can be converted, at least one.
        store, baker: get the student.
        slot: runs the conversion.
    """
    form, start, stop, card, done, compare, files, pair = _components(scenes)

    async def run(request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        owner, settings = str(request.session_hash), dict(zip(form, values, strict=True))
        ready = {start: gr.Button(interactive=True), stop: gr.Button(interactive=False)}
        busy = {start: gr.Button(interactive=False), stop: gr.Button(interactive=True)}
        try:
            teacher = store.get(settings.pop("teacher"))
            mistakes = form_mistakes(settings, teacher.stored)
            begun = {done: gr.Row(visible=False), **dict(zip(checked, marked(mistakes), strict=True))}
            if mistakes:
                yield {**begun, card: mistakes_html(mistakes)}
                return
            yield {**begun, **busy}
            async with aclosing(convert(owner, teacher, read_form(**settings), store, baker, slot)) as steps:
                async for html, result in steps:
                    if result is None:
                        yield {card: html, **busy}  # again: on a slow page a message may be lost
                        continue
                    paths = dict(zip(files, map(str, result.files), strict=True))
                    # The last message: after one that skips it a button to download has no file any more.
                    yield {
                        card: html,
                        done: gr.Row(visible=True),
                        pair: (teacher.id, result.student.id),
                        **paths,
                        **ready,
                    }
                    return
        except Exception as error:
            yield {card: failed_html(error), **ready}
            return
        yield ready

    def check(*values: Any) -> list[dict[str, Any]]:
        settings = dict(zip(form, values, strict=True))
        return marked(form_mistakes(settings, store.get(settings.pop("teacher")).stored))

    async def cancel(request: gr.Request) -> None:
        slot.cancel(str(request.session_hash))

    def open_pair(ids: Sequence[str]) -> list[Any]:
        return scene_tab.showing([store.get(scene_id) for scene_id in ids])

    hidden: Any = {"show_progress": "hidden", "api_visibility": "private"}
    inputs, checked = list(form.values()), [form[name] for name in CHECKED]
    outputs = [start, stop, done, card, pair, *files, *checked]
    start.click(run, inputs, outputs, concurrency_limit=None, **hidden)
    edits = [
        form["budget"].blur,
        form["max_size"].blur,
        form["seed"].blur,
        form["preset"].input,
        form["to"].input,
    ]
    for edit in edits:
        edit(check, inputs, checked, concurrency_limit=None, **hidden)
    stop.click(cancel, concurrency_limit=None, **hidden)
    compare.click(open_pair, pair, scene_tab.outputs, concurrency_limit=None, **hidden)
    blocks.unload(cancel)


async def convert(
    owner: str,
    teacher: OpenScene,
    request: ConversionRequest,
    store: SceneStore,
    baker: Baker,
    slot: ConversionSlot,
) -> AsyncGenerator[tuple[str, Converted | None]]:
    """Yield HTML for the page while a field is converted, and at last the result.

    The files of the result are removed when the generator is closed.

    Raises:
        BusyError, InputError, SettingError: the conversion cannot start, or failed.
    """
    title = f"{escaped(teacher.name)} to {escaped(FIELDS.titles[request.to])}"
    yield running_html(title, None), None
    job = await asyncio.to_thread(slot.start, owner, teacher.stored, teacher.name, request)
    try:
        warnings: list[str] = []
        async for progress in job.run():
            warnings = progress.warnings
            yield running_html(title, progress), None
        data, page = job.receipts
        student = await asyncio.to_thread(partial(store.open, job.output, evictable=True))
        baker.add(student)
        html = done_html(title, json.loads(data.read_bytes()), page.read_text(encoding="utf-8"), warnings)
        yield html, Converted(student, (job.output, page, data))
    except Cancelled:
        yield CANCELLED, None
    finally:
        job.close()


def _style() -> str:
    return assets.text("gradio/convert.css") + parts_style()
