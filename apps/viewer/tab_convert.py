"""The tab that converts a field: what it shall become, how far that is, and the result beside its teacher."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
import gradio as gr

from fieldmorph.apps.console.exits import explain
from fieldmorph.apps.console.progress import duration
from fieldmorph.apps.jobs.convert import ConvertOptions, parse_bytes
from fieldmorph.apps.receipt.curve import curve_html
from fieldmorph.apps.receipt.html_parts import details, escaped
from fieldmorph.apps.receipt.page import headline, parts_style
from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.conversion import Course, Desk, Ended, Wish
from fieldmorph.apps.viewer.render_pool import BusyError
from fieldmorph.apps.viewer.scenes import Scene, Shelf
from fieldmorph.apps.viewer.tab_scene import SceneTab
from fieldmorph.apps.web import assets
from fieldmorph.distill.active import LEVELS
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError

FIELDS = {
    "mlp": "MLP (NeRF)", "hashgrid": "Hash grid (Instant-NGP)", "vm": "Planes and lines (TensoRF-VM)",
    "cp": "Lines (TensoRF-CP)", "voxels": "Voxels (Plenoxels)",
}  # fmt: skip
PRESETS = {"small": "small, for CPUs", "paper": "as published"}
STARTS = {"where it helps": None, "yes": True, "no": False}
ANY_SIZE = "whatever the preset takes"
SIZES = [ANY_SIZE, "500kB", "1MB", "2MB", "5MB", "20MB"]
EMPTY = (
    "<h3>Nothing converted yet</h3><p>Choose what the field shall become and how long that may take. The new field "
    "learns from the old one and needs no photographs. How good it has become is drawn here meanwhile.</p>"
)
CANCELLED = "<h3>Cancelled</h3><p>Nothing was kept.</p>"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """What a conversion left: the new field on the shelf, its file, and its receipt as a page and as JSON."""

    student: Scene
    files: tuple[Path, Path, Path]


def add_convert_tab(
    blocks: gr.Blocks, scene_tab: SceneTab, scenes: Sequence[Scene], shelf: Shelf, baker: Baker, desk: Desk
) -> None:
    """Add the tab to the page that is being built.

    Args:
        scenes: what can be converted, at least one.
        shelf, baker: get what is made, so that it can be seen.
        desk: where the work is done; what a session began ends when its page is left.
    """
    with gr.Tab("Convert", id="convert"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            form = _add_form(scenes)
            with gr.Row():
                begin = gr.Button("Convert", variant="primary", min_width=120)
                stop = gr.Button("Cancel", interactive=False, min_width=100)
        with gr.Column(scale=3, min_width=320):
            card = gr.HTML(
                EMPTY, html_template='<div class="converter">${value}</div>', css_template=_style(), js_on_load=None,
                apply_default_css=False, padding=False,
            )  # fmt: skip
            with gr.Row(visible=False) as done:
                beside = gr.Button("Open beside its teacher", variant="primary", min_width=200)
                files = [
                    gr.DownloadButton(text, min_width=110) for text in ("Field", "Receipt", "Receipt as JSON")
                ]
            pair = gr.State(())  # within the tab: Gradio counts a tab's siblings of every kind

    async def run(request: gr.Request, *asked: Any) -> AsyncIterator[dict[Any, Any]]:
        owner, values = str(request.session_hash), dict(zip(form, asked, strict=True))
        ready = {begin: gr.Button(interactive=True), stop: gr.Button(interactive=False)}
        yield {
            begin: gr.Button(interactive=False),
            stop: gr.Button(interactive=True),
            done: gr.Row(visible=False),
        }
        try:
            teacher = shelf.get(values.pop("teacher"))
            async with aclosing(convert(owner, teacher, read_wish(**values), shelf, baker, desk)) as steps:
                async for shown, made in steps:
                    if made is None:
                        yield {card: shown}
                        continue
                    paths = dict(zip(files, map(str, made.files), strict=True))
                    # The last message: after one that skips it a button to download has no file any more.
                    yield {
                        card: shown, done: gr.Row(visible=True), pair: (teacher.id, made.student.id),
                        **paths, **ready,
                    }  # fmt: skip
                    return
        except Exception as error:
            yield {card: failed_html(error)}
        yield ready

    async def leave(request: gr.Request) -> None:
        desk.leave(str(request.session_hash))

    def open_pair(ids: Sequence[str]) -> list[Any]:
        return scene_tab.showing([shelf.get(name) for name in ids])

    hidden: Any = {"show_progress": "hidden", "api_visibility": "private"}
    begin.click(
        run, list(form.values()), [begin, stop, done, card, pair, *files], concurrency_limit=None, **hidden
    )  # fmt: skip
    stop.click(leave, concurrency_limit=None, **hidden)
    beside.click(open_pair, pair, scene_tab.outputs, concurrency_limit=None, **hidden)
    blocks.unload(leave)


async def convert(
    owner: str, teacher: Scene, wish: Wish, shelf: Shelf, baker: Baker, desk: Desk
) -> AsyncGenerator[tuple[str, Made | None]]:
    """What the page shows while a field is converted, and at last what was made, whose files go when this is left.

    Raises:
        BusyError, InputError, SettingError: it cannot be, or came to nothing.
    """
    title = f"{escaped(teacher.name)} becomes {escaped(FIELDS[wish.to])}"
    yield running_html(title, None), None
    job = await asyncio.to_thread(desk.begin, owner, teacher.stored, teacher.name, wish)
    try:
        async for course in job.run():
            yield running_html(title, course), None
        data, page = job.receipts
        student = await asyncio.to_thread(partial(shelf.open, job.output, passing=True))
        baker.add(student)
        shown = done_html(title, json.loads(data.read_bytes()), page.read_text(encoding="utf-8"))
        yield shown, Made(student, (job.output, page, data))
    except Ended:
        yield CANCELLED, None
    finally:
        job.end()


def read_wish(
    to: str, preset: str, budget: str, largest: str, active: Sequence[str], start: str, seed: float | None
) -> Wish:
    """What a form says.

    Raises:
        SettingError: something that cannot be.
    """
    most = None if largest in (ANY_SIZE, "", None) else parse_bytes(str(largest))
    if seed is None or not 0 <= seed < 1 << 31:
        raise SettingError(f"a seed is a whole number from 0 to {(1 << 31) - 1}; got {seed}")
    options = ConvertOptions(active=tuple(active), start=STARTS.get(start), max_bytes=most)
    return Wish(to, preset, Budget.parse(str(budget)), options, int(seed))


def running_html(title: str, course: Course | None) -> str:
    """A conversion that runs; None: it is about to."""
    if course is None:
        return f"<h3>{title}</h3>{_bar(None)}<p>Getting ready ...</p>"
    if course.measuring is not None:
        told = f"Learned. Measuring pictures of the {course.measuring} for the receipt: {course.share:.0%}"
    else:
        parts = [f"step {course.step:,}", duration(course.seconds)]
        if 0 < course.share < 1 and course.seconds > 1:
            parts.append(f"about {duration(course.seconds * (1 / course.share - 1))} to go")
        told = f"Learning: {course.share:.0%} · {' · '.join(parts)}"
    psnr = "" if course.psnr is None else f'<p class="psnr"><b>{course.psnr:.1f}</b> dB to its teacher</p>'
    return f"<h3>{title}</h3>{_bar(course.share)}<p>{told}</p>{psnr}{curve_html(course.looks)}"


def done_html(title: str, receipt: Mapping[str, Any], page: str) -> str:
    """A conversion that came to its end: figures, curve, and the whole receipt in a frame without scripts."""
    frame = f'<iframe sandbox title="Receipt" loading="lazy" srcdoc="{escaped(page)}"></iframe>'
    looks = [look for look in receipt["curve"] if look["psnr"] is not None]
    return f"<h3>{title}</h3>{headline(receipt)}{curve_html(looks)}{details('The whole receipt', frame)}"


def failed_html(error: Exception) -> str:
    """One line; what is no mistake of a user's stands in the server's log as well."""
    known = explain(error)
    if known is None and not isinstance(error, BusyError):
        log.error("a conversion failed", exc_info=error)
    told = known.message if known else str(error) or type(error).__name__
    return f'<h3>This could not be converted</h3><p role="alert" class="failed">{escaped(told)}</p>'


def _add_form(scenes: Sequence[Scene]) -> dict[str, Any]:
    """The components by the names of what they say."""
    names = [(scene.name, scene.id) for scene in scenes]
    other = "hashgrid" if scenes[0].stored.field.name == "mlp" else "mlp"
    teacher = gr.Dropdown(names, value=scenes[0].id, label="Field", visible=len(scenes) > 1)
    to = gr.Radio([(text, name) for name, text in FIELDS.items()], value=other, label="Becomes")
    preset = gr.Radio([(text, name) for name, text in PRESETS.items()], value="small", label="Size")
    budget = gr.Textbox("2m", label="Time", info="90s, 2m, or 150cs of core-seconds", max_lines=1)
    with gr.Accordion("More", open=False):
        largest = gr.Dropdown(
            SIZES, value=ANY_SIZE, allow_custom_value=True, label="File at most",
            info="the largest of the field's sizes that fits is taken",
        )  # fmt: skip
        active = gr.CheckboxGroup(list(LEVELS), value=list(LEVELS), label="Look again at the worst")
        start = gr.Radio(list(STARTS), value="where it helps", label="Begin with a closed form")
        seed = gr.Number(0, precision=0, minimum=0, label="Seed")
    return {
        "teacher": teacher, "to": to, "preset": preset, "budget": budget, "largest": largest, "active": active,
        "start": start, "seed": seed,
    }  # fmt: skip


def _bar(share: float | None) -> str:
    value = "" if share is None else f' value="{share:.4f}"'
    return f'<progress max="1"{value}></progress>'


def _style() -> str:
    return assets.text("gradio/convert.css") + parts_style()
