"""The page of the demo: figures, images, both fields in the browser, and what to try next, in one file."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fieldmorph.apps.bake.web_export import SHARED_POLICY, page_script
from fieldmorph.apps.receipt.html_parts import escaped, number, section, table
from fieldmorph.apps.receipt.page import example_images, headline, page_styles, training_curve
from fieldmorph.apps.web import assets
from fieldmorph.distill.fidelity import ExampleView
from fieldmorph.fields.budget import Spent
from fieldmorph.fields.kinds import FIELDS

# Frames take over the policy of the page that they are in: it allows the one script and the styles of the viewer.
POLICY = f"{SHARED_POLICY}; script-src {{script}}; style-src 'unsafe-inline'; img-src data: blob:"

NEXT = (
    ("Turn both fields side by side, with their difference", "view {folder}/teacher.fm {folder}/student.fm"),
    (
        "Convert the same teacher to another representation",
        "convert {folder}/teacher.fm --to vm --budget 60s -o vm.fm",
    ),
    ("Measure it on the test images", "eval {folder}/student.fm --data {data} --teacher {folder}/teacher.fm"),
    ("Render a video of the student", "render {folder}/student.fm --orbit 60 -o orbit.mp4"),
    ("Train a field on images of your own", "train DATA --field hashgrid --budget 90s -o mine.fm"),
)


def demo_page(
    receipt: Mapping[str, Any],
    examples: Sequence[ExampleView],
    pages: Sequence[str],
    parts: Mapping[str, Spent],
    folder: str,
    data: str,
) -> str:
    """Return the page; it fetches nothing.

    Args:
        receipt, examples: of the conversion, as `fieldmorph.apps.receipt.page.write_receipt` takes them.
        pages: exported pages of teacher and student.
        parts: time of each part of the demo, by name.
        folder, data: of the demo and of the scene, for the commands to continue with.
    """
    teacher, student = (escaped(FIELDS.titles[receipt[role]["field"]]) for role in ("teacher", "student"))
    held_out = receipt["quality"]["held_out"]
    intro = (
        "<p>The teacher was trained on the images of a small scene; the student was distilled from the teacher, "
        f"without images. Figures are means over {len(held_out['views'])} test images of "
        f"{' × '.join(map(str, held_out['image_size']))} pixels that neither has seen. "
        '<a href="student.fm.receipt.html">The receipt</a> has every figure and setting.</p>'
    )
    body = [
        '<header><p class="kicker">fieldmorph demo</p>',
        f'<h1>{teacher} <span class="arrow" role="img" aria-label="to">→</span> {student}</h1>',
        intro,
        headline(receipt),
        "</header><main>",
        section("Both fields, in this browser", _frames(receipt, pages)),
        section("Test images", example_images(examples)),
        section("PSNR during the conversion", training_curve(receipt)),
        section("Where the time went", _times(parts)),
        section("Commands to continue with", _commands(folder, data)),
        "</main>",
    ]
    policy = POLICY.format(script=assets.policy_hash(page_script()))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fieldmorph demo: {teacher} to {student}</title>\n"
        f"<style>{page_styles()}{assets.text('demo/page.css')}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _frames(receipt: Mapping[str, Any], pages: Sequence[str]) -> str:
    frames = []
    for role, page in zip(("teacher", "student"), pages, strict=True):
        facts = receipt[role]
        caption = f"{role.capitalize()}: {escaped(facts['field'])}, {number(facts['params'], ',')} parameters"
        frame = (
            f'<iframe srcdoc="{escape(page)}" title="{role.capitalize()} in 3-D" '
            'sandbox="allow-scripts allow-downloads" allow="fullscreen"></iframe>'
        )
        frames.append(f"<figure><figcaption>{caption}</figcaption>{frame}</figure>")
    hint = (
        '<p class="soft">Drag to turn, scroll to zoom. Each is a volume baked from the field, as '
        "<code>fieldmorph export --web</code> writes it; its last button says how close it is to the field.</p>"
    )
    return f'<div class="fields">{"".join(frames)}</div>{hint}'


def _times(parts: Mapping[str, Spent]) -> str:
    rows = [
        [escaped(name), number(spent.seconds, ".1f"), number(spent.core_seconds, ".1f")]
        for name, spent in [*parts.items(), ("total", sum(parts.values(), Spent()))]
    ]
    return table("", ["part", "seconds", "core-seconds"], rows, total=True)


def _commands(folder: str, data: str) -> str:
    lines = [
        f"<p>{text}:</p><pre><code>fieldmorph {escaped(command.format(folder=folder, data=data))}</code></pre>"
        for text, command in NEXT
    ]
    return "".join(lines)
