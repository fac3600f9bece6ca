"""The scene tab: the viewport in a frame, and a table of facts about the fields in it.

A tab that has made a field shows it with `tab.outputs` as the outputs of its event and `tab.showing([scene, ...])` as
what the event's function returns for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from fieldmorph.apps.receipt.html_parts import escaped, table
from fieldmorph.apps.viewer.scenes import OpenScene

NO_SCENE = (
    '<p class="facts-empty">No field is open. Start with <code>fieldmorph view FILE</code>, or with two files to '
    "compare them.</p>"
)


@dataclass(frozen=True)
class SceneTab:
    """The components of the tab that other tabs may change.

    Attributes:
        tabs: the page's tabs; the id of this one is "scene".
        viewport: the frame in which fields are shown.
        facts: the table below it.
    """

    tabs: gr.Tabs
    viewport: gr.HTML
    facts: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """Components for which `showing` returns values."""
        return [self.tabs, self.viewport, self.facts]

    @staticmethod
    def showing(scenes: Sequence[OpenScene]) -> list[Any]:
        """Return values that show one scene, or compare two, and select this tab."""
        return [gr.Tabs(selected="scene"), viewport_frame(scenes), facts_html(scenes)]


def add_scene_tab(tabs: gr.Tabs, scenes: Sequence[OpenScene]) -> SceneTab:
    """Add the tab, with these scenes in its viewport, to the page that is being built."""
    with gr.Tab("Scene", id="scene"):
        viewport = gr.HTML(viewport_frame(scenes), elem_classes="viewport-frame", padding=False)
        facts = gr.HTML(facts_html(scenes), elem_classes="facts", padding=False)
    return SceneTab(tabs, viewport, facts)


def viewport_frame(scenes: Sequence[OpenScene]) -> str:
    """Return the viewport as HTML: a frame, so that its script and style stay apart from the page's."""
    ids = quote(",".join(scene.id for scene in scenes))
    return (
        f'<iframe src="viewport?scenes={ids}" title="3-D viewer" allow="fullscreen" loading="eager"></iframe>'
    )


def facts_html(scenes: Sequence[OpenScene]) -> str:
    """Return a table with a column of facts for each scene; all texts are escaped."""
    if not scenes:
        return NO_SCENE
    names = list(dict.fromkeys(name for scene in scenes for name, _ in scene.facts))
    known = [dict(scene.facts) for scene in scenes]
    rows = [[escaped(name), *(escaped(one.get(name, "–")) for one in known)] for name in names]
    return table("", ["", *(escaped(scene.name) for scene in scenes)], rows, numbers=False)
