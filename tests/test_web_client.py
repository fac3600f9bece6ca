"""The client in a real browser: its shader against our own renderer, the page's behaviour, and what it must not do."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.apps.bake import BakeConfig, bake
from fieldmorph.apps.bake_file import write_web
from fieldmorph.apps.bake_render import baked_field
from fieldmorph.apps.bricks import Bake
from fieldmorph.fields.blackbox import callable_teacher
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.metrics import psnr
from fieldmorph.fields.views import resize, view

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",  # CI is root
    "--use-angle=swiftshader",  # drawn by the processor
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--no-first-run",
]
WIDTH, HEIGHT = 96, 72
VIEWS = (1, 14, 29, 43)
HOSTILE = '<img src=x onerror="document.title=1"></script><script>document.title="run"</script>'


def ball(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """A soft ball whose colour goes with place and direction."""
    return 0.1 + 0.3 * (d + 1) + 0.1 * p.clamp(-1, 1) + 0.1, 60 * torch.sigmoid((0.6 - p.norm(dim=-1)) / 0.03)


def rods(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
    """A lattice of thin rods."""
    u = (2.5 * p) % 1 - 0.5
    off = torch.stack([u[:, :2].norm(dim=-1), u[:, 1:].norm(dim=-1), u[:, ::2].norm(dim=-1)]).amin(0)
    return 0.5 + 0.5 * torch.sin(4 * p), 80.0 * (off < 0.12) * (p.abs().amax(-1) < 0.9)


def fog(p: Tensor, _d: Tensor) -> tuple[Tensor, Tensor]:
    """Fog below, and a wall that stands in it."""
    wall = ((p[:, 0] - 0.2).abs() < 0.1) & (p.norm(dim=-1) < 0.9)
    return p / 2.02 + 0.5, 1.5 * (p[:, 2] < 0) + 40.0 * wall


SCENES: dict[str, tuple[Callable[..., Any], tuple[float, ...], int]] = {
    "ball": (ball, (-1, -1, -1, 1, 1, 1), 2),
    "rods": (rods, (-1, -1, -0.5, 1, 1, 0.5), 0),
    "fog": (fog, (-1, -1, -1, 1, 1, 1), 1),
}


@pytest.fixture(scope="session")
def bakes() -> dict[str, tuple[Bake, Cameras]]:
    made = {}
    for name, (function, box, degree) in SCENES.items():
        stored = callable_teacher(function, box, resolution=32, render_step_size=0.03)
        made[name] = (bake(stored, BakeConfig(32, degree), name=name), stored.cameras)
    return made


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Tab:
    """A page, what it said to the console and what it asked for."""

    def __init__(self, browser: Any, width: int = 320, height: int = 240, **options: Any):
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url: str, state: str = "ready") -> "Tab":
        self.page.goto(url)
        self.wait_for(f"fieldmorph.root.dataset.state === {state!r}")
        return self

    def wait_for(self, condition: str) -> None:
        """Playwright's own way needs eval, which the page's policy forbids."""
        for _ in range(1200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{condition} did not come true; {self.complaints}")

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    tabs: list[Tab] = []

    def make(**options: Any) -> Tab:
        tabs.append(Tab(browser, **options))
        return tabs[-1]

    yield make
    for each in tabs:
        each.context.close()


@pytest.fixture(scope="session")
def pages(bakes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    for name, (baked, _) in bakes.items():
        write_web(folder / f"{name}.html", baked)
    return {name: (folder / f"{name}.html").as_uri() for name in bakes}


def pose_of(camera: Cameras) -> dict[str, Any]:
    right, down, forward, eye = camera.camera_to_world[0].T.tolist()
    size = {"width": camera.width, "height": camera.height}
    return {"right": right, "down": down, "forward": forward, "eye": eye, **size} | {
        "intrinsics": camera.intrinsics[0].tolist()
    }


def drawn(tab: Tab, camera: Cameras, **options: Any) -> Tensor:
    """The shader's RGBA in [0, 1]."""
    arguments = f"{json.dumps(pose_of(camera))}, {json.dumps(options)}"
    text = tab(f"btoa(String.fromCharCode(...fieldmorph.renderer.picture({arguments})))")
    content = bytearray(base64.b64decode(text))
    return torch.frombuffer(content, dtype=torch.uint8).reshape(camera.height, camera.width, 4) / 255


@pytest.mark.parametrize("name", SCENES)
def test_shader_agrees_with_our_own_renderer(
    name: str, bakes: dict[str, tuple[Bake, Cameras]], pages: dict[str, str], tab: Callable[..., Tab]
) -> None:
    baked, prior = bakes[name]
    opened = tab().open(pages[name])
    stored, cameras = baked_field(baked, prior), resize(prior, WIDTH, HEIGHT)
    near, far = float("inf"), 0.0
    for i in VIEWS:
        truth = view(stored, cameras[i])
        got = drawn(opened, cameras[i], background="white")[..., :3]
        assert psnr(got, truth["colors"]) > 50
        solid = truth["opacities"] > 0.5
        assert 0.02 < solid.float().mean() < 0.98  # there is something to compare
        measured = drawn(opened, cameras[i], mode="measure")
        assert (measured[..., 3] - truth["opacities"]).abs().max() < 0.02
        near, far = opened(f"fieldmorph.renderer.depthRange({json.dumps(pose_of(cameras[i]))})")
        share = (measured[..., :3] * torch.tensor([1.0, 1 / 256, 1 / 65536])).sum(-1)
        depths = near + share * (far - near)
        assert (depths - truth["depths"] / truth["opacities"].clamp(min=1e-6))[solid].abs().max() < 0.01
    assert opened.complaints == []
