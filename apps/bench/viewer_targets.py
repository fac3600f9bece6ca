"""Waiting times of a visitor (start, a whole image at rest, fluent dragging), and the memory of many visits."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from fieldmorph.apps.bench.browser_page import DRAG, chromium, known_value
from fieldmorph.apps.bench.load_clients import Visitor, Visits
from fieldmorph.apps.bench.runner import Row, markdown
from fieldmorph.apps.bench.viewer_process import (
    cpu_seconds,
    cpu_seconds_of_children,
    process_state,
    scene_ids,
    served,
    started_process,
    visited,
)

SIZE = (640, 480)
STARTS, TURNS, VISITS = 3, 9, 50
DRAG_SECONDS = 5.0
POLL = 0.02  # seconds between two requests or looks
IMPORTS = "import torch, gradio"
BAKE_TIMEOUT = 600.0  # seconds of a machine that does other things as well
BAKED = """
(() => {
  const { description, drawing } = fieldmorph.layers[0];
  if (description.bake.state === "failed") throw new Error(`there is no bake: ${description.bake.reason}`);
  return drawing?.loop.stats.firstMs;
})()
"""
TURN = "fieldmorph.moveCamera(() => (fieldmorph.camera.yaw += 0.4))"


def started(files: Sequence[str], starts: int = STARTS) -> Row:
    """Measure the CPU time until the first page and until the viewer are up, next to that of the imports alone.

    Medians of several starts, imports and viewer in turn, so that both meet the same machine.
    """
    rows = [{"import_cpu_s": _cpu_of_imports(), **_one_start(files)} for _ in range(starts)]
    row: Row = {name: statistics.median(one[name] for one in rows) for name in rows[0]}
    return {**row, "ratio": row["viewer_cpu_s"] / row["import_cpu_s"], "cores": len(os.sched_getaffinity(0))}


def _cpu_of_imports() -> float:
    process = subprocess.Popen([sys.executable, "-c", IMPORTS])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _one_start(files: Sequence[str]) -> Row:
    with started_process(files) as (url, server), httpx.Client(base_url=url, timeout=60) as client:
        client.get("/")
        row = {"first_page_cpu_s": cpu_seconds(server.pid)}
        while client.get("/").status_code != 200:
            time.sleep(POLL)
        return {**row, "viewer_cpu_s": cpu_seconds(server.pid)}


def at_rest(file: str, turns: int = TURNS) -> Row:
    """Measure how long a browser waits for the whole coarse image after a movement, and then for the first finer tile.

    The server bakes nothing, and so renders all images itself. Medians in milliseconds.

    Raises:
        RuntimeError: no playwright, or no chromium.
    """
    with chromium() as browser, served([file], ["--no-bake"]) as (url, _):
        page = _opened(browser, url)
        rows = []
        for _ in range(turns):
            known_value(page, "fieldmorph.stats.firstTileMs")
            time.sleep(0.5)
            page.evaluate(TURN)
            rows.append(
                [known_value(page, f"fieldmorph.stats.{name}") for name in ("coarseMs", "firstTileMs")]
            )
        coarse, tile = (statistics.median(column) for column in zip(*rows, strict=True))
        size = page.evaluate("fieldmorph.images.sizeOf('coarse')")
    return {"coarse_ms": coarse, "first_tile_ms": tile, "coarse_size": size, "turns": turns}


def dragged(file: str, drag_seconds: float = DRAG_SECONDS) -> Row:
    """Measure the CPU time from a page's opening until the browser drags by itself, and how fluently it does.

    `core_seconds` are the server's, `browser_core_seconds` the browser's with all that it draws in software, and
    `frame_core_ms` what it takes for a frame: on a machine that does other things as well it says more than frames a
    second.

    Raises:
        RuntimeError: no playwright, or no chromium, or no /proc.
    """
    with chromium() as browser, served([file]) as (url, server):
        before, start = cpu_seconds(server.pid), time.perf_counter()
        browser_before = cpu_seconds_of_children(but=server.pid)
        page = _opened(browser, url)
        first = known_value(page, f"fieldmorph.stats.coarseMs ?? {BAKED.strip()}", BAKE_TIMEOUT)
        known_value(page, BAKED, BAKE_TIMEOUT)
        row = {
            "core_seconds": cpu_seconds(server.pid) - before,
            "browser_core_seconds": cpu_seconds_of_children(but=server.pid) - browser_before,
            "seconds": time.perf_counter() - start,
        }
        page.evaluate(DRAG)
        time.sleep(1)  # until the resolution fits
        stats = "fieldmorph.layers[0].drawing.loop.stats"
        earlier, browser_before = page.evaluate(stats), cpu_seconds_of_children(but=server.pid)
        time.sleep(drag_seconds)
        known_value(page, f"{stats}.movingFrames > {earlier['movingFrames']} || null")
        later, browser_after = page.evaluate(stats), cpu_seconds_of_children(but=server.pid)
        frames, ms = (later[name] - earlier[name] for name in ("movingFrames", "movingMs"))
        cells = page.evaluate("fieldmorph.layers[0].cells")
        page.evaluate("dropped()")
    return {
        **row,
        "first_image_ms": first,
        "frames_per_second": 1000 * frames / ms,
        "frame_core_ms": 1000 * (browser_after - browser_before) / frames,
        "cells": cells,
    }


def _opened(browser: Any, url: str) -> Any:
    """Open the first scene's viewport in a window of its own."""
    scene = scene_ids(httpx.get(url, timeout=60).text)[0]
    page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    page.goto(f"{url}viewport?scenes={scene}")
    known_value(page, "window.fieldmorph?.images?.version")
    return page


def after_visits(files: Sequence[str], visits: int = VISITS) -> Row:
    """Measure the server's memory with all fields baked, before and after visitors who each take everything."""

    async def visit(client: httpx.AsyncClient, scenes: Sequence[Row]) -> Row:
        states, seen = [process_state(server.pid)], Visits()
        for number in range(visits):
            for path in ("/", "/config", "/viewport", "/viewport.js"):
                (await client.get(path)).raise_for_status()
            for scene in scenes:
                place = f"/scenes/{scene['id']}/bake"
                header = (await client.get(f"{place}/scene.json")).raise_for_status().json()
                for part in header["parts"]:
                    (await client.get(f"{place}/{part['file']}")).raise_for_status()
                await Visitor(client, scene, number, (320, 240), quick=True).request_image(number, seen)
        states.append(process_state(server.pid))
        return {"visits": visits, "errors": len(seen.errors), "server": states}

    with served(files) as (url, server):
        return visited(url, visit)


def targets_table(rows: Mapping[tuple[str, str | None], Row]) -> list[str]:
    """Format the rows of this file that there are, by kind and field, as lines of Markdown."""
    figures = []
    if start := rows.get(("start", None)):
        figures += [
            ["first page, CPU", f"{start['first_page_cpu_s']:.2f} s", "1 s"],
            [
                f"viewer up, CPU ({IMPORTS}: {start['import_cpu_s']:.2f} s)",
                f"{start['viewer_cpu_s']:.2f} s, {start['ratio']:.2f} times",
                "1.5 times",
            ],
        ]
    for field, title, seconds in (("hashgrid", "hash grid", 5), ("mlp", "MLP", 15)):
        if rest := rows.get(("rest", field)):
            figures += [
                [f"{title}, whole coarse image after rest", f"{rest['coarse_ms']:.0f} ms", "1000 ms"],
                [f"{title}, first finer tile after that", f"{rest['first_tile_ms']:.0f} ms", "500 ms"],
            ]
        if drag := rows.get(("drag", field)):
            server, frames = f"{drag['core_seconds']:.1f} core-s", f"{drag['frames_per_second']:.0f} frames/s"
            if "frame_core_ms" in drag:  # not in rows of earlier versions
                server += f", browser {drag['browser_core_seconds']:.1f}"
                frames += f", {drag['frame_core_ms']:.0f} core-ms each"
            figures += [
                [f"{title}, until dragged from a bake", server, f"{seconds} core-s"],
                [f"{title}, dragged at 640 x 480", frames, "15 frames/s"],
            ]
    memory = rows.get(("memory", None))
    if memory and all(memory["server"]):
        used = memory["server"][-1]["memory_bytes"] / 1e9
        figures.append([f"memory, two fields, {memory['visits']} visits", f"{used:.2f} GB", "1.3 GB"])
    return ["", markdown(["What a visitor waits for", "measured", "target"], figures)] if figures else []
