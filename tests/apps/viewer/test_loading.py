"""Start of the viewer: a page that answers while it loads, and gives way without losing a request."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.chromium import artefact, chromium, new_page, until

pytest.importorskip("uvicorn")

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fieldmorph.apps.viewer.launch import Address, view_files
from fieldmorph.apps.viewer.loading import STEPS, LoadingPage, LoadingState
from fieldmorph.apps.viewer.security import Guard
from fieldmorph.apps.viewer.server import Server, listen, page_url
from fieldmorph.fields.errors import InputError


def application(events: list[str] | None = None, text: str = "the viewer") -> Starlette:
    """An application in place of the viewer, which records its start and its end."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        if events is not None:
            events.append("started")
        yield {"token": 7}
        if events is not None:
            events.append("ended")

    def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse(text)

    return Starlette(routes=[Route("/", answer)], lifespan=lifespan)


@contextmanager
def loading(state: LoadingState | None = None, **access: Any) -> Iterator[tuple[str, Server]]:
    """A server that shows the loading page."""
    listening = listen("127.0.0.1", 0)
    url = page_url("127.0.0.1", listening.getsockname()[1])
    server = Server(listening, Guard(LoadingPage(state or LoadingState()), **access))
    server.start()
    try:
        yield url, server
    finally:
        server.stop()


def test_a_page_answers_while_the_viewer_loads() -> None:
    titles: list[str] = []
    state = LoadingState(titles.append)
    with loading(state) as (url, _), httpx.Client(base_url=url) as client:
        for title in STEPS[:2]:
            state.begin(title)
        for path in ("/", "/viewport?scenes=a"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "The viewer is loading" in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert client.post("/tiles", json={}).status_code == 503
        steps = client.get("/loading").raise_for_status().json()["steps"]
    assert [step["title"] for step in steps] == list(STEPS)
    assert [step["seconds"] is not None for step in steps] == [True, True, False, False, False]
    assert titles == list(STEPS[:2])


def test_steps_come_in_their_order() -> None:
    state = LoadingState()
    with pytest.raises(ValueError, match="the next step is 'Load PyTorch'"):
        state.begin(STEPS[1])


def test_no_request_is_lost_when_the_viewer_takes_over() -> None:
    """Clients send requests all the time on connections they keep; one of the two applications answers each."""
    seen: list[list[int]] = [[] for _ in range(4)]
    replaced, events = threading.Event(), list[str]()
    with loading() as (url, server):

        def visit(statuses: list[int]) -> None:
            with httpx.Client(base_url=url, timeout=60) as client:
                while not replaced.is_set() or len(statuses) < 20:
                    statuses.append(client.get("/").status_code)
                statuses.append(client.get("/").status_code)

        visitors = [threading.Thread(target=visit, args=(statuses,)) for statuses in seen]
        for visitor in visitors:
            visitor.start()
        while min(map(len, seen)) < 5:
            pass
        server.replace(application(events))
        replaced.set()
        for visitor in visitors:
            visitor.join()
        assert events == ["started"]
    assert events == ["started", "ended"]
    for statuses in seen:
        assert statuses == sorted(statuses, reverse=True)  # 503 until the viewer is there, then 200
        assert set(statuses) == {503, 200}


def test_an_application_that_cannot_start_does_not_take_over() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("out of order")

    with loading() as (url, server):
        with pytest.raises(RuntimeError, match=r"failed at lifespan\.startup"):
            server.replace(broken)
        assert httpx.get(url).status_code == 503


def test_the_loading_page_has_the_viewer_s_protection() -> None:
    with loading(logins=[("ann", "secret")]) as (url, _):
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, auth=("ann", "secret")).status_code == 503
        assert (
            httpx.get(url, auth=("ann", "secret"), headers={"host": "elsewhere.example"}).status_code == 421
        )


def test_the_server_starts_without_the_large_packages() -> None:
    large = ("torch", "gradio", "numba", "pandas", "numpy")
    code = (
        f"import sys, fieldmorph.apps.viewer.launch; print([name for name in {large} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_file_that_cannot_be_read_ends_the_server(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    lines: list[str] = []
    with pytest.raises(InputError, match="nothere"):
        view_files([tmp_path / "nothere.fm"], address=Address(port=0), browser=False, say=lines.append)
    url = lines[0].split()[0]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.browser
def test_the_page_shows_its_steps_and_opens_the_viewer() -> None:
    state = LoadingState()
    with chromium() as browser, loading(state) as (url, server):
        for title in STEPS[:3]:
            state.begin(title)
        page = new_page(browser, viewport={"width": 640, "height": 480})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        until(page, "document.querySelectorAll('li.done').length === 2")
        assert page.inner_text("li.current span") == STEPS[2]
        page.screenshot(path=artefact("view_loading.png"))
        server.replace(application())
        page.get_by_text("the viewer", exact=True).wait_for()
        assert wrong == []
