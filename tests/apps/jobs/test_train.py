"""Training and conversion from file to file: the same bytes each time, through every kind of interruption."""

import hashlib
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
from helpers.defaults import CONVERT, FIT, SAMPLING
from helpers.small_conversions import shrink_conversions

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.lifecycle import state_path
from fieldmorph.apps.jobs.scenes import bundled_scene
from fieldmorph.apps.jobs.train import train_scene
from fieldmorph.fields import loop
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.checkpoint import read_header
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.metrics import EQUAL_DB, psnr
from fieldmorph.fields.progress import Progress
from fieldmorph.fields.store import load_field

SCENE = str(bundled_scene())
THREADS = ["--threads", "2", "--quiet"]
GRID = ["--downscale", "8", "--set=n_levels=6", "--set=log2_hashmap_size=12", "--set=finest_resolution=64"]
NET = ["--to", "mlp", "--set=width=32", "--set=depth=2", "--set=n_frequencies=5"]
STEPS = 40
STOP_AT = 25  # between two probes, at 24 and 26

SMALL_BLOCKS = {"block_rays": 256, "block_empty": 256, "n_blocks": 4}  # of the teacher's samples

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def _small_work() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_conversions(patch)
        for name, value in SMALL_BLOCKS.items():
            patch.setattr(SAMPLING, name, value)
        patch.setattr(FIT, "probe_rays", 256)
        patch.setattr(CONVERT, "probe_rays", 256)
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command with --json: its one object."""

    def call(*argv: Any) -> dict[str, Any]:
        capsys.readouterr()
        assert main([str(word) for word in (*argv, "--json")]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.fm"
    assert main(["train", SCENE, *GRID, *THREADS, "--steps", str(STEPS), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def student(teacher: Path) -> Path:
    path = teacher.with_name("student.fm")
    assert main(["convert", str(teacher), *NET, *THREADS, "--steps", str(STEPS), "-o", str(path)]) == 0
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def line_for(job: str, teacher: Path, output: Path, *more: str) -> list[str]:
    start = ["train", SCENE, *GRID] if job == "train" else ["convert", str(teacher), *NET]
    return [*start, *THREADS, "--steps", str(STEPS), "-o", str(output), *more]


def stop_at(step: int, signum: int) -> Callable[[ProgressLine, Progress], None]:
    def call(_self: ProgressLine, progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signum)

    return call


@pytest.mark.slow
def test_same_seed_same_bytes_with_the_published_command(run: Run, tmp_path: Path) -> None:
    results = [
        run(
            "train",
            SCENE,
            "--field",
            "hashgrid",
            "--downscale",
            8,
            "--steps",
            50,
            "--seed",
            seed,
            "--quiet",
            "-o",
            out,
        )
        for seed, out in ((1, tmp_path / "a.fm"), (1, tmp_path / "b.fm"))
    ]
    digests = [sha256(tmp_path / name) for name in ("a.fm", "b.fm")]
    assert digests[0] == digests[1]
    assert [result["sha256"] for result in results] == digests


def test_train_says_what_it_made(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "t.fm"
    result = run("train", SCENE, *GRID, *THREADS, "--steps", 20, "--seed", 3, "-o", output)
    assert list(result) == [
        "output",
        "field",
        "preset",
        "params",
        "bytes",
        "sha256",
        "steps",
        "seconds",
        "core_seconds",
        "psnr",
        "seed",
    ]
    assert (result["steps"], result["seed"], result["field"]) == (20, 3, "hashgrid")
    assert result["bytes"] == output.stat().st_size
    stored = load_field(output)
    assert result["params"] == stored.field.n_parameters()
    assert stored.provenance["images"] == 60
    assert stored.provenance["steps"] == 20
    assert {path.name for path in tmp_path.iterdir()} == {"t.fm", "t.fm.toml"}
    other = run("train", SCENE, *GRID, *THREADS, "--steps", 20, "--seed", 4, "-o", tmp_path / "u.fm")
    assert other["sha256"] != result["sha256"]


def test_convert_says_what_it_made(run: Run, teacher: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.fm"
    result = run("convert", teacher, *NET, *THREADS, "--steps", 20, "-o", output)
    assert result["teacher_sha256"] == sha256(teacher)
    assert result["stages"] == ["features", "volume", "render"]
    assert result["dropped"] == {"start": "this student has no closed form"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "s.fm",
        "s.fm.toml",
        "s.fm.receipt.json",
        "s.fm.receipt.html",
    }
    stored = load_field(output)
    assert stored.provenance["teacher"]["sha256"] == sha256(teacher)
    assert stored.provenance["teacher"]["provenance"]["scene"] == "spot"
    assert stored.field.box() == load_field(teacher).field.box()


@pytest.mark.parametrize("job", ["train", "convert"])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_and_resume_gives_the_same_bytes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    teacher: Path,
    student: Path,
    tmp_path: Path,
    job: str,
    signum: int,
    code: int,
) -> None:
    output = tmp_path / "o.fm"
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "__call__", stop_at(STOP_AT, signum))
        assert main(line_for(job, teacher, output)) == code
    reported = capsys.readouterr().err
    assert (
        reported
        == f"fieldmorph: interrupted; state saved in {output}.state; run the same command with --resume to continue\n"
    )
    assert not output.exists()

    assert main(line_for(job, teacher, output)) == 2  # neither --resume nor --force
    assert "use --resume to continue or --force to start over" in capsys.readouterr().err

    seen: list[int] = []
    monkeypatch.setattr(ProgressLine, "__call__", lambda _self, progress: seen.append(progress.step))
    assert main(line_for(job, teacher, output, "--resume")) == 0
    assert seen == list(range(STOP_AT + 1, STEPS + 1))
    assert sha256(output) == sha256(teacher if job == "train" else student)
    left = {path.name for path in tmp_path.iterdir()}
    receipt = set() if job == "train" else {"o.fm.receipt.json", "o.fm.receipt.html"}
    assert left == {"o.fm", "o.fm.toml"} | receipt


@pytest.mark.slow
@pytest.mark.parametrize("job", ["train", "convert"])
def test_kill_loses_one_interval_and_resume_gives_the_same_bytes(
    teacher: Path, student: Path, tmp_path: Path, job: str
) -> None:
    output = tmp_path / "o.fm"
    line = line_for(job, teacher, output)
    script = f"""
import os, signal, sys
from fieldmorph.apps.cli.main import main
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.fit import FitConfig
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.loop import LoopConfig
from fieldmorph.fields.mlp import MLP
HashGrid.samples_per_step = MLP.samples_per_step = {HashGrid.samples_per_step}
for config in (ConvertConfig, FitConfig):
    config.__init__.__kwdefaults__["probe_rays"] = 256
SamplingConfig.__init__.__kwdefaults__.update({SMALL_BLOCKS})
LoopConfig.__init__.__kwdefaults__["save_seconds"] = 0
def kill(_, progress):
    if progress.step == {STOP_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
ProgressLine.__call__ = kill
sys.exit(main({line!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_header(state_path(output))["header"]["state"]
    assert not output.exists()
    assert main([*line, "--resume"]) == 0
    assert sha256(output) == sha256(teacher if job == "train" else student)


def test_resume_refuses_a_changed_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, teacher: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.fm"
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "__call__", stop_at(3, signal.SIGINT))
        assert main(line_for("train", teacher, output)) == 130
    state = state_path(output).read_bytes()
    for change, reported in (
        (["--downscale", "16"], "downscale was 8, is 16"),
        (["--steps", "41"], "steps was 40, is 41"),
        (["--set", "n_levels=5"], "n_levels was 6, is 5"),
        (["--seed", "1"], "seed was 0, is 1"),
    ):
        capsys.readouterr()
        assert main([*line_for("train", teacher, output, "--resume"), *change]) == 2
        error = capsys.readouterr().err
        assert reported in error
        assert error.count("\n") == 1
    assert state_path(output).read_bytes() == state


def test_force_forgets_an_interrupted_run(
    monkeypatch: pytest.MonkeyPatch, teacher: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.fm"
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "__call__", stop_at(3, signal.SIGINT))
        assert main(line_for("train", teacher, output)) == 130
    seen: list[int] = []
    monkeypatch.setattr(
        ProgressLine, "__call__", lambda _self, progress: seen.append(state_path(output).exists())
    )
    assert main(line_for("train", teacher, output, "--force")) == 0
    assert not any(seen), "the old state would be taken for this run's, were it killed before its first save"
    assert sha256(output) == sha256(teacher)


def test_resume_without_a_state_starts_anew(
    caplog: pytest.LogCaptureFixture, teacher: Path, tmp_path: Path
) -> None:
    assert main(line_for("train", teacher, tmp_path / "o.fm", "--resume")) == 0
    assert f"no {tmp_path / 'o.fm'}.state to resume from; starting over" in caplog.text
    assert sha256(tmp_path / "o.fm") == sha256(teacher)


def test_a_time_may_be_raised_when_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ProgressLine, "__call__", stop_at(STOP_AT, signal.SIGINT))
    options = {"downscale": 8, "overrides": {"n_levels": 2, "log2_hashmap_size": 8}}
    line = ProgressLine("train", quiet=True)
    with pytest.raises(loop.Interrupted):
        train_scene(SCENE, tmp_path / "o.fm", Budget(core_seconds=1000.0), **options, on_progress=line)
    result = train_scene(SCENE, tmp_path / "o.fm", Budget(core_seconds=4.0), **options, resume=True)
    assert result.steps >= STOP_AT


def test_eval_measures_against_test_images_and_teacher(run: Run, teacher: Path, student: Path) -> None:
    result = run("eval", student, "--data", SCENE, "--downscale", 16, "--teacher", teacher, *THREADS)
    assert len(result["psnr_per_view"]) == len(result["views"]) == 20
    assert result["psnr"] == pytest.approx(sum(result["psnr_per_view"]) / 20)
    assert 0 < result["psnr"] < result["psnr_to_teacher"] < EQUAL_DB
    assert result["image_size"] == [16, 16]
    assert -1 <= result["ssim"] <= 1
    assert result["params"] == load_field(student).field.n_parameters()
    assert result["bytes"] == student.stat().st_size
    assert result["seconds_per_image"] > 0
    assert result["core_seconds_per_image"] > 0


def test_eval_of_a_field_against_itself_is_100_db(run: Run, teacher: Path) -> None:
    result = run("eval", teacher, "--data", SCENE, "--downscale", 16, "--teacher", teacher, *THREADS)
    assert result["psnr_to_teacher"] == EQUAL_DB
    assert result["ssim_to_teacher"] == pytest.approx(1)
    assert result["psnr"] < EQUAL_DB


def test_eval_prints_a_table(capsys: pytest.CaptureFixture[str], teacher: Path) -> None:
    assert main(["eval", str(teacher), "--data", SCENE, "--downscale", "16", *THREADS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 23
    assert lines[-2].startswith("mean ")
    assert "to teacher" not in lines[0]


def test_eval_compares_with_the_test_image_over_white(run: Run, teacher: Path, tmp_path: Path) -> None:
    """The figure again from the 8-bit images that `render` writes and from the files of the scene."""
    from PIL import Image

    scene = tmp_path / "scene"  # the first view at its own size
    shutil.copytree(SCENE, scene)
    transforms = scene / "transforms_test.json"
    content = json.loads(transforms.read_text())
    transforms.write_text(json.dumps({**content, "frames": content["frames"][:1]}))
    result = run("eval", teacher, "--data", scene, *THREADS)
    run("render", teacher, "--data", scene, "-o", tmp_path / "out", *THREADS)
    rgba = Image.open(Path(SCENE) / result["views"][0])
    test_image = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    test_image.alpha_composite(rgba.convert("RGBA"))
    ours = Image.open(tmp_path / "out" / Path(result["views"][0]).name)
    pair = [
        torch.frombuffer(bytearray(i.convert("RGB").tobytes()), dtype=torch.uint8) / 255
        for i in (ours, test_image)
    ]
    again = psnr(pair[0].reshape(256, 256, 3), pair[1].reshape(256, 256, 3))
    assert result["psnr_per_view"][0] == pytest.approx(again, abs=0.05)


def test_too_short_a_time_is_refused_but_few_steps_are_not(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="too short"):
        train_scene(
            SCENE, tmp_path / "a.fm", Budget(core_seconds=0.01), downscale=16, overrides={"n_levels": 2}
        )
    assert list(tmp_path.iterdir()) == []
    assert run("train", SCENE, *GRID, *THREADS, "--steps", 1, "-o", tmp_path / "b.fm")["steps"] == 1
