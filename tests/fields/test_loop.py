"""The loop keeps the best, ends on time, and neither a signal nor a crash changes what comes out."""

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fieldmorph.fields.budget import Budget, Spent, TooShortError, now
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.loop import Interrupted, LoopConfig, run_loop
from fieldmorph.fields.progress import OnProgress, Progress

pytestmark = pytest.mark.numerical


class Walker:
    """Walks noisily to 3 and evaluates itself at times."""

    def __init__(self, psnr: Callable[[int], float] | None = None) -> None:
        self.x, self.n = torch.zeros(2), 0
        self.generator = torch.Generator().manual_seed(0)
        self.psnr = psnr
        self.fractions: list[float] = []
        self.probed: list[int] = []

    def step(self, progress: float) -> None:
        self.fractions.append(progress)
        self.x = self.x + (1 - progress) * 0.1 * (3 - self.x) + torch.randn(2, generator=self.generator)
        self.n += 1

    def probe(self) -> float:
        self.probed.append(self.n)
        return self.psnr(self.n) if self.psnr else -float((self.x - 3).square().sum())

    def result(self) -> dict[str, Any]:
        return {"x": self.x.clone(), "n": self.n}

    def state(self) -> dict[str, Any]:
        return {**self.result(), "generator": self.generator.get_state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.x, self.n = state["x"], state["n"]
        self.generator.set_state(state["generator"])


class Crash(Exception):
    """A power failure."""


def at(step: int, act: Callable[[], None]) -> OnProgress:
    return lambda progress: act() if progress.step == step else None


def stop() -> None:
    signal.raise_signal(signal.SIGINT)


def test_best_of_the_probes_is_kept_and_not_the_last() -> None:
    learner = Walker(psnr=lambda n: -abs(n - 26.0))
    best, report = run_loop(learner, Budget(steps=40))
    assert best["n"] == 26
    assert report.psnr == 0
    assert report.steps == learner.n == 40
    assert [psnr for _, psnr in report.curve] == [-abs(n - 26.0) for n in range(2, 41, 2)]


def test_first_of_equal_probes_is_kept() -> None:
    assert run_loop(Walker(psnr=lambda n: 1.0), Budget(steps=40))[0]["n"] == 2


def test_a_perfect_probe_counts() -> None:
    best, report = run_loop(Walker(psnr=lambda n: math.inf if n == 8 else 1.0), Budget(steps=40))
    assert (best["n"], report.psnr) == (8, math.inf)


@pytest.mark.parametrize("steps", [20, 40, 60, 200])
def test_probes_come_at_equal_fractions_of_the_budget(steps: int) -> None:
    learner = Walker()
    run_loop(learner, Budget(steps=steps))
    assert learner.probed == [k * steps // 20 for k in range(1, 21)]


@pytest.mark.parametrize("steps", [1, 7, 19, 21, 49, 58, 97, 130])
def test_probes_are_twenty_or_one_a_step_and_the_last_is_at_the_end(steps: int) -> None:
    learner = Walker()
    run_loop(learner, Budget(steps=steps))
    assert len(learner.probed) == min(20, steps)
    assert learner.probed[-1] == steps


def test_progress_is_the_fraction_used_before_the_step_and_reported_after_it() -> None:
    learner, reported = Walker(), list[Progress]()
    run_loop(learner, Budget(steps=5), on_progress=reported.append)
    assert learner.fractions == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert [p.step for p in reported] == [1, 2, 3, 4, 5]
    assert [p.fraction for p in reported] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert all(p.psnr is not None for p in reported)


def test_interrupted_at_any_step_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = Walker()
    best, report = run_loop(whole, Budget(steps=40))
    for k in range(1, 41):  # the last: interrupted when all was done
        path, first, second = tmp_path / f"{k}.state", Walker(), Walker()
        with pytest.raises(Interrupted, match=rf"state saved in .*{k}\.state") as caught:
            run_loop(first, Budget(steps=40), state_path=path, on_progress=at(k, stop))
        assert (first.n, caught.value.signum) == (k, signal.SIGINT)
        resumed, after = run_loop(second, Budget(steps=40), state_path=path, resume=True)
        assert torch.equal(second.x, whole.x)
        assert torch.equal(resumed["x"], best["x"])
        assert resumed["n"] == best["n"]
        assert first.probed + second.probed == whole.probed
        assert first.fractions + second.fractions == whole.fractions
        assert (after.steps, after.psnr) == (40, report.psnr)
        assert [psnr for _, psnr in after.curve] == [psnr for _, psnr in report.curve]


def test_state_is_saved_on_the_way_and_survives_a_crash(tmp_path: Path) -> None:
    def crash() -> None:
        raise Crash

    whole, path = Walker(), tmp_path / "run.state"
    run_loop(whole, Budget(steps=40))
    with pytest.raises(Crash):
        run_loop(Walker(), Budget(steps=40), state_path=path, on_progress=at(17, crash))
    assert not path.exists()  # 20 seconds were not over
    often = LoopConfig(save_seconds=0.0)
    with pytest.raises(Crash):
        run_loop(Walker(), Budget(steps=40), state_path=path, on_progress=at(17, crash), config=often)
    resumed = Walker()
    run_loop(resumed, Budget(steps=40), state_path=path, resume=True)
    assert len(resumed.fractions) == 24  # from step 16, the last saved
    assert torch.equal(resumed.x, whole.x)


def test_time_before_the_interruption_counts(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    earlier = now() - Spent(1000.0, 500.0)
    with pytest.raises(Interrupted):
        run_loop(Walker(), Budget(steps=40), state_path=path, on_progress=at(3, stop), started=earlier)
    _, report = run_loop(Walker(), Budget(steps=40), state_path=path, resume=True)
    assert 1000 <= report.spent.seconds < 1060
    assert 500 <= report.spent.core_seconds < 560
    times = [seconds for seconds, _ in report.curve]
    assert times == sorted(times)
    with pytest.raises(SettingError, match="too short"):  # nothing is left of 900 seconds
        run_loop(Walker(), Budget(seconds=900.0), state_path=path, resume=True)


def test_state_is_only_read_when_requested(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    with pytest.raises(Interrupted):
        run_loop(Walker(), Budget(steps=40), state_path=path, on_progress=at(3, stop))
    fresh = Walker()
    run_loop(fresh, Budget(steps=40), state_path=path)
    assert len(fresh.fractions) == 40


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    path, budget = tmp_path / "run.state", Budget(steps=40)
    before = {"seed": 1, "lr": 0.5, "box": (0, 1), "old": True}
    with pytest.raises(Interrupted):
        run_loop(Walker(), budget, state_path=path, settings=before, on_progress=at(3, stop))
    run_loop(Walker(), budget, state_path=path, resume=True, settings=before)  # a tuple is a list there
    other = {"seed": 2, "lr": 0.5, "box": [0, 1], "new": "x"}
    with pytest.raises(SettingError, match="belongs to a run with other settings") as caught:
        run_loop(Walker(), budget, state_path=path, resume=True, settings=other)
    reported = str(caught.value)
    assert "seed was 1, is 2" in reported
    assert "old was True, is None" in reported
    assert "new was None, is 'x'" in reported
    assert "lr" not in reported.partition("settings:")[2]
    assert "box" not in reported.partition("settings:")[2]
    assert "\n" not in reported


def test_what_would_do_follows_from_the_steps_that_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr("fieldmorph.fields.loop.now", lambda: Spent(seconds[0], 2 * seconds[0]))

    def step(_progress: Any) -> None:
        seconds[0] += 0.5

    started = Spent(-40.0, -80.0)  # it took forty seconds to begin
    for budget, enough in ((Budget(seconds=40.9), "200s"), (Budget(core_seconds=81.8), "500cs")):
        seconds[0] = 0.0
        with pytest.raises(
            TooShortError, match=f"of {budget} ended after 3 steps, .* about {enough} would do"
        ):
            run_loop(Walker(), budget, on_progress=step, started=started)


@pytest.mark.parametrize("budget", [Budget(seconds=1e-9), Budget(core_seconds=1e-9)])
def test_too_short_a_time_is_refused(budget: Budget) -> None:
    with pytest.raises(SettingError, match="ended after 1 steps, too short"):
        run_loop(Walker(), budget)


def test_handlers_are_the_callers_again_however_the_loop_ends() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    during = []
    run_loop(Walker(), Budget(steps=1), on_progress=lambda _: during.append(signal.getsignal(signal.SIGTERM)))
    assert during[0] != before[1]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(Interrupted, match=r"^interrupted$"):  # nothing to save to
        run_loop(Walker(), Budget(steps=9), on_progress=at(2, stop))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_second_signal_acts_at_once() -> None:
    learner = Walker()

    def twice() -> None:
        stop()
        stop()
        raise AssertionError("the second signal was ignored")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with pytest.raises(KeyboardInterrupt):
            run_loop(learner, Budget(steps=40), on_progress=at(5, twice))
    finally:
        signal.signal(signal.SIGINT, before)
    assert learner.n == 5


def test_loop_runs_outside_the_main_thread() -> None:
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(run_loop(Walker(), Budget(steps=25))[1].steps))
    thread.start()
    thread.join()
    assert done == [25]


PROCESS = """
import signal, sys, time, torch
from pathlib import Path
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.loop import Interrupted, run_loop

class Slow:
    def step(self, progress): print("step", flush=True); time.sleep(0.3); self.done = True
    def probe(self): return 0.0
    def result(self): return {}
    def state(self): return {"done": self.done}

try:
    run_loop(Slow(), Budget(seconds=60.0), state_path=Path(sys.argv[1]))
except Interrupted as error:
    print("saved", error.signum, Path(sys.argv[1]).exists())
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_lets_the_step_end_and_saves(tmp_path: Path, signum: signal.Signals) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "run.state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "step\n"
        process.send_signal(signum)
        out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (f"saved {signum.value} True\n", 0)
