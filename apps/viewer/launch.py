"""`fieldmorph view`: a server whose first page shows how the viewer loads, and then the viewer.

torch and Gradio are imported while that page is served, so nothing here, or that this imports at its top, imports them.
"""

import importlib
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from fieldmorph.apps.viewer.loading import STEPS, LoadingPage, LoadingState
from fieldmorph.apps.viewer.security import Access, read_logins
from fieldmorph.apps.viewer.server import Server, listen, page_url

if TYPE_CHECKING:
    from fieldmorph.apps.tensor.map_layers import MapSettings

PORT = 7860
READY = "Ready"  # the last step
TERMINATED = 128 + signal.SIGTERM  # exit code


@dataclass(frozen=True)
class Address:
    """The address at which the viewer is reached, and who may reach it.

    Attributes:
        host: address to listen on.
        port: 0 takes any that is free.
        auth: USER:PASSWORD, or a file of such lines; None: no password.
        names, root_path: as for `Access`.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    auth: str | None = None
    names: Sequence[str] = ()
    root_path: str = ""

    def access(self) -> Access:
        """Return the address without its port, with the passwords read.

        Raises:
            SettingError, InputError: as `read_logins`.
        """
        return Access(self.host, read_logins(self.auth), self.names, self.root_path)


def view_files(
    files: Sequence[str | Path],
    *,
    address: Address = Address(),
    data: str | Path | None = None,
    maps: Callable[[], "MapSettings | None"] = lambda: None,
    browser: bool = True,
    device: str = "auto",
    threads: int | None = None,
    max_pixels: int | None = None,
    bake: bool = True,
    say: Callable[[str], None] = print,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve up to two fields and a tensor model until interrupted.

    It has more than ten arguments, since nearly each is an option of `fieldmorph view`.

    Args:
        files, data, device, threads, max_pixels, bake: as for `fieldmorph.apps.viewer.app.make_viewer`.
        maps: returns that argument of `make_viewer`, once PyTorch is loaded.
        browser: whether to open the page where there is a desktop.
        say: shows a line of text; the first begins with the page's URL, where requests are answered from then on.
        on_step: called with the title of each step of loading, and at last with READY.

    Raises:
        SettingError: the port is taken or not allowed, or `auth` or `root_path` is malformed.
        InputError, UnsafeError: a file cannot be read.
    """
    access, state = address.access(), LoadingState(on_step)
    loading = access.guard(LoadingPage(state))
    listening = listen(address.host, address.port)
    port = listening.getsockname()[1]
    url = page_url(address.host, port)
    server, viewer = Server(listening, loading), None
    with _exit_when_terminated():
        try:
            server.start()
            say(f"{url}  (press Ctrl-C to stop)")
            if os.environ.get("SSH_CONNECTION"):
                say(f"from your own machine: ssh -N -L {port}:127.0.0.1:{port} THIS_HOST, then open {url}")
            elif browser and _has_desktop():
                webbrowser.open(url)
            state.begin(STEPS[0])
            importlib.import_module("fieldmorph.fields.runtime").use_threads(threads)
            app = importlib.import_module("fieldmorph.apps.viewer.app")
            bound = {} if max_pixels is None else {"max_pixels": max_pixels}
            viewer = app.make_viewer(
                files,
                access=access,
                data=data,
                maps=maps(),
                device=device,
                threads=threads,
                bake=bake,
                on_step=state.begin,
                **bound,
            )
            server.replace(viewer.app)
            on_step(READY)
            server.wait()
        finally:
            server.stop()
            if viewer is not None:
                viewer.close()


@contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """Make a request to terminate end the block like an error, so that nothing of it stays."""

    def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _has_desktop() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
