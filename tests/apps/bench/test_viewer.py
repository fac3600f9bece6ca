"""Visitors of the viewer without a browser: what they count, and what they notice."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.chromium import chromium_program
from helpers.view_fields import save_ball, served

pytest.importorskip("gradio")

from fieldmorph.apps.bench import browser_page, load_clients, viewer_process, viewer_targets
from fieldmorph.apps.bench import viewer as viewer_bench
from fieldmorph.apps.bench.browser_page import page_table
from fieldmorph.apps.bench.load_clients import assembled
from fieldmorph.apps.bench.viewer import view_table
from fieldmorph.apps.bench.viewer_process import (
    cpu_seconds,
    cpu_seconds_of_children,
    process_state,
    scene_ids,
    visited,
)
from fieldmorph.apps.bench.viewer_targets import after_visits, at_rest, dragged, started
from fieldmorph.apps.viewer import baker as baker_module
from fieldmorph.apps.viewer.tiles import Tile, tile_message
from fieldmorph.fields.compilation import compile_kernels

CELLS = 128  # minimum that a browser drags by default
BAKES = f"from fieldmorph.apps.viewer import app; app.make_viewer.__kwdefaults__['resolution'] = {CELLS}; "


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, tuple[str, Any]]]:
    """File of a ball, and what `viewer_process.served` yields of it: one process for the tests that only visit it."""
    file = str(save_ball(tmp_path_factory.mktemp("program") / "ball.fm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewer_process, "SERVER", BAKES + viewer_process.SERVER)
        with viewer_process.served([file]) as found:
            yield file, found


@pytest.fixture
def ball(program: tuple[str, tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    """That file; benchmarks of it with the program's defaults visit that process."""
    file, found = program

    @contextmanager
    def running(files: Sequence[str], options: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
        assert (list(files), list(options)) == ([file], [])
        yield found

    for module in (viewer_bench, viewer_targets):
        monkeypatch.setattr(module, "served", running)
    return file


def tile(x: int, y: int, level: int, which: int = 0) -> bytes:
    return tile_message(which, Tile(x, y, 4, 2), np.full((2, 4, 3), level, np.uint8))


def test_an_image_is_whole_when_each_pixel_came_once() -> None:
    image = assembled(tile(4, 0, 9) + tile(0, 0, 7), 8, 2)
    assert image is not None
    assert image[:, :4].max() == 7
    assert image[:, 4:].min() == 9
    for body in (
        tile(0, 0, 7),
        tile(0, 0, 7) + tile(0, 0, 7) + tile(4, 0, 9),
        tile(0, 0, 1, which=1) + tile(4, 0, 9),
    ):
        assert assembled(body, 8, 2) is None


@pytest.fixture
def eighths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a second, which the visitors' clock moves with every image: a second has eight on any machine."""
    truly, received = load_clients.Visitor.request_image, []

    async def request_image(self: load_clients.Visitor, turn: int, into: load_clients.Visits) -> None:
        await truly(self, turn, into)
        received.append(turn)

    clock = SimpleNamespace(perf_counter=lambda: len(received) / 8 + 1e-6 * time.perf_counter())
    monkeypatch.setattr(load_clients.Visitor, "request_image", request_image)
    monkeypatch.setattr(load_clients, "time", clock)
    monkeypatch.setattr(viewer_bench, "time", clock)


def together(folder: Path, viewers: int, seconds: float, **habits: Any) -> dict[str, Any]:
    compile_kernels()  # or the first images would wait for that
    with served([save_ball(folder / "ball.fm")], bake=False) as (url, _):
        crowd = {"viewers": viewers, "seconds": seconds, "pid": os.getpid(), **habits}
        visits = partial(viewer_bench.visit_together, **crowd)
        return visited(url, visits)


@pytest.mark.usefixtures("eighths")
def test_a_crowd_is_counted(tmp_path: Path) -> None:
    row = together(tmp_path, viewers=3, seconds=1.0, pause=0.2)
    assert 8 <= row["pictures"] <= 8 + 2  # the others' last ones come after the time
    assert (row["errors"], row["strangers"]) == (0, 0)
    assert 0 < row["first_tile_ms"] <= row["p50_ms"] <= row["p95_ms"] <= row["worst_ms"]
    assert len(row["server"]) == 2
    result = {"rows": [{"kind": "crowd", "field": "hashgrid", "viewers": 3, "seconds": 1.0, **row}]}
    table = view_table(result)
    assert f"| hash grid, 160 x 120, many visitors | {row['pictures']} |" in table
    assert "3 visitors for 1 s: the server had" in table


@pytest.mark.usefixtures("eighths")
def test_an_image_of_somebody_else_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truly, names = load_clients.Visitor.request, iter(range(1000))

    def requests(self: load_clients.Visitor, turn: int) -> dict[str, Any]:
        return {**truly(self, turn), "background": next(names) % 2}

    monkeypatch.setattr(load_clients.Visitor, "request", requests)
    assert together(tmp_path, viewers=2, seconds=0.75, pause=0.05)["strangers"] > 0


@pytest.mark.usefixtures("eighths")
def test_an_answer_that_is_none_is_an_error(tmp_path: Path) -> None:
    no_mistake = ({},)  # what is requested rightly is answered
    row = together(tmp_path, viewers=1, seconds=0.25, pause=0.05, mistakes=no_mistake)
    assert row["errors"] > 0
    assert "was answered with 200" in row["first_errors"][0]


@pytest.mark.slow
def test_the_program_itself_is_visited(ball: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_bench, "IMAGE", (120, 90))
    for module in (viewer_bench, load_clients):
        monkeypatch.setattr(module, "VIEWS", 3)  # each of which is received twice
    row = viewer_bench.alone([ball], 0)
    assert (row["errors"], row["strangers"]) == (0, 0)


def test_the_page_has_a_table() -> None:
    windows = [{"size": [640, 480], "first_ms": 900.0, "frames_per_second": 31.4, "still_ms": 420.0}]
    assert "| 640 x 480 | 900 | 31 | 420 |" in page_table({"bytes": 9.3e6, "windows": windows})


@pytest.mark.browser
def test_a_page_is_opened_dragged_and_left_alone(tmp_path: Path) -> None:
    chromium_program()  # or it is skipped
    ball = str(save_ball(tmp_path / "ball.fm"))
    row = browser_page.drag_page(ball, sizes=((160, 120),), openings=1, drag_seconds=0.5, resolution=16)
    (window,) = row["windows"]
    assert row["bytes"] > 10_000
    assert min(window["first_ms"], window["frames_per_second"], window["still_ms"]) > 0


def test_state_of_a_process_that_is_there() -> None:
    state = process_state(os.getpid())
    assert state is None or (state["memory_bytes"] > 1e7 and state["threads"] >= 1)


def test_targets_stand_next_to_what_was_measured() -> None:
    start = {"import_cpu_s": 4.0, "first_page_cpu_s": 0.4, "viewer_cpu_s": 5.0, "ratio": 1.25}
    memory = {"visits": 50, "server": [{"memory_bytes": 8e8}, {"memory_bytes": 9.5e8}]}
    rows = [
        {"kind": "start", **start},
        {"kind": "rest", "field": "mlp", "coarse_ms": 640.0, "first_tile_ms": 120.0},
        {"kind": "drag", "field": "hashgrid", "core_seconds": 3.2, "frames_per_second": 28.0},
        {"kind": "drag", "field": "mlp", "core_seconds": 9.0, "frames_per_second": 21.0}
        | {"browser_core_seconds": 4.0, "frame_core_ms": 44.0},
        {"kind": "memory", **memory},
    ]
    table = view_table({"rows": rows}).splitlines()
    for line in (
        "| first page, CPU | 0.40 s | 1 s |",
        "| MLP, whole coarse image after rest | 640 ms | 1000 ms |",
        "| hash grid, until dragged from a bake | 3.2 core-s | 5 core-s |",
        "| MLP, until dragged from a bake | 9.0 core-s, browser 4.0 | 15 core-s |",
        "| MLP, dragged at 640 x 480 | 21 frames/s, 44 core-ms each | 15 frames/s |",
        "| memory, two fields, 50 visits | 0.95 GB | 1.3 GB |",
    ):
        assert line in table
    assert "5.00 s, 1.25 times | 1.5 times" in "\n".join(table)


@pytest.mark.slow
def test_start_and_memory_are_measured(ball: str) -> None:
    row = started([ball], starts=1)
    assert 0 < row["first_page_cpu_s"] < row["viewer_cpu_s"]
    assert row["ratio"] == pytest.approx(row["viewer_cpu_s"] / row["import_cpu_s"])
    row = after_visits([ball], visits=2)
    assert row["errors"] == 0
    assert min(state["memory_bytes"] for state in row["server"]) > 1e8


@pytest.mark.browser
def test_waiting_and_dragging_are_measured(ball: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium_program()  # or it is skipped

    @contextmanager
    def here(files: Sequence[str], options: Sequence[str]) -> Iterator[tuple[str, Any]]:
        assert options == ["--no-bake"]
        with served([Path(file) for file in files], bake=False) as found:
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(viewer_targets, "served", here)
        row = at_rest(ball, turns=2)
    assert min(row["coarse_ms"], row["first_tile_ms"]) > 0
    row = dragged(ball, drag_seconds=0.5)
    names = ("core_seconds", "browser_core_seconds", "first_image_ms", "frames_per_second", "frame_core_ms")
    assert min(row[name] for name in names) > 0
    assert row["cells"] >= CELLS


@pytest.mark.browser
def test_a_bake_that_fails_is_said(ball: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bake(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room")

    @contextmanager
    def here(files: Sequence[str]) -> Iterator[tuple[str, SimpleNamespace]]:
        with served([Path(file) for file in files]) as (url, _):
            yield url, SimpleNamespace(pid=os.getpid())

    chromium_program()  # or it is skipped
    monkeypatch.setattr(baker_module, "bake", bake)
    monkeypatch.setattr(viewer_targets, "served", here)
    with pytest.raises(Exception, match="there is no bake: no room"):
        dragged(ball)


def test_the_scenes_of_a_page_are_found() -> None:
    assert scene_ids('<iframe src="/viewport?scenes=ab-c%2Cd_e" title="x">') == ["ab-c", "d_e"]
    with pytest.raises(RuntimeError, match="no scene"):
        scene_ids("<p>No field is open.</p>")


@pytest.mark.skipif(not Path("/proc").exists(), reason="the CPU time of another process is read from /proc")
def test_cpu_time_of_children_and_of_theirs() -> None:
    spin = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); input()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    before = cpu_seconds_of_children(but=0)
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert cpu_seconds_of_children(but=0) > before + 0.4
        assert cpu_seconds_of_children(but=child.pid) < before + 0.3
        child.communicate("")


def test_cpu_time_of_a_process_that_is_there() -> None:
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=1.0)
