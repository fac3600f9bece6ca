"""ASGI middleware: host and origin checks, authentication, sub-paths, an allow-list of paths, limits, headers."""

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.routing import compile_path

from fieldmorph.fields.errors import InputError, SettingError

MAX_BODY_BYTES = 1 << 20  # of a request
LARGE_BODIES = {"/files": 513 << 20}  # of requests for these paths
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANYWHERE = ("0.0.0.0", "::")
HEADERS = {
    # Gradio's page evaluates strings as functions and has inline styles; nothing may be loaded from, or sent to,
    # another host.
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


@dataclass(frozen=True)
class Access:
    """Names under which a server is reached, and who may reach it.

    Attributes:
        host: the address that it listens on.
        logins: pairs of user and password, one of which every request must carry; none: no authentication.
        names: further names of the server, such as that of a reverse proxy.
        root_path: path of the server behind a reverse proxy, such as `/viewer`, or its whole address.
    """

    host: str = "127.0.0.1"
    logins: Sequence[tuple[str, str]] = ()
    names: Sequence[str] = ()
    root_path: str = ""

    def guard(self, app: App, allowed: Sequence[str] = ("/{path:path}",)) -> "Guard":
        """Return the guard of an application; arguments and errors are those of `Guard`."""
        return Guard(app, self.host, self.logins, allowed, self.names, self.root_path)


LOCAL = Access()  # this machine alone, without a password


class Guard:
    """Wrapper of a whole ASGI application, so that no route, mounted or added later, can be forgotten.

    A request is refused when its `Host` is not this server's (a foreign name that resolves to it, DNS rebinding), when
    it comes from a page of another origin, when it carries none of `logins` (HTTP Basic) where there are some, when its
    path is not allowed, or when its body is too long.

    Args:
        host: the name under which the server is reached besides the loopback's names.
        logins: pairs of user and password; none: no authentication.
        allowed: paths of routes, as `starlette.routing` writes them; all by default.
        names: further names under which the server is reached, such as that of a reverse proxy.
        root_path: of the server behind a reverse proxy, a path or an address; requests may come with or without it.

    Raises:
        SettingError: as `read_root_path`.
    """

    def __init__(
        self,
        app: App,
        host: str = "127.0.0.1",
        logins: Sequence[tuple[str, str]] = (),
        allowed: Sequence[str] = ("/{path:path}",),
        names: Sequence[str] = (),
        root_path: str = "",
    ):
        self._app, self._host = app, host
        self._root_path, proxy = read_root_path(root_path)
        self._proxies = {name.lower() for name in (*names, proxy) if name}
        self._names = {*LOOPBACK, host.lower(), *self._proxies}
        self._allowed = [compile_path(path)[0] for path in allowed]
        self._logins = [f"{user}:{password}".encode() for user, password in logins]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = _headers(scope)
        scope = self._below_root(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            return await _refuse(scope, send, *refusal)
        if scope["type"] == "http" and not scope["path"]:
            return await _redirect(send, f"{self._root_path}/")  # the page's addresses are relative
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        await self._app(scope, _bounded(receive, max_body_bytes(scope)), _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and message where a request is refused."""
        if not self._is_ours(host := headers.get("host", "")):
            name = _host_name(host)
            known = f"unrecognised Host header {name}: if it is meant, start with --allow-host {name}"
            return 421, known if name else "missing or malformed Host header"
        if not self._same_origin(headers):
            return 403, self._refused_origin(headers)
        if not self._is_authenticated(headers.get("authorization", "")):
            return 401, "authentication required"
        if not _is_plain(scope) or not any(path.match(scope["path"] or "/") for path in self._allowed):
            return 404, "not found"
        if not _is_short(headers.get("content-length"), max_body_bytes(scope)):
            return 413, f"a request has at most {max_body_bytes(scope)} bytes"
        return None

    def _is_ours(self, host: str) -> bool:
        name = _host_name(host)
        return name in self._names or (self._host in ANYWHERE and _is_address(name))

    def _same_origin(self, headers: dict[str, str]) -> bool:
        """Return whether a request comes from a page of this server, or from no page at all."""
        origin = headers.get("origin")
        if origin is not None and (urlsplit(origin).netloc or origin) != headers.get("host"):
            return _origin_name(origin) in self._proxies  # a proxy may replace the Host header by its own
        # Images and scripts are fetched without an Origin, but with Sec-Fetch-Site. Links from other sites are allowed.
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        return not foreign or (
            headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        )

    def _refused_origin(self, headers: dict[str, str]) -> str:
        name = _origin_name(headers.get("origin", ""))
        advice = f": behind a proxy of this name, start with --allow-host {name}" if name else ""
        return f"requests from pages of other origins are refused{advice}"

    def _below_root(self, scope: Scope) -> Scope:
        """Return a scope whose path has no root path; it is empty where the request is for the root path itself."""
        root, path = self._root_path, scope["path"]
        if not root or not (path == root or path.startswith(f"{root}/")):
            return scope
        return {**scope, "path": path.removeprefix(root)}

    def _is_authenticated(self, authorization: str) -> bool:
        if not self._logins:
            return True
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        return sum(hmac.compare_digest(given, login) for login in self._logins) > 0  # all, in constant time


def read_logins(given: str | None) -> list[tuple[str, str]]:
    """Return pairs of user and password from `USER:PASSWORD`, or from a file of such lines.

    Raises:
        InputError: the file cannot be read.
        SettingError: it holds no such line, or a part of one is empty.
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


def read_root_path(given: str) -> tuple[str, str]:
    """Return the path of the server behind a proxy, and the proxy's name; both empty where none is given.

    Args:
        given: a path such as `/viewer`, or the whole address, which has the proxy's name.

    Raises:
        SettingError: it is neither.
    """
    match = re.fullmatch(r"(?:https?://([\w.-]+)(?::\d+)?)?((?:/[\w.~-]+)*)/?", given, re.ASCII)
    if match is None or "/.." in given:
        raise SettingError(
            f"--root-path takes a path such as /viewer or an address such as https://HOST/viewer; got {given}"
        )
    return match[2], match[1] or ""


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _is_plain(scope: Scope) -> bool:
    """Return whether a path has no parts that are interpreted: none that leads upwards, none that is encoded twice."""
    path = scope["path"]
    return not any(bad in path for bad in ("..", "\\", "\0", "//", "%"))


def max_body_bytes(scope: Scope) -> int:
    """Return how long the body of a request may be."""
    return LARGE_BODIES.get(scope["path"], MAX_BODY_BYTES)


def _is_short(length: str | None, max_bytes: int) -> bool:
    return length is None or (length.isdecimal() and len(length) < 16 and int(length) <= max_bytes)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port; empty where the header is malformed."""
    if not host or any(c in host for c in "/\\@?# \t"):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _origin_name(origin: str) -> str:
    """Return the host's name in an Origin header; empty where it has none."""
    return _host_name(origin.partition("://")[2])


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    """Wrap `receive` so that a body without a length ends the connection once it is too long."""
    received = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return {"type": "http.disconnect"} if received > max_bytes else message

    return bounded


def _with_headers(send: Send) -> Send:
    """Wrap `send` so that every response has HEADERS, unless it has its own."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            named = {name.lower() for name, _ in own}  # the viewport has a stricter policy of its own
            message = {**message, "headers": [*own, *(pair for pair in _ENCODED if pair[0] not in named)]}
        await send(message)

    return sending


async def _redirect(send: Send, path: str) -> None:
    location = [(b"location", path.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": [*location, *_ENCODED]})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Send, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    challenge = [(b"www-authenticate", b'Basic realm="fieldmorph", charset="UTF-8"')] if status == 401 else []
    body = f"{message}\n".encode()
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": status, "headers": [*plain, *challenge, *_ENCODED]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


_ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
