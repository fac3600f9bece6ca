"""A view of a field while it is trained: the viewport alone, without Gradio, with a copy of it every few seconds."""

import copy
import time
from collections.abc import Callable
from types import TracebackType

import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.render_pool import FairRenderPool
from fieldmorph.apps.viewer.routes import view_routes
from fieldmorph.apps.viewer.scene_routes import scene_routes
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.security import LOCAL, App, Receive, Scope, Send
from fieldmorph.apps.viewer.server import Server, listen, page_url
from fieldmorph.apps.viewer.videos import VideoStore
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.renderable import RenderableField

EVERY_SECONDS = 3.0  # between two copies of the field
SEEN_SECONDS = 10.0  # after a request until nobody is taken to look: then nothing is copied


class LiveView:
    """A server of one scene, on this machine alone; a context manager that ends it.

    Args:
        port: 0 takes any that is free.
        name: of the field, for people.
        say: shows a line of text.

    Attributes:
        url: of the page.
        scene: the field as it was a few seconds ago; None before training begins.

    Raises:
        SettingError: the port is taken or not allowed.
    """

    def __init__(self, port: int, name: str, say: Callable[[str], None], device: str = "auto"):
        self._listening = listen(LOCAL.host, port)
        self.url = page_url(LOCAL.host, self._listening.getsockname()[1])
        self.scene: OpenScene | None = None
        self._name, self._say = name, say
        self._live: RenderableField | None = None
        self._store, self._pool, self._baker = SceneStore(device), FairRenderPool(1), Baker()
        self._videos = VideoStore(self._pool)
        self._copied_at = self._seen_at = 0.0
        self._server: Server | None = None

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()
        self._baker.close()
        self._pool.close()
        self._videos.close()
        self._listening.close()

    def open(self, live: RenderableField) -> None:
        """Serve a field whose training begins, and say where."""
        self._live = live
        self.scene = self._store.add(self._name, _copied(live), (("architecture", live.field.name),))
        self.scene.revision = 0
        routes = view_routes(self._store, self._pool, self._baker, self._videos)
        others = scene_routes(self._store, self._baker, uploads=False)
        app = Starlette(routes=[Route("/", self._page), *routes, *others])
        self._server = Server(self._listening, LOCAL.guard(self._watched(app)))
        self._server.start()
        self._say(f"{self.url}  shows the field while it trains; images that are drawn count into the budget")

    def update(self, progress: Progress) -> None:
        """Show the field as it is now, if it is time to and somebody looks."""
        scene, live, now = self.scene, self._live, time.monotonic()
        if scene is None or live is None or now - self._seen_at > SEEN_SECONDS:
            return
        if now - self._copied_at < EVERY_SECONDS:
            return
        self._copied_at = now
        psnr = "" if progress.psnr is None else f", {progress.psnr:.1f} dB"
        scene.stored = _copied(live)
        scene.status = f"step {progress.step:,}{psnr}"
        scene.revision = (scene.revision or 0) + 1

    def _page(self, _: Request) -> Response:
        assert self.scene is not None
        return RedirectResponse(f"viewport?scenes={self.scene.id}")

    def _watched(self, app: App) -> App:
        """Return the application; requests to it are noted."""

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            self._seen_at = time.monotonic()
            await app(scope, receive, send)

        return noted


def _copied(live: RenderableField) -> RenderableField:
    """Return a copy that training does not change."""
    with torch.no_grad():
        field, occupancy = copy.deepcopy(live.field), copy.deepcopy(live.occupancy)
    return RenderableField(
        field.requires_grad_(False), occupancy, live.render_step_size, live.cameras, live.provenance
    )
