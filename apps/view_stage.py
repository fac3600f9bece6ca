"""The page on which scenes stand, in a frame of its own: markup, style and script, all from this server."""

import functools

from fieldmorph.apps.bake_file import client_script, client_style, web_text

SCRIPTS = ("bake", "camera", "shaders", "renderer", "painter", "gestures", "truth", "layer", "film", "stage")
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
        f'<body>{web_text("stage.html")}\n<script src="/stage.js"></script>\n</body></html>\n'
    )


@functools.cache
def stage_style() -> str:
    """The style of the client, and what the stage adds."""
    return client_style("stage.css")


@functools.cache
def stage_script() -> str:
    """The client's parts and the stage's as one script that leaves nothing behind but `window.fieldmorph`."""
    return client_script(SCRIPTS, "startStage")
