"""A conversion in a process of its own: what it tells on the way, what it leaves, and how it ends."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fieldmorph.apps.jobs.convert import ConvertOptions
from fieldmorph.apps.viewer.conversion import Course, Desk, Ended, Job, Wish
from fieldmorph.apps.viewer.render_pool import BusyError
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import load_field

TINY = {"width": 16, "depth": 2, "n_frequencies": 4}
WISH = Wish("mlp", "small", Budget(steps=40), ConvertOptions(receipt=False), settings=TINY)


@pytest.fixture
def stored(teacher: Path) -> RenderableField:
    return load_field(teacher)


def test_job_converts_and_tells_how_far_it_is(stored: RenderableField, teacher: Path) -> None:
    wish = replace(WISH, options=ConvertOptions())
    job = Job(stored, "a scene: <one>", wish)

    async def watch() -> list[tuple[float, str | None, int]]:
        return [(course.share, course.measuring, len(course.looks)) async for course in job.run()]

    seen = asyncio.run(watch())
    learning = [share for share, measuring, _ in seen if measuring is None]
    assert learning == sorted(learning)
    assert learning[-1] == 1
    assert {measuring for _, measuring, _ in seen} == {None, "teacher", "student"}
    assert seen[-1][2] >= 10
    assert job.output.name == "a-scene-one-mlp.fm"
    assert job.result["teacher_sha256"] == file_sha256(teacher)
    assert load_field(job.output).field.config()["width"] == 16
    data, page = job.receipts
    assert json.loads(data.read_text())["student"]["field"] == "mlp"
    assert page.read_text().startswith("<!DOCTYPE html>")
    folder = job.output.parent
    job.end()
    assert not folder.exists()


def test_job_that_is_ended_leaves_nothing(stored: RenderableField) -> None:
    job = Job(stored, "t", replace(WISH, budget=Budget(seconds=600.0)))
    folder = job.output.parent

    async def watch() -> None:
        async for course in job.run():
            if course.step:
                job.end()

    with pytest.raises(Ended):
        asyncio.run(watch())
    assert job.over
    assert not folder.exists()


def test_mistake_in_the_process_comes_back_as_a_line(stored: RenderableField) -> None:
    job = Job(stored, "t", replace(WISH, options=ConvertOptions(max_bytes=2000), settings={}))

    async def watch() -> None:
        async for _ in job.run():
            pass

    with pytest.raises(InputError, match="no mlp fits into 2000 bytes"):
        asyncio.run(watch())
    job.end()


def test_process_goes_when_the_server_is_gone(stored: RenderableField) -> None:
    job = Job(stored, "t", replace(WISH, budget=Budget(seconds=600.0)))

    async def watch() -> int | None:
        async for course in job.run():
            if course.step:
                assert job._process is not None
                assert job._process.stdin is not None
                job._process.stdin.close()
        return None

    with pytest.raises(InputError, match="broke off with 1"):
        asyncio.run(watch())
    assert not job.teacher.exists()
    job.end()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"budget": Budget(seconds=901.0)}, "at most 15m here, or 1800cs"),
        ({"budget": Budget(core_seconds=1801.0)}, "at most 15m here, or 1800cs"),
        ({"to": "splats"}, "unknown field 'splats'"),
        ({"preset": "huge"}, "unknown preset of mlp 'huge'"),
        ({"options": ConvertOptions(max_bytes=10**9)}, "at most 64 MB; this one would have about 1000 MB"),
        ({"to": "voxels", "preset": "paper", "settings": {}}, "at most 64 MB; this one would have about"),
    ],
)
def test_wishes_are_bounded(stored: RenderableField, change: dict[str, object], told: str) -> None:
    stored.occupancy.occupied = torch.ones_like(stored.occupancy.occupied)
    with pytest.raises(SettingError, match=told):
        replace(WISH, **change).check(stored)
    WISH.check(stored)


def test_one_conversion_at_a_time(stored: RenderableField) -> None:
    desk = Desk()
    first = desk.begin("ann", stored, "t", WISH)
    with pytest.raises(BusyError, match="another conversion is running"):
        desk.begin("bob", stored, "t", WISH)
    desk.leave("bob")
    assert not first.over
    desk.leave("ann")
    assert first.over
    second = desk.begin("bob", stored, "t", WISH)
    desk.close()
    assert second.over


def test_looks_are_taken_from_what_is_heard() -> None:
    course = Course()
    for share, psnr in ((0.1, None), (0.2, 20.0), (0.3, 20.0), (0.4, 21.5)):
        course.hear({"share": share, "step": 1, "seconds": 2.0, "core_seconds": 4 * share, "psnr": psnr})
    assert [(look["core_seconds"], look["psnr"]) for look in course.looks] == [(0.8, 20.0), (1.6, 21.5)]
    course.hear({"share": 0.5, "measuring": "teacher"})
    assert (course.share, course.measuring, course.psnr) == (0.5, "teacher", 21.5)
