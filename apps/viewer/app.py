"""`fieldmorph view`: a server with one page that shows and compares fields, converts them, explores a tensor model."""

import errno
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmorph.apps.viewer.baker import RESOLUTION, Baker
from fieldmorph.apps.viewer.conversion import ConversionSlot
from fieldmorph.apps.viewer.render_pool import FairRenderPool
from fieldmorph.apps.viewer.routes import view_routes
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.security import ANYWHERE, LOOPBACK, App, Guard, read_logins, read_root_path
from fieldmorph.apps.viewer.videos import VideoStore
from fieldmorph.fields.checkpoint import read_header
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.runtime import compile_kernels

if TYPE_CHECKING:
    from fieldmorph.apps.tensor.map_layers import MapSettings

PORT = 7860
MAX_FIELDS = 2
# How long a thread keeps Python while others wait; the default, 5e-3, left much of two cores idle with many visitors.
SWITCH_SECONDS = 2e-4
NEEDED = "the viewer needs gradio: pip install 'fieldmorph[view]'"
# Paths of Gradio's that its page needs; all others, such as those of uploads and of its API, are refused.
GRADIO_PATHS = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/assets/{path:path}",
    "/static/{path:path}",
    "/gradio_api/heartbeat/{session_hash}",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/component_server/",
    "/gradio_api/file={path_or_url:path}",
    "/gradio_api/cancel",
    "/gradio_api/reset",
)


@dataclass(eq=False)
class Viewer:
    """A viewer that can be served: an ASGI application, and the threads and processes behind it."""

    app: App
    store: SceneStore
    pool: FairRenderPool
    baker: Baker
    videos: VideoStore
    slot: ConversionSlot
    scenes: list[OpenScene]

    def close(self) -> None:
        """End all threads and processes, and remove all videos."""
        self.slot.close()
        self.baker.close()
        self.pool.close()
        self.videos.close()


def make_viewer(
    files: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    logins: Sequence[tuple[str, str]] = (),
    data: str | Path | None = None,
    maps: "MapSettings | None" = None,
    device: str = "auto",
    threads: int | None = None,
    bake: bool = True,
    resolution: int = RESOLUTION,
    names: Sequence[str] = (),
    root_path: str = "",
) -> Viewer:
    """Return a viewer of up to two fields and a tensor model.

    It has more than ten arguments, since nearly each is an option of `fieldmorph view`.

    Args:
        files: checkpoints of fields and of a tensor model.
        host: the name under which the server is reached besides the loopback's names.
        logins: pairs of user and password, one of which every request must carry.
        data: a table that the tensor model was not fitted to, to show the coverage of its intervals.
        maps: mask and measured places of the tensor model's maps.
        device: for fields.
        threads: cores to use; all by default.
        bake: whether to bake the volumes that the browser draws by itself.
        resolution: of the bakes, cells along the longest side of the box.
        names: further names under which the server is reached, such as that of a reverse proxy.
        root_path: path of the server behind a reverse proxy, such as `/viewer`, or its whole address.

    Raises:
        InputError, UnsafeError: a file cannot be read.
        SettingError: too many files, a root path that is none, or data or maps without a tensor model.
        ImportError: gradio is missing.
    """
    read_root_path(root_path)  # a mistake is reported before anything is loaded
    models = [path for path in files if read_header(path)["kind"] == "posterior"]
    fields = [path for path in files if path not in models]
    if len(fields) > MAX_FIELDS or len(models) > 1:
        raise SettingError(
            f"view takes at most {MAX_FIELDS} fields and one tensor model; got {len(fields)} and {len(models)}"
        )
    if data is not None and not models:
        raise SettingError("--data is a table for a tensor model; none was given")
    if maps is not None and not models:
        raise SettingError("--mask and --points are for a tensor model; none was given")
    try:
        from fieldmorph.apps.viewer.page import make_blocks, make_page
    except ModuleNotFoundError as error:
        raise ImportError(NEEDED) from error
    store = SceneStore(device)
    scenes = [store.open(path) for path in fields]
    tensor = _open_model(models[0], data, maps) if models else None
    compile_kernels()
    pool, baker = FairRenderPool(threads or _cores()), Baker(resolution)
    videos, slot = VideoStore(pool), ConversionSlot()
    for scene in scenes if bake else []:
        baker.add(scene)
    routes = view_routes(store, pool, baker, videos)
    app = make_page(routes, make_blocks(scenes, store, pool, baker, slot, tensor), root_path)
    allowed = (*(route.path for route in routes), *GRADIO_PATHS)
    return Viewer(
        Guard(app, host, logins, allowed, names, root_path), store, pool, baker, videos, slot, scenes
    )


def serve(
    viewer: Viewer, listening: socket.socket, on_ready: Callable[[Callable[[], None]], None] = lambda _: None
) -> None:
    """Serve on a socket until interrupted, then close the viewer.

    Args:
        listening: from `listen`.
        on_ready: called once requests are answered, with a function that stops the server, from any thread.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready(lambda: setattr(self, "should_exit", True))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Connections of open pages are closed, which uvicorn would report as errors.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    sys.setswitchinterval(SWITCH_SECONDS)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of browsers that close a connection early
    config = uvicorn.Config(
        viewer.app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=512,
        server_header=False,
        ws="none",
    )
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
    maps: "MapSettings | None" = None,
    browser: bool = True,
    device: str = "auto",
    threads: int | None = None,
    names: Sequence[str] = (),
    root_path: str = "",
    say: Callable[[str], None] = print,
) -> None:
    """Serve up to two fields and a tensor model until interrupted.

    It has more than ten arguments, since each is an option of `fieldmorph view`.

    Args:
        files, host, data, maps, device, threads, names, root_path: as for `make_viewer`.
        port: 0 takes any that is free.
        auth: USER:PASSWORD, or a file of such lines.
        browser: whether to open the page where there is a desktop.
        say: shows a line of text.

    Raises:
        SettingError: the port is taken or not allowed, or `auth` is malformed.
        InputError, UnsafeError: a file cannot be read.
    """
    listening = listen(host, port)
    try:
        viewer = make_viewer(
            files,
            host=host,
            logins=read_logins(auth),
            data=data,
            maps=maps,
            device=device,
            threads=threads,
            names=names,
            root_path=root_path,
        )
    except BaseException:
        listening.close()
        raise
    port = listening.getsockname()[1]
    url = page_url(host, port)

    def ready(_: Callable[[], None]) -> None:
        say(f"{url}  (press Ctrl-C to stop)")
        if os.environ.get("SSH_CONNECTION"):
            say(f"from your own machine: ssh -N -L {port}:127.0.0.1:{port} THIS_HOST, then open {url}")
        elif browser and _has_desktop():
            webbrowser.open(url)

    serve(viewer, listening, ready)


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


def _open_model(path: str | Path, data: str | Path | None, maps: "MapSettings | None") -> tuple[Any, Any]:
    """Return what the tensor tab shows: an explorer of the model, and measurements that it was not fitted to."""
    from fieldmorph.apps.tensor.explorer import Explorer
    from fieldmorph.apps.tensor.jobs import read_measurements
    from fieldmorph.apps.tensor.map_layers import MapSettings, open_layers
    from fieldmorph.bayes.store import load_posterior

    posterior = load_posterior(path)
    layers = open_layers(posterior, maps or MapSettings())
    return Explorer(posterior, layers), None if data is None else read_measurements(data, posterior)


def _has_desktop() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
