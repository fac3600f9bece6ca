"""What stands before every route of the viewer: who may ask, from which page, how much, and what a page may load."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fieldmorph.fields.errors import InputError, SettingError

MOST_BODY = 1 << 20  # bytes of a request
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANYWHERE = ("0.0.0.0", "::")
HEADERS = {
    # Gradio's page makes functions of texts and has styles of its own; nothing may come from, or go to, another host.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Wraps a whole ASGI application, so that no route, mounted or added later, can be forgotten.

    A request is refused when its `Host` is not this server's (a foreign name that points here, DNS rebinding), when it
    comes from a page of another origin, when its path is closed or not plain, when its body is too long, or, with
    `logins`, when it does not carry one of them (HTTP Basic).
    """

    def __init__(
        self,
        app: App,
        host: str = "127.0.0.1",
        logins: Sequence[tuple[str, str]] = (),
        closed: Sequence[str] = (),
    ):
        self._app, self._host, self._closed = app, host, tuple(closed)
        self._logins = [f"{user}:{password}".encode() for user, password in logins]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            return await _refuse(scope, send, *refusal)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        await self._app(scope, _bounded(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if not self._is_ours(headers.get("host", "")):
            return 421, "this server does not go by that name"
        if not _same_origin(headers):
            return 403, "pages of other origins may not ask this server"
        if not self._knows(headers.get("authorization", "")):
            return 401, "user and password, please"
        if not _plain(scope):
            return 404, "not found"
        path = scope["path"].rstrip("/")
        if any(path == place or path.startswith((f"{place}/", f"{place}=")) for place in self._closed):
            return 404, "not found"
        if not _short(headers.get("content-length")):
            return 413, f"a request has at most {MOST_BODY} bytes"
        return None

    def _is_ours(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "") if _is_netloc(host) else ""
        if name in LOOPBACK or name == self._host:
            return True
        return self._host in ANYWHERE and _is_address(name)

    def _knows(self, authorization: str) -> bool:
        if not self._logins:
            return True
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        return sum(hmac.compare_digest(given, login) for login in self._logins) > 0  # all are compared


def read_logins(given: str | None) -> list[tuple[str, str]]:
    """`USER:PASSWORD`, or a file that has one in each line.

    Raises:
        InputError: no such file, or one that cannot be read.
        SettingError: neither.
    """
    if given is None:
        return []
    if ":" in given:
        lines = [given]
    else:
        try:
            lines = Path(given).read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise InputError(
                f"--auth takes USER:PASSWORD or a file with such lines; {given}: {error}"
            ) from None
    logins = [line.strip().partition(":") for line in lines if line.strip()]
    if not logins or not all(user and password for user, _, password in logins):
        raise SettingError("--auth takes USER:PASSWORD or a file with such lines, neither part empty")
    return [(user, password) for user, _, password in logins]


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _same_origin(headers: dict[str, str]) -> bool:
    """Whether a page of ours, or no page at all, asks."""
    origin = headers.get("origin")
    if origin is not None and (urlsplit(origin).netloc or origin) != headers.get("host"):
        return False
    # Pictures and scripts are fetched without an Origin; browsers tell in another way where from. Links are fine.
    foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    return not foreign or (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


def _plain(scope: Scope) -> bool:
    """Whether a path means itself: nothing climbs, nothing is encoded twice."""
    path = scope["path"]
    return not any(bad in path for bad in ("..", "\\", "\0", "//", "%"))


def _short(length: str | None) -> bool:
    return length is None or (length.isdecimal() and len(length) < 16 and int(length) <= MOST_BODY)


def _is_netloc(host: str) -> bool:
    return bool(host) and not any(c in host for c in "/\\@?# \t")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bounded(receive: Receive) -> Receive:
    """Bodies that come without a length are counted as they come."""
    taken = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > MOST_BODY else message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            named = {name.lower() for name, _ in own}  # the stage has a stricter policy of its own
            message = {**message, "headers": [*own, *(pair for pair in _ENCODED if pair[0] not in named)]}
        await send(message)

    return sending


async def _refuse(scope: Scope, send: Send, status: int, told: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": told})
        return
    asks = [(b"www-authenticate", b'Basic realm="fieldmorph", charset="UTF-8"')] if status == 401 else []
    body = f"{told}\n".encode()
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": status, "headers": [*plain, *asks, *_ENCODED]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


_ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
