"""Baked scenes as files: one HTML page that opens offline, or a folder for a web server.

Either holds the client (`web/page`), one JSON header and three parts, compressed by gzip and with a sha256 each:
`bricks` (which are occupied, one bit each), `density` and `colour`. In a page they are base64 in script elements that
no browser runs; in a folder they are `scene.json` and `*.bin`. Equal bakes give equal bytes.
"""

import base64
import gzip
import hashlib
import html
import io
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldmorph.apps.bake.bricks import BRICK, ZERO, Bake, Lattice
from fieldmorph.apps.web import assets
from fieldmorph.fields.checkpoint import write_file
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.kernels.voxels import pack_mask, unpack_mask
from fieldmorph.fields.types import JsonObject

FORMAT, VERSION = "fieldmorph-bake", 1
COMPRESSION = 9  # level of gzip for files that are kept
PAGES = (".html", ".htm")
DAMAGE = (LookupError, TypeError, ValueError, EOFError, RuntimeError, zlib.error, gzip.BadGzipFile)
PAGE_STYLE = "html, body { height: 100%; margin: 0; } html { color-scheme: light dark; }"
SHARED_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'"


def page_script() -> str:
    """Return the script of both forms; it defines no global name but `window.fieldmorph`."""
    return assets.script("page/main.js")


def page_style() -> str:
    """Return the style sheet of both forms."""
    return PAGE_STYLE + assets.style("scene/scene.css", "scene/crop.css", "page/page.css")


def page(bake: Bake) -> str:
    """Return one HTML page with all data in it; it fetches nothing, and its policy allows no other script."""
    script, style = page_script(), page_style()
    hashes = f"script-src {assets.policy_hash(script)}; style-src {assets.policy_hash(style)}"
    policy = f"{SHARED_POLICY}; {hashes}; img-src blob: data:"
    header, packed = _packed(bake)
    data = [f'<script type="application/json" id="bake-header">{_json(header)}</script>']
    for name, content in packed.items():
        text = base64.b64encode(content).decode()
        data.append(f'<script type="application/octet-stream" id="bake-{name}">{text}</script>')
    return _page(bake.name, policy, f"<style>{style}</style>", [*data, f"<script>{script}</script>"])


def data_files(bake: Bake, compression: int = COMPRESSION) -> dict[str, bytes]:
    """Return the header and the parts of the folder form by name, for a page that is already there.

    Args:
        compression: level of gzip, 1 to 9.
    """
    header, packed = _packed(bake, compression)
    for part in header["parts"]:
        part["file"] = f"{part['name']}.bin"
    return {
        **{f"{name}.bin": content for name, content in packed.items()},
        "scene.json": (json.dumps(header, indent=1) + "\n").encode(),
    }


def folder_files(bake: Bake) -> dict[str, bytes]:
    """Return the files of the folder form by name; `index.html` fetches the others from the same folder."""
    policy = f"{SHARED_POLICY}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob: data:"
    links = '<link rel="stylesheet" href="viewer.css">'
    index = _page(bake.name, policy, links, ['<script src="viewer.js"></script>'])
    return {
        **data_files(bake),
        "viewer.css": page_style().encode(),
        "viewer.js": page_script().encode(),
        "index.html": index.encode(),
    }


def write_web(path: str | Path, bake: Bake) -> int:
    """Write a page where the path ends in .html, else a folder of files; return the total size in bytes."""
    path = Path(path)
    files = {path: page(bake).encode()} if is_page(path) else {}
    if not files:
        path.mkdir(parents=True, exist_ok=True)
        files = {path / name: content for name, content in folder_files(bake).items()}
    for file, content in files.items():
        write_file(file, content)
    return sum(map(len, files.values()))


def is_page(path: str | Path) -> bool:
    """Return whether a path names a page, not a folder."""
    return Path(path).suffix.lower() in PAGES


def read_web(path: str | Path, max_part_bytes: int = 1 << 31) -> Bake:
    """Read the bake in a page or a folder.

    Args:
        max_part_bytes: of one part, uncompressed.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(path)
    try:
        if path.is_dir():
            header = json.loads((path / "scene.json").read_bytes())
            packed = {p["name"]: (path / f"{p['name']}.bin").read_bytes() for p in header["parts"]}
        else:
            text = path.read_text(encoding="utf-8")
            scripts = dict(re.findall(r'<script type="[^"]*" id="bake-(\w+)">([^<]*)</script>', text))
            header = json.loads(scripts.pop("header"))
            packed = {name: base64.b64decode(content) for name, content in scripts.items()}
        return _bake_of(header, packed, max_part_bytes)
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} contains no baked scene that this version can read: {reason}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _packed(bake: Bake, compression: int = COMPRESSION) -> tuple[JsonObject, dict[str, bytes]]:
    """Return the header, and the compressed parts by name."""
    raw = {
        "bricks": pack_mask(bake.occupied.flatten()).numpy().tobytes(),
        "density": bake.density.numpy().tobytes(),
        "colour": bake.colour.numpy().tobytes(),
    }
    packed = {name: gzip.compress(content, compression, mtime=0) for name, content in raw.items()}
    megabytes = sum(map(len, packed.values())) / 1e6
    cells = " × ".join(map(str, bake.lattice.cells))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": bake.name,
        "caption": f"{cells} cells, {megabytes:.1f} MB",
        "aabb": list(bake.lattice.aabb),
        "bricks": list(bake.lattice.bricks),
        "degree": bake.degree,
        "log_range": list(bake.log_range),
        "zero": ZERO,
        "harmonic_step": bake.harmonic_step,
        "render_step_size": bake.render_step_size,
        "camera": bake.camera,
        "facts": [list(fact) for fact in bake.facts],
        "parts": [
            {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in raw.items()
        ],
    }
    return header, packed


def _bake_of(header: Mapping[str, Any], packed: Mapping[str, bytes], max_part_bytes: int) -> Bake:
    if header["format"] != FORMAT or header["version"] != VERSION:
        raise ValueError(f"format {header['format']} {header['version']} instead of {FORMAT} {VERSION}")
    parts = {part["name"]: _unpacked(part, packed[part["name"]], max_part_bytes) for part in header["parts"]}
    x, y, z = header["bricks"]
    if not 0 < x * y * z <= 8 * len(parts["bricks"]):
        raise ValueError(f"{x} x {y} x {z} bricks do not match {len(parts['bricks'])} bytes of bits")
    occupied = unpack_mask(parts["bricks"], x * y * z).reshape(x, y, z)
    density = parts["density"].reshape(int(occupied.sum()), BRICK, BRICK, BRICK)
    rows = 3 * (header["degree"] + 1) ** 2
    a, b = header["log_range"]
    return Bake(
        name=header["name"],
        lattice=Lattice(tuple(header["aabb"]), ((x - 1) * BRICK, (y - 1) * BRICK, (z - 1) * BRICK)),
        occupied=occupied,
        density=density,
        colour=parts["colour"].reshape(rows, int((density > 0).sum())),
        log_range=(a, b),
        harmonic_step=header["harmonic_step"],
        render_step_size=header["render_step_size"],
        camera=header["camera"],
        facts=tuple((name, value) for name, value in header["facts"]),
    )


def _unpacked(part: Mapping[str, Any], content: bytes, max_bytes: int) -> torch.Tensor:
    size = part["bytes"]
    if not 0 <= size <= max_bytes:
        raise ValueError(f"part {part['name']} claims {size} bytes")
    with gzip.open(io.BytesIO(content)) as file:
        raw = file.read(size + 1)
    if len(raw) != size or hashlib.sha256(raw).hexdigest() != part["sha256"]:
        raise ValueError(f"part {part['name']} does not match its sha256")
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy())


def _page(name: str, policy: str, style: str, scripts: list[str]) -> str:
    """Return the HTML of both forms; the viewer's element comes before the data, so that it shows while these load."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">'
        f"<title>{html.escape(name)}</title>\n{style}</head>\n"
        f"<body>{assets.text('page/page.html')}\n{chr(10).join(scripts)}\n</body></html>\n"
    )


def _json(value: Any) -> str:
    """Return JSON for a script element: no text in it can end the element."""
    return json.dumps(value).replace("<", "\\u003c")
