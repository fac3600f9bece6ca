"""Baking in the background: coarse first, then fine, with progress that only rises."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.chromium import wait
from helpers.view_fields import ball_field

from fieldmorph.apps.viewer import baker as baker_module
from fieldmorph.apps.viewer.baker import NICE, Baker
from fieldmorph.apps.viewer.scenes import OpenScene, SceneBake
from fieldmorph.fields.errors import InputError


class RecordedBake(SceneBake):
    """Keeps all states that a bake was in."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "state":
            self.__dict__.setdefault("states", []).append(value)


def scene_of(name: str) -> OpenScene:
    return OpenScene(name, name, ball_field(), (), bake=RecordedBake())


@pytest.fixture
def baker() -> Iterator[Baker]:
    baker = Baker(resolution=32, coarse_resolution=16)
    yield baker
    baker.close()


def baked(*scenes: OpenScene) -> None:
    wait(lambda: all(scene.bake.state["state"] in ("ready", "failed") for scene in scenes), "baked")


def test_a_coarse_bake_comes_first_and_progress_only_rises(
    baker: Baker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bake(stored: Any, config: Any, *, on_progress: Any, **others: Any) -> Any:
        for done in range(11):
            on_progress("density", done, 1000)
        return truly(stored, config, on_progress=on_progress, **others)

    truly = baker_module.bake
    monkeypatch.setattr(baker_module, "bake", bake)
    scenes = [scene_of("a"), scene_of("b")]
    for scene in scenes:
        baker.add(scene)
    baked(*scenes)
    for scene in scenes:
        states = scene.bake.states  # type: ignore[attr-defined]
        fractions = [state["fraction"] for state in states if "fraction" in state]
        assert fractions == sorted(fractions)
        assert len(set(fractions)) > 10
        assert states[-1] == {"state": "ready", "fraction": 1.0, "cells": 32}
        cells = [state["cells"] for state in states if "cells" in state]
        assert cells == sorted(cells)
        assert set(cells) == {16, 32}
        assert set(scene.bake.files) == {16, 32}
        assert baker.files(scene) is scene.bake.files[32]
        assert len(baker.files(scene, 16)["density.bin"]) < len(baker.files(scene, 32)["density.bin"])
        with pytest.raises(InputError, match="not been baked"):
            baker.files(scene, 64)


def test_fine_bakes_wait_for_coarse_ones(baker: Baker, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    nice: dict[int, int] = {}  # by resolution

    def bake(stored: Any, config: Any, *, name: str, **others: Any) -> Any:
        time.sleep(0.02)
        nice[config.resolution] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        order.append((name, config.resolution))
        return truly(stored, config, name=name, **others)

    truly = baker_module.bake
    monkeypatch.setattr(baker_module, "bake", bake)
    scenes = [scene_of(name) for name in "abc"]
    for scene in scenes:
        baker.add(scene)
    baked(*scenes)
    assert order == [("a", 16), ("b", 16), ("c", 16), ("a", 32), ("b", 32), ("c", 32)]
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        assert nice[16] == os.getpriority(os.PRIO_PROCESS, 0)
        assert nice[32] == min(nice[16] + NICE, 19)


def test_a_fine_bake_that_fails_leaves_the_coarse_one(baker: Baker, monkeypatch: pytest.MonkeyPatch) -> None:
    def bake(stored: Any, config: Any, **others: Any) -> Any:
        if config.resolution == 32:
            raise RuntimeError("no room\nfor it")
        return truly(stored, config, **others)

    truly = baker_module.bake
    monkeypatch.setattr(baker_module, "bake", bake)
    scene = scene_of("a")
    baker.add(scene)
    baked(scene)
    state = scene.bake.state
    assert (state["state"], state["reason"], state["cells"]) == ("failed", "no room", 16)
    assert baker.files(scene) is scene.bake.files[16]
