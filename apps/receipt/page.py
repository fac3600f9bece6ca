"""The receipt of a conversion as one HTML page: without scripts, nothing is fetched, every value is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fieldmorph.apps.media import DIFFERENCE_GAIN, ByteImage, difference, to_8bit
from fieldmorph.apps.receipt.curve import curve_html
from fieldmorph.apps.receipt.html_parts import (
    details,
    escaped,
    labelled,
    number,
    pairs,
    section,
    shown,
    table,
)
from fieldmorph.apps.web import assets
from fieldmorph.distill.fidelity import ExampleView
from fieldmorph.distill.finish import IMAGES
from fieldmorph.fields.checkpoint import write_file
from fieldmorph.fields.files import write_json
from fieldmorph.fields.types import JsonObject

MAX_SIDE = 360  # pixels of an image on the page
MAX_PNG_BYTES = 150_000  # larger images become JPEG
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SETS = {"held_out": "Held-out", "off_trajectory": "Off-trajectory"}
METRICS = {
    "psnr_to_teacher": ("PSNR, dB", ".2f"),
    "ssim_to_teacher": ("SSIM", ".4f"),
    "opacity_error": ("mean absolute difference of opacity", ".4f"),
    "teacher_psnr": ("teacher's PSNR to test images, dB", ".2f"),
    "teacher_ssim": ("teacher's SSIM to test images", ".4f"),
    "student_psnr": ("student's PSNR to test images, dB", ".2f"),
    "student_ssim": ("student's SSIM to test images", ".4f"),
    "psnr_drop": ("student below teacher, dB", ".2f"),
    "distance_to_training_camera": ("distance to the nearest training camera, world units", ".3f"),
}


def receipt_paths(output: str | Path) -> tuple[Path, Path]:
    """Return the paths of a field's receipt: JSON file and HTML page."""
    return Path(f"{output}.receipt.json"), Path(f"{output}.receipt.html")


def write_receipt(output: str | Path, receipt: JsonObject, examples: Sequence[ExampleView]) -> None:
    """Write the receipt next to the field as JSON and as a page, each atomically.

    Args:
        output: path of the field's checkpoint.
        receipt: as `fieldmorph.distill.receipt.receipt` returns it.
        examples: views to show, as `fieldmorph.distill.fidelity.measure` returns them.

    Raises:
        ValueError: the receipt cannot be written as JSON.
    """
    data, page = receipt_paths(output)
    text = receipt_html(receipt, examples)
    write_json(data, receipt)
    write_file(page, text.encode())


def receipt_html(receipt: Mapping[str, Any], examples: Sequence[ExampleView]) -> str:
    """Return the page; arguments as for `write_receipt`."""
    r = receipt
    names = [escaped(r[role]["field"]) for role in ("teacher", "student")]
    made = escaped(str(r["created"])[:16].replace("T", " "))
    files = " to ".join(escaped(r[role]["file"]) for role in ("teacher", "student") if r[role]["file"])
    body = [
        '<header><p class="kicker">Conversion receipt</p>',
        f'<h1>{names[0]} <span class="arrow" role="img" aria-label="to">→</span> {names[1]}</h1>',
        f'<p class="soft">{files + " · " if files else ""}{made} UTC · fieldmorph {escaped(r["fieldmorph"])}</p>',
        headline(r) + _gate(r) + "</header><main>",
        section("Images", example_images(examples)),
        section("PSNR during training", training_curve(r)),
        section("Quality", _quality(r)),
        section("Size", _size(r)),
        section("Time by stage", _stages(r)),
        section("Settings", _settings(r)),
        section("Provenance, oldest first", _provenance(r)),
        section("Machine", pairs(r["environment"])),
        "</main>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{names[0]} to {names[1]}: conversion receipt</title>\n<style>{page_styles()}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


def page_styles() -> str:
    """Return the style sheet of a receipt's page, and of pages that look like it."""
    return parts_style() + assets.text("receipt/page.css")


def parts_style() -> str:
    """Return the style sheet of `headline` and of curves, which uses the variables `--ink`, `--soft`, `--line`."""
    return assets.text("receipt/parts.css")


def headline(r: Mapping[str, Any]) -> str:
    """Return the figures that sum up a conversion, as HTML."""
    held, beyond = (r["quality"][poses] for poses in SETS)
    used, ratio = r["budget"]["used"], r["ratio"]["bytes"]
    tiles = [_psnr_tile("PSNR to the teacher", held), _psnr_tile("off-trajectory", beyond)]
    if "psnr_drop" in held["mean"]:
        both = [number(held["mean"][f"{role}_psnr"], ".2f") for role in ("student", "teacher")]
        drop = held["mean"]["psnr_drop"]
        title = "PSNR drop on test images" if drop >= 0 else "PSNR gain on test images"
        tiles.append((title, number(abs(drop), ".2f"), "dB", f"{both[0]} instead of {both[1]}"))
    sizes = [_bytes(r[role]["bytes"]) for role in ("student", "teacher")]
    much = "–" if not ratio else f"{max(ratio, 1 / ratio):.1f} ×"
    word = "" if not ratio else "smaller" if ratio >= 1 else "larger"
    tiles.append(("file", much, word, f"{sizes[0]} from {sizes[1]}"))
    seconds = f"{number(used['seconds'], '.1f')} s, {number(used['steps'], ',')} steps"
    tiles.append(("conversion", number(used["core_seconds"], ".1f"), "core-s", seconds))
    cells = [
        f'<div><dt>{name}</dt><dd class="value">{value} <small>{unit}</small></dd><dd class="note">{note}</dd></div>'
        for name, value, unit, note in tiles
    ]
    return f'<dl class="figures">{"".join(cells)}</dl>'


def _psnr_tile(name: str, figures: Mapping[str, Any]) -> tuple[str, str, str, str]:
    mean, worst = (number(figures[kind]["psnr_to_teacher"], ".2f") for kind in ("mean", "worst"))
    return name, mean, "dB", f"worst view {worst}"


def _gate(r: Mapping[str, Any]) -> str:
    if not r["gate"]:
        return ""
    shown_below = ("met", "kept", "picked_by", "extensions", "stopped")
    requested = {name: value for name, value in r["gate"].items() if name not in shown_below}
    conditions = "; ".join(f"{labelled(name)} {shown(value)}" for name, value in requested.items())
    verdict = {True: "met", False: "missed"}.get(r["gate"].get("met"), "unknown")
    n_parts, stopped = len(r["gate"].get("extensions") or []), r["gate"].get("stopped")
    extended = (
        f" Training was extended {n_parts} time{'s' * (n_parts > 1)}. Student kept: {escaped(r['gate'].get('kept'))}, "
        f"selected on {escaped(r['gate'].get('picked_by'))}, which favors it slightly."
        if n_parts
        else ""
    )
    ended = f" Training could not be extended further: {escaped(stopped)}." if stopped else ""
    return (
        f'<p class="gate {verdict}">Required quality: {conditions}. <strong>{verdict.capitalize()}.</strong>'
        f"{extended}{ended}</p>"
    )


def example_images(examples: Sequence[ExampleView]) -> str:
    """Return each view's test image, teacher, student and difference as a row, as HTML."""
    gain = f"{DIFFERENCE_GAIN:g}"
    text = f"<p class='soft'>Differences between student and teacher are multiplied by {gain}; white means equal.</p>"
    return text + "".join(map(_example, examples)) if examples else ""


def _example(example: ExampleView) -> str:
    """Return test image, teacher, student and difference of one view in a row."""
    row = [
        ("teacher", to_8bit(example.teacher)),
        ("student", to_8bit(example.student)),
        (f"difference × {DIFFERENCE_GAIN:g}", difference(example.student, example.teacher)),
    ]
    if example.test_image is not None:
        row.insert(0, ("test image", to_8bit(example.test_image)))
    title = f"{example.rank} {SETS[example.poses].lower()} view"
    cells = [
        f'<figure><img {_image(pixels)} alt="{escaped(f"{name}, {title} {example.view}")}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, pixels in row
    ]
    caption = (
        f"{title.capitalize()}, {escaped(example.view)}: {number(example.psnr, '.2f')} dB to the teacher"
    )
    return f'<figure class="example"><figcaption>{caption}</figcaption><div class="row">{"".join(cells)}</div></figure>'


def _image(pixels: ByteImage) -> str:
    """Return the attributes `src`, `width` and `height` of an image that is embedded in the page."""
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    encoded, kind = io.BytesIO(), "png"
    image.save(encoded, format="PNG", optimize=True)
    if encoded.tell() > MAX_PNG_BYTES:
        encoded, kind = io.BytesIO(), "jpeg"
        image.save(encoded, format="JPEG", quality=88)
    data = base64.b64encode(encoded.getvalue()).decode()
    return f'src="data:image/{kind};base64,{data}" width="{image.width}" height="{image.height}"'


def training_curve(r: Mapping[str, Any]) -> str:
    """Return the PSNR over core-seconds as HTML."""
    rows = [
        [shown(p["stage"]), number(p["core_seconds"], ".1f"), number(p["psnr"], ".2f")] for p in r["curve"]
    ]
    on_images = r["quality"].get("training_images") or IMAGES in r["dropped"]
    compared = (
        "PSNR to pixels of the training images in dB"
        if on_images
        else "PSNR to the teacher in dB, on rays from places between the training cameras"
    )
    return (
        f'<p class="soft">{compared}, by stage.</p>'
        + curve_html(r["curve"])
        + details("all evaluations", table("", ["stage", "core-seconds", "PSNR, dB"], rows))
    )


def _quality(r: Mapping[str, Any]) -> str:
    q = r["quality"]
    summaries, each = [], []
    for poses, title in SETS.items():
        width, height = q[poses]["image_size"]
        views = f"{len(q[poses]['views'])} views of {width} × {height}"
        summaries.append(f"<p>{title}: {views}, {escaped(q[poses]['source'])}.</p>")
        columns = q[poses]["per_view"]
        rows = [
            [escaped(view), *(number(values[i], METRICS[name][1]) for name, values in columns.items())]
            for i, view in enumerate(q[poses]["views"])
        ]
        heads = ["view", *(METRICS[name][0] for name in columns)]
        each.append(details(f"all {title.lower()} views", table("", heads, rows)))
    names = [name for name in METRICS if name in q["off_trajectory"]["mean"]]
    rows = [
        [METRICS[name][0], *(_score(q[poses], kind, name) for poses in SETS for kind in ("mean", "worst"))]
        for name in names
    ]
    heads = [
        "to the teacher",
        *(f"{title.lower()}, {kind}" for title in SETS.values() for kind in ("mean", "worst")),
    ]
    over = f"<p>All over {escaped(q['background'])}, in sRGB; the worst view is chosen separately for each figure.</p>"
    parts = [f'<div class="soft">{"".join(summaries)}{over}</div>', table("", heads, rows)]
    if "psnr_drop" in q["held_out"]["mean"]:
        parts.append(_test_images(q["held_out"]))
    if q.get("training_images"):
        parts.append(_gain_of_images(q["training_images"]))
    return "".join(parts + each)


def _test_images(held_out: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{metric.upper()}, {kind}",
            *(_score(held_out, kind, f"{role}_{metric}") for role in ("teacher", "student")),
        ]
        for metric in ("psnr", "ssim")
        for kind in ("mean", "worst")
    ]
    drops = [_score(held_out, kind, "psnr_drop") for kind in ("mean", "worst")]
    lines = [[*row, drop] for row, drop in zip(rows, [*drops, "", ""], strict=True)]
    return "<br>" + table(
        "", ["to the test images", "teacher", "student", "student below teacher, dB"], lines
    )


def _gain_of_images(images: Mapping[str, Any]) -> str:
    """Return a table of the student before and after its training on images."""
    rows = [
        [title, *(number(images[part].get(name), ".2f") for part in ("before", "after"))]
        for name, title in (
            ("psnr_to_teacher", "PSNR to the teacher, dB"),
            ("psnr", "PSNR to the test images, dB"),
        )
        if name in images["before"]
    ]
    pixels = number(images["before"]["pixels"], ",")
    return "<br>" + table(
        "", [f"over {pixels} pixels of the held-out views", "without training images", "with them"], rows
    )


def _score(figures: Mapping[str, Any], kind: str, name: str) -> str:
    return number(figures[kind][name], METRICS[name][1])


def _size(r: Mapping[str, Any]) -> str:
    speed = r["quality"]["held_out"]["core_seconds_per_image"]
    rows = [
        [
            "parameters",
            *(number(r[role]["params"], ",") for role in ("teacher", "student")),
            _ratio(r, "params"),
        ],
        ["bytes", *(number(r[role]["bytes"], ",") for role in ("teacher", "student")), _ratio(r, "bytes")],
        [
            "core-seconds for one held-out view",
            *(number(speed[role], ".3f") for role in ("teacher", "student")),
            "",
        ],
    ]
    return table("", ["", "teacher", "student", "ratio"], rows)


def _stages(r: Mapping[str, Any]) -> str:
    used = r["budget"]["used"]
    rows = [[escaped(s["name"]), *_spent(s)] for s in r["stages"]]
    rest = {kind: used[kind] - sum(s[kind] for s in r["stages"]) for kind in ("seconds", "core_seconds")}
    rows.append(["start, evaluations, end", *_spent({"steps": None, **rest})])
    rows.append(["total", *_spent(used)])
    requested = "; ".join(
        f"{shown(value)} {escaped(name).replace('_', '-')}" for name, value in r["budget"]["asked"].items()
    )
    dropped = [
        f"<p>Left out: {escaped(name)}, {escaped(reason)}.</p>" for name, reason in r["dropped"].items()
    ]
    times = table("", ["stage", "steps", "seconds", "core-seconds"], rows, total=True)
    return f"<p>Budget: {requested}.</p>{times}{''.join(dropped)}{_extensions(r)}"


def _extensions(r: Mapping[str, Any]) -> str:
    """Return a table of the extensions of training for the required quality."""
    parts = (r["gate"] or {}).get("extensions") or []
    if not parts:
        return ""
    keys = list(dict.fromkeys(key for part in parts for key in part))
    rows = [[shown(part.get(key)) for key in keys] for part in parts]
    return "<br>" + table("Extensions of training", list(map(labelled, keys)), rows, numbers=False)


def _settings(r: Mapping[str, Any]) -> str:
    settings = dict(r["settings"])
    stages = settings.pop("stages", [])
    parts = [f"<div><h3>Conversion</h3>{pairs({**settings, 'seed': r['seed']})}</div>"]
    for role in ("teacher", "student"):
        known = {"field": r[role]["field"], "preset": r[role]["preset"], **r[role]["config"]}
        parts.append(f"<div><h3>{role.capitalize()}</h3>{pairs(known)}</div>")
    stages = [stage if isinstance(stage, dict) else {"name": stage} for stage in stages]
    keys = list(dict.fromkeys(key for stage in stages for key in stage))
    rows = [[shown(stage.get(key)) for key in keys] for stage in stages]
    requested = table("Requested stages", list(map(labelled, keys)), rows, numbers=False)
    return f'<div class="columns">{"".join(parts)}</div>{"<br>" + requested if rows else ""}'


def _provenance(r: Mapping[str, Any]) -> str:
    items = []
    for job in r["provenance"]:
        rest = {key: value for key, value in job.items() if key not in ("job", "field", "sha256")}
        digest = (
            f"<p class='soft'>sha256 of the file <code>{escaped(job['sha256'])}</code></p>"
            if job["sha256"]
            else ""
        )
        title = f"<strong>{escaped(job['job'] or 'unknown origin')}</strong>: {escaped(job['field'])}"
        items.append(f"<li>{title}{pairs(rest) if rest else ''}{digest}</li>")
    test_images = f"<h3>Test images</h3>{pairs(r['photographs'])}" if r["photographs"] else ""
    return f'<ol class="chain">{"".join(items)}</ol>{test_images}'


def _spent(times: Mapping[str, Any]) -> list[str]:
    return [
        number(times["steps"], ","),
        number(times["seconds"], ".1f"),
        number(times["core_seconds"], ".1f"),
    ]


def _ratio(r: Mapping[str, Any], name: str) -> str:
    return "–" if r["ratio"][name] is None else f"{r['ratio'][name]:.2f}"


def _bytes(n: int | None) -> str:
    if n is None:
        return "–"
    return f"{n / 1e6:.2f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"
