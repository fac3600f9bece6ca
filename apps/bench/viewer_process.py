"""`fieldmorph view` in a child process, as benchmarks start and watch it."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import httpx

from fieldmorph.apps.bench.runner import Row
from fieldmorph.apps.viewer.launch import READY

SERVER = "import sys; from fieldmorph.apps.cli.main import main; sys.exit(main())"
TIMEOUT = 120.0  # seconds, for a response
END_TIMEOUT = 30.0  # seconds, for the process to end


@contextmanager
def served(files: Sequence[str], options: Sequence[str] = ()) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `fieldmorph view` in a child process; yield its address, once the viewer is up, and the process.

    Args:
        options: further words of the command line.
    """
    with started_process(files, options) as (url, server):
        assert server.stdout is not None
        if not any(line.rstrip().endswith(READY) for line in server.stdout):
            raise RuntimeError(f"the viewer exited with code {server.wait()}")
        yield url, server


@contextmanager
def started_process(
    files: Sequence[str], options: Sequence[str] = ()
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `fieldmorph view` in a child process; yield its address, once the loading page is up, and the process."""
    words = [*files, "--port", "0", "--no-browser", *options]
    with subprocess.Popen(
        [sys.executable, "-P", "-c", SERVER, "view", *words], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = next((line.split()[0] for line in server.stdout if line.startswith("http://")), None)
            if url is None:
                raise RuntimeError(f"the viewer exited with code {server.wait()}")
            yield url, server
        finally:
            server.terminate()  # a process in the background may ignore an interrupt
            try:
                server.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()


def process_state(pid: int) -> Row | None:
    """Return resident bytes and threads of another process; None where the system has no /proc."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        return None
    status = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return {"memory_bytes": int(status["VmRSS"].split()[0]) * 1024, "threads": int(status["Threads"])}


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that all threads of another process have had.

    Raises:
        RuntimeError: the system has no /proc.
    """
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        raise RuntimeError("the CPU time of another process is read from /proc")
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


def cpu_seconds_of_children(but: int) -> float:
    """Return the CPU time that this process's descendants have had, such as a browser's, as far as they still run.

    Args:
        but: id of a child that does not count, nor do its descendants.

    Raises:
        RuntimeError: the system has no /proc.
    """
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):  # it has ended
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    total, waiting = 0.0, children.get(os.getpid(), [])
    while waiting:
        if (pid := waiting.pop()) != but:
            with suppress(OSError, RuntimeError):
                total += cpu_seconds(pid)
            waiting += children.get(pid, [])
    return total


def scene_ids(page: str) -> list[str]:
    """Return the ids of the scenes that the viewer's page shows.

    Raises:
        RuntimeError: there are none.
    """
    found = re.search(r"viewport\?scenes=([\w%-]+)", page)
    if not found:
        raise RuntimeError("the page shows no scene")
    return unquote(found[1]).split(",")


def visited(url: str, visit: Callable[[httpx.AsyncClient, list[Row]], Awaitable[Row]]) -> Row:
    """Return what a visit returns that begins once all scenes of the page are baked."""

    async def run() -> Row:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as client:
            names = scene_ids((await client.get("/")).text)
            while True:
                scenes = [(await client.get(f"/scenes/{name}")).json() for name in names]
                if all(scene["bake"]["state"] not in ("waiting", "working") for scene in scenes):
                    return await visit(client, scenes)
                await asyncio.sleep(0.5)

    return asyncio.run(run())
