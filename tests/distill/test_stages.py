"""Stages follow the budget, suit the pair, and are refused by name where they cannot be."""

from typing import Any

import pytest
import torch

from fieldmorph.distill.stages import (
    PVD_STAGES,
    Stage,
    change_stages,
    plan_stages,
    same_decoder,
    stage_at,
    transplant_decoder,
)
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.registry import make_field

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)


def pair(width: int = 64, n_features: int = 15) -> tuple[VolumeField, VolumeField]:
    """A hash grid and an MLP, whose decoder is replaced."""
    teacher = make_field("hashgrid", aabb=BOX, n_levels=2, log2_hashmap_size=6, finest_resolution=32)
    student = make_field("mlp", aabb=BOX, width=16, depth=1, seed=1)
    student.decoder = RadianceDecoder(n_features=n_features, width=width)
    student.decoder.reset_parameters(torch.Generator().manual_seed(5))
    return teacher, student


def test_a_pair_with_one_kind_of_decoder_goes_through_every_stage() -> None:
    start, *rest = PVD_STAGES
    assert plan_stages(PVD_STAGES, *pair()) == ((*rest,), {"start": "this student has no closed form"})
    student = make_field("vm", aabb=BOX, resolution=8)
    assert start.source == "solve"
    assert plan_stages(PVD_STAGES, pair()[0], student, start=True) == (PVD_STAGES, {})
    assert sum(stage.share for stage in PVD_STAGES) == pytest.approx(1)


@pytest.mark.parametrize(("field", "helps"), [("voxels", True), ("vm", False)])
def test_a_start_is_made_where_it_helps_or_is_wanted(field: str, helps: bool) -> None:
    teacher, student = pair()[0], make_field(field, aabb=BOX, resolution=8)
    made = {start: plan_stages(PVD_STAGES, teacher, student, start) for start in (None, True, False)}
    assert {start: kept[0].name == "start" for start, (kept, _) in made.items()} == {
        None: helps,
        True: True,
        False: False,
    }
    assert made[False][1]["start"] == "disabled by --no-start"
    assert helps or made[None][1]["start"] == "disabled by default for this student"


def test_features_are_left_out_with_a_reason_where_decoders_differ(soft_sphere: VolumeField) -> None:
    teacher, student = pair(width=32)
    for one, other in ((teacher, student), (soft_sphere, teacher), (teacher, soft_sphere)):
        stages, dropped = plan_stages(PVD_STAGES[1:], one, other)
        assert [stage.name for stage in stages] == ["volume", "render"]
        assert dropped["features"] == "teacher and student have no decoder of one kind"
        # nor may another stage compare features that no common decoder reads
        assert [set(stage.losses) for stage in stages] == [
            {"density", "color"},
            {"pixel", "density", "color"},
        ]
        assert all(weight == PVD_STAGES[2].losses[k] for k, weight in stages[0].losses.items())


def test_a_plan_without_stages_is_refused() -> None:
    teacher, student = pair(width=32)
    for stage in (PVD_STAGES[1], Stage("only", 1.0, {"features": 1.0})):
        with pytest.raises(SettingError, match=r"no stage suits this pair: .*no decoder of one kind"):
            plan_stages((stage,), teacher, student)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            Stage("a", 1.0, {"colour": 1.0}),
            "unknown loss 'colour'; known: color, density, features, pixel; did you mean color\\?",
        ),
        (
            Stage("a", 1.0, {"color": 1.0}, source="views"),
            "unknown source 'views'; known: points, rays, solve",
        ),
        (
            Stage("a", 1.0, {"pixel": 1.0}, source="points"),
            "loss 'pixel' of stage 'a' needs rays, which source 'points' does not give",
        ),
    ],
)
def test_a_stage_that_cannot_be_is_refused_by_name(stage: Stage, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}$"):
        plan_stages((stage,), *pair())


def test_stage_boundaries_lie_at_their_shares() -> None:
    a, b, c = (
        Stage(name, fraction, {"density": 1.0}) for name, fraction in (("a", 0.25), ("b", 0.5), ("c", 0.25))
    )
    expected = [(0.0, a), (0.125, a), (0.25, b), (0.5, b), (0.75, c), (0.875, c), (1.0, c), (1.5, c)]
    for progress, stage in expected:
        assert stage_at((a, b, c), progress) is stage


def test_stages_that_are_left_fill_the_budget() -> None:
    stages, _ = plan_stages(PVD_STAGES, *pair(width=32))  # 0.5 and 0.4 are left of 1: 5/9 and 4/9
    assert stage_at(stages, 5 / 9 - 1e-6).name == "volume"
    assert stage_at(stages, 5 / 9 + 1e-6).name == "render"


def test_decoders_are_transplanted_where_they_are_of_one_kind(soft_sphere: VolumeField) -> None:
    teacher, student = pair()
    assert teacher.decoder is not None
    assert student.decoder is not None
    assert same_decoder(teacher, student)
    transplant_decoder(teacher, student)
    copied = zip(teacher.decoder.parameters(), student.decoder.parameters(), strict=True)
    assert all(torch.equal(a, b) and a is not b for a, b in copied)
    for other in (pair(width=32)[1], pair(n_features=14)[1], soft_sphere):
        before = [p.clone() for p in other.parameters()]
        assert not same_decoder(teacher, other)
        transplant_decoder(teacher, other)
        assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_settings_that_are_not_named_stay() -> None:
    start, features, volume, render = PVD_STAGES
    assert change_stages({}) == PVD_STAGES
    # whatever the order, a loss that is new comes in that of the table, so that sums are the same
    given = {"volume.losses.pixel": 1.0, "volume.source": "rays", "volume.losses.density": 2.0}
    for changes in (given, dict(reversed(given.items()))):
        made = change_stages(changes)
        assert made[2].losses == {"features": 0.05, "density": 2.0, "color": 0.3, "pixel": 1.0}
        assert list(made[2].losses) == ["features", "density", "color", "pixel"]
        assert (made[2].share, made[2].source) == (volume.share, "rays")
        assert (made[0], made[1], made[3]) == (start, features, render)
    assert PVD_STAGES[2].losses == {"features": 0.05, "density": 1.0, "color": 0.3}


def test_a_zero_removes_a_stage_or_a_loss() -> None:
    made = change_stages({"features.share": 0, "render.share": 0.0, "volume.losses.color": 0})
    assert [stage.name for stage in made] == ["start", "volume"]
    assert made[1].losses == {"features": 0.05, "density": 1.0}
    # what a stage that is removed would lack does not matter
    assert len(change_stages({"render.share": 0, "render.source": "points"})) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"volum.share": 1}, "unknown stage 'volum'; known: features, render, volume; did you mean volume?"),
        ({"start.share": 1}, "stage 'start' has no settings: --start and --no-start switch it"),
        ({"images.share": 1}, "stage 'images' has no settings: --finish sets its part of the budget"),
        (
            {"volume.shares": 1},
            "unknown setting of stage 'volume' 'shares'; known: losses.color, losses.density, losses.features, "
            "losses.pixel, share, source; did you mean share?",
        ),
        ({"render.losses.colour": 1}, "did you mean losses.color?"),
        ({"volume": 1}, "unknown setting of stage 'volume' ''; known: losses.color, "),
        ({"volume.losses": 1}, "unknown setting of stage 'volume' 'losses'; known: losses.color, "),
        ({"volume.source": "pionts"}, "unknown source 'pionts'; known: points, rays; did you mean points?"),
        ({"volume.source": "solve"}, "unknown source 'solve'; known: points, rays"),
        ({"volume.source": [1]}, "unknown source '[1]'; known: points, rays"),
        ({"render.share": "half"}, "render.share must be a finite number of at least 0; got 'half'"),
        ({"render.share": -0.1}, "render.share must be a finite number of at least 0; got -0.1"),
        ({"render.share": float("nan")}, "render.share must be a finite number of at least 0; got nan"),
        ({"render.share": True}, "render.share must be a finite number of at least 0; got True"),
        (
            {"render.losses.pixel": float("inf")},
            "render.losses.pixel must be a finite number of at least 0; got inf",
        ),
        (
            {"features.losses.features": 0, "features.losses.density": 0},
            "stage 'features' has no loss left; features.share 0 removes the stage",
        ),
        (
            {"render.source": "points"},
            "loss 'pixel' of stage 'render' needs rays, which source 'points' does not give",
        ),
        (
            {f"{stage.name}.share": 0 for stage in PVD_STAGES[1:]},
            "no stage is left: share is 0 for features, volume, render",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        change_stages(changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
