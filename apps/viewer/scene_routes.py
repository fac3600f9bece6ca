"""Routes for what belongs to scenes besides images: receipts, training cameras, camera paths, dropped files."""

import asyncio
import tempfile
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fieldmorph.apps.viewer.baker import Baker
from fieldmorph.apps.viewer.camera_paths import path_json
from fieldmorph.apps.viewer.routes import NO_STORE, read_json, with_errors
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.videos import read_plan
from fieldmorph.fields.cameras import Cameras
from fieldmorph.fields.checkpoint import read_header
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.types import JsonObject

MAX_CAMERAS = 400  # that are described; of more an even part is
MAX_FILE_BYTES = 512 << 20  # of a file that is dropped
UPLOADS = "/files"
# A receipt is a file from anywhere: nothing in it runs, and nothing is fetched for it.
RECEIPT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def scene_routes(store: SceneStore, baker: Baker, uploads: bool) -> list[Route]:
    """Return the routes /scenes/ID/receipt, /scenes/ID/cameras, /camera_path and, where wanted, /files.

    Args:
        store, baker: get the scenes of files that are dropped.
        uploads: whether files can be dropped.
    """

    def scene(request: Request) -> OpenScene:
        return store.get(request.path_params["scene"])

    def receipt(request: Request) -> Response:
        page = scene(request).receipt_page
        if page is None:
            raise InputError("this scene has no receipt")
        return HTMLResponse(page, headers={"content-security-policy": RECEIPT_POLICY, **NO_STORE})

    def cameras(request: Request) -> Response:
        return JSONResponse({"cameras": describe_cameras(scene(request).stored.cameras)}, headers=NO_STORE)

    async def path(request: Request) -> Response:
        return JSONResponse(path_json(read_plan(await read_json(request))), headers=NO_STORE)

    async def upload(request: Request) -> Response:
        opened = await _open_upload(request, store)
        baker.add(opened)
        return JSONResponse({"scene": opened.id}, headers=NO_STORE)

    routes = [
        Route("/scenes/{scene}/receipt", with_errors(receipt), methods=["GET"]),
        Route("/scenes/{scene}/cameras", with_errors(cameras), methods=["GET"]),
        Route("/camera_path", with_errors(path), methods=["POST"]),
    ]
    return [*routes, Route(UPLOADS, with_errors(upload), methods=["POST"])] if uploads else routes


def describe_cameras(cameras: Cameras) -> list[JsonObject]:
    """Return training cameras as JSON values: axes, place, and the image's width and height at distance 1."""
    step = max(1, -(-len(cameras) // MAX_CAMERAS))
    chosen = cameras[::step].to("cpu")
    described = []
    for pose, (fx, fy, _, _) in zip(chosen.camera_to_world, chosen.intrinsics.tolist(), strict=True):
        right, down, forward, eye = pose.T.tolist()
        extent: JsonObject = {"across": cameras.width / fx, "along": cameras.height / fy}
        described.append({"eye": eye, "right": right, "down": down, "forward": forward, **extent})
    return described


async def _open_upload(request: Request, store: SceneStore) -> OpenScene:
    """Write a request's body to a temporary file, and open the field in it.

    Raises:
        SettingError: it is too large, or no field.
        InputError, UnsafeError: it cannot be read.
    """
    name = Path(request.query_params.get("name", "")).name[:100] or "field.fm"
    with tempfile.TemporaryDirectory(prefix="fieldmorph-open-") as folder:
        file, n_bytes = Path(folder) / "field.fm", 0
        with file.open("wb") as out:
            async for part in request.stream():
                n_bytes += len(part)
                if n_bytes > MAX_FILE_BYTES:
                    raise SettingError(f"a file has at most {MAX_FILE_BYTES >> 20} MiB")
                out.write(part)
        try:
            opened = await asyncio.to_thread(_open_field, store, file, name)
        except InputError as error:
            raise SettingError(str(error).replace(str(file), name)) from None
    return opened


def _open_field(store: SceneStore, file: Path, name: str) -> OpenScene:
    if read_header(file)["kind"] == "posterior":
        raise SettingError(f"{name} is a tensor model: open it with `fieldmorph view {name}`")
    scene = store.open(file, evictable=True, name=Path(name).stem)
    compile_kernels(scene.stored.field)
    return scene
