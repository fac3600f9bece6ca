"""The viewer's page: tabs made with Gradio, in fieldmorph's colors, mounted behind the viewer's own routes."""

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
from fastapi import FastAPI
from gradio.themes.utils import colors, fonts, sizes
from starlette.routing import Route

from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.conversion import ConversionSlot
from fieldmorph.apps.viewer.render_pool import FairRenderPool
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.tab_convert import add_convert_tab
from fieldmorph.apps.viewer.tab_scene import add_scene_tab
from fieldmorph.apps.web import assets

# Outside of what Gradio's own handling of style sheets reaches.
MARGINS = (
    ".gradio-container { padding: 0 !important; } "
    ".main.fillable { padding: 10px clamp(8px, 2vw, 28px) 24px !important; } "
    ".dark, .dark .gradio-container { --color-accent: #5fbcc6 !important; }"  # a theme has one value for both
)

# Variables of Gradio's themes in a light and a dark page; those of the viewport and the receipt are the same.
INK, SOFT, LINE = ("#1a1e23", "#e6e9ed"), ("#5c6672", "#9da7b3"), ("#d5dbe1", "#343d47")
PAPER, WASH, ACCENT = ("#ffffff", "#171c21"), ("#eef1f4", "#262e36"), ("#0f6b74", "#5fbcc6")
PALETTE = {
    "body_background_fill": ("#ffffff", "#101418"),
    "body_text_color": INK,
    "body_text_color_subdued": SOFT,
    "block_background_fill": PAPER,
    "block_border_color": LINE,
    "block_label_text_color": INK,
    "block_title_text_color": INK,
    "block_info_text_color": SOFT,
    "border_color_primary": LINE,
    "border_color_accent": ACCENT,
    "background_fill_primary": PAPER,
    "background_fill_secondary": WASH,
    "link_text_color": ACCENT,
    "input_background_fill": WASH,
    "input_background_fill_focus": WASH,
    "input_placeholder_color": SOFT,
    "checkbox_background_color": PAPER,
    "checkbox_background_color_selected": ACCENT,
    "checkbox_border_color": ("#8a95a1", "#6b7682"),
    "checkbox_border_color_selected": ACCENT,
    "checkbox_label_background_fill": WASH,
    "checkbox_label_background_fill_hover": LINE,
    "checkbox_label_background_fill_selected": WASH,
    "checkbox_label_text_color": INK,
    "checkbox_label_text_color_selected": INK,
    "button_primary_background_fill": ACCENT,
    "button_primary_background_fill_hover": ("#0c565d", "#7fcdd5"),
    "button_primary_border_color": ACCENT,
    "button_primary_text_color": ("#ffffff", "#101418"),
    "button_secondary_background_fill": WASH,
    "button_secondary_background_fill_hover": LINE,
    "button_secondary_text_color": INK,
}

Tensor = tuple[Any, Any]  # explorer of a tensor model, and measurements that it was not fitted to or None

DELETE_CACHE = (
    600,
    3600,
)  # seconds between two clean-ups of temporary files, and the age at which they are removed
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def make_page(routes: Sequence[Route], blocks: gr.Blocks, root_path: str = "") -> FastAPI:
    """Return an ASGI application that serves `routes`, and Gradio's page below all other paths.

    Args:
        root_path: path or address of the server behind a proxy; empty: none.
    """
    app = FastAPI(routes=list(routes), docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        root_path=root_path.rstrip("/") or None,
        allowed_paths=[],
        max_file_size=0,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=make_theme(),
        head=f"<style>{MARGINS}</style>",
        css=assets.text("gradio/theme.css"),
    )
    return app


def make_blocks(
    scenes: Sequence[OpenScene],
    store: SceneStore,
    pool: FairRenderPool,
    baker: Baker,
    slot: ConversionSlot,
    tensor: Tensor | None = None,
) -> gr.Blocks:
    """Return all tabs: scene and conversions where there are scenes, a tensor model where there is one."""
    with gr.Blocks(
        title="fieldmorph", analytics_enabled=False, delete_cache=DELETE_CACHE, fill_width=True
    ) as blocks:
        gr.HTML('<header class="brand"><h1>fieldmorph</h1></header>', padding=False)
        with gr.Tabs() as tabs:
            if scenes or tensor is None:
                scene_tab = add_scene_tab(tabs, scenes)
            if scenes:
                add_convert_tab(blocks, scene_tab, scenes, store, baker, slot)
            if tensor is not None:
                from fieldmorph.apps.viewer.tab_tensor import add_tensor_tab  # needs the extra `bayes`

                add_tensor_tab(tensor[0], pool, measured=tensor[1])
    return blocks


def make_theme() -> gr.themes.Base:
    """Return Gradio's base theme in fieldmorph's colors, with fonts of the system: none is downloaded."""
    theme = gr.themes.Base(
        primary_hue=colors.teal,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_md,
        font=[fonts.Font(name) for name in SANS],
        font_mono=[fonts.Font(name) for name in MONO],
    )
    return theme.set(
        color_accent=ACCENT[0],
        **{name: light for name, (light, _) in PALETTE.items()},
        **{f"{name}_dark": dark for name, (_, dark) in PALETTE.items()},
    )
