"""An HTTP server in a thread, whose application can be replaced while it runs.

One server listens from the first second on. The loading page gives way to the viewer without a socket that changes
hands, so no request is lost and no connection is cut: each request is answered by the application of its moment.
"""

import asyncio
import errno
import logging
import socket
import sys
import threading

import uvicorn

from fieldmorph.apps.viewer.security import ANYWHERE, LOOPBACK, App, Receive, Scope, Send
from fieldmorph.fields.errors import SettingError

# How long a thread keeps Python while others wait; the default, 5e-3, left much of two cores idle with many visitors.
SWITCH_SECONDS = 2e-4


class Server:
    """A server on one socket, in a thread of its own.

    Args:
        listening: from `listen`; it is closed when the server stops.
        app: answers requests until `replace`.
    """

    def __init__(self, listening: socket.socket, app: App):
        self._listening, self._switch = listening, _Switch(app)
        config = uvicorn.Config(
            self._switch,
            lifespan="on",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
            limit_concurrency=512,
            server_header=False,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view-server", daemon=True)

    def start(self) -> None:
        """Start, and return once requests are answered."""
        sys.setswitchinterval(SWITCH_SECONDS)
        # It warns of browsers that close a connection early.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        self._thread.start()
        self._switch.started.wait()

    def replace(self, app: App) -> None:
        """Start up another application; it answers the requests that come from then on.

        Raises:
            RuntimeError: it failed to start.
        """
        asyncio.run_coroutine_threadsafe(self._switch.replace(app), self._switch.loop).result()

    def wait(self) -> None:
        """Wait until the server has stopped."""
        # Not `Thread.join`: one that a signal interrupts takes the thread for ended (bpo-45274). In parts, since a
        # signal cannot interrupt a whole one on every system.
        while not self._ended.wait(1.0):
            pass

    def stop(self) -> None:
        """Close all connections and the socket."""
        # Connections of open pages are closed, which uvicorn would report as errors.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server.should_exit = True
        if self._thread.ident is not None:
            self.wait()
        self._listening.close()

    def _run(self) -> None:
        try:
            self._server.run([self._listening])
        finally:
            self._switch.started.set()
            self._ended.set()


class _Switch:
    """An ASGI application that passes requests on to another one, which can be replaced."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, app: App):
        self._app = app
        self._lifespan: _Lifespan | None = None
        self.started = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await self._app(scope, receive, send)
        await receive()
        self.loop = asyncio.get_running_loop()
        await send({"type": "lifespan.startup.complete"})
        self.started.set()  # connections wait in the socket's queue until uvicorn takes them
        await receive()
        if self._lifespan is not None:
            await self._lifespan.shut_down()
        await send({"type": "lifespan.shutdown.complete"})

    async def replace(self, app: App) -> None:
        self._lifespan = _Lifespan(app)
        await self._lifespan.start_up()
        self._app = app


class _Lifespan:
    """Start and shutdown of an ASGI application, as its protocol `lifespan` has them."""

    def __init__(self, app: App):
        self._app = app
        self._sent, self._answers = asyncio.Queue[Scope](), asyncio.Queue[Scope]()

    async def start_up(self) -> None:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._app(scope, self._sent.get, self._answers.put))
        await self._exchange("lifespan.startup")

    async def shut_down(self) -> None:
        await self._exchange("lifespan.shutdown")
        await self._task

    async def _exchange(self, message: str) -> None:
        """Send a message and wait until it is done."""
        await self._sent.put({"type": message})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() or answer.result()["type"] != f"{message}.complete":
            answer.cancel()
            raise RuntimeError(f"the application failed at {message}")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that accepts connections, which wait until they are served.

    Raises:
        SettingError: the port is taken or not allowed, or the host is not an address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        raise SettingError(f"host {host} and port {port} cannot be used: {error}") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingError(
                f"port {port} is taken; choose another with --port, or any with --port 0"
            ) from None
        raise SettingError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    return listening


def page_url(host: str, port: int) -> str:
    """Return the URL to open on this machine."""
    name = "localhost" if host in (*LOOPBACK, *ANYWHERE) else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"
