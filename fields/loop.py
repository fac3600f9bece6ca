"""The one training loop: steps until the budget ends, saved on the way, the best kept.

`fit_images` trains a field from images with it, `distill.convert` a student from its teacher.
"""

import json
import logging
import signal
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fieldmorph.fields.budget import Budget, Spent, TooShortError, now
from fieldmorph.fields.checkpoint import pack_state, read_checkpoint, unpack_state, write_checkpoint
from fieldmorph.fields.errors import FruitlessError, SettingError
from fieldmorph.fields.progress import OnProgress, Progress
from fieldmorph.fields.types import JsonObject, StateDict

log = logging.getLogger(__name__)

USEFUL_STEPS = 200  # that a budget should allow, in the message about one that is too short


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings of a run, whatever it trains.

    Attributes:
        n_probes: evaluations over the run, at equal fractions of the budget.
        min_steps: a budget of time that ends after fewer is reported as a user error.
        save_seconds: between two states; at most this much work is lost to a crash.
    """

    n_probes: int = 20
    min_steps: int = 20
    save_seconds: float = 20.0


@runtime_checkable
class Learner(Protocol):
    """The interface that the loop trains."""

    def step(self, progress: float) -> None:
        """Take one step of the optimizer; progress in [0, 1) is the fraction of the budget used."""

    def probe(self) -> float:
        """Return the PSNR in dB on a fixed set of rays; draws nothing from the learner's generators."""

    def result(self) -> StateDict:
        """Return what is kept of the best probe: a tree of numbers and tensors."""

    def state(self) -> StateDict:
        """Return what a later `load_state` needs to continue exactly as if nothing had happened."""

    def load_state(self, state: StateDict) -> None:
        """Continue from what `state` returned."""


@dataclass(frozen=True)
class LoopReport:
    """The steps and time of a run, the best probe in dB, and every probe as (core-seconds, PSNR)."""

    steps: int
    spent: Spent
    psnr: float
    curve: list[tuple[float, float]]


class Interrupted(Exception):
    """A signal ended the run between two steps; the state is saved."""

    def __init__(self, signum: int, state_path: Path | None):
        super().__init__(f"interrupted; state saved in {state_path}" if state_path else "interrupted")
        self.signum, self.state_path = signum, state_path


def run_loop(
    learner: Learner,
    budget: Budget,
    *,
    state_path: Path | None = None,
    resume: bool = False,
    settings: JsonObject | None = None,
    on_progress: OnProgress = lambda _: None,
    started: Spent | None = None,
    config: LoopConfig | None = None,
) -> tuple[StateDict, LoopReport]:
    """Run to the end of the budget and return the best result and a report.

    With a budget of steps everything that happens depends on the step alone, so that equal seeds give equal bytes,
    interrupted or not.

    Args:
        learner: what is trained, in place.
        budget: steps or time.
        on_progress: called after each step.
        state_path: where the state is saved every few seconds, atomically; the caller removes it at the end.
        resume: continue from `state_path` if it exists.
        settings: JSON values that must be the same when the run is resumed.
        started: reading of the clocks from which time counts; by default now.
        config: evaluations, saving, and what is too short.

    Raises:
        Interrupted: after SIGINT or SIGTERM, the state being saved.
        SettingError: the saved run was started with other settings.
        FruitlessError: the time was too short to do anything, or the run diverged.
    """
    config = config or LoopConfig()
    step, psnr, spent, curve = 0, None, Spent(), list[tuple[float, float]]()
    best: StateDict | None = None
    best_psnr = float("-inf")
    settings = json.loads(json.dumps(settings or {}))  # as they come back from the file
    if resume and state_path is not None and state_path.exists():
        saved = _read_state(state_path, settings)
        learner.load_state(saved["learner"])
        step, best, best_psnr = saved["step"], saved["best"], saved["best_psnr"]
        psnr, spent, curve = saved["psnr"], Spent(*saved["spent"]), [tuple(p) for p in saved["curve"]]

    def save() -> None:
        if state_path is not None:
            tree = {
                "learner": learner.state(),
                "step": step,
                "best": best,
                "best_psnr": best_psnr,
                "psnr": psnr,
                "spent": [total.seconds, total.core_seconds],
                "curve": curve,
            }
            packed, arrays = pack_state(tree)
            write_checkpoint(state_path, {"settings": settings, "state": packed}, arrays, kind="state")

    start = started or now()
    total, begun, saved_at = spent, spent + (now() - start), now().seconds
    with _deferred_signals() as pending:
        while (before := budget.progress(step, total)) < 1:
            learner.step(before)
            step += 1
            total = spent + (now() - start)
            after = budget.progress(step, total)
            if int(after * config.n_probes) > int(before * config.n_probes):
                psnr = _probed(learner, step)
                if psnr > best_psnr:
                    best, best_psnr = learner.result(), psnr
                total = spent + (now() - start)
                curve.append((total.core_seconds, psnr))
            on_progress(Progress(step, min(after, 1.0), psnr, total))
            if pending:
                save()
                raise Interrupted(pending[0], state_path)
            if now().seconds - saved_at > config.save_seconds:
                save()
                saved_at = now().seconds
    if best is None or (budget.steps is None and step < config.min_steps):
        raise _fruitless(budget, step, begun, total, psnr if best is None else None)
    return best, LoopReport(step, total, best_psnr, curve)


def _probed(learner: Learner, step: int) -> float:
    psnr = learner.probe()
    log.debug("step %d: PSNR of the probe %.2f dB", step, psnr)
    return psnr


def _fruitless(budget: Budget, step: int, begun: Spent, total: Spent, psnr: float | None) -> FruitlessError:
    """Return the error of a run whose evaluations all had this PSNR, or that had too few steps."""
    if psnr is None:
        return TooShortError(step, budget, _enough(budget, step, begun, total))
    return FruitlessError(
        f"the run diverged: its PSNR was {psnr} at every evaluation; smaller learning rates may help"
    )


def _enough(budget: Budget, steps: int, begun: Spent, total: Spent) -> Budget:
    """Return about the time in which `USEFUL_STEPS` can be taken.

    Args:
        budget: of time, which was too short.
        steps: number of steps that were taken; where there were none, they are taken to be cheap.
        begun, total: time used before the first of them, and after the last.
    """
    each = USEFUL_STEPS / max(steps, 1)
    if budget.seconds is not None:
        return Budget(seconds=begun.seconds + each * max(total.seconds - begun.seconds, 1e-3))
    return Budget(core_seconds=begun.core_seconds + each * max(total.core_seconds - begun.core_seconds, 1e-3))


def describe_state(header: JsonObject, arrays: dict[str, Tensor]) -> JsonObject:
    """Return a saved state's settings as JSON values; `header` and `arrays` are as `read_checkpoint` returns them."""
    return {"settings": header.get("settings")}


def check_same(path: Path, before: JsonObject, settings: JsonObject) -> None:
    """Check that what is saved in `path` was made with these settings, JSON values both.

    Raises:
        SettingError: it was not; what differs.
    """
    differ = [k for k in sorted({*before, *settings}) if before.get(k) != settings.get(k)]
    if differ:
        changes = "; ".join(c for k in differ for c in _changes(k, before.get(k), settings.get(k)))
        raise SettingError(f"{path} belongs to a run with other settings: {changes}")


def _read_state(path: Path, settings: JsonObject) -> StateDict:
    header, arrays = read_checkpoint(path, kind="state")
    check_same(path, header["settings"], settings)
    state: StateDict = unpack_state(header["state"], arrays)
    return state


def _changes(name: str, before: Any, after: Any) -> list[str]:
    """Return what differs in a setting, one by one where it is a list of parts with names and settings, as stages."""
    old, new = _settings_of_parts(before), _settings_of_parts(after)
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)] if old and new else []
    found = [f"{key} was {_short(old.get(key))}, is {_short(new.get(key))}" for key in differ]
    return found or [f"{name} was {_short(before)}, is {_short(after)}"]


def _settings_of_parts(value: Any) -> JsonObject:
    """Return the settings of parts that have names, as `volume.source` and `volume.losses.color`; nothing of others."""
    if not isinstance(value, list) or not all(isinstance(part, dict) and "name" in part for part in value):
        return {}
    settings = {
        f"{part['name']}.{key}": item for part in value for key, item in part.items() if key != "name"
    }
    tables = {key: table for key, table in settings.items() if isinstance(table, dict)}
    single = {f"{key}.{name}": item for key, table in tables.items() for name, item in table.items()}
    return {key: item for key, item in settings.items() if key not in tables} | single


def _short(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...")


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being cut off mid-step; a second one acts at once."""
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(signum: int, _frame: Any) -> None:
        pending.append(signum)
        signal.signal(signum, previous[signal.Signals(signum)])

    for signum in previous:
        signal.signal(signum, note)
    try:
        yield pending
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
