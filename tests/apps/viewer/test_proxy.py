"""The viewer behind a reverse proxy that serves it below a path, with and without that path in what it passes on."""

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.chromium import WITHOUT_RASTER, chromium, new_page, until
from helpers.view_fields import save_ball, served

pytest.importorskip("gradio")

PREFIX = "/user/nerf"
PASSED = ("content-type", "accept", "origin")


@contextmanager
def proxy(strip: bool) -> Iterator[tuple[str, list[str]]]:
    """Address of a proxy below PREFIX, and a list for that of the viewer.

    One that strips the path replaces the Host header too, as nginx does by default; the other passes both on.
    """
    target: list[str] = []
    passed = PASSED if strip else (*PASSED, "host")

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                return self.send_error(404, "not the viewer's")
            path = self.path.removeprefix(PREFIX) if strip else self.path
            body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
            named = {name: value for name, value in self.headers.items() if name.lower() in passed}
            try:
                answer = urllib.request.urlopen(
                    urllib.request.Request(target[0].rstrip("/") + path, body, named, method=self.command)
                )
            except urllib.error.HTTPError as error:
                answer = error
            content = answer.read()
            self.send_response(answer.status)
            for name in ("content-type", "content-security-policy"):
                self.send_header(name, answer.headers.get(name, ""))
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = respond

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://localhost:{server.server_port}{PREFIX}/", target
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(WITHOUT_RASTER) as browser:
        yield browser


@pytest.mark.browser
@pytest.mark.parametrize("strip", [True, False], ids=["path stripped", "path passed on"])
def test_viewer_works_below_a_path(browser: Any, tmp_path: Path, strip: bool) -> None:
    files = [save_ball(tmp_path / "ball.fm")]
    with (
        proxy(strip) as (outside, target),
        served(files, resolution=16, root_path=outside if strip else PREFIX) as (url, _),
    ):
        target.append(url)
        page = new_page(browser, viewport={"width": 640, "height": 480})
        lost: list[str] = []
        page.on("response", lambda answer: answer.status >= 400 and lost.append(answer.url))
        # The page itself aborts requests for images of views that it has left.
        page.on("requestfailed", lambda r: r.failure == "net::ERR_ABORTED" or lost.append(r.url))
        page.goto(outside)
        frame = page.wait_for_selector("iframe").content_frame()
        frame.wait_for_url(f"{outside}viewport*")
        until(frame, "window.fieldmorph?.layers?.every((layer) => layer.hasBake)")
        until(frame, "document.querySelector('.state').dataset.kind === 'done'")
        page.get_by_role("tab", name="Convert").click()
        page.get_by_label("Time").fill("soon")
        page.get_by_role("button", name="Convert", exact=True).click()
        page.get_by_text("a budget looks like 90s").first.wait_for()  # at the field, and in the card
        assert lost == []
        page.context.close()


def test_the_page_knows_the_root_path(tmp_path: Path) -> None:
    with served([save_ball(tmp_path / "ball.fm")], bake=False, root_path="/nerf/") as (url, _):
        assert httpx.get(f"{url}nerf/config").json()["root"].endswith("/nerf")
        assert httpx.get(f"{url}nerf", follow_redirects=False).headers["location"] == "/nerf/"
