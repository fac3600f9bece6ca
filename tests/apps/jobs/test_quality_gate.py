"""A conversion that misses the quality requested continues in parts, keeps the best student, and reports it all."""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.defaults import CONVERT, FIDELITY, SAMPLING

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs import quality_gate, resume
from fieldmorph.apps.jobs.convert import convert_file
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.distill import learner
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import FruitlessError
from fieldmorph.fields.files import file_sha256
from fieldmorph.fields.runtime import use_threads
from fieldmorph.fields.store import load_field

STEPS = 40
NET = {"width": 16, "depth": 2, "n_frequencies": 4}
PATCHES = (
    (SAMPLING, "block_rays", 64),
    (SAMPLING, "block_empty", 64),
    (SAMPLING, "n_blocks", 3),
    (CONVERT, "probe_rays", 64),
    (FIDELITY, "longest_side", 11),
)


@pytest.fixture(autouse=True, scope="module")
def _small_work() -> Iterator[None]:
    use_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in PATCHES:
            patch.setattr(owner, name, value)
        yield


@pytest.fixture
def convert_to_mlp(
    teacher: Path, few_views: Path, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], Any]]:
    """What a conversion of so many steps returns, and its receipt; by default nothing meets its quality."""

    def call(
        name: str = "s.fm", max_psnr_drop: float | None = -100.0, steps: int = STEPS, **more: Any
    ) -> tuple[dict[str, Any], Any]:
        result = convert_file(
            teacher,
            tmp_path / name,
            ConversionRequest(Budget(steps=steps), overrides=NET, max_psnr_drop=max_psnr_drop, **more),
            data=few_views,
        ).as_json()
        return result, json.loads(Path(result["receipt"][0]).read_text())

    return call


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], list[Any]]:
    """Have parts end in a worse student or in an error; each conversion's settings and the student it began with."""

    def alter(parts: dict[str, Any]) -> list[Any]:
        calls, whole = [], resume.convert

        def call(teacher: Any, student: Any, budget: Any, config: Any, **more: Any) -> Any:
            calls.append((config, copy.deepcopy(student.state_dict())))
            wrong = parts.get(config.stages[-1].name)
            if isinstance(wrong, Exception):
                raise wrong
            stored, report = whole(teacher, student, budget, config, **more)
            if wrong:
                generator = torch.Generator().manual_seed(0)
                with torch.no_grad():
                    for parameter in student.parameters():
                        parameter.copy_(torch.randn(parameter.shape, generator=generator))
                stored.occupancy.occupied[:] = True
            return stored, report

        monkeypatch.setattr(resume, "convert", call)
        return calls

    return alter


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_parts_that_make_it_worse_leave_the_conversion_s_own_student(
    convert_to_mlp: Any, altered: Any, tmp_path: Path
) -> None:
    plain, _ = convert_to_mlp("plain.fm", max_psnr_drop=None)
    calls = altered({f"longer {i}": "worse" for i in range(1, 5)})
    result, reported = convert_to_mlp()
    assert (tmp_path / "s.fm").read_bytes() == (tmp_path / "plain.fm").read_bytes()
    assert result["sha256"] == reported["student"]["sha256"] == plain["sha256"]
    gate = reported["gate"]
    assert (gate["kept"], gate["met"]) == ("the conversion itself", False)
    assert [part["kept"] for part in gate["extensions"]] == [False] * 4
    assert all(part["psnr_drop"] > gate["psnr_drop"] + 3 for part in gate["extensions"])
    assert gate["psnr_drop"] == reported["quality"]["held_out"]["mean"]["psnr_drop"]
    assert reported["quality"]["held_out"]["per_view"]["student_psnr"][0] > 10
    own = load_field(tmp_path / "s.fm").field.state_dict()
    assert all(same(began, own) for _, began in calls[1:])  # each began with what was kept
    # What was tried is reported, but is no part of how the student came about.
    assert [stage["name"] for stage in reported["stages"][-4:]] == [f"longer {i}" for i in range(1, 5)]
    assert reported["student"]["provenance"]["stages"] == ["features", "volume", "render"]
    assert reported["student"]["provenance"]["steps"] == STEPS
    assert result["steps"] == reported["budget"]["used"]["steps"] == 2 * STEPS


def test_the_best_of_all_students_is_kept_and_continues(
    convert_to_mlp: Any, altered: Any, tmp_path: Path
) -> None:
    steps = 2 * STEPS  # so many that the first extension makes it better
    _, plain = convert_to_mlp("plain.fm", max_psnr_drop=None, steps=steps)
    calls = altered({"longer 2": "worse"})
    result, reported = convert_to_mlp(steps=steps)
    gate, parts = reported["gate"], reported["gate"]["extensions"]
    drops = [plain["quality"]["held_out"]["mean"]["psnr_drop"], *(part["psnr_drop"] for part in parts)]
    kept = [drop < min(drops[:i]) for i, drop in enumerate(drops) if i]
    assert [part["kept"] for part in parts] == kept
    assert kept[0]
    assert not kept[1]
    last = max(i for i, is_kept in enumerate(kept) if is_kept)
    assert gate["kept"] == f"longer {last + 1}"
    assert gate["psnr_drop"] == min(drops) == reported["quality"]["held_out"]["mean"]["psnr_drop"]
    assert "on the test images that this receipt reports" in gate["picked_by"]
    assert "on the test images that this receipt reports" in Path(result["receipt"][1]).read_text()
    begun = [began for _, began in calls]
    assert not same(begun[1], begun[2])
    assert same(begun[2], begun[3])  # the second made it worse: the third begins as it did
    names = ["features", "volume", "render"] + [
        f"longer {i + 1}" for i, is_kept in enumerate(kept) if is_kept
    ]
    assert result["stages"] == reported["student"]["provenance"]["stages"] == names
    assert reported["student"]["provenance"]["steps"] == steps + sum(kept) * steps // 4
    assert result["sha256"] == reported["student"]["sha256"] == file_sha256(tmp_path / "s.fm")


def test_the_receipt_has_each_part_s_settings_and_all_are_probed_on_the_same_rays(
    monkeypatch: pytest.MonkeyPatch, convert_to_mlp: Any, altered: Any
) -> None:
    probed, calls = [], altered({})
    make_block = learner.make_block

    def noted(teacher: Any, *which: int, **config: Any) -> Any:
        probed.append(which)
        return make_block(teacher, *which, **config)

    monkeypatch.setattr(learner, "make_block", noted)
    result, reported = convert_to_mlp()
    assert probed == [(0, learner.PROBE_BLOCK)] * 5
    parts = reported["gate"]["extensions"]
    assert [(part["stage"], part["steps"], part["seed"], part["lr_share"]) for part in parts] == [
        (f"longer {i}", STEPS // 4, i, quality_gate.LR_SHARE) for i in range(1, 5)
    ]
    assert [(config.seed, config.lr_share) for config, _ in calls[1:]] == [(i, 0.2) for i in range(1, 5)]
    assert (reported["settings"]["lr_share"], reported["seed"]) == (1.0, 0)
    seconds = [entry["core_seconds"] for entry in reported["curve"]]
    assert seconds == sorted(seconds)
    assert [name for name, _ in itertools.groupby(entry["stage"] for entry in reported["curve"])][-4:] == [
        f"longer {i}" for i in range(1, 5)
    ]
    assert result["gate"] == reported["gate"]


def test_parts_take_a_fraction_of_the_rates_that_were_set(convert_to_mlp: Any, altered: Any) -> None:
    calls = altered({"longer 2": FruitlessError("the run diverged")})
    _, reported = convert_to_mlp(steps=8, learning={"lr_share": 0.5}, stages={"render.share": 0})
    assert [(config.lr_share, config.stages[-1].losses) for config, _ in calls] == [
        (rate, {"features": 0.05, "density": 1.0, "color": 0.3}) for rate in (0.5, 0.1, 0.1)
    ]
    assert [part["lr_share"] for part in reported["gate"]["extensions"]] == [0.1]


def test_a_part_that_comes_to_nothing_ends_it_and_is_reported(convert_to_mlp: Any, altered: Any) -> None:
    altered({"longer 2": FruitlessError("the run diverged")})
    result, reported = convert_to_mlp()
    assert len(reported["gate"]["extensions"]) == 1
    assert reported["gate"]["stopped"] == "longer 2: the run diverged"
    assert reported["budget"]["used"]["steps"] == STEPS + STEPS // 4
    assert "longer 2: the run diverged" in Path(result["receipt"][1]).read_text()


def test_fewer_steps_than_parts_are_as_many_parts(convert_to_mlp: Any) -> None:
    _, reported = convert_to_mlp(steps=3)
    assert [part["steps"] for part in reported["gate"]["extensions"]] == [1, 1, 1]
    assert reported["gate"]["stopped"] is None


def test_a_quality_that_is_met_requests_no_more(convert_to_mlp: Any) -> None:
    result, reported = convert_to_mlp(max_psnr_drop=90.0)
    assert result["steps"] == STEPS
    drop = reported["quality"]["held_out"]["mean"]["psnr_drop"]
    assert reported["gate"] == {
        "max_psnr_drop": 90.0,
        "psnr_drop": drop,
        "met": True,
        "kept": "the conversion itself",
        "picked_by": None,
        "extensions": [],
        "stopped": None,
    }


def test_a_missed_quality_is_one_line_and_5(
    capsys: pytest.CaptureFixture[str], teacher: Path, few_views: Path, tmp_path: Path
) -> None:
    words = ["convert", teacher, *(f"--set={k}={v}" for k, v in NET.items()), "--steps", 4, "--threads", 1]
    line = [*map(str, words), "--quiet", "--json", "--data", str(few_views), "-o", str(tmp_path / "s.fm")]
    capsys.readouterr()
    assert main([*line, "--max-psnr-drop", "0.001"]) == 5
    out, err = capsys.readouterr()
    assert "more than the 0.001 dB of --max-psnr-drop" in err
    assert err.count("\n") == 1
    assert not json.loads(out)["gate"]["met"]
    assert load_field(tmp_path / "s.fm").field.name == "mlp"  # the best there was is kept
    assert main([*line, "--force", "--max-psnr-drop", "90"]) == 0
    assert capsys.readouterr().err == ""


def test_a_gate_without_test_images_is_refused(
    capsys: pytest.CaptureFixture[str], teacher: Path, few_views: Path, tmp_path: Path
) -> None:
    line = ["convert", str(teacher), "-o", str(tmp_path / "s.fm"), "--steps", "5", "--max-psnr-drop", "1"]
    for more in ([], ["--data", str(few_views), "--no-receipt"]):
        assert main([*line, *more]) == 2
        assert "--max-psnr-drop needs --data" in capsys.readouterr().err
