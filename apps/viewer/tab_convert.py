"""The tab that converts a field: a form, the progress of the conversion, and its result next to the teacher."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from fieldmorph.apps.console.exits import explain
from fieldmorph.apps.console.progress import duration
from fieldmorph.apps.jobs.request import ConversionRequest, parse_bytes
from fieldmorph.apps.receipt.curve import curve_html
from fieldmorph.apps.receipt.html_parts import details, escaped
from fieldmorph.apps.receipt.page import headline, parts_style
from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.conversion import ConversionProgress, ConversionSlot
from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.tab_scene import SceneTab
from fieldmorph.apps.web import assets
from fieldmorph.distill.levels import LEVELS
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kinds import FIELDS, PRESETS

WARM_STARTS = {"where it helps": None, "yes": True, "no": False}
ANY_SIZE = "the preset's size"
SIZES = [ANY_SIZE, "500kB", "1MB", "2MB", "5MB", "20MB"]
EMPTY = (
    "<h3>No conversion yet</h3><p>Choose the target representation and a time budget. The student learns from the "
    "field itself and needs no training images. Its PSNR is plotted here while it trains.</p>"
)
CANCELLED = "<h3>Cancelled</h3><p>Nothing was saved.</p>"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        student: the open scene.
        files: checkpoint, receipt as a page, and receipt as JSON.
    """

    student: OpenScene
    files: tuple[Path, Path, Path]


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
    with gr.Tab("Convert", id="convert"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            form = _add_form(scenes)
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
                compare = gr.Button("Compare with teacher", variant="primary", min_width=220)
                files = [
                    gr.DownloadButton(text, min_width=110) for text in ("Field", "Receipt", "Receipt as JSON")
                ]
            pair = gr.State(())  # within the tab: Gradio counts a tab's siblings of every kind

    async def run(request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        owner, settings = str(request.session_hash), dict(zip(form, values, strict=True))
        ready = {start: gr.Button(interactive=True), stop: gr.Button(interactive=False)}
        busy = {start: gr.Button(interactive=False), stop: gr.Button(interactive=True)}
        yield {**busy, done: gr.Row(visible=False)}
        try:
            teacher = store.get(settings.pop("teacher"))
            async with aclosing(convert(owner, teacher, read_form(**settings), store, baker, slot)) as steps:
                async for html, result in steps:
                    if result is None:
                        yield {card: html}
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
            yield {card: failed_html(error)}
        yield ready

    async def cancel(request: gr.Request) -> None:
        slot.cancel(str(request.session_hash))

    def open_pair(ids: Sequence[str]) -> list[Any]:
        return scene_tab.showing([store.get(scene_id) for scene_id in ids])

    hidden: Any = {"show_progress": "hidden", "api_visibility": "private"}
    start.click(
        run, list(form.values()), [start, stop, done, card, pair, *files], concurrency_limit=None, **hidden
    )
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
        async for progress in job.run():
            yield running_html(title, progress), None
        data, page = job.receipts
        student = await asyncio.to_thread(partial(store.open, job.output, evictable=True))
        baker.add(student)
        html = done_html(title, json.loads(data.read_bytes()), page.read_text(encoding="utf-8"))
        yield html, Converted(student, (job.output, page, data))
    except Cancelled:
        yield CANCELLED, None
    finally:
        job.close()


def read_form(
    to: str,
    preset: str,
    budget: str,
    max_size: str,
    active: Sequence[str],
    warm_start: str,
    seed: float | None,
) -> ConversionRequest:
    """Return the request that the form's values state.

    Raises:
        SettingError: a value cannot be used.
    """
    limit = None if max_size in (ANY_SIZE, "", None) else parse_bytes(str(max_size))
    if seed is None or not 0 <= seed < 1 << 31:
        raise SettingError(f"a seed is a whole number from 0 to {(1 << 31) - 1}; got {seed}")
    return ConversionRequest(
        Budget.parse(str(budget)),
        to=to,
        preset=preset,
        active=tuple(active),
        start=WARM_STARTS.get(warm_start),
        max_bytes=limit,
        seed=int(seed),
    )


def running_html(title: str, progress: ConversionProgress | None) -> str:
    """Return HTML about a conversion that runs; None before it has started."""
    if progress is None:
        return f"<h3>{title}</h3>{_bar(None)}<p>Preparing …</p>"
    if progress.measuring is not None:
        text = (
            f"Training finished. Rendering the {progress.measuring} for the receipt: {progress.fraction:.0%}"
        )
    else:
        parts = [f"step {progress.step:,}", duration(progress.seconds)]
        if 0 < progress.fraction < 1 and progress.seconds > 1:
            parts.append(f"about {duration(progress.seconds * (1 / progress.fraction - 1))} left")
        text = f"Training: {progress.fraction:.0%} · {' · '.join(parts)}"
    psnr = (
        "" if progress.psnr is None else f'<p class="psnr"><b>{progress.psnr:.1f}</b> dB to the teacher</p>'
    )
    return f"<h3>{title}</h3>{_bar(progress.fraction)}<p>{text}</p>{psnr}{curve_html(progress.evaluations)}"


def done_html(title: str, receipt: Mapping[str, Any], page: str) -> str:
    """Return HTML about a finished conversion: figures, curve, and the receipt's page in a frame without scripts."""
    frame = f'<iframe sandbox title="Receipt" loading="lazy" srcdoc="{escaped(page)}"></iframe>'
    curve = [point for point in receipt["curve"] if point["psnr"] is not None]
    return f"<h3>{title}</h3>{headline(receipt)}{curve_html(curve)}{details('Full receipt', frame)}"


def failed_html(error: Exception) -> str:
    """Return HTML with the error in one line; an unexpected error is logged with its traceback."""
    known = explain(error)
    if known is None and not isinstance(error, BusyError):
        log.error("a conversion failed", exc_info=error)
    message = known.message if known else str(error) or type(error).__name__
    return f'<h3>The conversion failed</h3><p role="alert" class="failed">{escaped(message)}</p>'


def _add_form(scenes: Sequence[OpenScene]) -> dict[str, Any]:
    """Add the components; return them by the argument of `read_form`, and `teacher`."""
    names = [(scene.name, scene.id) for scene in scenes]
    other = "hashgrid" if scenes[0].stored.field.name == "mlp" else "mlp"
    targets = [(title, name) for name, title in FIELDS.titles.items()]
    teacher = gr.Dropdown(names, value=scenes[0].id, label="Teacher", visible=len(scenes) > 1)
    to = gr.Radio(targets, value=other, label="Target representation")
    preset = gr.Radio(
        [(text, name) for name, text in PRESETS.items()], value=next(iter(PRESETS)), label="Preset"
    )
    budget = gr.Textbox("2m", label="Time", info="90s, 2m, or 150cs for core-seconds", max_lines=1)
    with gr.Accordion("More settings", open=False):
        max_size = gr.Dropdown(
            SIZES,
            value=ANY_SIZE,
            allow_custom_value=True,
            label="Maximum file size",
            info="takes the largest size of the field that fits",
        )
        active = gr.CheckboxGroup(list(LEVELS), value=list(LEVELS), label="Active sampling")
        warm_start = gr.Radio(list(WARM_STARTS), value="where it helps", label="Closed-form warm start")
        seed = gr.Number(0, precision=0, minimum=0, label="Seed")
    return {
        "teacher": teacher,
        "to": to,
        "preset": preset,
        "budget": budget,
        "max_size": max_size,
        "active": active,
        "warm_start": warm_start,
        "seed": seed,
    }


def _bar(fraction: float | None) -> str:
    value = "" if fraction is None else f' value="{fraction:.4f}"'
    return f'<progress max="1"{value}></progress>'


def _style() -> str:
    return assets.text("gradio/convert.css") + parts_style()
