"""Bakes for the viewer, one after the other in the background: what the browser itself draws while something moves."""

import logging
import os
import threading
from collections import deque
from contextlib import suppress
from typing import Any

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import folder_files
from fieldmorph.apps.viewer.scenes import Scene
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.runtime import use_threads

RESOLUTION = 192  # cells along the longest side: the true field comes anyway once nothing moves
NICE = 10  # bakes stand back behind pictures
PARTS = ("scene.json", "bricks.bin", "density.bin", "colour.bin")


class _Closed(Exception):
    """The server ends."""


class _Evicted(Exception):
    """The scene has made room for others before its bake was ready."""


class Baker:
    """A thread that bakes scenes one after the other; each scene keeps its own result."""

    def __init__(self, resolution: int = RESOLUTION):
        self._config = BakeConfig(resolution=resolution)
        self._waiting: deque[Scene] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="view-baker", daemon=True)
        self._thread.start()

    def add(self, scene: Scene) -> None:
        """Bake a scene when its turn comes."""
        with self._changed:
            scene.bake.state = {"state": "waiting", "share": 0.0}
            self._waiting.append(scene)
            self._changed.notify()

    def state(self, scene: Scene) -> dict[str, Any]:
        """`state` is absent, waiting, working, ready or failed; `share` of the work; `reason` of a failure."""
        return scene.bake.state

    def files(self, scene: Scene) -> dict[str, bytes]:
        """Header and parts by file name, once they are ready.

        Raises:
            InputError: not yet, or never.
        """
        if scene.bake.files is None:
            raise InputError("this scene is not baked")
        return scene.bake.files

    def close(self) -> None:
        """Stop, in the midst of a bake too."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        use_threads(1)
        _stand_back()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                scene = self._waiting.popleft()
            try:
                self._bake(scene)
            except _Closed:
                return
            except _Evicted:
                pass
            except Exception as error:  # a scene without a bake is drawn by the server alone
                logging.getLogger(__name__).warning("%s is shown without a bake: %s", scene.name, error)
                scene.bake.state = {"state": "failed", "reason": str(error).splitlines()[0]}
            del scene  # while the thread waits it must not keep a scene that has been evicted

    def _bake(self, scene: Scene) -> None:
        def progress(_what: str, done: float, total: float) -> None:
            if self._closed:
                raise _Closed
            if not scene.is_open:
                raise _Evicted
            scene.bake.state = {"state": "working", "share": done / total}

        baked = bake(scene.stored, self._config, name=scene.name, facts=scene.facts, on_progress=progress)
        files = folder_files(baked)
        scene.bake.files = {name: files[name] for name in PARTS}
        scene.bake.state = {"state": "ready", "share": 1.0}


def _stand_back() -> None:
    """Linux gives every thread a priority of its own; elsewhere bakes take an equal share."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
