"""Every pair from the command line: receipts, sizes, and what is refused before the budget is spent."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.defaults import CONVERT, FIDELITY, FIT, LOWRANK_START, SAMPLING

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs import lifecycle
from fieldmorph.apps.jobs.convert import convert_file
from fieldmorph.apps.jobs.request import ConversionRequest, parse_bytes
from fieldmorph.distill import comparison as compared
from fieldmorph.distill import teacher_samples
from fieldmorph.distill.fidelity import FidelityConfig
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.fit import FitConfig, fit_images
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field, save_field

SMALL = {
    "mlp": ["--set=width=16", "--set=depth=2", "--set=n_frequencies=4"],
    "hashgrid": ["--set=n_levels=4", "--set=log2_hashmap_size=10", "--set=finest_resolution=32"],
    "vm": ["--set=resolution=20", "--set=density_components=4", "--set=app_components=6"],
    "cp": ["--set=resolution=20", "--set=density_components=8", "--set=app_components=8"],
    "voxels": ["--set=resolution=20"],
}
PATCHES = (
    (SAMPLING, "block_rays", 128),
    (SAMPLING, "block_empty", 128),
    (SAMPLING, "n_blocks", 3),
    (CONVERT, "probe_rays", 64),
    (FIT, "probe_rays", 64),
    (LOWRANK_START, "view_blocks", 2),
    (FIDELITY, "longest_side", 11),
    (FIDELITY, "n_held_out", 2),
    *((field, "samples_per_step", 1 << 10) for field in FIELDS.values()),
    (FIELDS["mlp"], "conversion_samples", None),
    (
        FIELDS["voxels"],
        "sizes",
        FIELDS["voxels"].sizes[:11],
    ),  # to count the nodes of the largest takes seconds
)

Command = Callable[..., tuple[int, Any, str]]


@pytest.fixture(autouse=True, scope="module")
def _small_work() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in PATCHES:
            patch.setattr(owner, name, value)
        yield


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, few_views: Path) -> Path:
    """A folder with a little trained field of every kind."""
    folder, scene = tmp_path_factory.mktemp("teachers"), load_scene(few_views, splits=["train"])
    config = FitConfig(occupancy_resolution=32)
    for name, options in SMALL.items():
        settings = {k: int(n) for k, _, n in (option[6:].partition("=") for option in options)}
        field = make_field(name, aabb=scene.aabb, **settings)
        stored, _ = fit_images(field, scene.splits["train"], Budget(steps=25), config)
        save_field(folder / f"{name}.fm", replace(stored, provenance={"job": "train"}))
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, JSON and standard error of a conversion."""

    def call(teacher: Path, output: Path, *more: Any) -> tuple[int, Any, str]:
        capsys.readouterr()
        line = ["convert", teacher, "-o", output, "--json", "--quiet", "--threads", 1, *more]
        code = main([str(word) for word in line])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


@pytest.mark.slow
@pytest.mark.parametrize("to", sorted(FIELDS))
@pytest.mark.parametrize("source", sorted(FIELDS))
def test_every_pair_converts_and_leaves_a_receipt(
    command: Command, teachers: Path, tmp_path: Path, source: str, to: str
) -> None:
    output = tmp_path / "s.fm"
    line = ("--to", to, *SMALL[to], "--start", "--steps", 6)
    code, result, err = command(teachers / f"{source}.fm", output, *line)
    assert code == 0, err
    assert load_field(output).field.name == to
    reported = json.loads(Path(result["receipt"][0]).read_text())
    assert (reported["teacher"]["field"], reported["student"]["field"]) == (source, to)
    ran = [stage["name"] for stage in reported["stages"]]
    assert ("start" in ran) == (to != "mlp")
    assert ("features" in ran) == ("voxels" not in (source, to))
    assert reported["student"]["sha256"] == result["sha256"]
    assert Path(result["receipt"][1]).read_text().startswith("<!DOCTYPE html>")


def test_a_request_sets_number_and_size_of_the_receipt_s_images(teachers: Path, tmp_path: Path) -> None:
    overrides = {"width": 16, "depth": 2, "n_frequencies": 4}
    fidelity = FidelityConfig(longest_side=13, n_held_out=3)
    request = ConversionRequest(Budget(steps=3), overrides=overrides, fidelity=fidelity)
    expected: list[dict[str, float]] = []
    result = convert_file(teachers / "mlp.fm", tmp_path / "s.fm", request, on_expected=expected.append)
    quality = json.loads(Path(result.receipt[0]).read_text())["quality"]
    for poses in ("held_out", "off_trajectory"):
        assert quality[poses]["image_size"] == [13, 13]
    assert len(quality["held_out"]["views"]) == 3
    assert len(expected) == 1


def test_a_chain_keeps_its_whole_past(command: Command, teachers: Path, tmp_path: Path) -> None:
    middle, last = tmp_path / "b.fm", tmp_path / "c.fm"
    first = teachers / "hashgrid.fm"
    assert command(first, middle, "--to", "mlp", *SMALL["mlp"], "--steps", 5, "--no-receipt")[0] == 0
    code, result, err = command(middle, last, "--to", "cp", *SMALL["cp"], "--steps", 5)
    assert code == 0, err
    reported = json.loads(Path(result["receipt"][0]).read_text())
    chain = reported["provenance"]
    assert [link["job"] for link in chain] == ["train", "convert", "convert"]
    assert list(tmp_path.glob("b.fm.receipt*")) == []


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How much of what a student is shown was chosen for being hard, by level and in the order of time.

    Poses of each block, rays and points of each batch in place of random ones, samples that carry the image.
    """
    counts: dict[str, list[int]] = {"pose": [], "ray": [], "point": [], "salient": []}
    fresh: dict[str, torch.Tensor] = {}
    make_block, at_samples = teacher_samples.make_block, compared.RayComparison.at_samples
    rays, points = teacher_samples.Block.rays, teacher_samples.TeacherSamples.__getitem__

    def made(
        teacher: Any, seed: int, number: int, worst: torch.Tensor | None = None, config: Any = None
    ) -> teacher_samples.Block:
        counts["pose"].append(0 if worst is None else len(worst))
        return make_block(teacher, seed, number, worst, config)

    def noted(level: str, draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def drawn(block: teacher_samples.Block, n: int, generator: torch.Generator) -> torch.Tensor:
            fresh[level] = draw(block, n, generator)
            return fresh[level].clone()

        return drawn

    def indexed(level: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def got(owner: Any, which: torch.Tensor) -> Any:
            if level in fresh:  # the indexing that follows a draw
                counts[level].append(int((which != fresh.pop(level)).sum()))
            return original(owner, which)

        return got

    def carried(comparison: compared.RayComparison, mask: torch.Tensor) -> compared.RayComparison:
        counts["salient"].append(int(mask.sum()))
        return at_samples(comparison, mask)

    monkeypatch.setattr(teacher_samples, "make_block", made)
    monkeypatch.setattr(SAMPLING, "fill_every", 2)
    monkeypatch.setattr(SAMPLING, "renew_every", 4)
    monkeypatch.setattr(teacher_samples.Block, "draw_rays", noted("ray", teacher_samples.Block.draw_rays))
    monkeypatch.setattr(
        teacher_samples.Block, "draw_points", noted("point", teacher_samples.Block.draw_points)
    )
    monkeypatch.setattr(teacher_samples.Block, "rays", indexed("ray", rays))
    monkeypatch.setattr(teacher_samples.TeacherSamples, "__getitem__", indexed("point", points))
    monkeypatch.setattr(compared.RayComparison, "at_samples", carried)
    return counts


@pytest.mark.parametrize("active", ["none", "pose", "ray", "point", "ray,pose", "all"])
def test_each_level_shows_again_what_is_hard(
    command: Command, teachers: Path, tmp_path: Path, shown: dict[str, list[int]], active: str
) -> None:
    line = (teachers / "hashgrid.fm", tmp_path / "s.fm", "--to", "vm", *SMALL["vm"], "--steps", 40)
    code, _, err = command(*line, "--no-start", "--no-receipt", "--active", active)
    assert code == 0, err
    levels = {"none": set(), "all": {"pose", "ray", "point"}}.get(active, set(active.split(",")))
    assert all(map(len, (shown["pose"], shown["ray"], shown["point"])))
    assert {level for level in ("pose", "ray", "point") if any(shown[level])} == levels
    assert shown["pose"][0] == shown["ray"][0] == shown["point"][0] == 0  # nothing is known to be hard yet
    assert any(shown["salient"]) == ("point" in levels)


def test_levels_and_the_start_can_be_left_out(command: Command, teachers: Path, tmp_path: Path) -> None:
    line = (teachers / "hashgrid.fm", tmp_path / "s.fm", "--to", "vm", *SMALL["vm"], "--steps", 5)
    code, result, _ = command(*line, "--active", "ray,pose", "--no-start")
    assert code == 0
    assert "start" not in result["stages"]
    assert json.loads(Path(result["receipt"][0]).read_text())["settings"]["active"] == ["ray", "pose"]
    code, _, err = command(*line, "--force", "--active", "rays")
    assert (code, err) == (
        2,
        "fieldmorph: unknown level of active learning 'rays'; known: point, pose, ray; did you mean ray?\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("to", ["mlp", "hashgrid", "vm", "cp", "voxels"])
def test_a_size_is_met_and_used(command: Command, teachers: Path, tmp_path: Path, to: str) -> None:
    results = []
    for most in (800_000, 300_000):
        line = (teachers / "hashgrid.fm", tmp_path / f"{most}.fm", "--to", to, "--max-bytes", f"{most}B")
        start = [] if to == "voxels" else ["--no-start"]
        code, result, err = command(*line, *start, "--steps", 2, "--no-receipt")
        assert code == 0, err
        assert 0.3 * most < result["bytes"] <= most
        results.append(result["bytes"])
    assert results[0] > results[1]


def test_a_size_holds_for_a_teacher_with_a_long_past(
    command: Command, teachers: Path, tmp_path: Path
) -> None:
    stored, past = load_field(teachers / "hashgrid.fm"), dict[str, Any]()
    for i in range(80):
        past = {
            "job": "convert",
            "note": '"quoted" \\ and é',
            "teacher": {"sha256": f"{i:064}", "provenance": past},
        }
    save_field(tmp_path / "t.fm", replace(stored, provenance=past))
    line = (tmp_path / "t.fm", tmp_path / "s.fm", "--to", "hashgrid", "--force", "--steps", 2, "--no-receipt")
    limit, sizes = 500_000, []
    for _ in range(3):
        code, result, err = command(*line, "--max-bytes", limit)
        assert code == 0, err
        assert result["bytes"] <= limit
        sizes.append(result["bytes"])
        limit = result["bytes"] - 1  # too little for the same student by one byte
    assert len(set(sizes)) == 3
    assert len(json.dumps(load_field(tmp_path / "s.fm").provenance)) > 8192


def test_a_size_that_nothing_meets_is_refused(command: Command, teachers: Path, tmp_path: Path) -> None:
    line = (teachers / "hashgrid.fm", tmp_path / "s.fm", "--to", "mlp", "--steps", 2, "--max-bytes")
    code, _, err = command(*line, "9kB")
    assert code == 2
    assert "no mlp fits into" in err
    assert "the smallest takes" in err
    code, _, err = command(*line, "big")
    assert (code, err) == (2, "fieldmorph: a size looks like 500kB, 2MB or 1.5MiB; got 'big'\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("2MB", 2_000_000),
        ("500kB", 500_000),
        ("1.5MiB", 1_572_864),
        ("77", 77),
        ("8 B", 8),
        ("500KB", 500_000),
        ("2mb", 2_000_000),
        ("3k", 3000),
    ],
)
def test_sizes_are_read(text: str, n: int) -> None:
    assert parse_bytes(text) == n


@pytest.mark.parametrize("text", ["", "0MB", "-1", "2 TB", "1e9", "MB", "0.5B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="a size looks like"):
        parse_bytes(text)


def test_an_empty_teacher_is_named_before_anything_is_spent(
    command: Command, teachers: Path, tmp_path: Path
) -> None:
    stored = load_field(teachers / "hashgrid.fm")
    nothing = OccupancyGrid(8)
    nothing.occupied[:] = False
    empty = tmp_path / "empty.fm"
    save_field(empty, replace(stored, occupancy=nothing))
    code, _, err = command(empty, tmp_path / "s.fm", "--steps", 5)
    assert (code, err) == (3, f"fieldmorph: the teacher {empty} is empty: none of its cells is occupied\n")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.fm"]


def test_a_student_larger_than_memory_is_refused(
    command: Command, teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = command(
        teachers / "hashgrid.fm", tmp_path / "s.fm", "--to", "vm", "--set=resolution=4096", "--steps", 2
    )
    assert code == 2
    assert "training vm with these settings takes about 40" in err
    monkeypatch.setattr(lifecycle, "_memory_bytes", lambda: 1e9)
    code, _, err = command(
        teachers / "hashgrid.fm", tmp_path / "s.fm", "--to", "voxels", "--set=resolution=256", "--steps", 2
    )
    assert code == 2
    assert "this machine has 1.0 GB" in err
