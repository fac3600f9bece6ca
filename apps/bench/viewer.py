"""The viewer with one visitor and with many: time until images are complete, errors, the server's memory."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx

from fieldmorph.apps.bench.browser_page import drag_page, page_table
from fieldmorph.apps.bench.load_clients import MISTAKES, VIEWS, Visitor, Visits
from fieldmorph.apps.bench.runner import Bench, Row, failures, markdown
from fieldmorph.apps.bench.viewer_process import process_state, served, visited
from fieldmorph.apps.bench.viewer_targets import after_visits, at_rest, dragged, started, targets_table

# With core-seconds of training: so few that the MLP has low density everywhere, the hardest case for a viewer.
FIELDS = {"hashgrid": 120.0, "mlp": 45.0}
PREVIEW, IMAGE = (160, 120), (400, 400)
CROWD, CROWD_SECONDS = 16, 180.0
SHARED_SECONDS = 20.0
TITLES = {"pictures": "images", "strangers": "wrong images"}  # of columns, where the figure has another name


def bench_view(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    scale: float = 1.0,
    force: bool = False,
    quiet: bool = False,
) -> Row:
    """Measure fields in `fieldmorph view`, and one as an exported page in a browser; return JSON values.

    Rows, which are resumed as `Bench` says: `alone`, images of 400 x 400 for one visitor; `beside`, previews of the
    hash grid while another visitor requests the MLP; `crowd`, 16 visitors for three minutes, with one more who leaves
    during an image and one whose requests are invalid; `page`, dragging and resting where there is a browser; `start`,
    `rest`, `drag` and `memory`, the functions of `viewer_targets`, each on the cores that this process may use.

    Args:
        scale: multiplies the budgets of training, and the three minutes.

    Raises:
        SettingError, InputError: before anything is written.
    """
    bench = Bench.of_scene("view", data, output, downscale, force, quiet)
    trained = {name: bench.train_teacher(name, scale * budget, 0) for name, budget in FIELDS.items()}
    files = [str(row["path"]) for row in trained.values()]
    made_of = {"teacher_sha256": [row.get("sha256") for row in trained.values()]}
    if not any("error" in row for row in trained.values()):
        for which, name in enumerate(FIELDS):
            bench.run({"kind": "alone", "field": name, **made_of}, alone, files=files, which=which)
        bench.run({"kind": "beside", "field": "hashgrid", **made_of}, contended, files=files)
        seconds = scale * CROWD_SECONDS
        crowd_of: Row = {"kind": "crowd", "field": "hashgrid", "viewers": CROWD, "seconds": seconds}
        bench.run({**crowd_of, **made_of}, crowd, files=files, viewers=CROWD, seconds=seconds)
        bench.run({"kind": "page", "field": "hashgrid", **made_of}, drag_page, file=files[0])
        bench.run({"kind": "start", **made_of}, started, files=files)
        for name, file in zip(FIELDS, files, strict=True):
            bench.run({"kind": "rest", "field": name, **made_of}, at_rest, file=file)
            bench.run({"kind": "drag", "field": name, **made_of}, dragged, file=file)
        bench.run({"kind": "memory", **made_of}, after_visits, files=files)
    return bench.finish({"scale": scale}, view_table)


def alone(files: Sequence[str], which: int) -> Row:
    """Measure one visitor with whole images as a job."""

    async def visit(client: httpx.AsyncClient, scenes: Sequence[Row]) -> Row:
        warm, counted = Visits(), Visits()
        visitor = Visitor(client, scenes[which], 0, IMAGE, quick=False)
        for turn in range(2 * VIEWS):
            await visitor.request_image(turn, warm if turn < 3 else counted)
        return counted.row()

    with served(files) as (url, _):
        return visited(url, visit)


def contended(files: Sequence[str]) -> Row:
    """Measure previews of one visitor as a job, while another requests images of the MLP without a pause."""

    async def visit(client: httpx.AsyncClient, scenes: Sequence[Row]) -> Row:
        until, previews, images = time.perf_counter() + SHARED_SECONDS, Visits(), Visits()
        await asyncio.gather(
            Visitor(client, scenes[0], 0, PREVIEW, quick=True).stay(until, previews),
            Visitor(client, scenes[1], 1, IMAGE, quick=False).stay(until, images, pause=0.0),
        )
        return {**previews.row(), "other_p50_ms": images.row()["p50_ms"]}

    with served(files) as (url, _):
        return visited(url, visit)


def crowd(files: Sequence[str], viewers: int, seconds: float) -> Row:
    """Run `visit_together` as a job, on its own server."""
    with served(files) as (url, server):
        return visited(url, partial(visit_together, viewers=viewers, seconds=seconds, pid=server.pid))


async def visit_together(
    client: httpx.AsyncClient,
    scenes: Sequence[Row],
    viewers: int,
    seconds: float,
    pid: int,
    pause: float = 0.5,
    mistakes: Sequence[Row] = MISTAKES,
) -> Row:
    """Measure many visitors at once, and two who misbehave; return the server's memory and threads, too.

    Args:
        viewers: number of visitors.
        seconds: that they stay.
        pid: of the server's process.
        pause: of a visitor between two requests, in seconds.
        mistakes: what the invalid requests of one of the two contain.
    """
    all_of = [Visitor(client, scenes[0], number, PREVIEW, quick=True) for number in range(viewers + 2)]
    await all_of[0].request_image(0, Visits())  # the first image is slower
    until, visits, states = time.perf_counter() + seconds, Visits(), list[Row | None]()

    async def watch() -> None:
        await asyncio.sleep(0.1 * seconds)
        states.append(process_state(pid))
        await asyncio.sleep(0.8 * seconds)
        states.append(process_state(pid))

    await asyncio.gather(
        *(one.stay(until, visits, pause) for one in all_of[2:]),
        all_of[0].leave_early(until, visits, pause),
        all_of[1].mistake(until, visits, pause, mistakes),
        watch(),
    )
    return {**visits.row(), "server": states}


def view_table(result: Row) -> str:
    """Format what `bench_view` returned as Markdown tables."""
    rows = {(row["kind"], row.get("field")): row for row in result["rows"] if "error" not in row}
    titles = {
        ("alone", "hashgrid"): "hash grid, 400 x 400, one visitor",
        ("alone", "mlp"): "MLP, 400 x 400, one visitor",
        ("beside", "hashgrid"): "hash grid, 160 x 120, while another requests the MLP",
        ("crowd", "hashgrid"): "hash grid, 160 x 120, many visitors",
    }
    names = ("pictures", "first_tile_ms", "p50_ms", "p95_ms", "worst_ms", "errors", "strangers")
    figures = [[text, *(f"{rows[key][n]:.0f}" for n in names)] for key, text in titles.items() if key in rows]
    head = ["Images from the server", *(TITLES.get(name, name.replace("_", " ")) for name in names)]
    lines = [markdown(head, figures)]
    crowded = rows.get(("crowd", "hashgrid"))
    if crowded and all(crowded["server"]):
        first, last = crowded["server"]
        lines.append(
            f"\n{crowded['viewers']} visitors for {crowded['seconds']:.0f} s: the server had "
            f"{first['memory_bytes'] / 1e6:.0f} MB and {first['threads']} threads after a tenth of the time, "
            f"{last['memory_bytes'] / 1e6:.0f} MB and {last['threads']} threads after nine tenths."
        )
    seen = rows.get(("page", "hashgrid"))
    if seen:
        lines += ["", page_table(seen)]
    lines += targets_table(rows)
    return "\n".join([*lines, *failures(result)])
