"""A conversion that is killed or interrupted at any stage and resumed ends as an uninterrupted one.

A run is a row of events: a step of the student, or an image of a receipt. Children of a little server are killed at
one of them by SIGKILL; what each still did is in a file.
"""

import contextlib
import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.defaults import CONVERT, FIDELITY, FIT, LOOP, LOWRANK_START, SAMPLING
from helpers.paths import TESTS

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.convert import ConvertResult, convert_file
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.distill import teacher_samples
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.loop import Interrupted
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.runtime import use_threads
from fieldmorph.fields.scene import load_scene

PARTS = 3
# Blocks of the teacher's samples are renewed every fourth step from the second on: a ring of three turns over.
PATCHES = (
    (SAMPLING, "block_rays", 64),
    (SAMPLING, "block_empty", 64),
    (SAMPLING, "n_blocks", 3),
    (SAMPLING, "fill_every", 2),
    (SAMPLING, "renew_every", 4),
    (CONVERT, "probe_rays", 64),
    (FIT, "probe_rays", 64),
    (LOWRANK_START, "view_blocks", 2),
    (FIDELITY, "n_held_out", 2),
    (FIDELITY, "longest_side", 11),
    (LOOP, "save_seconds", 0),
    *((field, "samples_per_step", 1 << 10) for field in FIELDS.values()),
    (FIELDS["mlp"], "conversion_samples", None),
)
STEPS = 24
STUDENTS = {
    "mlp": {"width": 16, "depth": 2, "n_frequencies": 4},
    "vm": {"resolution": 20, "density_components": 4, "app_components": 6},
    "voxels": {"resolution": 20},
}

Event = tuple[str, int]
OnEvent = Callable[[str, int], None]


def run(job: dict[str, Any], on_event: OnEvent) -> ConvertResult:
    """The conversion of a job, whose quality nothing can meet where it requests one."""
    request = ConversionRequest(
        Budget(steps=STEPS),
        to=job["to"],
        overrides=STUDENTS[job["to"]],
        start=job["to"] != "mlp",
        max_psnr_drop=-100.0 if job["gate"] else None,
        extra_parts=PARTS,
        receipt=job["receipt"],
    )
    return convert_file(
        job["teacher"],
        job["output"],
        request,
        data=job["data"],
        resume=job["resume"],
        on_progress=lambda progress: on_event("step", progress.step),
        on_image=lambda _whose, done, _total: on_event("image", done),
    )


def serve() -> None:
    """Fork a child for each job that is read; the exit codes."""
    importlib.import_module("scipy.ndimage")  # takes a moment, which each child would spend again
    for owner, name, value in PATCHES:
        setattr(owner, name, value)
    for line in sys.stdin:
        if not (child := os.fork()):
            die_in(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def die_in(job: dict[str, Any]) -> None:
    """Do it until SIGKILL at one of its events, each of which goes to a file."""
    use_threads(1)  # here, since OpenMP's threads do not outlive a fork
    left = itertools.count(job["dies_at"] - 1, -1)
    with open(job["events"], "w") as file:

        def note(*event: Any) -> None:
            print(*event, file=file, flush=True)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        run(job, note)
    os._exit(0)


@pytest.fixture(autouse=True, scope="module")
def _small_work() -> Iterator[None]:
    use_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in PATCHES:
            patch.setattr(owner, name, value)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    script = f"import runpy, sys; sys.path.append({str(TESTS)!r}); runpy.run_path({__file__!r})['serve']()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def job(teacher: Path, few_views: Path) -> Callable[..., dict[str, Any]]:
    def make(folder: Path, to: str, **more: Any) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        known = {"teacher": str(teacher), "data": str(few_views), "output": str(folder / "o.fm"), "to": to}
        return {**known, "gate": False, "receipt": True, "resume": False, **more}

    return make


def events_of(job: dict[str, Any]) -> list[Event]:
    """Run it here to its end."""
    events: list[Event] = []
    run(job, lambda *event: events.append(event))
    return events


def killed(server: subprocess.Popen[str], job: dict[str, Any], dies_at: int) -> list[Event]:
    """What a child did until it was killed at this event of its own, counted from 1."""
    assert server.stdin is not None
    assert server.stdout is not None
    path = Path(f"{job['output']}.events")
    print(json.dumps({**job, "dies_at": dies_at, "events": str(path)}), file=server.stdin, flush=True)
    assert int(server.stdout.readline()) == -signal.SIGKILL
    lines = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    return [(what, int(n)) for what, n in lines]


def timeless(value: Any) -> Any:
    """A receipt's figures without what the clock says; the stage of an evaluation depends on the clock, too."""
    if isinstance(value, dict):
        clock = ("created", "seconds", "core_seconds", "core_seconds_per_image", "stage")
        return {key: timeless(item) for key, item in value.items() if key not in clock}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(folder: Path) -> tuple[bytes, Any, list[str]]:
    """All that a run leaves."""
    reported = json.loads((folder / "o.fm.receipt.json").read_text())
    return (folder / "o.fm").read_bytes(), timeless(reported), sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "steps"),
    [("vm", (2, 10, 20)), ("voxels", (2, 20))],  # after the start, in volume and in render
)
def test_killed_in_every_stage_and_resumed_gives_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
    server: subprocess.Popen[str],
    job: Any,
    tmp_path: Path,
    to: str,
    steps: tuple[int, ...],
) -> None:
    whole, cut = (job(tmp_path / name, to, receipt=False) for name in ("whole", "cut"))
    assert events_of(whole) == [("step", i + 1) for i in range(STEPS)]
    at = 0  # the last step that was saved
    for step in steps:
        seen = killed(server, {**cut, "resume": bool(at)}, step - at)
        assert seen == [("step", i) for i in range(at + 1, step + 1)]
        at = step - 1
        assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["o.fm.state"]
    made, make_block = set[int](), teacher_samples.make_block

    def noted(
        teacher: Any, seed: int, number: int, worst: Any = None, config: Any = None
    ) -> teacher_samples.Block:
        made.add(number)
        return make_block(teacher, seed, number, worst, config)

    monkeypatch.setattr(teacher_samples, "make_block", noted)
    assert events_of({**cut, "resume": True}) == [("step", i) for i in range(20, STEPS + 1)]
    newest = [1 + 1 + (step - 2) // 4 for step in (at, STEPS - 1)]
    # Block 0 stands in for one that is empty; the ring has turned over since, and continues turning.
    assert made == {0, *range(newest[0] - 2, newest[1] + 1)}
    assert 0 < newest[0] - 2 < newest[0] < newest[1]
    assert Path(cut["output"]).read_bytes() == Path(whole["output"]).read_bytes()
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["o.fm"]


@pytest.mark.slow
def test_killed_while_measured_and_in_an_extension_continues_there(
    server: subprocess.Popen[str], job: Any, tmp_path: Path
) -> None:
    whole, cut = (job(tmp_path / name, "mlp", gate=True) for name in ("whole", "cut"))
    n_images, part = 3 + 8, STEPS // PARTS
    images = [("image", i + 1) for i in range(n_images)]
    steps = [("step", i + 1) for i in range(part)]
    expected = [("step", i + 1) for i in range(STEPS)] + images * 2 + (steps + images) * PARTS
    assert events_of(whole) == expected

    # In the student's images; it is there as soon as it has learned.
    assert killed(server, cut, STEPS + n_images + 4) == expected[: STEPS + n_images + 4]
    assert (tmp_path / "cut" / "o.fm").exists()
    cut["resume"] = True
    # In the first part, from whose sixth step it continues, and then in the images of the second.
    assert killed(server, cut, 2 * n_images + 6) == images * 2 + steps[:6]
    seen = images * 2 + steps[5:] + images + steps + images[:3]
    assert killed(server, cut, len(seen)) == seen
    # Students of the parts before are not trained again, but measured.
    assert events_of(cut) == images * 4 + steps + images
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_measured_is_one_line_and_loses_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    teacher: Path,
    tmp_path: Path,
    signum: int,
    code: int,
) -> None:
    output, events = tmp_path / "o.fm", list[Event]()
    words = [
        "convert",
        teacher,
        *(f"--set={k}={v}" for k, v in STUDENTS["mlp"].items()),
        "--steps",
        STEPS,
        "-o",
    ]
    line = [*map(str, words), str(output), "--quiet", "--threads", "1"]

    def note(*event: Any) -> None:
        events.append(event)
        if event == ("image", 3):
            signal.raise_signal(signum)

    monkeypatch.setattr(ProgressLine, "__call__", lambda _, progress: note("step", progress.step))
    monkeypatch.setattr(ProgressLine, "measured", lambda _, whose, done, total: note("image", done))
    monkeypatch.setattr(LOOP, "save_seconds", 20.0)  # the loop is over before it saves anything
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert main(line) == code
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    hint = f"state saved in {output}.state; run the same command with --resume to continue"
    assert capsys.readouterr().err == f"fieldmorph: interrupted; {hint}\n"
    student = output.read_bytes()

    assert main(line) == 2
    hint = "from an interrupted run: use --resume to continue or --force to start over"
    assert f"found {output}.state {hint}\n" in capsys.readouterr().err
    assert main([*line, "--resume", "--seed", "1"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    events.clear()
    monkeypatch.setattr(
        ProgressLine, "measured", lambda _, whose, done, total: events.append(("image", done))
    )
    assert main([*line, "--resume"]) == 0
    assert {what for what, _ in events} == {"image"}
    assert output.read_bytes() == student
    written = {"o.fm", "o.fm.toml", "o.fm.receipt.json", "o.fm.receipt.html"}
    assert {path.name for path in tmp_path.iterdir()} == written


def interrupted(job: dict[str, Any], at: int) -> None:
    """Run it until a signal at this event."""
    events: list[Event] = []

    def note(*event: Any) -> None:
        events.append(event)
        if len(events) == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(job, note)


def test_what_is_over_does_not_grow_longer(monkeypatch: pytest.MonkeyPatch, job: Any, tmp_path: Path) -> None:
    cut = job(tmp_path / "cut", "mlp")
    interrupted(cut, STEPS + 1)
    monkeypatch.setattr(sys.modules[__name__], "STEPS", STEPS + 1)
    with pytest.raises(SettingError, match=r"budget was {'steps': 24}, is {'steps': 25}"):
        run({**cut, "resume": True}, lambda *_: None)


def test_other_test_images_are_not_those_that_a_part_was_begun_for(job: Any, tmp_path: Path) -> None:
    cut = job(tmp_path / "cut", "mlp", gate=True)
    interrupted(cut, STEPS + 2 * 11 + 3)
    other = shutil.copytree(cut["data"], tmp_path / "other")
    content = json.loads((other / "transforms_test.json").read_text())
    (other / "transforms_test.json").write_text(json.dumps({**content, "frames": content["frames"][:2]}))
    with pytest.raises(
        SettingError, match=r"longer-1\.state belongs to a run with other settings: photographs"
    ):
        run({**cut, "resume": True, "data": str(other)}, lambda *_: None)


def test_a_run_begun_anew_forgets_the_parts_of_another(job: Any, tmp_path: Path) -> None:
    cut = job(tmp_path / "cut", "mlp", gate=True)
    interrupted(cut, STEPS + 2 * 11 + 3)
    assert {path.name for path in (tmp_path / "cut").glob("*.state")} == {"o.fm.state", "o.fm.longer-1.state"}
    (tmp_path / "cut" / "o.fm.state").unlink()
    (tmp_path / "cut" / "o.fm").unlink()
    interrupted({**cut, "resume": True}, 5)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["o.fm.state"]


@pytest.mark.parametrize(("name", "resolution"), [("vm", 24), ("voxels", 41)])
def test_training_from_coarse_to_fine_resumes_exactly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few_views: Path, name: str, resolution: int
) -> None:
    monkeypatch.setattr(LOOP, "save_seconds", 20.0)
    views = load_scene(few_views, splits=["train"]).splits["train"]

    def trained(stops: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], list[tuple[int, int]]]:
        """Parameters, and each step with how many there were."""
        seen: list[tuple[int, int]] = []
        for stop in (*stops, None):
            field = make_field(name, aabb=(-1, -1, -1, 1, 1, 1), resolution=resolution)

            def halt(progress: Any, stop: int | None = stop, field: VolumeField = field) -> None:
                seen.append((progress.step, sum(p.numel() for p in field.parameters())))
                if progress.step == stop:
                    signal.raise_signal(signal.SIGINT)

            with contextlib.suppress(Interrupted):
                stored, _ = fit_images(
                    field,
                    views,
                    Budget(steps=24),
                    FitConfig(),
                    state_path=tmp_path / "o.state",
                    resume=True,
                    on_progress=halt,
                )
        (tmp_path / "o.state").unlink(missing_ok=True)
        return {k: v.clone() for k, v in stored.field.state_dict().items()}, seen

    stops = (4, 15)  # coarse and fine
    (whole, seen), (resumed, seen_again) = trained(()), trained(stops)
    assert [step for step, _ in seen] == list(range(1, 25))
    assert seen == seen_again  # no step twice, none at another resolution
    assert dict(seen)[stops[0]] < dict(seen)[stops[1]]
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
