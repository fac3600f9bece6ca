"""The line that says how far a job is: on a terminal and elsewhere, part by part."""

import io

import pytest

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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be moved on by hand."""
    seconds = [100.0]
    monkeypatch.setattr("fieldmorph.apps.console.progress.time.monotonic", lambda: seconds[0])
    return seconds


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
    lines = stream.getvalue().split("\r" if is_terminal else "\n")
    assert "train   40%  step 40  3.3 steps/s  PSNR 21.50 dB  ETA 0:18" in [shown.rstrip() for shown in lines]
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
    text = stream.getvalue()
    shown = [line.rstrip() for line in text.replace("\r", "\n").split("\n")]
    # The second image was made in 6 s or 20 s; two more are to come.
    assert "convert, measure the teacher   50%  image 2  0.2 images/s  ETA 0:12" in shown
    assert "convert, measure the student   50%  image 2  0.1 images/s  ETA 0:40" in shown
    assert "convert   50%  step 500  50.0 steps/s  ETA 0:10" in shown
    assert shown.count("convert   50%  step 500  50.0 steps/s  ETA 0:10") == 2
    assert shown[-2] == "convert, measure the student   50%  image 2  0.1 images/s  ETA 0:16"
    if is_terminal:  # each part keeps its last line
        last = [line.split("\r")[-1].split("%")[0] for line in text.split("\n")]
        assert last == [
            "convert  100",
            "convert, measure the teacher   75",
            "convert, measure the student   75",
            "convert   50",
            "convert, measure the student   50",
            "",
        ]


def test_durations() -> None:
    assert [duration(s) for s in (5.4, 65, 7207)] == ["0:05", "1:05", "2:00:07"]
