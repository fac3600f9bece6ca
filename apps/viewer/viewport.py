"""The page on which scenes stand, in a frame of its own: markup, style and script, all from this server."""

import functools

from fieldmorph.apps.bake.web_export import PAGE_STYLE
from fieldmorph.apps.web import assets

STAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@functools.cache
def stage_page() -> str:
    """The page; which scenes it shows is in its address."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">'
        '<title>fieldmorph</title>\n<link rel="icon" href="data:,"><link rel="stylesheet" href="/stage.css"></head>\n'
        f'<body>{assets.text("viewport/viewport.html")}\n<script src="/stage.js"></script>\n</body></html>\n'
    )


@functools.cache
def stage_style() -> str:
    """Return the style sheet of the page."""
    return PAGE_STYLE + assets.style("scene/scene.css", "viewport/viewport.css")


@functools.cache
def stage_script() -> str:
    """Return the script of the page; it defines no global name but `window.fieldmorph`."""
    return assets.script("viewport/main.js")
