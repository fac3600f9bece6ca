"""The viewer's own routes: the viewport, facts and bakes of scenes, tiles of rendered images, and videos."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.apps.viewer.render_pool import FairRenderPool, Unit
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.tiles import (
    MAX_PIXELS,
    MAX_SHOWN,
    RayCostEstimator,
    Tile,
    View,
    check_distance,
    read_view,
    render_tile,
    text_message,
    tile_message,
    tiles,
)
from fieldmorph.apps.viewer.videos import VideoPlan, VideoStore, read_plan
from fieldmorph.apps.viewer.viewport import (
    VIEWPORT_POLICY,
    viewport_page,
    viewport_script,
    viewport_style,
)
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.types import JsonObject

PROGRESS_STEP = 1e-3  # of a video between two reports within a frame
VIEWER_LENGTHS = (16, 64)  # minimum and maximum characters of a viewer's random name
NO_STORE = {"cache-control": "no-store"}


def view_routes(
    store: SceneStore, pool: FairRenderPool, baker: Baker, videos: VideoStore, max_pixels: int = MAX_PIXELS
) -> list[Route]:
    """Return the routes /viewport, /scenes, /tiles and /videos; an image has at most `max_pixels`."""

    def get(path: str, answer: Callable[..., Response]) -> Route:
        return Route(path, with_errors(answer), methods=["GET"])

    def scene(request: Request) -> OpenScene:
        return store.get(request.path_params["scene"])

    def page(_: Request) -> Response:
        return HTMLResponse(viewport_page(max_pixels), headers={"content-security-policy": VIEWPORT_POLICY})

    def facts(request: Request) -> Response:
        return JSONResponse(describe(scene(request), baker), headers=NO_STORE)

    def bake_file(request: Request) -> Response:
        files = baker.files(scene(request), request.path_params.get("cells"))
        content = files.get(request.path_params["name"])
        if content is None:
            raise InputError("a bake has no such file")
        return Response(content, media_type="application/octet-stream", headers=NO_STORE)

    def video(request: Request) -> Response:
        return FileResponse(
            videos.get(request.path_params["video"]), media_type="video/mp4", headers=NO_STORE
        )

    async def image(request: Request) -> Response:
        shown, view, viewer = _read_request(await read_json(request), store, max_pixels)
        return await _stream_tiles(pool, viewer, shown, view)

    async def render_video(request: Request) -> Response:
        body = await read_json(request)
        return await _stream_video(pool, videos, _read_scenes(body, store), read_plan(body))

    return [
        get("/viewport", page),
        get(
            "/viewport.js",
            lambda _: Response(viewport_script(), media_type="text/javascript", headers=NO_STORE),
        ),
        get("/viewport.css", lambda _: Response(viewport_style(), media_type="text/css", headers=NO_STORE)),
        get("/scenes/{scene}", facts),
        get("/scenes/{scene}/bake/{name}", bake_file),
        get("/scenes/{scene}/bake/{cells:int}/{name}", bake_file),
        get("/videos/{video}", video),
        Route("/tiles", with_errors(image), methods=["POST"]),
        Route("/videos", with_errors(render_video), methods=["POST"]),
    ]


def describe(scene: OpenScene, baker: Baker) -> JsonObject:
    """Return what the viewport needs to know of a scene, as JSON values."""
    return {
        "id": scene.id,
        "name": scene.name,
        "facts": [list(fact) for fact in scene.facts],
        "aabb": scene.stored.field.box(),
        "camera": scene.first_view,
        "bake": baker.state(scene),
        "quality": scene.status or scene.quality,
        "revision": scene.revision,
        "has_receipt": scene.receipt_page is not None,
    }


def image_units(shown: Sequence[OpenScene], view: View) -> list[Unit]:
    """Return a unit for each tile; the tiles of two scenes take turns, so that both appear together."""
    camera = view.camera
    spans = (*view.spans, None, None)
    each = [
        [
            (index, scene, tile)
            for tile in tiles(camera.width, camera.height, _cost(scene, view).tile_side(), spans[index])
        ]
        for index, scene in enumerate(shown)
    ]
    queued = sorted(
        ((i / len(parts), part) for parts in each for i, part in enumerate(parts)), key=lambda pair: pair[0]
    )
    return [partial(_tile, *part, view) for _, part in queued]


class ResponseQueue:
    """Queue of messages from threads of the pool to a response that the event loop writes."""

    def __init__(self) -> None:
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

    def put(self, message: bytes | None) -> None:
        """Add a message, from any thread; None ends the response."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    def response(self, on_end: Callable[[], None], media_type: str) -> Response:
        """Return a response that streams the messages; `on_end` is called when it is no longer read."""

        async def messages() -> AsyncIterator[bytes]:
            try:
                while (message := await self._queue.get()) is not None:
                    yield message
            finally:
                on_end()

        return StreamingResponse(messages(), media_type=media_type, headers=NO_STORE)


async def _stream_tiles(
    pool: FairRenderPool, viewer: str, shown: Sequence[OpenScene], view: View
) -> Response:
    """Stream tiles as they are rendered; this supersedes the viewer's earlier requests."""
    queue = ResponseQueue()

    def finish(error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Cancelled):
            queue.put(text_message(f"The field could not be rendered: {_first_line(error)}"))
        queue.put(None)

    task = pool.submit(f"viewer {viewer}", image_units(shown, view), queue.put, finish)
    return queue.response(lambda: pool.cancel(task), "application/octet-stream")


async def _stream_video(
    pool: FairRenderPool, videos: VideoStore, shown: Sequence[OpenScene], plan: VideoPlan
) -> Response:
    """Stream progress as lines of JSON; the last one has the video's id or an error.

    There is a line at the start, after each frame, and after each PROGRESS_STEP of all pixels within a frame.
    """
    queue, last = ResponseQueue(), [-1, 0.0]  # number of frames and fraction that were sent

    def send(**values: Any) -> None:
        queue.put(json.dumps(values).encode() + b"\n")

    def progress(done: int, fraction: float) -> None:
        if done != last[0] or fraction >= last[1] + PROGRESS_STEP:
            last[:] = done, fraction
            send(done=done, total=plan.n_frames, fraction=round(fraction, 5))

    def end(video: str | None, error: BaseException | None) -> None:
        if video is not None:
            send(video=video)
        elif error is not None:
            send(error=f"The video failed: {_first_line(error)}")
        queue.put(None)

    progress(0, 0.0)
    task = videos.render(shown, plan, progress, end)

    def cancel() -> None:  # ffmpeg takes a moment to end, which must not block the event loop
        threading.Thread(target=pool.cancel, args=(task,), name="view-video-end").start()

    return queue.response(cancel, "application/x-ndjson")


def _read_scenes(body: Any, store: SceneStore) -> list[OpenScene]:
    ids = body.get("scenes") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_SHOWN:
        raise SettingError(f"expected a JSON object whose scenes are a list of 1 to {MAX_SHOWN} ids")
    return [store.get(scene_id) for scene_id in ids]


def _read_request(body: Any, store: SceneStore, max_pixels: int) -> tuple[list[OpenScene], View, str]:
    """Return scenes, view and the viewer's name from a request for an image."""
    shown, view, viewer = _read_scenes(body, store), read_view(body, max_pixels), body.get("viewer")
    low, high = VIEWER_LENGTHS
    if not isinstance(viewer, str) or not low <= len(viewer) <= high:
        raise SettingError(f"a viewer's name has {low} to {high} characters")
    for scene in shown:
        check_distance(view, scene.stored)
    return shown, view, viewer


def _tile(index: int, scene: OpenScene, tile: Tile, view: View) -> bytes:
    return tile_message(index, tile, render_tile(scene.stored, view, tile, _cost(scene, view)))


def _cost(scene: OpenScene, view: View) -> RayCostEstimator:
    return scene.quick_ray_cost if view.quick else scene.ray_cost


async def read_json(request: Request) -> Any:
    """Return a request's body as JSON values.

    Raises:
        SettingError: it is not JSON.
    """
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise SettingError("the request is not JSON") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def with_errors(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler so that errors become one line of JSON with a suitable status."""

    async def handle(request: Request) -> Response:
        try:
            answered = answer(request)
            return await answered if asyncio.iscoroutine(answered) else answered
        except InputError as error:
            return JSONResponse({"error": str(error)}, 404)
        except SettingError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:  # the client has gone, or the guard cut off its request
            return JSONResponse({"error": "the request is incomplete"}, 400)
        except BusyError as error:
            return JSONResponse({"error": str(error)}, 503)

    return handle
