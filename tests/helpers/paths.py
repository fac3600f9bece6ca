"""Where the repository, the tests' data and optional data next to the repository lie."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SHARED_DATA = ROOT.parent / "shared" / "data"  # optional: tests that use it skip where it is absent
