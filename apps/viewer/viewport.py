"""The viewport's page, which lies in a frame: markup, style and script, all from this server."""

import functools

from fieldmorph.apps.bake.web_export import PAGE_STYLE
from fieldmorph.apps.media import DIFFERENCE_GAIN
from fieldmorph.apps.web import assets

VIEWPORT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@functools.cache
def viewport_page(max_pixels: int) -> str:
    """Return the page, which requests images of at most so many pixels; the ids of its scenes are in its address."""
    body = assets.text("viewport/viewport.html").replace("GAIN", f"{DIFFERENCE_GAIN:g}", 1)
    body = body.replace("MAX_PIXELS", str(max_pixels), 1)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">'
        '<title>fieldmorph</title>\n<link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="viewport.css"></head>\n'
        f'<body>{body}\n<script src="viewport.js"></script>\n</body></html>\n'
    )


@functools.cache
def viewport_style() -> str:
    """Return the style sheet of the page."""
    return PAGE_STYLE + assets.style("scene/scene.css", "scene/crop.css", "viewport/viewport.css")


@functools.cache
def viewport_script() -> str:
    """Return the script of the page; it defines no global name but `window.fieldmorph`."""
    return assets.script("viewport/main.js")
