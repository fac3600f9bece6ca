"""The peak of this process, or nothing where the system does not count it."""

import sys
from pathlib import Path

import pytest

from fieldmorph.fields import memory
from fieldmorph.fields.memory import peak_memory


def test_the_peak_remembers_what_was_freed() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not count it")
    ballast = bytearray(before + (64 << 20))  # more than what is free now, used page by page
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    del ballast
    assert peak_memory() > before + (32 << 20)


def test_memory_is_not_stated_where_the_system_does_not_count_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    stated = peak_memory()
    assert stated is None or 1 << 24 < stated < 1 << 40
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: its import fails
    assert peak_memory() is None
