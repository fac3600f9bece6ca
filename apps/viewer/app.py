"""`fieldmorph view`: one page on one port in which fields are looked at and compared, and a tensor model explored."""

import errno
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.viewer.baker import RESOLUTION, Baker
from fieldmorph.apps.viewer.conversion import Desk
from fieldmorph.apps.viewer.render_pool import Pool
from fieldmorph.apps.viewer.routes import view_routes
from fieldmorph.apps.viewer.scenes import Scene, Shelf
from fieldmorph.apps.viewer.security import ANYWHERE, LOOPBACK, App, Guard, read_logins
from fieldmorph.apps.viewer.videos import Films
from fieldmorph.fields.checkpoint import read_header
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.runtime import compile_kernels

PORT = 7860
MOST_FIELDS = 2
# That a thread keeps Python while others want it; 5e-3, the default, left much of two cores idle with many visitors.
SWITCH_SECONDS = 2e-4
NEEDED = "the viewer needs gradio: pip install 'fieldmorph[view]'"
# Routes of Gradio's that this page does without: uploads, other hosts, interfaces for programs.
CLOSED = tuple(
    f"{prefix}/{name}"
    for prefix in ("", "/gradio_api")
    for name in (
        "upload", "upload_progress", "proxy", "file/", "api", "call", "run", "openapi.json", "mcp", "monitoring",
        "stream", "deep_link", "custom_component", "dev", "token", "login", "logout", "docs", "redoc", "runs",
        "run-history", "process_recording", "profiling", "vibe-edit", "undo-vibe-edit", "vibe-code",
        "vibe-starter-queries",
    )
)  # fmt: skip


@dataclass(eq=False)
class Viewer:
    """A viewer that can be served: an ASGI application and what works behind it."""

    app: App
    shelf: Shelf
    pool: Pool
    baker: Baker
    films: Films
    desk: Desk
    scenes: list[Scene]

    def close(self) -> None:
        """End all threads and processes, remove all films."""
        self.desk.close()
        self.baker.close()
        self.pool.close()
        self.films.close()


def make_viewer(
    files: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    logins: Sequence[tuple[str, str]] = (),
    data: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    bake: bool = True,
    resolution: int = RESOLUTION,
) -> Viewer:
    """A viewer of up to two fields and a tensor model.

    Args:
        data: a table that the tensor model has not seen, to show how well its intervals hold.
        host: the name under which it is reached besides the loopback's.
        logins: user and password, one of which every request must carry.
        threads: cores to use; all by default.
        bake: make what the browser draws by itself, of this `resolution`.

    Raises:
        InputError, UnsafeError: a file that cannot be read.
        SettingError: too many files, or data without a tensor model.
        ImportError: gradio is missing.
    """
    models = [path for path in files if read_header(path)["kind"] == "posterior"]
    fields = [path for path in files if path not in models]
    if len(fields) > MOST_FIELDS or len(models) > 1:
        raise SettingError(
            f"view takes at most {MOST_FIELDS} fields and one tensor model; got {len(fields)} and {len(models)}"
        )
    if data is not None and not models:
        raise SettingError("--data is a table for a tensor model; none was given")
    try:
        from fieldmorph.apps.viewer.page import make_blocks, make_page
    except ModuleNotFoundError as error:
        raise ImportError(NEEDED) from error
    shelf = Shelf(device)
    scenes = [shelf.open(path) for path in fields]
    tensor = _open_model(models[0], data) if models else None
    compile_kernels()
    pool, baker = Pool(threads or _cores()), Baker(resolution)
    films, desk = Films(pool), Desk()
    for scene in scenes if bake else []:
        baker.add(scene)
    blocks = make_blocks(scenes, shelf, pool, baker, desk, tensor)
    app = make_page(view_routes(shelf, pool, baker, films), blocks)
    return Viewer(Guard(app, host, logins, CLOSED), shelf, pool, baker, films, desk, scenes)


def serve(
    viewer: Viewer, listening: socket.socket, on_ready: Callable[[Callable[[], None]], None] = lambda _: None
) -> None:
    """Answer on a socket until interrupted, then close the viewer.

    Args:
        on_ready: called once it answers, with a function that ends it, from any thread.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready(lambda: setattr(self, "should_exit", True))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(
                logging.CRITICAL
            )  # that open pages are cut off is no news
            await super().shutdown(sockets)

    sys.setswitchinterval(SWITCH_SECONDS)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # a browser that goes away in mid-picture is no news
    config = uvicorn.Config(
        viewer.app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, limit_concurrency=512,
        server_header=False, ws="none",
    )  # fmt: skip
    try:
        Server(config).run([listening])
    finally:
        viewer.close()


def view_files(
    files: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    auth: str | None = None,
    data: str | Path | None = None,
    browser: bool = True,
    device: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve up to two fields and a tensor model until interrupted.

    Args:
        port: 0 takes any that is free.
        auth: USER:PASSWORD, or a file of such lines.
        data: as for `make_viewer`.
        browser: open the page, where there is a desktop.

    Raises:
        SettingError: a port that is taken or not allowed, or a bad `auth`.
        InputError, UnsafeError: a file that cannot be read.
    """
    listening = listen(host, port)
    try:
        viewer = make_viewer(
            files, host=host, logins=read_logins(auth), data=data, device=device, threads=threads
        )
    except BaseException:
        listening.close()
        raise
    port = listening.getsockname()[1]
    url = page_url(host, port)

    def ready(_: Callable[[], None]) -> None:
        say(f"{url}  (Ctrl-C ends it)")
        if os.environ.get("SSH_CONNECTION"):
            say(f"from your own machine: ssh -N -L {port}:127.0.0.1:{port} THIS_HOST, then open {url}")
        elif browser and _has_desktop():
            webbrowser.open(url)

    serve(viewer, listening, ready)


def listen(host: str, port: int) -> socket.socket:
    """A socket on which connections wait from now on.

    Raises:
        SettingError: the port is taken or not allowed, or the host is none of this machine's.
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
    """What to open on this machine."""
    name = "localhost" if host in (*LOOPBACK, *ANYWHERE) else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def _open_model(path: str | Path, data: str | Path | None) -> tuple[Any, Any]:
    """What the tensor tab shows: an explorer of the model, and measurements it has not seen."""
    from fieldmorph.apps.tensor.explorer import Explorer
    from fieldmorph.apps.tensor.jobs import read_measurements
    from fieldmorph.bayes.store import load_posterior

    posterior = load_posterior(path)
    return Explorer(posterior), None if data is None else read_measurements(data, posterior)


def _has_desktop() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
