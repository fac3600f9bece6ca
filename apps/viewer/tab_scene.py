"""The scene tab: the stage in a frame, and what is known of the fields on it.

Another tab that has made a field shows it with `tab.outputs` as the outputs of its event and
`tab.showing([scene, ...])` as what the event's function returns for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from fieldmorph.apps.receipt.html_parts import escaped, table
from fieldmorph.apps.viewer.scenes import Scene

NOTHING = (
    '<p class="facts-empty">No field is open. Start with <code>fieldmorph view FILE</code>, or with two files to '
    "compare them.</p>"
)


@dataclass(frozen=True)
class SceneTab:
    """The tab's parts that other tabs may change.

    Attributes:
        tabs: the page's tabs; the scene's is called "scene".
        stage, facts: what shows the fields.
    """

    tabs: gr.Tabs
    stage: gr.HTML
    facts: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """Components for which `showing` returns values."""
        return [self.tabs, self.stage, self.facts]

    @staticmethod
    def showing(scenes: Sequence[Scene]) -> list[Any]:
        """Show one scene, or two side by side, and turn to this tab."""
        return [gr.Tabs(selected="scene"), stage_frame(scenes), facts_html(scenes)]


def add_scene_tab(tabs: gr.Tabs, scenes: Sequence[Scene]) -> SceneTab:
    """Add the tab to the page that is being built, with these scenes on the stage."""
    with gr.Tab("Scene", id="scene"):
        stage = gr.HTML(stage_frame(scenes), elem_classes="stage-frame", padding=False)
        facts = gr.HTML(facts_html(scenes), elem_classes="facts", padding=False)
    return SceneTab(tabs, stage, facts)


def stage_frame(scenes: Sequence[Scene]) -> str:
    """The stage, in a frame: its script and style stay apart from the page's."""
    ids = quote(",".join(scene.id for scene in scenes))
    return (
        f'<iframe src="/stage?scenes={ids}" title="3-D viewer" allow="fullscreen" loading="eager"></iframe>'
    )


def facts_html(scenes: Sequence[Scene]) -> str:
    """Facts of the scenes side by side; names and values may hold anything."""
    if not scenes:
        return NOTHING
    names = list(dict.fromkeys(name for scene in scenes for name, _ in scene.facts))
    known = [dict(scene.facts) for scene in scenes]
    rows = [[escaped(name), *(escaped(one.get(name, "–")) for one in known)] for name in names]
    return table("", ["", *(escaped(scene.name) for scene in scenes)], rows, numbers=False)
