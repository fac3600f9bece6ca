"""The line that says how far a job is: on a terminal and elsewhere, part by part."""

import io
import re
import subprocess
import sys

import pytest

from fieldmorph.apps.console.bar import TerminalBar, Texts
from fieldmorph.apps.console.messages import NORMAL, QUIET, VERBOSE, shown_messages
from fieldmorph.apps.console.progress import ProgressLine, duration
from fieldmorph.fields.budget import Spent
from fieldmorph.fields.progress import Progress


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, is_terminal: bool = True):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def lines(self) -> list[str]:
        """What was shown, line after line or redrawn, without bars and colors."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())
        assert "\x1b" not in plain
        return [re.sub(r"  [━╸╺]+", "", line).rstrip() for line in re.split("[\r\n]", plain)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be moved on by hand."""
    seconds = [100.0]
    monkeypatch.setattr("fieldmorph.apps.console.progress.time.monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")


def learn(line: ProgressLine, clock: list[float], fraction: float) -> None:
    """So much of 1000 steps is done; the next call comes ten seconds later."""
    line(Progress(round(1000 * fraction), fraction, None, Spent(0.0, 0.0)))
    clock[0] += 10.0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_has_rate_quality_and_time_to_go(clock: list[float], is_terminal: bool) -> None:
    stream = Terminal(is_terminal)
    with ProgressLine("train", stream=stream) as line:
        for step in range(0, 101, 10):
            line(Progress(step, step / 100, 21.5 if step > 20 else None, Spent(0.0, 0.0)))
            clock[0] += 3.0
    assert "train   40%  step 40  3.3 steps/s  PSNR 21.50 dB  ETA 0:18" in stream.lines()
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == (1 if is_terminal else 5)


def test_a_quiet_line_shows_nothing(clock: list[float]) -> None:
    stream = Terminal()
    with ProgressLine("train", quiet=True, stream=stream) as line:
        clock[0] += 10
        line.count(1, 1)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_measured_has_a_rate_and_an_eta_of_its_own(clock: list[float], is_terminal: bool) -> None:
    stream = Terminal(is_terminal)
    with ProgressLine("convert", stream=stream) as line:
        for fraction in (0.0, 0.5, 1.0):
            learn(line, clock, fraction)
        for whose, seconds in (("teacher", 6.0), ("student", 20.0)):
            for done in (1, 2, 3):
                line.measured(whose, done, 4)
                clock[0] += seconds
        for fraction in (0.0, 0.5):  # it missed the quality requested, and continues
            learn(line, clock, fraction)
        for done in (1, 2):
            line.measured("student", done, 4)
            clock[0] += 8.0
    shown = stream.lines()
    job = "" if is_terminal else "convert, "  # a terminal has the job in the line above
    # The second image was made in 6 s or 20 s; two more are to come.
    assert f"{job}measure the teacher   50%  2/4 views  0.2 views/s  ETA 0:12" in shown
    assert f"{job}measure the student   50%  2/4 views  0.1 views/s  ETA 0:40" in shown
    assert shown.count("convert   50%  step 500  50.0 steps/s  ETA 0:10") == 2
    assert shown[-2] == f"{job}measure the student   50%  2/4 views  0.1 views/s  ETA 0:16"
    if is_terminal:  # each part keeps its last line
        last = [line.split("\r")[-1].split(" ━")[0] for line in stream.getvalue().split("\n")]
        last = [re.sub(r"\x1b\[[0-9;]*m", "", line).split("  ")[0] for line in last]
        assert last == [
            "convert",
            "measure the teacher",
            "measure the student",
            "convert",
            "measure the student",
            "",
        ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_remaining_time_includes_what_will_be_measured(clock: list[float], is_terminal: bool) -> None:
    stream = Terminal(is_terminal)
    with ProgressLine("convert", stream=stream) as line:
        line.expect({"teacher": 40.0, "student": 100.0})
        for fraction in (0.0, 0.5):
            learn(line, clock, fraction)
        for done in (1, 2):
            line.measured("teacher", done, 3)
            clock[0] += 10.0
    shown = [line.rpartition("ETA ")[2] for line in stream.lines() if "ETA" in line]
    assert shown == ["2:30", "1:50"]  # 10 s of training, 40, 100; then 10 s of the teacher's image and 100


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_a_terminal_of_any_width_gets_one_line(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with ProgressLine("evaluate", stream=stream) as line:
        for done in range(59):
            line.count(done, 58)
            clock[0] += 1.0
    assert stream.getvalue().count("\n") == 1
    drawn = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in stream.getvalue().rstrip().split("\r")]
    assert len(drawn) == 59  # with what stands before the first
    assert max(map(len, drawn)) < columns
    half = drawn[30]
    assert "evaluate" in half
    if columns >= 60:
        assert "32/58 views" in drawn[32]
        assert "ETA" in half
        assert "━━━━" in half


def test_a_message_takes_the_place_of_the_line(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with shown_messages(NORMAL), ProgressLine("train") as line:
        learn(line, clock, 0.0)
        learn(line, clock, 0.5)
        logging.getLogger("fieldmorph.test").warning("the sea is rough")
        learn(line, clock, 0.6)
    cleared = [part for part in stream.getvalue().split("\r") if part.strip() == ""]
    assert cleared
    assert "fieldmorph: warning: the sea is rough\n" in stream.getvalue().split("\r")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (QUIET, ["e"]),
        (NORMAL, ["i", "warning: w", "e"]),
        (VERBOSE, ["0.0 s: d", "i", "warning: w", "e"]),
    ],
)
def test_levels_of_messages(capsys: pytest.CaptureFixture[str], level: int, expected: list[str]) -> None:
    import logging

    log = logging.getLogger("fieldmorph.test")
    with shown_messages(level):
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("e")
    log.error("not shown afterwards")
    assert capsys.readouterr().err == "".join(f"fieldmorph: {text}\n" for text in expected)


def test_rich_is_imported_for_a_bar_alone() -> None:
    script = """
import sys
from fieldmorph.apps.console.progress import ProgressLine
line = ProgressLine("train", line_seconds=0)
line.count(1, 2)
assert "rich" not in sys.modules
sys.stderr.isatty = lambda: True
line = ProgressLine("train", refresh_seconds=0)
line.count(1, 2)
assert "rich" in sys.modules
"""
    env = {"TERM": "xterm", "COLUMNS": "80"}
    import os

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    assert "train   50%  1/2 views" in done.stderr


def test_durations() -> None:
    assert [duration(s) for s in (5.4, 65, 7207)] == ["0:05", "1:05", "2:00:07"]


def test_what_matters_least_is_left_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = Texts("train", "40%", "step 40", "9.5 steps/s", "PSNR 30.00 dB", "ETA 0:06")
    expected = {
        80: "40%  step 40  9.5 steps/s  PSNR 30.00 dB  ETA 0:06",
        60: "40%  step 40  PSNR 30.00 dB  ETA 0:06",
        45: "40%  step 40  ETA 0:06",
        32: "40%  ETA 0:06",
        24: "40%",
        14: "40%",
    }
    for columns, after in expected.items():
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = Terminal()
        TerminalBar(stream).draw(texts, 0.4)
        assert stream.lines()[-1] == f"train  {after}", columns
