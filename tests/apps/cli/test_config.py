"""Configuration files: read, overridden, refused in one line, written by every run, and fed back."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fieldmorph.apps.cli.arguments import joined
from fieldmorph.apps.cli.config import Command, settings_of, with_config
from fieldmorph.apps.cli.main import build_parser, main
from fieldmorph.fields.errors import InputError, SettingError

SMALL = ["--set", "width=16", "--set", "depth=2", "--set", "n_frequencies=4", "--field", "mlp"]


def parsed(words: list[str]) -> dict[str, Any]:
    """What the parser makes of a command line, without the file it came from."""
    args = vars(build_parser().parse_args(words))
    return {name: value for name, value in args.items() if name != "config"}


def with_file(tmp_path: Path, text: str, line: str) -> dict[str, Any]:
    """What a command line means together with a file of this text."""
    path = tmp_path / "run.toml"
    path.write_text(text)
    words = joined(line.split())
    names = [word for word in words[:2] if not word.startswith("-")][: 2 if words[0] == "tensor" else 1]
    return parsed(with_config(build_parser(), [*names, "--config", str(path), *words[len(names) :]]))


@pytest.mark.parametrize(
    "line",
    [
        "train D -o t.fm --budget 90s --aabb -1,-1,-1,1,1,2.5 --threads 2",
        "convert t.fm -o s.fm --steps 5 --set width=3 --set a=b --set c=null --set d=true --no-start",
        "convert t.fm --to=vm -o s.fm --max-bytes 2MB --active pose --start --no-receipt --finish 0.3",
        "convert t.fm -o s.fm --stage volume.share=0.6 --stage volume.losses.color=2 --stage render.source=points "
        "--learning lr_share=0.5 --learning samples_per_step=100",
        "eval s.fm --data D --split val --teacher t.fm",
        "render a.fm --orbit 3 --size 12x13 -o o.mp4 --depth",
        "export a.fm --web p.html --resolution 64 --force",
        "view a.fm b.fm --port 0",
        "view --allow-host a.org --allow-host b.org --root-path /x",
        "bench matrix --only mlp,vm --scale 0.5",
        "tensor fit d.csv --modes a,b --rank 3,4 --tolerance 1e-3 --calibrate 0.1 --calibrate-by a,b=10 -o m.fm",
        "tensor scene m.fm --low -5 --high 7.25 -o v.fm",
        "tensor update m.fm --sweeps 4 new.csv -o x.fm",
        "tensor grid m.fm --lat -5:5:1 --axis depth=0:10:1 --axis x=0,1 -o g.nc",
    ],
)
def test_what_is_written_means_the_same(tmp_path: Path, line: str) -> None:
    words = joined(line.split())
    command = Command.of(build_parser(), words)
    assert command is not None
    table: dict[str, Any] = settings_of(command)
    assert not {"force", "config", "json"} & set(table)
    for name in reversed(command.names):
        table = {name: table}
    call = f"{' '.join(command.names)}{' --force' * ('--force' in words)}"
    assert with_file(tmp_path, tomli_w.dumps(table), call) == parsed(words)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ('data = "D"\nsteps = 7\noutput = "t.fm"', "train", {"data": "D", "steps": 7, "budget": "120cs"}),
        ('data = "D"\nsteps = 7', "train E -o t.fm", {"data": "E", "steps": 7}),
        ('data = "D"\nsteps = 7', "train -o t.fm --steps 8", {"data": "D", "steps": 8}),
        ('data = "D"\nsteps = 7', "train -o t.fm --budget 3s", {"steps": None, "budget": "3s"}),
        ('data = "D"\naabb = [-1, -1, -1, 1, 1, 1.5]', "train -o t.fm", {"aabb": (-1, -1, -1, 1, 1, 1.5)}),
        (
            'data = "D"\nset = {a = 1, b = "x", c = [1, 2]}',
            "train -o t.fm --set b=2",
            {"set": [("a", 1), ("b", "x"), ("c", [1, 2]), ("b", 2)]},
        ),
        ('teacher = "t.fm"\nstart = false\nno-receipt = true', "convert -o s.fm", {"start": False}),
        ('teacher = "t.fm"\nstart = false', "convert -o s.fm --start", {"start": True}),
        ('teacher = "t.fm"\nactive = ["pose", "ray"]', "convert -o s.fm", {"active": ("pose", "ray")}),
        ('teacher = "t.fm"\nfinish = 0.25', "convert -o s.fm", {"finish": 0.25}),
        ('teacher = "t.fm"\nfinish = "none"', "convert -o s.fm", {"finish": 0.0}),
        (
            'teacher = "t.fm"\n[convert.stage.volume]\nshare = 0.6\nlosses = {color = 1, density = 0.0}',
            "convert -o s.fm --stage render.source=points --stage volume.losses.color=2",
            {
                "stage": [
                    ("volume.share", 0.6),
                    ("volume.losses.color", 1),
                    ("volume.losses.density", 0.0),
                    ("render.source", "points"),
                    ("volume.losses.color", 2),
                ]
            },
        ),
        (
            'teacher = "t.fm"\nstage.volume.share = 0.6\nlearning = {lr_grid = 1e-3}',
            "convert -o s.fm --learning lr_grid=2e-3",
            {"stage": [("volume.share", 0.6)], "learning": [("lr_grid", 0.001), ("lr_grid", 0.002)]},
        ),
        ('file = "a.fm"\norbit = 3', "render -o x --data D", {"orbit": None, "data": "D"}),
        ('files = ["a.fm", "b.fm"]', "view", {"files": ["a.fm", "b.fm"]}),
    ],
)
def test_the_command_line_overrides_the_file(
    tmp_path: Path, text: str, line: str, expected: dict[str, Any]
) -> None:
    found = with_file(tmp_path, f"[{line.split()[0]}]\n{text}", line)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[trian]", "unknown table 'trian'; known: train, convert, "),
        ("[trian]", "; did you mean train?"),
        ("train = 3", "train: expected a table of settings; got 3"),
        ("[train]\nbudgett = 3", "[train]: unknown key 'budgett'; known: threads, device, data, field, "),
        ("[train]\nbudgett = 3", "; did you mean budget?"),
        ("[train]\nforce = true", "[train]: force is for the command line alone"),
        ('[train]\nsteps = "many"', '[train]: steps: expected a whole number; got "many"'),
        ("[convert]\nfinish = true", "[convert]: finish: expected a number or a text; got true"),
        ("[convert]\nstage = 3", "[convert]: stage: expected a table of tables; got 3"),
        (
            "[convert]\nstage.volume = 3",
            "[convert]: stage: expected a setting such as volume.share=0.6; got 'vol",
        ),
        ("[convert]\nlearning = [1]", "[convert]: learning: expected a table; got [1]"),
        ("[train]\nsteps = true", "[train]: steps: expected a whole number; got true"),
        ("[train]\nsteps = 1.5", "[train]: steps: expected a whole number; got 1.5"),
        ("[train]\nsteps = 0", "[train]: steps: expected a whole number of at least 1; got '0'"),
        ("[train]\ndata = 5", "[train]: data: expected a text; got 5"),
        ("[train]\nset = 5", "[train]: set: expected a table; got 5"),
        ("[train]\naabb = true", "[train]: aabb: expected a text or a list; got true"),
        ("[train]\naabb = [1, 2]", "[train]: aabb: expected six numbers, min then max; got '1,2'"),
        ('[train]\nbudget = "soon"', "[train]: budget: a budget looks like 90s, 2m, 1h or 150cs"),
        (
            '[train]\ndevice = "cdua"',
            "device: expected one of auto, cpu, cuda; got 'cdua'; did you mean cuda?",
        ),
        ('[render]\ndepth = "yes"', '[render]: depth: expected true or false; got "yes"'),
        ("[tensor.fit]\ntolerance = true", "[tensor.fit]: tolerance: expected a number; got true"),
        ("[tensor.fot]", "unknown table 'tensor.fot'; known: fit, "),
        ("[convert]", "has no table [train]; it has [convert]"),
        ("", "has no table [train]; it has no table"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    (tmp_path / "run.toml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "run.toml")]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"fieldmorph: {tmp_path / 'run.toml'}")
    assert expected in message
    assert message.count("\n") == 1


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    assert main(["train", "--config", str(path)]) == 3
    assert capsys.readouterr().err == f"fieldmorph: cannot read {path}: No such file or directory\n"
    path.write_text("[train\n")
    with pytest.raises(InputError, match=r"not valid TOML: .*line 1"):
        with_config(build_parser(), ["train", f"--config={path}"])
    with pytest.raises(SettingError, match=r"\[train\]: unknown key"):  # in the table of another command
        with_file(tmp_path, "[convert]\n[train]\nx = 1", "convert t.fm -o s.fm")


def test_a_run_writes_what_repeats_it(
    few_views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(f'[train]\ndata = "{few_views}"\nsteps = 99\nthreads = 1\nseed = 3\n')
    line = ["train", "--config", "run.toml", *SMALL, "--steps", "24", "-o", "a.fm", "--quiet", "--json"]
    assert main(line) == 0
    first = json.loads(capsys.readouterr().out)
    written = (tmp_path / "a.fm.toml").read_text()
    assert written.startswith("# Written by fieldmorph 0.")
    assert tomllib.loads(written)["train"] == {
        "data": str(few_views),
        "device": "auto",
        "downscale": 1,
        "field": "mlp",
        "output": "a.fm",
        "preset": "small",
        "seed": 3,
        "set": {"width": 16, "depth": 2, "n_frequencies": 4},
        "steps": 24,
        "threads": 1,
    }
    assert main(["train", "--config", "a.fm.toml", "--quiet"]) == 2  # a.fm exists
    assert main(["train", "--config", "a.fm.toml", "--quiet", "-o", "b.fm"]) == 0
    assert hashlib.sha256((tmp_path / "b.fm").read_bytes()).hexdigest() == first["sha256"]
    assert main(["train", "--config", "a.fm.toml", "--quiet", "--force"]) == 0
    assert (tmp_path / "a.fm.toml").read_text() == written
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.toml", "a.fm", "a.fm.toml", "b.fm", "b.fm.toml"}


def test_a_run_that_fails_writes_nothing(few_views: Path, tmp_path: Path) -> None:
    assert main(["train", str(few_views), "--budget", "0.001s", "-q", "-o", str(tmp_path / "a.fm")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_is_kept(
    few_views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = f'[train]\ndata = "{few_views}"\nsteps = 24\nthreads = 1\n'
    (tmp_path / "a.toml").write_text(mine)
    for line in (
        ["-o", "a"],
        ["-o", "a", "--config", "a.toml"],
        ["-o", "a", "--config", "a.toml", "--force"],
    ):
        data = [] if "--config" in line else [str(few_views), "--steps", "24"]
        assert main(["train", *data, *SMALL, "-q", *line]) == 2
        assert "a.toml, where the settings of this run are written, exists" in capsys.readouterr().err
        assert {path.name for path in tmp_path.iterdir()} == {"a.toml"}
    assert (tmp_path / "a.toml").read_text() == mine


def test_a_folder_has_its_file_next_to_it(few_views: Path, tmp_path: Path, teacher: Path) -> None:
    line = ["render", str(teacher), "--orbit", "1", "--size", "8x8", "-q", "--threads", "1"]
    assert main([*line, "-o", f"{tmp_path}/frames/"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "frames.toml"}
    assert tomllib.loads((tmp_path / "frames.toml").read_text())["render"]["orbit"] == 1


def test_kernels_have_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench_output").mkdir()
    monkeypatch.setattr("fieldmorph.apps.bench.kernels._rows", lambda *_: [])
    assert main(["bench", "kernels", "--only", "cp"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"bench_output"}
