"""A receipt says all there is to know of a conversion, in strict JSON."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fieldmorph.distill.conversion import ConvertConfig, ConvertReport, StageReport, convert
from fieldmorph.distill.fidelity import measure, reference
from fieldmorph.distill.receipt import curve_of, describe_field, plain, provenance_chain, receipt, stages_of
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent
from fieldmorph.fields.cameras import orbit_cameras
from fieldmorph.fields.loop import LoopReport
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
TRAINED = {"job": "train", "scene": "ball", "images": 8}


@pytest.fixture
def sphere(soft_sphere: VolumeField) -> RenderableField:
    cameras = orbit_cameras(
        (0, 0, 0), 3.0, 8, elevation=20, intrinsics=(40.0, 40.0, 12.0, 12.0), width=24, height=24
    )
    occupancy = OccupancyGrid(16)
    occupancy.rebuild(soft_sphere, 1 / 32, torch.Generator().manual_seed(0))
    return RenderableField(soft_sphere, occupancy, 1 / 32, cameras, TRAINED)


def stage(name: str, core_seconds: float) -> StageReport:
    return StageReport(name, 20, 2.0, core_seconds)


RUN = ConvertReport(
    LoopReport(40, Spent(4.0, 3.5), 25.0, [(1.0, 20.0), (3.0, 25.0)]),
    (stage("volume", 1.0), stage("render", 2.0)),
    {"features": "no decoder"},
)


def made(sphere: RenderableField, **changes: Any) -> dict[str, Any]:
    """A receipt of the sphere's conversion into itself."""
    described = describe_field(sphere, "some/folder/ball.fm", 2000, "0" * 64)
    known: dict[str, Any] = {
        "teacher": described,
        "student": {**described, "params": 50, "bytes": 500},
        "quality": {},
        "settings": ConvertConfig(),
        "budget": Budget(core_seconds=3.0),
        "runs": [RUN],
        "seed": 7,
    }
    return receipt(**{**known, **changes})


def test_a_real_conversion_has_a_receipt(sphere: RenderableField) -> None:
    sampling, budget = SamplingConfig(block_rays=512, block_empty=1024), Budget(steps=40)
    config = ConvertConfig(samples_per_step=2048, seed=3, probe_rays=256, sampling=sampling)
    small = make_field("mlp", aabb=BOX, seed=3, width=32, depth=2, n_frequencies=4)
    student, report = convert(sphere, small, budget, config)
    assert student.provenance["dropped"] == report.dropped
    quality, images = measure(reference(sphere), student)
    reported = receipt(
        teacher=describe_field(sphere),
        student=describe_field(student, "b.fm", 100, "b" * 64, "small"),
        quality=quality,
        settings=config,
        budget=budget,
        runs=[report],
        seed=config.seed,
    )
    assert json.loads(json.dumps(reported, allow_nan=False)) == reported
    assert reported["teacher"]["params"] is None  # a field without parameters is no field of size 0
    assert reported["ratio"] == {"params": None, "bytes": None}
    assert reported["student"]["params"] == sum(p.numel() for p in small.parameters())
    assert reported["student"]["config"]["width"] == 32
    assert reported["budget"]["asked"] == {"steps": 40}
    assert reported["budget"]["used"]["steps"] == 40
    assert len(reported["curve"]) == len(report.loop.curve)
    assert [s["name"] for s in reported["stages"]] == ["volume", "render"]
    assert sum(s["steps"] for s in reported["stages"]) == 40
    assert [reported["curve"][i]["stage"] for i in (0, -1)] == ["volume", "render"]
    assert reported["curve"][-1]["psnr"] == report.loop.curve[-1][1]
    beyond = reported["quality"]["off_trajectory"]
    assert 3 < beyond["worst"]["psnr_to_teacher"] < beyond["mean"]["psnr_to_teacher"] < 60
    assert [link["job"] for link in reported["provenance"]] == ["train", "convert"]
    assert reported["provenance"][0]["scene"] == "ball"
    assert (reported["provenance"][1]["seed"], reported["provenance"][1]["steps"]) == (3, 40)
    assert reported["settings"]["stages"][-1]["losses"]["pixel"] == 1.0
    assert len(images) == 3


def test_sizes_are_compared_and_folders_left_out(sphere: RenderableField) -> None:
    reported = made(sphere)
    assert reported["ratio"]["bytes"] == 4.0
    assert reported["teacher"]["file"] == "ball.fm"
    assert "some" not in json.dumps(reported)
    assert reported["curve"][1] == {"core_seconds": 3.0, "psnr": 25.0, "stage": "render"}
    assert reported["budget"] == {
        "asked": {"core_seconds": 3.0},
        "used": {"steps": 40, "seconds": 4.0, "core_seconds": 3.5},
    }
    assert (reported["gate"], reported["photographs"], reported["seed"]) == (None, None, 7)


def test_evaluations_belong_to_the_stage_that_they_end() -> None:
    # Twenty evaluations in 100 s: a start of 6 s that the first stage pays for, and 0.2 s for each evaluation.
    curve = [(5.0 * i, 20.0) for i in range(1, 21)]
    stages = [stage("features", 3.6), stage("volume", 48.0), stage("render", 38.4)]
    assert stages_of(curve, stages) == ["features"] * 2 + ["volume"] * 10 + ["render"] * 8
    assert stages_of(curve, []) == [None] * 20
    assert stages_of([], stages) == []


def test_runs_one_after_another_leave_no_gap_and_do_not_overlap(sphere: RenderableField) -> None:
    # Each run has a start and an end of its own that no stage counts: 0.5 and 0.3 s of the parts' 2 s.
    parts = [
        ConvertReport(
            LoopReport(20, Spent(2.5, 2.0), 26.0 + i, [(0.5 + 0.3 * k, 25.0 + i) for k in range(1, 5)]),
            (stage(f"longer {i}", 1.2),),
            {},
        )
        for i in (1, 2)
    ]
    reported = made(sphere, runs=[RUN, *parts])
    assert reported["curve"] == plain(curve_of([RUN, *parts]))
    assert [p["stage"] for p in reported["curve"]] == ["volume", "render"] + ["longer 1"] * 4 + [
        "longer 2"
    ] * 4
    seconds = [p["core_seconds"] for p in reported["curve"]]
    assert seconds == sorted(seconds)
    assert seconds[2] == pytest.approx(3.5 + 0.8)
    assert seconds[6] == pytest.approx(3.5 + 2.0 + 0.8)
    assert seconds[-1] <= reported["budget"]["used"]["core_seconds"] == 3.5 + 2 * 2.0
    assert reported["budget"]["used"]["steps"] == 80
    assert [s["name"] for s in reported["stages"]] == ["volume", "render", "longer 1", "longer 2"]
    assert reported["dropped"] == {"features": "no decoder"}


def test_order_of_keys_is_stable(sphere: RenderableField) -> None:
    assert list(made(sphere)) == list(made(sphere, seed=8, gate={"max_psnr_drop": 1.0, "met": False}))


def test_environment_names_what_times_depend_on_and_no_machine(sphere: RenderableField) -> None:
    import platform

    reported = made(sphere)["environment"]
    assert reported["threads"] == torch.get_num_threads()
    assert reported["torch"] == torch.__version__
    assert reported["device"] == "cpu"
    assert platform.node() not in json.dumps(reported).split('"')


def test_provenance_of_three_fields_is_a_chain_oldest_first(sphere: RenderableField) -> None:
    first = {"job": "train", "scene": "ball"}
    second = {
        "job": "convert",
        "seed": 1,
        "teacher": {"field": "vm", "sha256": "a" * 64, "provenance": first},
    }
    third = {
        "job": "convert",
        "seed": 2,
        "teacher": {"field": "mlp", "sha256": "b" * 64, "provenance": second},
    }
    described = describe_field(replace(sphere, provenance=third), sha256="c" * 64)
    assert provenance_chain(described) == [
        {"job": "train", "field": "vm", "sha256": "a" * 64, "scene": "ball"},
        {"job": "convert", "field": "mlp", "sha256": "b" * 64, "seed": 1},
        {"job": "convert", "field": "analytic", "sha256": "c" * 64, "seed": 2},
    ]
    assert made(sphere, student=described)["student"]["provenance"] == third  # whole, next to the chain


@pytest.mark.parametrize("provenance", [{}, None, "from a friend", {"teacher": None}])
def test_unknown_origin_is_one_entry(provenance: Any) -> None:
    described = {"field": "mlp", "sha256": None, "provenance": provenance}
    assert provenance_chain(described) == [{"job": None, "field": "mlp", "sha256": None}]


@dataclass(frozen=True)
class Setting:
    rate: float
    names: tuple[str, ...]


def test_plain_values_are_strict_json() -> None:
    tree = {"a": Setting(math.inf, ("x", "y")), 1: [math.nan, 2, True, None], "f": math.sqrt, "t": int}
    assert plain(tree) == {
        "a": {"rate": None, "names": ["x", "y"]},
        "1": [None, 2, True, None],
        "f": "sqrt",
        "t": "int",
    }
