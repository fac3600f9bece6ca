"""Stages, learning rates and samples from the command line and from files: in effect, repeated, resumed, refused."""

import hashlib
import json
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.defaults import CONVERT, FIDELITY, FIT, SAMPLING
from helpers.pages import blocks

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.distill.config import LEARNING, ConvertConfig
from fieldmorph.distill.stages import PVD_STAGES
from fieldmorph.fields.budget import Budget

PATCHES = (
    (SAMPLING, "block_rays", 128),
    (SAMPLING, "block_empty", 128),
    (SAMPLING, "n_blocks", 3),
    (CONVERT, "probe_rays", 64),
    (FIT, "probe_rays", 64),
    (FIDELITY, "longest_side", 11),
    (FIDELITY, "n_held_out", 2),
)
SMALL = [f"--set={setting}" for setting in ("width=16", "depth=2", "n_frequencies=4")]
RUN = """
[convert]
teacher = "teacher.fm"
steps = 12
threads = 1
learning = {lr_share = 0.7, samples_per_step = 300}

[convert.stage.volume]
share = 0.6
losses = {features = 0.0, color = 0.4}

[convert.stage.render]
source = "rays"
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True, scope="module")
def _small_work() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in PATCHES:
            patch.setattr(owner, name, value)
        yield


@pytest.fixture
def run(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Exit code and standard error of `convert` in a folder with a teacher and `run.toml`."""
    monkeypatch.chdir(tmp_path)
    Path("teacher.fm").symlink_to(teacher)
    Path("run.toml").write_text(RUN)

    def convert(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = main(["convert", *words, "--quiet"])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return convert


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_what_is_set_is_in_effect_written_and_repeated(run: Run) -> None:
    more = ["--stage", "features.share=0", "--learning", "lr_share=0.5", "--stage=volume.losses.color=0.5"]
    assert run("--config", "run.toml", *SMALL, *more, "-o", "a.fm") == (0, "")
    settings = json.loads(Path("a.fm.receipt.json").read_text())["settings"]
    volume = {"features": 0.0, "density": 1.0, "color": 0.5}
    assert [(stage["name"], stage["share"], stage["losses"]) for stage in settings["stages"]] == [
        ("start", 0.0, {}),
        ("volume", 0.6, {name: weight for name, weight in volume.items() if weight}),
        ("render", 0.4, PVD_STAGES[-1].losses),
    ]
    assert (settings["lr_share"], settings["samples_per_step"], settings["lr_decay"]) == (0.5, 300, 0.1)
    stages = json.loads(Path("a.fm.receipt.json").read_text())["stages"]
    assert [(stage["name"], stage["steps"]) for stage in stages] == [("volume", 8), ("render", 4)]

    written = tomllib.loads(Path("a.fm.toml").read_text())["convert"]
    assert written["stage"] == {
        "features": {"share": 0},
        "volume": {"share": 0.6, "losses": {"features": 0.0, "color": 0.5}},
        "render": {"source": "rays"},
    }
    assert written["learning"] == {"lr_share": 0.5, "samples_per_step": 300}
    assert run("--config", "a.fm.toml", "-o", "b.fm", "--no-receipt") == (0, "")
    assert sha256("b.fm") == sha256("a.fm")
    # and each of them matters
    for i, change in enumerate(["--learning=lr_share=0.7", "--stage=volume.losses.color=0.4"]):
        assert run("--config", "a.fm.toml", "-o", f"c{i}.fm", "--no-receipt", change) == (0, "")
        assert sha256(f"c{i}.fm") != sha256("a.fm")


def test_a_run_is_not_resumed_with_other_stages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_line: Any, progress: Any) -> None:
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    line = ("--config", "run.toml", *SMALL, "-o", "a.fm")
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "__call__", stop)
        assert run(*line)[0] == 130
    for change, message in (
        ("--stage=volume.share=0.5", "volume.share was 0.6, is 0.5"),
        ("--stage=render.losses.color=1", "settings: render.losses.color was 0.03, is 1\n"),
        ("--stage=features.share=0", "features.share was 0.1, is None; "),
        ("--learning=samples_per_step=301", "samples_per_step was 300, is 301"),
    ):
        code, error = run(*line, "--resume", change)
        assert (code, error.count("\n")) == (2, 1)
        assert "a.fm.state belongs to a run with other settings: " in error
        assert message in error
    assert run(*line, "--resume", "--no-receipt") == (0, "")
    assert run(*line[:-1], "b.fm", "--no-receipt") == (0, "")
    assert sha256("a.fm") == sha256("b.fm")


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        ("stage.volum.share = 0.6", "--stage volum.share=0.6", "unknown stage 'volum'; known: "),
        ("stage.volume.losses.colour = 1", "--stage volume.losses.colour=1", "did you mean losses.color?"),
        (
            'stage.render.source = "ray"',
            "--stage render.source=ray",
            "known: points, rays; did you mean rays?",
        ),
        ("stage.volume.share = true", "--stage volume.share=true", "at least 0; got True"),
        ("stage.volume.share = inf", "--stage volume.share=Infinity", "at least 0; got inf"),
        ("stage.volume.share = [1, 2]", "--stage volume.share=[1,2]", "at least 0; got [1, 2]"),
        (
            "learning.lr_gird = 1",
            "--learning lr_gird=1",
            "unknown setting of learning 'lr_gird'; known: empty_share, finish_lr_share, lr_decay, lr_final, lr_grid, "
            "lr_network, lr_share, samples_per_step, warmup_steps; did you mean lr_grid?",
        ),
        ("learning.seed = 1", "--learning seed=1", "unknown setting of learning 'seed'; known: "),
        ("learning.lr_grid = -1", "--learning lr_grid=-1", "lr_grid must be a finite number above 0; got -1"),
        ('learning.lr_grid = "high"', "--learning lr_grid=high", "above 0; got 'high'"),
        ("learning.empty_share = nan", "--learning empty_share=NaN", "of at least 0; got nan"),
        ("learning.samples_per_step = 2.5", "--learning samples_per_step=2.5", "at least 1; got 2.5"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    run: Run, table: str, words: str, message: str
) -> None:
    Path("bad.toml").write_text(f'[convert]\nteacher = "teacher.fm"\nsteps = 2\n{table}\n')
    before = sorted(Path().iterdir())
    for line in (["--config", "bad.toml"], ["teacher.fm", "--steps", "2", *words.split()]):
        code, error = run(*line, "-o", "a.fm")
        assert (code, error.count("\n")) == (2, 1)
        assert error.startswith("fieldmorph: ")
        assert message in error
    assert sorted(Path().iterdir()) == before


def test_a_setting_without_a_stage_is_no_setting(run: Run) -> None:
    expected = "argument --stage: expected a setting such as volume.share=0.6; got 'share=0.6'"
    assert expected in run("teacher.fm", "-o", "a.fm", "--stage", "share=0.6")[1]


def test_the_example_of_the_page_runs(run: Run) -> None:
    [example] = blocks("docs/how-conversion-works.md", "toml")
    Path("run.toml").write_text(example)
    assert run("--config", "run.toml", "--steps", "10", *SMALL, "-o", "student.fm")[0] == 0
    receipt = json.loads(Path("student.fm.receipt.json").read_text())
    given = tomllib.loads(example)["convert"]
    made = {stage["name"]: stage for stage in receipt["settings"]["stages"]}
    assert (list(made), given["stage"]["features"]) == (["start", "volume", "render"], {"share": 0})
    assert made["volume"]["share"] == given["stage"]["volume"]["share"]
    assert made["volume"]["losses"] == {"density": 1.0, "color": given["stage"]["volume"]["losses"]["color"]}
    assert made["render"]["losses"] == {**PVD_STAGES[-1].losses, **given["stage"]["render"]["losses"]}
    assert {key: receipt["settings"][key] for key in given["learning"]} == given["learning"]


def test_a_request_without_settings_is_the_default() -> None:
    request = ConversionRequest(Budget(steps=3), seed=4)
    assert request.config() == ConvertConfig(seed=4)
    assert set(LEARNING) <= set(vars(ConvertConfig()))
