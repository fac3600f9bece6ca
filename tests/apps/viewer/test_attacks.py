"""Attacks on the viewer, each over a real connection. None may read, write, reach or run anything it should not."""

import base64
import gzip
import io
import json
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.view_fields import request_of, save_ball, served

from fieldmorph.apps.viewer.app import GRADIO_PATHS, Viewer
from fieldmorph.fields.cameras import orbit_box

pytest.importorskip("gradio")

SECRET = "the secret of this folder"
SCRIPT_NAME = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
CAMERA = orbit_box((-1, -1, -1, 1, 1, 1), 1, width=16, height=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secure")
    (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[httpx.Client, Viewer]]:
    """A viewer of a field whose name is a script."""
    file = save_ball(folder / "ball.fm")
    fresh = httpx.Limits(max_keepalive_connections=0)  # a server may close a connection after an error
    with (
        served([file], bake=False) as (url, viewer),
        httpx.Client(base_url=url, timeout=30, limits=fresh) as client,
    ):
        viewer.scenes[0].name = SCRIPT_NAME
        yield client, viewer


def raw(
    client: httpx.Client, target: str, method: str = "GET", headers: str = "", body: bytes = b""
) -> bytes:
    """The answer to a request whose target goes out as it is: clients tidy paths up before they send them."""
    host, port = client.base_url.host, client.base_url.port
    request = f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{headers}\r\n"
    with socket.create_connection((host, port), timeout=30) as connection:
        answer = b""
        with suppress(ConnectionError):  # a server that refuses does not read to the end
            connection.sendall(request.encode("latin-1") + body)
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


PLACES = [
    "/",
    "/viewport/",
    "/videos/",
    "/scenes/",
    "/scenes/SCENE/bake/",
    "/static/",
    "/assets/",
    "/svelte/",
    "/gradio_api/file=",
]
CLIMBS = ["..", "%2e%2e", "%252e%252e", "..%2f", "..%5c", "....//"]


@pytest.mark.parametrize("climb", CLIMBS)
@pytest.mark.parametrize("place", PLACES)
def test_no_route_climbs_out_of_its_folder(server: Any, folder: Path, place: str, climb: str) -> None:
    client, viewer = server
    place = place.replace("SCENE", viewer.scenes[0].id)
    up = "/".join([climb] * 12)
    for target in (f"{place}{up}{folder}/secret.txt", f"{place}{up}/etc/passwd"):
        answer = raw(client, target)
        assert status(answer) in (400, 403, 404), answer[:200]
        assert SECRET.encode() not in answer
        assert b"root:" not in answer


@pytest.mark.parametrize(
    "prefix", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/file/", "/videos/", "/scenes/"]
)
def test_an_absolute_path_gives_no_file(server: Any, folder: Path, prefix: str) -> None:
    client, _ = server
    for path in (f"{folder}/secret.txt", f"{folder}/ball.fm", "/etc/passwd", "/proc/self/environ"):
        for target in (prefix + path, prefix + path.replace("/", "%2F"), prefix + path[1:]):
            answer = raw(client, target)
            assert status(answer) in (400, 403, 404), answer[:200]
            assert SECRET.encode() not in answer


def test_a_symbolic_link_in_the_videos_folder_leads_nowhere(server: Any, folder: Path) -> None:
    client, viewer = server
    link = Path(viewer.videos._folder.name) / "link.mp4"
    link.symlink_to(folder / "secret.txt")
    for target in ("/videos/link", "/videos/link.mp4", f"/gradio_api/file={link}"):
        answer = raw(client, target)
        assert status(answer) in (403, 404)
        assert SECRET.encode() not in answer


@pytest.mark.parametrize(
    "target",
    [
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/proxy=http://127.0.0.1:1/",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=http:%2F%2F127.0.0.1:1%2F",
        "/gradio_api/file=%68ttp:%2f%2f127.0.0.1:1",
    ],
)
def test_the_server_requests_no_other_host(server: Any, target: str) -> None:
    assert status(raw(server[0], target)) == 404


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1"])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/tiles",
        "/videos",
        "/gradio_api/queue/data?session_hash=x",
        "/gradio_api/heartbeat/x",
        "/config",
    ],
)
def test_a_foreign_page_is_not_answered(server: Any, origin: str, target: str) -> None:
    method = "POST" if target in ("/tiles", "/videos") else "GET"
    answer = raw(server[0], target, method, f"Origin: {origin}\r\nContent-Length: 0\r\n")
    assert status(answer) == 403
    assert b"access-control-allow-origin" not in answer.lower()


@pytest.mark.parametrize("target", ["/", "/gradio_api/queue/join", "/viewport", "/ws"])
def test_a_foreign_websocket_is_refused(server: Any, target: str) -> None:
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n"
    )
    assert status(raw(server[0], target, headers=upgrade)) == 403


def test_a_foreign_name_for_this_server_is_refused(server: Any) -> None:
    client, _ = server
    for target in ("/", "/viewport", "/tiles", "/gradio_api/startup-events"):
        assert client.get(target, headers={"host": "evil.example"}).status_code == 421


def test_the_answer_to_no_page_allows_a_foreign_one(server: Any) -> None:
    preflight = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = server[0].options("/tiles", headers=preflight)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def png_bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (30000).to_bytes(4, "big")
    row = zlib.compress(bytes(30001) * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size * 2 + bytes([8, 0, 0, 0, 0])) + chunk(b"IDAT", row)


UPLOADS = {
    "a field": ("evil.fm", b"\0" * 100),
    "a pickle": ("evil.pth", b"\x80\x04."),
    "a script": ("evil.py", b"print(1)"),
    "a page": ("evil.html", b"<script>alert(1)</script>"),
    "a zip bomb": ("bomb.zip", gzip.compress(bytes(1 << 20))),
    "a PNG bomb": ("bomb.png", png_bomb()),
    "a name that climbs": ("../../../../tmp/evil.py", b"print(1)"),
}


@pytest.mark.parametrize(
    "route", ["/gradio_api/upload", "/upload", "/gradio_api/upload/", "/gradio_api/upload?upload_id=x"]
)
@pytest.mark.parametrize("upload", UPLOADS.values(), ids=UPLOADS)
def test_nothing_can_be_uploaded(server: Any, route: str, upload: tuple[str, bytes]) -> None:
    assert server[0].post(route, files={"files": upload}).status_code in (404, 405)


@pytest.mark.parametrize(
    "route", ["/tiles", "/videos", "/gradio_api/queue/join", "/gradio_api/component_server/", "/"]
)
def test_a_body_that_is_too_long_is_refused(server: Any, route: str) -> None:
    client, _ = server
    for length in (2 << 20, 99_999_999_999):
        assert status(raw(client, route, "POST", f"Content-Length: {length}\r\n", b"[" * 1000)) == 413
    pieces = (b"80000\r\n" + b"[" * 0x80000 + b"\r\n") * 5
    assert status(raw(client, route, "POST", "Transfer-Encoding: chunked\r\n", pieces)) in (0, 400, 405)


BODIES = {
    "not JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "nested deep": b"[" * 100_000,
    "wrong text": b"\xff\xfe",
    "a compressed bomb": gzip.compress(b" " * (1 << 20)),
}


@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("route", ["/tiles", "/videos"])
def test_a_body_of_the_wrong_kind_gets_one_line(server: Any, route: str, content: bytes) -> None:
    answer = server[0].post(route, content=content)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 1 << 20, "height": 1 << 20},
        {"width": 10**30},
        {"eye": [1e38, 0, 0]},
        {"intrinsics": [1e-38] * 4},
        {"viewer": "x"},
        {"viewer": "x" * 10**5},
        {"viewer": {"a": 1}},
        {"scenes": [{"a": 1}]},
        {"scenes": ["../x"]},
        {"scenes": [None]},
        {"spans": [[float("nan"), 1]]},
    ],
)
def test_an_image_that_would_take_too_much_is_refused(server: Any, wrong: dict[str, Any]) -> None:
    client, viewer = server
    body = {**request_of(CAMERA, scenes=[viewer.scenes[0].id]), **wrong}
    answer = client.post("/tiles", content=json.dumps(body))
    if "intrinsics" in wrong:  # an image all of one ray is an image
        assert answer.status_code == 200
    else:
        assert answer.status_code in (400, 404)
        assert len(answer.text) < 300


def test_an_id_is_neither_guessed_nor_listed(server: Any) -> None:
    client, viewer = server
    assert len(base64.urlsafe_b64decode(viewer.scenes[0].id + "==")) == 16
    for target in (
        "/scenes",
        "/scenes/",
        "/scenes/0",
        "/scenes/ball",
        "/scenes/*",
        "/videos",
        "/videos/",
        "/videos/0",
    ):
        assert client.get(target).status_code in (404, 405)
    for scene in ("", "0", viewer.scenes[0].id[:-1], viewer.scenes[0].id.swapcase()):
        assert client.post("/tiles", json=request_of(CAMERA, scenes=[scene])).status_code == 404


@pytest.mark.parametrize("part", ["index.html", "viewer.js", "scene.json", "..", ".", "%00", "a%2Fb"])
def test_of_a_bake_only_its_parts_are_served(server: Any, part: str) -> None:
    client, viewer = server
    assert status(raw(client, f"/scenes/{viewer.scenes[0].id}/bake/{part}")) == 404


def test_a_script_in_a_scene_s_name_stays_a_text(folder: Path) -> None:
    file = save_ball(folder / f"{SCRIPT_NAME.replace('/', '_')}.fm")
    with served([file], bake=False) as (url, viewer):
        page = httpx.get(url).text
        described = httpx.get(f"{url}scenes/{viewer.scenes[0].id}")
    assert "<script>alert" not in page
    assert "<img src=x" not in page  # the name stands in a script's JSON, where every < is escaped
    assert "img src=x onerror" in page
    assert described.headers["content-type"] == "application/json"
    assert described.json()["name"] == file.stem


NOT_SERVED = """
    /docs /redoc /openapi.json /gradio_api/info/../openapi.json /gradio_api/openapi.json /monitoring
    /gradio_api/mcp/sse /gradio_api/dev/reload /gradio_api/vibe-code /gradio_api/token /gradio_api/runs
    /gradio_api/run-history/buckets /gradio_api/deep_link /gradio_api/call/x
    /gradio_api/profiling/traces /gradio_api/custom_component/1/client/a/b.js
"""


@pytest.mark.parametrize("route", NOT_SERVED.split())
def test_what_the_page_does_not_need_is_not_there(server: Any, route: str) -> None:
    assert status(raw(server[0], route)) == 404


@pytest.mark.parametrize("name", ["__class__", "__init__", "postprocess", "get_config", "nothing"])
def test_no_method_of_a_component_can_be_called(server: Any, name: str) -> None:
    for number in range(8):
        call = {"data": [], "component_id": number, "fn_name": name, "session_hash": "x"}
        answer = server[0].post("/gradio_api/component_server/", json=call)
        assert answer.status_code in (404, 422, 500)
        assert "traceback" not in answer.text.lower()


def test_a_login_is_requested_on_every_route(folder: Path) -> None:
    file = save_ball(folder / "locked.fm")
    with (
        served([file], bake=False, logins=[("ann", "right")]) as (url, viewer),
        httpx.Client(base_url=url) as client,
    ):
        app: Any = viewer.app._app  # type: ignore[attr-defined]

        async def added(request: Any) -> Any:
            raise AssertionError("reached without a login")

        app.add_route("/added/later", added)
        routes = ["/added/later", "/nothing", *_paths(app)]
        assert len(routes) > 60
        for route in routes:
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"):
                assert client.request(method, route).status_code == 401, (method, route)
        assert client.get("/viewport", auth=("ann", "wrong")).status_code == 401
        assert client.get("/viewport", auth=("ann", "right")).status_code == 200
        assert client.get("/", auth=("ann", "right")).status_code == 200


def test_only_the_allowed_routes_answer(server: Any) -> None:
    """Requests every route of the application; a new one of Gradio's is refused until it is allowed here."""
    client, viewer = server
    scene = [f"/scenes/x{path}" for path in ("", "/bake/x", "/receipt", "/cameras")]
    own = [
        *scene,
        "/viewport",
        "/viewport.js",
        "/viewport.css",
        "/videos/x",
        "/tiles",
        "/videos",
        "/camera_path",
    ]
    allowed = {*own, *(re.sub(r"{[^}]*}", "x", path) for path in GRADIO_PATHS)}
    paths = _paths(viewer.app._app)  # type: ignore[attr-defined]
    assert len(paths) > 60
    assert {path for path in paths if _passes(client, path)} == allowed


def _passes(client: httpx.Client, path: str) -> bool:
    """Whether the guard lets any request for a path through; the application's own errors are not plain text."""
    found = set()
    for method in ("GET", "POST"):
        with client.stream(method, path) as answer:
            is_text = answer.headers.get("content-type", "").startswith("text/plain")
            found.add(not (is_text and answer.read() == b"not found\n"))
    assert len(found) == 1, path
    return found.pop()


def _paths(app: Any) -> set[str]:
    """The path of every route, mounted and included ones too, with something in place of each parameter."""
    found = set()
    for route in getattr(app, "routes", []):
        found.add(re.sub(r"{[^}]*}", "x", getattr(route, "path", "")))
        for inner in ("app", "original_router"):
            found |= _paths(getattr(route, inner, None))
    return {path for path in found if path.startswith("/")}


def test_errors_of_the_server_are_not_shown_in_detail(server: Any) -> None:
    join = {"data": [], "fn_index": 10**6, "session_hash": "x", "event_data": None}
    answer = server[0].post("/gradio_api/queue/join", json=join)
    assert answer.status_code == 500
    assert answer.text == "Internal Server Error"


def test_a_slow_or_broken_request_leaves_the_server_alone(server: Any) -> None:
    client, viewer = server
    for broken in (
        b"",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 64,
        b"POST /tiles HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
            connection.sendall(broken)
    whole = io.BytesIO(client.post("/tiles", json=request_of(CAMERA, scenes=[viewer.scenes[0].id])).content)
    assert len(whole.getvalue()) > 14
