import asyncio
import base64
from typing import Any

import pytest

from fieldmorph.apps.viewer.security import MAX_BODY_BYTES, Guard, read_logins, read_root_path
from fieldmorph.fields.errors import InputError, SettingError

HERE = "127.0.0.1:7860"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and says how long it was."""
    taken = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("cut off")
        taken += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": str(taken).encode()})


def respond(
    guard: Guard, path: str = "/", kind: str = "http", parts: tuple[bytes, ...] = (b"",), **headers: str
) -> Any:
    """Status (or close code), headers and body of one request."""
    named = {"host": HERE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": kind, "path": path, "headers": [(k.encode(), v.encode()) for k, v in named.items()]}
    waiting = [
        {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}
        for i, part in enumerate(parts)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    if kind == "websocket":
        return sent[0]["type"], sent[0]["code"]
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize("host", [HERE, "localhost:9000", "[::1]:7860", "127.0.0.1"])
def test_the_loopback_is_answered_by_any_of_its_names(host: str) -> None:
    assert respond(Guard(application), host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:7860", "127.0.0.1.evil.example", "localhost@evil.example", "192.168.0.7", "", "a b"],
)
def test_a_foreign_name_that_points_here_is_refused(host: str) -> None:
    assert respond(Guard(application), host=host)[0] == 421


def test_a_server_on_all_addresses_goes_by_any_address_and_no_foreign_name() -> None:
    guard = Guard(application, "0.0.0.0")
    assert respond(guard, host="192.168.0.7:7860")[0] == 200
    assert respond(guard, host="evil.example:7860")[0] == 421
    assert respond(Guard(application, "render.lan"), host="render.lan:7860")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:7861", "http://localhost:7860", "file://", ""]
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_page_of_another_origin_is_refused(origin: str, kind: str) -> None:
    answer = respond(Guard(application), kind=kind, origin=origin)
    assert answer[0] == 403 or answer == ("websocket.close", 1008)


def test_our_own_page_may_call_also_through_a_tunnel_of_another_port() -> None:
    assert respond(Guard(application), origin=f"http://{HERE}")[0] == 200
    assert respond(Guard(application), host="localhost:9000", origin="http://localhost:9000")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_foreign_pages_may_link_here_but_not_embed_or_fetch(site: str) -> None:
    guard, names = Guard(application), {"sec_fetch_site": site}
    assert respond(guard, **names, sec_fetch_mode="no-cors", sec_fetch_dest="image")[0] == 403
    assert respond(guard, **names, sec_fetch_mode="navigate", sec_fetch_dest="iframe")[0] == 403
    assert respond(guard, **names, sec_fetch_mode="navigate", sec_fetch_dest="document")[0] == 200


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic !!!", basic("ann"), basic("ann:"), basic("ann:wrong"), "Bearer x"]
)
def test_without_a_login_nothing_is_answered(given: str) -> None:
    guard = Guard(application, logins=[("ann", "geheim: 7"), ("bob", "ü")])
    status, headers, _ = respond(guard, "/any/route/at/all", authorization=given)
    assert status == 401
    assert headers[b"www-authenticate"].startswith(b"Basic")
    assert respond(guard, authorization=basic("ann:geheim: 7"))[0] == 200
    assert respond(guard, authorization=basic("bob:ü"))[0] == 200


@pytest.mark.parametrize("path", ["/a/../b", "/..", "/a\\b", "/a%2e%2e/b", "//etc", "/file=http://x", "/a\0"])
def test_a_path_that_does_not_mean_itself_is_not_found(path: str) -> None:
    assert respond(Guard(application), path)[0] == 404


def test_only_allowed_paths_are_answered() -> None:
    guard = Guard(application, allowed=["/api", "/g/{name}", "/file={path:path}"])
    assert [respond(guard, path)[0] for path in ("/api", "/g/x", "/file=a/b")] == [200] * 3
    others = ("/", "/api/", "/api/x", "/apis", "/g", "/g/", "/g/x/y", "/file")
    assert [respond(guard, path)[0] for path in others] == [404] * 8
    assert respond(guard, "/other", kind="websocket") == ("websocket.close", 1008)


def test_refusals_say_why() -> None:
    guard = Guard(application, logins=[("ann", "x")])
    assert respond(guard)[2] == b"authentication required\n"
    refusal = respond(guard, host="render.lan:7860")[2]
    assert refusal == (
        b"unrecognised Host header render.lan: if it is meant, start with --allow-host render.lan\n"
    )
    assert respond(guard, host="a b")[2] == b"missing or malformed Host header\n"
    assert respond(guard, host="[::1")[2] == b"missing or malformed Host header\n"
    assert respond(guard, origin="http://evil.example")[2] == (
        b"requests from pages of other origins are refused: behind a proxy of this name, start with "
        b"--allow-host evil.example\n"
    )
    assert respond(guard, origin="null")[2] == b"requests from pages of other origins are refused\n"


def test_a_name_that_is_allowed_is_answered_also_when_a_proxy_replaces_it() -> None:
    guard = Guard(application, names=["Nerf.Example"])
    assert respond(guard, host="nerf.example")[0] == 200
    assert respond(guard, host="nerf.example", origin="https://nerf.example")[0] == 200
    assert respond(guard, origin="https://nerf.example")[0] == 200  # the proxy's Host is 127.0.0.1
    assert respond(guard, host="evil.example")[0] == 421
    assert respond(guard, origin="https://evil.example")[0] == 403
    assert respond(Guard(application, names=[""]), host="")[0] == 421


def test_below_a_root_path_the_same_paths_are_allowed() -> None:
    guard = Guard(application, allowed=["/", "/api"], root_path="/nerf")
    assert [respond(guard, path)[0] for path in ("/nerf/", "/nerf/api", "/", "/api")] == [200] * 4
    status, headers, _ = respond(guard, "/nerf")
    assert (status, headers[b"location"]) == (307, b"/nerf/")
    refused = ("/nerfapi", "/nerf/nerf/api", "/nerf/other", "/nerf/../api", "/nerf//api")
    assert [respond(guard, path)[0] for path in refused] == [404] * 5


def test_the_name_in_a_root_path_is_allowed() -> None:
    guard = Guard(application, root_path="https://nerf.example/a")
    assert respond(guard, host="nerf.example")[0] == 200
    assert respond(guard, "/a/b", origin="https://nerf.example")[0] == 200
    assert respond(guard, host="evil.example")[0] == 421


def test_a_root_path_is_a_plain_path_or_address() -> None:
    assert [read_root_path(path) for path in ("", "/", "/nerf/", "/user/ann/proxy/7860")] == [
        *[("", "")] * 2,
        ("/nerf", ""),
        ("/user/ann/proxy/7860", ""),
    ]
    assert read_root_path("https://nerf.example:8443/a/b/") == ("/a/b", "nerf.example")
    for bad in ("nerf", "ftp://x/y", "/a//b", "/../a", "/a b", "/a?b", "http:///a"):
        with pytest.raises(SettingError, match="--root-path takes a path such as /viewer or an address"):
            read_root_path(bad)


@pytest.mark.parametrize("length", ["9" * 12, str(MAX_BODY_BYTES + 1), "-1", "1e3", "0x10"])
def test_a_body_that_claims_too_much_is_refused(length: str) -> None:
    assert respond(Guard(application), content_length=length)[0] == 413


def test_a_body_without_a_length_is_cut_off() -> None:
    piece = b"x" * (MAX_BODY_BYTES // 4)
    assert respond(Guard(application), parts=(piece,) * 4)[2] == str(MAX_BODY_BYTES).encode()
    with pytest.raises(ConnectionError, match="cut off"):
        respond(Guard(application), parts=(piece,) * 5)


def test_answers_say_that_nothing_may_come_from_other_hosts() -> None:
    headers = respond(Guard(application))[1]
    assert headers[b"x-own"] == b"1"
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http" not in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_a_route_with_a_stricter_policy_keeps_it() -> None:
    strict = b"default-src 'none'"

    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-security-policy", strict)]}
        )
        await send({"type": "http.response.body", "body": b""})

    assert respond(Guard(own))[1][b"content-security-policy"] == strict


def test_logins_come_from_the_command_line_or_a_file(tmp_path: Any) -> None:
    assert read_logins(None) == []
    assert read_logins("ann:a:b") == [("ann", "a:b")]
    (tmp_path / "logins").write_text("ann:x\n\n bob:y \n", encoding="utf-8")
    assert read_logins(str(tmp_path / "logins")) == [("ann", "x"), ("bob", "y")]
    for bad in (":x", "ann:", ":"):
        with pytest.raises(SettingError, match="USER:PASSWORD"):
            read_logins(bad)
    (tmp_path / "empty").write_text("", encoding="utf-8")
    with pytest.raises(SettingError, match="USER:PASSWORD"):
        read_logins(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="nothere"):
        read_logins(str(tmp_path / "nothere"))
