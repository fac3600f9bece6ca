"""Whatever happens while a checkpoint is written, one that can be read stands at its path."""

import errno
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldmorph.fields import checkpoint
from fieldmorph.fields.checkpoint import check_output, read_checkpoint, write_checkpoint
from fieldmorph.fields.errors import InputError, SettingError

HEADER = {"field": "hashgrid", "config": {"aabb": [-1.5, 0, 1e-30], "name": 'é "\n\x07'}, "none": None}


def arrays() -> dict[str, Tensor]:
    return {
        "grid": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "mask": torch.tensor([True, False, True]),
        "half": torch.tensor(-2.5, dtype=torch.bfloat16),
        "none": torch.empty(0, 4, dtype=torch.int64),
    }


def same(first: Tensor, second: Tensor) -> bool:
    """Equal in dtype, shape and every bit, NaNs included."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    bits = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (first, second)]
    return torch.equal(*bits)


def refusal(path: Path, read: Any = read_checkpoint, **kwargs: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("error", "header", "content", "kind"),
    [
        (SettingError, {}, {}, "model"),
        (SettingError, {}, {"__metadata__": torch.ones(1)}, "field"),
        (SettingError, {}, {"x": torch.ones(1, dtype=torch.complex128)}, "field"),
        (ValueError, {"x": math.nan}, {}, "field"),
        (TypeError, {"x": {1}}, {}, "field"),
    ],
)
def test_what_the_format_does_not_have_is_refused_before_writing(
    tmp_path, error, header, content, kind
) -> None:
    with pytest.raises(error):
        write_checkpoint(tmp_path / "a.fm", header, content, kind)
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_only_regular_files_and_follows_links(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_checkpoint(tmp_path / "none" / "a.fm", {}, {})
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="folder or a device"):
            write_checkpoint(path, {}, {})
    (tmp_path / "runs").mkdir()
    (tmp_path / "link.fm").symlink_to(tmp_path / "runs" / "real.fm")
    write_checkpoint(tmp_path / "link.fm", {}, {})
    assert (tmp_path / "link.fm").is_symlink()
    assert read_checkpoint(tmp_path / "runs" / "real.fm") == ({}, {})


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failure_while_writing_keeps_the_old_file_and_leaves_nothing(
    tmp_path, monkeypatch, failing, error
) -> None:
    path = tmp_path / "a.fm"
    write_checkpoint(path, HEADER, arrays())
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        assert len(list(tmp_path.iterdir())) == 2, "the new file must stand next to the old one"
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)) as caught:
        write_checkpoint(path, {}, {"x": torch.zeros(1000)})
    assert caught.value is error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_data_reach_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write_checkpoint(tmp_path / "a.fm", {}, {})
    assert calls == ["file", "replace", "folder"]


def run(script: str, folder: Path) -> str:
    command = [sys.executable, "-c", "import fieldmorph.fields, torch\n" + script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_on_file_size_keeps_the_old_file(tmp_path) -> None:
    write_checkpoint(tmp_path / "a.fm", HEADER, arrays())
    script = """
import errno, resource, sys
from fieldmorph.fields.checkpoint import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_checkpoint(sys.argv[1] + "/a.fm", {}, {"x": torch.zeros(100_000)})
except OSError as error:
    assert error.errno == errno.EFBIG
    print("refused")
"""
    assert run(script, tmp_path) == "refused\n"
    header, back = read_checkpoint(tmp_path / "a.fm")
    assert header == HEADER
    assert same(back["grid"], arrays()["grid"])
    assert len(list(tmp_path.iterdir())) == 1


def test_sigkill_at_any_moment_leaves_a_readable_file(tmp_path) -> None:
    script = """
import itertools, os, random, signal, sys, time
from fieldmorph.fields.checkpoint import read_checkpoint, write_checkpoint
path, seconds = sys.argv[1] + "/a.fm", random.Random(0)
torch.set_num_threads(1)  # a pool of threads does not survive fork
def save(number):
    write_checkpoint(path, {"number": number}, {"x": torch.full((300_000,), float(number))})
save(0)
seen = set()
for _ in range(14):
    child = os.fork()
    if child == 0:
        for number in itertools.count(read_checkpoint(path)[0]["number"] + 1):
            save(number)
    time.sleep(seconds.uniform(0.02, 0.2))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    header, arrays = read_checkpoint(path)
    assert (arrays["x"] == header["number"]).all()
    seen.add(header["number"])
print(len(seen))
"""
    assert int(run(script, tmp_path)) > 1, "no child lived long enough to save"


def test_check_output_requests_force_and_writes_nothing(tmp_path) -> None:
    path = tmp_path / "a.fm"
    check_output(path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(SettingError, match=r"a\.fm exists; use --force to overwrite"):
        check_output(path)
    check_output(path, force=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_check_output_refuses_folders_devices_and_what_cannot_be_written(tmp_path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    paths = ["", "pipe", "none/a.fm", "file/a.fm", "x" * 300]
    for path in paths:
        assert "cannot write" in str(refusal(tmp_path / path, check_output, force=True))

    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert "Read-only file system" in str(refusal(tmp_path / "a.fm", check_output))


def test_a_file_is_written_where_folders_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_folders(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        windows.setattr(os, "open", no_folders)
        checkpoint._replace(tmp_path / "a.fm", b"data")
    assert tmp_path.joinpath("a.fm").read_bytes() == b"data"
