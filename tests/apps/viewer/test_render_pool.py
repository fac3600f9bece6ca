import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fieldmorph.apps.viewer.errors import BusyError, Cancelled
from fieldmorph.apps.viewer.render_pool import MAX_TASKS, FairRenderPool

WAIT = 20  # seconds until a test fails


class Order:
    """A task of an owner whose units wait for a gate and are recorded as they are done."""

    def __init__(
        self, pool: FairRenderPool, owner: str, n: int, done: list[str], gate: threading.Event | None = None
    ):
        self.ended, self.error = threading.Event(), None
        self.n, self.owner, self.gate = n, owner, gate
        self.task = pool.submit(owner, self.units(), done.append, self.end)

    def units(self) -> Iterator[Callable[[], str]]:
        return (self.unit for _ in range(self.n))

    def unit(self) -> str:
        if self.gate is not None:
            assert self.gate.wait(WAIT)
        return self.owner

    def end(self, error: BaseException | None) -> None:
        self.error = error
        self.ended.set()


@pytest.fixture
def pool() -> Iterator[FairRenderPool]:
    pool = FairRenderPool(1)
    yield pool
    pool.close()


def test_units_are_delivered_in_order_and_finish_is_called_once(pool: FairRenderPool) -> None:
    got: list[Any] = []
    ended = threading.Event()
    pool.submit("a", [lambda i=i: i for i in range(20)], got.append, lambda e: (got.append(e), ended.set()))
    assert ended.wait(WAIT)
    assert got == [*range(20), None]


def test_a_later_viewer_is_served_before_the_rest_of_a_long_work(pool: FairRenderPool) -> None:
    done: list[str] = []
    gate = threading.Event()
    long = Order(pool, "long", 30, done, gate)
    short = Order(pool, "short", 3, done, gate)
    gate.set()
    assert short.ended.wait(WAIT)
    assert long.ended.wait(WAIT)
    assert "long" in done[done.index("short") :][3:]  # most of it came after
    assert done.count("long") == 30


def test_viewers_share_time_and_not_pieces(pool: FairRenderPool) -> None:
    """One unit of the slow owner takes as long as many of the quick one's, who must not wait for all of them."""
    done: list[str] = []
    gate = threading.Event()

    def slow() -> str:
        assert gate.wait(WAIT)
        sum(range(1_000_000))
        return "slow"

    ended = threading.Event()
    pool.submit("slow", [slow] * 8, done.append, lambda _: ended.set())
    quick = Order(pool, "quick", 40, done, gate)
    gate.set()
    assert quick.ended.wait(WAIT)
    assert done.count("slow") < 8
    assert ended.wait(WAIT)


def test_new_task_of_an_owner_takes_the_place_of_the_old(pool: FairRenderPool) -> None:
    done: list[str] = []
    gate = threading.Event()
    old = Order(pool, "a", 1000, done, gate)
    new = Order(pool, "a", 2, done, gate)
    gate.set()
    assert old.ended.wait(WAIT)
    assert new.ended.wait(WAIT)
    assert isinstance(old.error, Cancelled)
    assert new.error is None
    assert len(done) == 2  # of the unit that was running nothing was delivered


def test_cancelled_task_ends_and_frees_the_thread(pool: FairRenderPool) -> None:
    gate = threading.Event()
    order = Order(pool, "a", 1000, [], gate)
    pool.cancel(order.task)
    gate.set()
    assert order.ended.wait(WAIT)
    assert isinstance(order.error, Cancelled)
    pool.cancel(order.task)  # once more is no harm
    assert Order(pool, "b", 1, []).ended.wait(WAIT)


def test_a_unit_that_fails_ends_its_own_task_alone(pool: FairRenderPool) -> None:
    errors: list[BaseException | None] = []
    ended = threading.Event()

    def fail() -> None:
        raise RuntimeError("no such place")

    def finish(error: BaseException | None) -> None:
        errors.append(error)
        ended.set()

    done: list[str] = []
    pool.submit("a", [fail, fail], lambda _: None, finish)
    other = Order(pool, "b", 5, done)
    assert ended.wait(WAIT)
    assert other.ended.wait(WAIT)
    assert [str(e) for e in errors] == ["no such place"]
    assert other.error is None
    assert done == ["b"] * 5


def test_empty_task_ends_at_once(pool: FairRenderPool) -> None:
    assert Order(pool, "a", 0, []).ended.wait(WAIT)


def test_more_tasks_than_the_most_are_refused(pool: FairRenderPool) -> None:
    gate = threading.Event()
    orders = [Order(pool, f"owner {i}", 1, [], gate) for i in range(MAX_TASKS)]
    with pytest.raises(BusyError, match="too many viewers"):
        Order(pool, "one more", 1, [], gate)
    replaced = Order(pool, "owner 5", 1, [], gate)  # no more than before
    gate.set()
    assert all(order.ended.wait(WAIT) for order in [*orders, replaced])


def test_closing_ends_tasks_and_threads() -> None:
    before = threading.active_count()
    pool, gate = FairRenderPool(3), threading.Event()
    order = Order(pool, "a", 1000, [], gate)
    gate.set()
    pool.close()
    assert order.ended.is_set()
    assert threading.active_count() == before
    with pytest.raises(BusyError):
        Order(pool, "a", 1, [])
