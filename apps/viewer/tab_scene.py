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

MAX_COMPARED = 2
NO_SCENE = (
    '<p class="facts-empty">No field is open. Open a file above, or start with <code>fieldmorph view FILE</code>; '
    "with several files any two are compared.</p>"
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
    """Add the tab to the page that is being built, with the first two scenes in its viewport, and a list of more."""
    shown = scenes[:MAX_COMPARED]
    with gr.Tab("Scene", id="scene"):
        if len(scenes) > MAX_COMPARED:
            names = [(scene.name, scene.id) for scene in scenes]
            with gr.Row(elem_classes="choosers"):
                first = gr.Dropdown(names, value=shown[0].id, label="First")
                second = gr.Dropdown([("none", ""), *names], value=shown[1].id, label="Second, to compare")
        viewport = gr.HTML(viewport_frame(shown), elem_classes="viewport-frame", padding=False)
        facts = gr.HTML(facts_html(shown), elem_classes="facts", padding=False)
    if len(scenes) > MAX_COMPARED:
        known = {scene.id: scene for scene in scenes}

        def choose(*ids: str) -> list[str]:
            chosen = [known[scene_id] for scene_id in dict.fromkeys(ids) if scene_id in known]
            return [viewport_frame(chosen), facts_html(chosen)]

        for chooser in (first, second):
            chooser.input(
                choose,
                [first, second],
                [viewport, facts],
                concurrency_limit=None,
                show_progress="hidden",
                api_visibility="private",
            )
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
