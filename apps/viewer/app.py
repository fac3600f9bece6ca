"""The viewer as an application: one page that shows and compares fields, converts them, explores a tensor model."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmorph.apps.viewer.baker import RESOLUTION, Baker
from fieldmorph.apps.viewer.conversion import ConversionSlot
from fieldmorph.apps.viewer.loading import STEPS
from fieldmorph.apps.viewer.render_pool import FairRenderPool
from fieldmorph.apps.viewer.routes import view_routes
from fieldmorph.apps.viewer.scene_routes import scene_routes
from fieldmorph.apps.viewer.scenes import OpenScene, SceneStore
from fieldmorph.apps.viewer.security import LOCAL, Access, App, read_root_path
from fieldmorph.apps.viewer.tiles import MAX_PIXELS
from fieldmorph.apps.viewer.videos import VideoStore
from fieldmorph.fields.checkpoint import read_header
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.errors import SettingError

if TYPE_CHECKING:
    from fieldmorph.apps.tensor.map_layers import MapSettings

MAX_FIELDS = 16
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
    access: Access = LOCAL,
    data: str | Path | None = None,
    maps: "MapSettings | None" = None,
    device: str = "auto",
    threads: int | None = None,
    bake: bool = True,
    resolution: int = RESOLUTION,
    max_pixels: int = MAX_PIXELS,
    on_step: Callable[[str], None] = lambda _: None,
) -> Viewer:
    """Return a viewer of fields and of a tensor model.

    Args:
        files: checkpoints of fields and of a tensor model.
        access: names of the server, and who may reach it.
        data: a table that the tensor model was not fitted to, to show the coverage of its intervals.
        maps: mask and measured places of the tensor model's maps.
        device: for fields.
        threads: cores to use; all by default.
        bake: whether to bake the volumes that the browser draws by itself.
        resolution: of the bakes, cells along the longest side of the box.
        max_pixels: of an image that the server renders.
        on_step: called with each of `loading.STEPS` but the first when it begins.

    Raises:
        InputError, UnsafeError: a file cannot be read.
        SettingError: too many files, a root path that is none, or data or maps without a tensor model.
        ImportError: gradio is missing.
    """
    read_root_path(access.root_path)  # a mistake is reported before anything is loaded
    read, compile_, load_page, make = STEPS[1:]
    on_step(read)
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
    store = SceneStore(device)
    scenes = [store.open(path) for path in fields]
    tensor = _open_model(models[0], data, maps) if models else None
    on_step(compile_)
    for scene in scenes:
        compile_kernels(scene.stored.field)
    on_step(load_page)
    try:
        from fieldmorph.apps.viewer.page import make_blocks, make_page
    except ModuleNotFoundError as error:
        raise ImportError(NEEDED) from error
    on_step(make)
    pool, baker = FairRenderPool(threads or _cores()), Baker(resolution)
    videos, slot = VideoStore(pool), ConversionSlot()
    routes = [
        *view_routes(store, pool, baker, videos, max_pixels),
        *scene_routes(store, baker, uploads=not files),
    ]
    app = make_page(routes, make_blocks(scenes, store, pool, baker, slot, tensor), access.root_path)
    allowed = (*(route.path for route in routes), *GRADIO_PATHS)
    for scene in scenes if bake else []:
        baker.add(scene)
    return Viewer(access.guard(app, allowed), store, pool, baker, videos, slot, scenes)


def _open_model(path: str | Path, data: str | Path | None, maps: "MapSettings | None") -> tuple[Any, Any]:
    """Return what the tensor tab shows: an explorer of the model, and measurements that it was not fitted to."""
    from fieldmorph.apps.tensor.explorer import Explorer
    from fieldmorph.apps.tensor.jobs import read_measurements
    from fieldmorph.apps.tensor.map_layers import MapSettings, open_layers
    from fieldmorph.bayes.store import load_posterior

    posterior = load_posterior(path)
    layers = open_layers(posterior, maps or MapSettings())
    return Explorer(posterior, layers), None if data is None else read_measurements(data, posterior)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
