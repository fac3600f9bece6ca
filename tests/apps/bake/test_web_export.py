"""Bakes as files: whole and self-contained, read back as they were, damage reported, names harmless."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from fieldmorph.apps.bake.bricks import Bake
from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import data_files, folder_files, page, read_web, write_web
from fieldmorph.fields import checkpoint
from fieldmorph.fields.blackbox import callable_teacher
from fieldmorph.fields.errors import InputError

HOSTILE = "</script><script>alert(1)</script>\" onload='x' & <!-- https://evil.example/"
BOX = (-1.0, -0.5, 0.0, 1.0, 0.5, 0.5)


@pytest.fixture(scope="module")
def baked() -> Bake:
    def blob(p: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle = torch.tensor([0.0, 0.0, 0.25])
        return 0.5 + 0.3 * d, 30.0 * ((p - middle) * torch.tensor([1.0, 2.0, 4.0])).norm(dim=-1).lt(0.7)

    stored = callable_teacher(blob, BOX, resolution=16, render_step_size=0.05)
    return bake(stored, BakeConfig(16), name="a blob", facts=(("Field", "none"),))


class Elements(HTMLParser):
    """What a page consists of: tags with their attributes, and the text of each script by id."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.title = ""
        self._inside, self._id = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside, self._id = tag, dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[self._id] = self.scripts.get(self._id, "") + data
        if self._inside == "title":
            self.title += data


def same(a: Bake, b: Bake) -> bool:
    arrays = all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("occupied", "density", "colour")
    )
    others = ("name", "lattice", "log_range", "harmonic_step", "render_step_size", "camera", "facts")
    return arrays and all(getattr(a, name) == getattr(b, name) for name in others)


def test_a_page_has_a_header_and_parts_with_their_sha256(baked: Bake) -> None:
    scripts = Elements(page(baked)).scripts
    header = json.loads(scripts["bake-header"])
    assert (header["format"], header["version"], header["degree"]) == ("fieldmorph-bake", 1, 1)
    assert header["aabb"] == list(BOX)
    assert header["bricks"] == [3, 2, 2]
    assert header["facts"] == [["Field", "none"]]
    parts = {part["name"]: part for part in header["parts"]}
    raw = {name: gzip.decompress(base64.b64decode(scripts[f"bake-{name}"])) for name in parts}
    assert {name: len(content) for name, content in raw.items()} == {
        "bricks": 2,  # 12 bits
        "density": 512 * int(baked.occupied.sum()),
        "colour": 12 * int((baked.density > 0).sum()),
    }
    for name, part in parts.items():
        assert part["bytes"] == len(raw[name])
        assert part["sha256"] == hashlib.sha256(raw[name]).hexdigest()
    bits = int.from_bytes(raw["bricks"], "little")
    assert [bits >> i & 1 for i in range(12)] == baked.occupied.flatten().int().tolist()


def test_a_page_fetches_nothing(baked: Bake) -> None:
    text = page(baked)
    elements = Elements(text)
    assert not {"link", "iframe", "object", "embed", "base", "img", "audio", "video"} & {
        t for t, _ in elements.tags
    }
    assert not any({"src", "href", "srcset", "action", "data"} & {*attrs} for _, attrs in elements.tags)
    assert not any(name.startswith("on") for _, attrs in elements.tags for name in attrs)
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\(|importScripts|import\(", text)


def test_a_page_s_policy_lets_its_own_script_and_style_run_and_nothing_else(baked: Bake) -> None:
    text = page(baked)
    (policy,) = [
        a["content"] for t, a in Elements(text).tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "connect-src" not in rules
    assert "unsafe" not in str(policy)
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_names_are_text(baked: Bake) -> None:
    plain, hostile = (
        Elements(page(baked)),
        Elements(page(replace(baked, name=HOSTILE, facts=((HOSTILE, HOSTILE),)))),
    )
    assert hostile.title == HOSTILE
    header = json.loads(hostile.scripts["bake-header"])
    assert header["name"] == HOSTILE
    assert header["facts"] == [[HOSTILE, HOSTILE]]
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    index = folder_files(replace(baked, name=HOSTILE))["index.html"].decode()
    assert Elements(index).title == HOSTILE
    assert index.count("<script") == 1


def test_equal_bakes_give_equal_bytes(baked: Bake) -> None:
    assert page(baked) == page(replace(baked))
    assert folder_files(baked) == folder_files(replace(baked))


def test_a_page_that_is_there_needs_header_and_parts_alone(baked: Bake, tmp_path: Path) -> None:
    files = data_files(baked, compression=1)
    assert set(files) == {"scene.json", "bricks.bin", "density.bin", "colour.bin"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert same(read_web(tmp_path), baked)
    assert data_files(baked).items() <= folder_files(baked).items()
    assert sum(map(len, files.values())) > sum(map(len, data_files(baked).values()))


@pytest.mark.parametrize("name", ["scene.html", "SCENE.HTM", "scene"])
def test_what_is_written_is_read_back(baked: Bake, tmp_path: Path, name: str) -> None:
    n_bytes = write_web(tmp_path / name, baked)
    assert same(read_web(tmp_path / name), baked)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert n_bytes == sum(path.stat().st_size for path in files)
    assert len(files) == (7 if name == "scene" else 1)


def test_a_folder_names_its_files(baked: Bake, tmp_path: Path) -> None:
    write_web(tmp_path / "made" / "scene", baked)
    folder = tmp_path / "made" / "scene"
    names = {"bricks.bin", "density.bin", "colour.bin", "scene.json", "viewer.css", "viewer.js", "index.html"}
    assert names <= {path.name for path in folder.iterdir()}
    for part in json.loads((folder / "scene.json").read_text())["parts"]:
        content = gzip.decompress((folder / part["file"]).read_bytes())
        assert hashlib.sha256(content).hexdigest() == part["sha256"]
    index = (folder / "index.html").read_text()
    refers = {a.get("src") or a.get("href") for t, a in Elements(index).tags if t in ("script", "link")}
    assert refers == {"viewer.js", "viewer.css"}
    assert "script-src 'self'" in index
    assert "unsafe" not in index


@pytest.mark.parametrize("degree", [0, 2])
def test_every_degree_is_kept(baked: Bake, tmp_path: Path, degree: int) -> None:
    rows, n = 3 * (degree + 1) ** 2, baked.colour.shape[1]
    colour = torch.randint(256, (rows, n), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    other = replace(baked, colour=colour)
    write_web(tmp_path / "a.html", other)
    assert read_web(tmp_path / "a.html").degree == degree
    assert same(read_web(tmp_path / "a.html"), other)


def changed_header(folder: Path, **values: object) -> None:
    path = folder / "scene.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def spoil(folder: Path, how: str) -> None:
    part = folder / "colour.bin"
    content = bytearray(part.read_bytes())
    match how:
        case "another byte":
            raw = bytearray(gzip.decompress(content))
            raw[7] ^= 1
            part.write_bytes(gzip.compress(raw))
        case "cut":
            part.write_bytes(content[:-40])
        case "no gzip":
            part.write_bytes(b"PK" + content)
        case "broken gzip":
            content[10:60] = bytes(50)
            part.write_bytes(content)
        case "empty":
            part.write_bytes(b"")
        case "longer":
            part.write_bytes(gzip.compress(gzip.decompress(content) + b"\0"))
        case "another format":
            changed_header(folder, format="tea")
        case "a later version":
            changed_header(folder, version=2)
        case "other bricks":
            changed_header(folder, bricks=[1 << 40, 2, 2])
        case "no bricks":
            changed_header(folder, bricks=None)
        case "other degree":
            changed_header(folder, degree=2)
        case "bomb":
            changed_header(
                folder, parts=[{"name": "colour", "bytes": 1 << 40, "sha256": "", "file": "colour.bin"}]
            )
        case "a list":
            (folder / "scene.json").write_text("[1, 2]")
        case "no JSON":
            (folder / "scene.json").write_bytes(b"\xff{")


SPOILT = [
    *(
        "another byte",
        "cut",
        "no gzip",
        "broken gzip",
        "empty",
        "longer",
        "another format",
        "a later version",
    ),
    *("other bricks", "no bricks", "other degree", "bomb", "a list", "no JSON"),
]


@pytest.mark.parametrize("how", SPOILT)
def test_damage_is_one_clear_line(baked: Bake, tmp_path: Path, how: str) -> None:
    write_web(tmp_path, baked)
    spoil(tmp_path, how)
    with pytest.raises(InputError, match=r"contains no baked scene that this version can read: .") as caught:
        read_web(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_is_no_bake_is_refused(baked: Bake, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("<p>tea</p>")
    with pytest.raises(InputError, match=r"other\.html contains no baked scene"):
        read_web(tmp_path / "other.html")
    (tmp_path / "binary.html").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(InputError, match="contains no baked scene"):
        read_web(tmp_path / "binary.html")
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read_web(tmp_path / "none.html")
    text = page(baked)
    (tmp_path / "less.html").write_text(re.sub(r'<script [^>]*id="bake-density">[^<]*</script>', "", text))
    with pytest.raises(InputError, match="density"):
        read_web(tmp_path / "less.html")


@pytest.mark.parametrize("name", ["a.html", "a"])
def test_an_interruption_leaves_what_was_there(
    baked: Bake, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_web(tmp_path / name, baked)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_web(tmp_path / name, replace(baked, name="another"))
    assert same(read_web(tmp_path / name), baked)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == (1 if name == "a.html" else 7)


def test_a_part_that_claims_too_much_is_not_unpacked(baked: Bake, tmp_path: Path) -> None:
    write_web(tmp_path / "a.html", baked)
    with pytest.raises(InputError, match="part density claims"):
        read_web(tmp_path / "a.html", max_part_bytes=100)
