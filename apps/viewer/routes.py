"""The viewer's own routes: the stage that shows scenes, their facts and bakes, and pictures of the true fields."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.render_pool import BusyError, Cancelled, Piece, Pool
from fieldmorph.apps.viewer.scenes import Scene, Shelf
from fieldmorph.apps.viewer.tiles import (
    MOST_SHOWN,
    View,
    check_distance,
    read_view,
    render_tile,
    text_message,
    tile_message,
    tiles,
)
from fieldmorph.apps.viewer.videos import FilmPlan, Films, read_plan
from fieldmorph.apps.viewer.viewport import STAGE_POLICY, stage_page, stage_script, stage_style
from fieldmorph.fields.errors import InputError, SettingError

MOST_NAME = 64  # characters of a viewer's name for itself
FRESH = {"cache-control": "no-store"}


def view_routes(shelf: Shelf, pool: Pool, baker: Baker, films: Films) -> list[Route]:
    """Everything below /stage, /scenes, /pictures and /films."""

    def get(path: str, answer: Callable[..., Response]) -> Route:
        return Route(path, _told(answer), methods=["GET"])

    def scene(request: Request) -> Scene:
        return shelf.get(request.path_params["scene"])

    def facts(request: Request) -> Response:
        return JSONResponse(described(scene(request), baker), headers=FRESH)

    def bake_file(request: Request) -> Response:
        content = baker.files(scene(request)).get(request.path_params["name"])
        if content is None:
            raise InputError("no such part of a bake")
        return Response(content, media_type="application/octet-stream", headers=FRESH)

    def film(request: Request) -> Response:
        return FileResponse(films.get(request.path_params["film"]), media_type="video/mp4", headers=FRESH)

    async def picture(request: Request) -> Response:
        body = await _json(request)
        shown, view, viewer = _asked(body, shelf)
        return await _stream_tiles(pool, viewer, shown, view)

    async def make_film(request: Request) -> Response:
        body = await _json(request)
        return await _stream_film(pool, films, _scenes(body, shelf), read_plan(body))

    return [
        get(
            "/stage", lambda _: HTMLResponse(stage_page(), headers={"content-security-policy": STAGE_POLICY})
        ),
        get("/stage.js", lambda _: Response(stage_script(), media_type="text/javascript", headers=FRESH)),
        get("/stage.css", lambda _: Response(stage_style(), media_type="text/css", headers=FRESH)),
        get("/scenes/{scene}", facts),
        get("/scenes/{scene}/bake/{name}", bake_file),
        get("/films/{film}", film),
        Route("/pictures", _told(picture), methods=["POST"]),
        Route("/films", _told(make_film), methods=["POST"]),
    ]


def described(scene: Scene, baker: Baker) -> dict[str, Any]:
    """What the stage needs to know of a scene."""
    return {
        "id": scene.id,
        "name": scene.name,
        "facts": [list(fact) for fact in scene.facts],
        "aabb": scene.stored.field.box(),
        "camera": scene.first_view,
        "bake": baker.state(scene),
    }


def _scenes(body: Any, shelf: Shelf) -> list[Scene]:
    ids = body.get("scenes") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not 1 <= len(ids) <= MOST_SHOWN:
        raise SettingError(f"a JSON object was expected whose scenes are a list of 1 to {MOST_SHOWN}")
    return [shelf.get(name) for name in ids]


def _asked(body: Any, shelf: Shelf) -> tuple[list[Scene], View, str]:
    """Scenes, view and the viewer's name from a request for a picture."""
    shown, view, viewer = _scenes(body, shelf), read_view(body), body.get("viewer")
    if not isinstance(viewer, str) or not 16 <= len(viewer) <= MOST_NAME:
        raise SettingError(f"a viewer has a name of 16 to {MOST_NAME} characters")
    for scene in shown:
        check_distance(view, scene.stored)
    return shown, view, viewer


class _Mail:
    """What threads of the pool have to say, for a response that the event loop writes."""

    def __init__(self) -> None:
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

    def put(self, message: bytes | None) -> None:
        """From any thread; None is the end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    def response(self, leave: Callable[[], None], media_type: str) -> Response:
        """All messages as they come; `leave` is called when nobody reads any more."""

        async def messages() -> AsyncIterator[bytes]:
            try:
                while (message := await self._queue.get()) is not None:
                    yield message
            finally:
                leave()

        return StreamingResponse(messages(), media_type=media_type, headers=FRESH)


async def _stream_tiles(pool: Pool, viewer: str, shown: Sequence[Scene], view: View) -> Response:
    """The tiles as they are done; what this viewer asked for before ends."""
    mail = _Mail()

    def finish(error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Cancelled):
            mail.put(text_message(f"The field could not be shown: {_line(error)}"))
        mail.put(None)

    work = pool.submit(f"viewer {viewer}", picture_pieces(shown, view), mail.put, finish)
    return mail.response(lambda: pool.cancel(work), "application/octet-stream")


async def _stream_film(pool: Pool, films: Films, shown: Sequence[Scene], plan: FilmPlan) -> Response:
    """Progress as lines of JSON, in the end with the film's id."""
    mail = _Mail()

    def say(**values: Any) -> None:
        mail.put(json.dumps(values).encode() + b"\n")

    def end(film: str | None, error: BaseException | None) -> None:
        if film is not None:
            say(film=film)
        elif error is not None:
            say(error=f"The film failed: {_line(error)}")
        mail.put(None)

    work = films.make(shown, plan, lambda done, total: say(done=done, total=total), end)

    def leave() -> None:  # ffmpeg takes a moment to end, for which nobody else has to wait
        threading.Thread(target=pool.cancel, args=(work,), name="view-film-end").start()

    return mail.response(leave, "application/x-ndjson")


def picture_pieces(shown: Sequence[Scene], view: View) -> list[Piece]:
    """The tiles of all scenes, side by side in time: what is compared is seen together."""
    camera = view.camera
    spans = (*view.spans, None, None)
    each = [
        [(which, scene, tile) for tile in tiles(camera.width, camera.height, scene.pace.side(), spans[which])]
        for which, scene in enumerate(shown)
    ]
    queued = sorted(
        ((i / len(parts), part) for parts in each for i, part in enumerate(parts)), key=lambda pair: pair[0]
    )
    return [partial(_piece, *part, view) for _, part in queued]


def _piece(which: int, scene: Scene, tile: Any, view: View) -> bytes:
    return tile_message(which, tile, render_tile(scene.stored, view, tile, scene.pace))


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise SettingError("the request is not JSON") from None


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def _told(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Mistakes as one line of JSON, with the status that fits them."""

    async def answering(request: Request) -> Response:
        try:
            answered = answer(request)
            return await answered if asyncio.iscoroutine(answered) else answered
        except InputError as error:
            return JSONResponse({"error": str(error)}, 404)
        except SettingError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:  # gone, or cut off by the guard
            return JSONResponse({"error": "the request did not come whole"}, 400)
        except BusyError as error:
            return JSONResponse({"error": str(error)}, 503)

    return answering
