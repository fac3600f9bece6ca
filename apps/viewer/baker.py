"""Bakes scenes in the background, coarse first, for the browser to draw while the view moves."""

import logging
import threading
from collections import deque
from dataclasses import dataclass, field

from fieldmorph.apps.bake.build import BakeConfig, bake
from fieldmorph.apps.bake.web_export import data_files
from fieldmorph.apps.viewer.scenes import OpenScene
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.runtime import lower_priority, release_freed_memory, use_threads
from fieldmorph.fields.types import JsonObject

RESOLUTION = 192  # cells along the longest side: the server renders the field itself once the view rests
COARSE_RESOLUTION = 128
COARSE_FRACTION = 0.15  # of the progress of both bakes
NICE = (
    15  # added to the nice value of the thread of fine bakes, so that images and conversions come before them
)
COMPRESSION = 1  # level of gzip: a browser of this machine gains nothing by more
# Where the parts of a bake begin and end in its progress.
PROGRESS = {"density": (0.0, 0.2), "visibility": (0.2, 0.5), "colour": (0.5, 1.0)}


class _Closed(Exception):
    """End of a bake because the server ends."""


class _Evicted(Exception):
    """End of a bake because its scene has been evicted."""


@dataclass(eq=False)
class _Stage:
    """Bakes of one resolution, by a thread of their own.

    Attributes:
        config: of its bakes.
        progress: where they begin and end in the progress of a scene.
        nice: added to the nice value of the thread.
        waiting: scenes.
        is_busy: whether a bake is under way.
    """

    config: BakeConfig
    progress: tuple[float, float]
    nice: int
    waiting: deque[OpenScene] = field(default_factory=deque)
    is_busy: bool = False

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.is_busy


class Baker:
    """Threads that bake scenes, each first coarsely and then finely; each scene keeps its own results.

    Coarse bakes have a thread whose priority is above that of images, so that a visitor who looks at a slow field gets
    a volume to drag soon. Fine bakes begin when no coarse one is left, and their priority is lower.

    Args:
        resolution: of fine bakes, cells along a box's longest side, a multiple of 8.
        coarse_resolution: of coarse ones; there are none where the fine ones have no more cells.
    """

    def __init__(self, resolution: int = RESOLUTION, coarse_resolution: int = COARSE_RESOLUTION):
        fine = BakeConfig(resolution=resolution)
        self._stages = [_Stage(fine, (0.0, 1.0), NICE)]
        if resolution > coarse_resolution:
            coarse = BakeConfig.preview(coarse_resolution)
            self._stages = [
                _Stage(coarse, (0.0, COARSE_FRACTION), 0),
                _Stage(fine, (COARSE_FRACTION, 1.0), NICE),
            ]
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), name=f"view-baker-{i}", daemon=True)
            for i in range(len(self._stages))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, scene: OpenScene) -> None:
        """Queue a scene."""
        scene.bake.state = {"state": "waiting", "fraction": 0.0}
        self._queue(scene, 0)

    def state(self, scene: OpenScene) -> JsonObject:
        """Return the state of a scene's bakes as JSON values; see `SceneBake.state`."""
        return scene.bake.state

    def files(self, scene: OpenScene, resolution: int | None = None) -> dict[str, bytes]:
        """Return header and parts of a finished bake by file name.

        Args:
            resolution: of the bake; the finest by default.

        Raises:
            InputError: there is none.
        """
        bakes = scene.bake.files
        files = bakes.get(max(bakes, default=0) if resolution is None else resolution)
        if files is None:
            raise InputError("this scene has not been baked")
        return files

    def close(self) -> None:
        """Stop, in the midst of a bake too."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _queue(self, scene: OpenScene, stage: int) -> None:
        with self._changed:
            self._stages[stage].waiting.append(scene)
            self._changed.notify_all()

    def _serve(self, number: int) -> None:
        use_threads(1)
        stage, earlier = self._stages[number], self._stages[:number]
        lower_priority(stage.nice)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or (stage.waiting and all(one.is_idle for one in earlier))
                )
                if self._closed:
                    return
                scene, stage.is_busy = stage.waiting.popleft(), True
            try:
                self._bake(scene, stage)
                if number + 1 < len(self._stages):
                    self._queue(scene, number + 1)
            except _Closed:
                return
            except _Evicted:
                pass
            except Exception as error:  # a scene without a bake is drawn by the server alone
                logging.getLogger(__name__).warning("%s is shown without a bake: %s", scene.name, error)
                scene.bake.state = {
                    **scene.bake.state,
                    "state": "failed",
                    "reason": str(error).splitlines()[0],
                }
            finally:
                with self._changed:
                    stage.is_busy = False
                    self._changed.notify_all()
            del scene  # while the thread waits it must not keep an evicted scene in memory
            release_freed_memory()

    def _bake(self, scene: OpenScene, stage: _Stage) -> None:
        start, end = stage.progress

        def progress(part: str, done: float, total: float) -> None:
            if self._closed:
                raise _Closed
            if not scene.is_open:
                raise _Evicted
            low, high = PROGRESS[part]
            fraction = start + (end - start) * (low + (high - low) * done / total)
            scene.bake.state = {**scene.bake.state, "state": "working", "fraction": fraction}

        baked = bake(scene.stored, stage.config, name=scene.name, facts=scene.facts, on_progress=progress)
        resolution = stage.config.resolution
        scene.bake.files[resolution] = data_files(baked, COMPRESSION)
        is_last = stage is self._stages[-1]
        state = "ready" if is_last else "working"
        scene.bake.state = {"state": state, "fraction": end, "cells": resolution}
