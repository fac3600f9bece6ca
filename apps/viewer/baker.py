"""Bakes scenes in the background, one after the other, for the browser to draw while the view moves."""

import logging
import os
import threading
from collections import deque
from contextlib import suppress

from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import folder_files
from fieldmorph.apps.viewer.scenes import OpenScene
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.runtime import use_threads
from fieldmorph.fields.types import JsonObject

RESOLUTION = 192  # cells along the longest side: the server renders the field itself once the view rests
NICE = 10  # added to the thread's nice value, so that images come before bakes
PARTS = ("scene.json", "bricks.bin", "density.bin", "colour.bin")


class _Closed(Exception):
    """End of a bake because the server ends."""


class _Evicted(Exception):
    """End of a bake because its scene has been evicted."""


class Baker:
    """A thread that bakes scenes one after the other; each scene keeps its own result.

    Args:
        resolution: cells along a box's longest side, a multiple of 8.
    """

    def __init__(self, resolution: int = RESOLUTION):
        self._config = BakeConfig(resolution=resolution)
        self._waiting: deque[OpenScene] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="view-baker", daemon=True)
        self._thread.start()

    def add(self, scene: OpenScene) -> None:
        """Queue a scene."""
        with self._changed:
            scene.bake.state = {"state": "waiting", "fraction": 0.0}
            self._waiting.append(scene)
            self._changed.notify()

    def state(self, scene: OpenScene) -> JsonObject:
        """Return the state of a scene's bake as JSON values; see `SceneBake.state`."""
        return scene.bake.state

    def files(self, scene: OpenScene) -> dict[str, bytes]:
        """Return header and parts of a finished bake by file name.

        Raises:
            InputError: the bake is not ready.
        """
        if scene.bake.files is None:
            raise InputError("this scene has not been baked")
        return scene.bake.files

    def close(self) -> None:
        """Stop, in the midst of a bake too."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        use_threads(1)
        _lower_priority()
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
            del scene  # while the thread waits it must not keep an evicted scene in memory

    def _bake(self, scene: OpenScene) -> None:
        def progress(_activity: str, done: float, total: float) -> None:
            if self._closed:
                raise _Closed
            if not scene.is_open:
                raise _Evicted
            scene.bake.state = {"state": "working", "fraction": done / total}

        baked = bake(scene.stored, self._config, name=scene.name, facts=scene.facts, on_progress=progress)
        files = folder_files(baked)
        scene.bake.files = {name: files[name] for name in PARTS}
        scene.bake.state = {"state": "ready", "fraction": 1.0}


def _lower_priority() -> None:
    """Raise the nice value of this thread; only Linux has one per thread, elsewhere bakes and images take turns."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
