"""A conversion in a process of its own: its progress, its files, and how it ends."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_conversions import shrink_conversions

from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.viewer.conversion import (
    ConversionJob,
    ConversionProgress,
    ConversionSlot,
    check_limits,
)
from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import load_field

TINY = {"width": 16, "depth": 2, "n_frequencies": 4}
REQUEST = ConversionRequest(Budget(steps=40), receipt=False, overrides=TINY)


@pytest.fixture(autouse=True, scope="module")
def _small_conversions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_conversions(patch)
        yield


@pytest.fixture
def stored(teacher: Path) -> RenderableField:
    return load_field(teacher)


def test_job_converts_and_yields_its_progress(stored: RenderableField, teacher: Path) -> None:
    request = replace(REQUEST, receipt=True)
    job = ConversionJob(stored, "a scene: <one>", request)

    async def watch() -> list[tuple[float, str | None, int]]:
        return [
            (progress.fraction, progress.measuring, len(progress.evaluations)) async for progress in job.run()
        ]

    seen = asyncio.run(watch())
    learning = [fraction for fraction, measuring, _ in seen if measuring is None]
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
    job.close()
    assert not folder.exists()


def test_job_that_is_ended_leaves_nothing(stored: RenderableField) -> None:
    job = ConversionJob(stored, "t", replace(REQUEST, budget=Budget(seconds=600.0)))
    folder = job.output.parent

    async def watch() -> None:
        async for progress in job.run():
            if progress.step:
                job.close()

    with pytest.raises(Cancelled):
        asyncio.run(watch())
    assert job.is_over
    assert not folder.exists()


def test_mistake_in_the_process_comes_back_as_a_line(stored: RenderableField) -> None:
    job = ConversionJob(stored, "t", replace(REQUEST, max_bytes=2000, overrides={}))

    async def watch() -> None:
        async for _ in job.run():
            pass

    with pytest.raises(InputError, match="no mlp fits into 2000 bytes"):
        asyncio.run(watch())
    job.close()


def test_process_goes_when_the_server_is_gone(stored: RenderableField) -> None:
    job = ConversionJob(stored, "t", replace(REQUEST, budget=Budget(seconds=600.0)))

    async def watch() -> int | None:
        async for progress in job.run():
            if progress.step:
                assert job._process is not None
                assert job._process.stdin is not None
                job._process.stdin.close()
        return None

    with pytest.raises(InputError, match="worker exited with code 1 before returning a result"):
        asyncio.run(watch())
    assert not job.teacher.exists()
    job.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": Budget(seconds=901.0)}, "at most 15m here, or 1800cs"),
        ({"budget": Budget(core_seconds=1801.0)}, "at most 15m here, or 1800cs"),
        ({"to": "splats"}, "unknown field 'splats'"),
        ({"preset": "huge"}, "unknown preset of mlp 'huge'"),
        ({"max_bytes": 10**9}, "at most 64 MB; this one would have about 1000 MB"),
        ({"to": "voxels", "preset": "paper", "overrides": {}}, "at most 64 MB; this one would have about"),
    ],
)
def test_requests_are_bounded(stored: RenderableField, change: dict[str, object], message: str) -> None:
    stored.occupancy.occupied = torch.ones_like(stored.occupancy.occupied)
    with pytest.raises(SettingError, match=message):
        check_limits(replace(REQUEST, **change), stored)
    check_limits(REQUEST, stored)


def test_one_conversion_at_a_time(stored: RenderableField) -> None:
    slot = ConversionSlot()
    first = slot.start("ann", stored, "t", REQUEST)
    with pytest.raises(BusyError, match="another conversion is running"):
        slot.start("bob", stored, "t", REQUEST)
    slot.cancel("bob")
    assert not first.is_over
    slot.cancel("ann")
    assert first.is_over
    second = slot.start("bob", stored, "t", REQUEST)
    slot.close()
    assert second.is_over


def test_evaluations_are_taken_from_messages() -> None:
    progress = ConversionProgress()
    for fraction, psnr in ((0.1, None), (0.2, 20.0), (0.3, 20.0), (0.4, 21.5)):
        progress.update(
            {"fraction": fraction, "step": 1, "seconds": 2.0, "core_seconds": 4 * fraction, "psnr": psnr}
        )
    assert [(point["core_seconds"], point["psnr"]) for point in progress.evaluations] == [
        (0.8, 20.0),
        (1.6, 21.5),
    ]
    progress.update({"fraction": 0.5, "measuring": "teacher"})
    assert (progress.fraction, progress.measuring, progress.psnr) == (0.5, "teacher", 21.5)
