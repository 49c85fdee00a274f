"""The sweeper's threads: each duty at its pace, none in another's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_erase import SqlEraser
from unmask.adapters.store_sql import SqlStore
from unmask.core.access import Tenant
from unmask.core.domain import BytesSource, Case, State, Submission
from unmask.core.erasing import EraseOffice, Halt
from unmask.core.errors import Unavailable
from unmask.core.runner import run
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.delivery.sweeper import Duty, Sweeper, slow_duties, sweep


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for it, no longer than the deadline."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


class Counts:
    """What sweepers report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.told: dict[str, int] = {}

    def __call__(self, name: str, count: int) -> None:
        with self._lock:
            self.told[name] = self.told.get(name, 0) + count


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database.in_memory()
    yield made
    made.close()


@pytest.fixture
def world(queue: ListQueue, clock: StillClock, database: Database) -> World:
    return replace(make_world(ChosenHandlers(), queue, clock), store=SqlStore(database))


def lost(world: World, count: int) -> None:
    """Cases whose messages nobody ever got."""
    for number in range(count):
        accept(world, Submission("default", BytesSource(b"%d" % number)))
    world.queue.messages.clear()  # type: ignore[attr-defined]
    world.clock.pass_(world.retry.stuck.total_seconds() + 1)  # type: ignore[attr-defined]


def test_what_is_due_is_published_at_once_and_counted(world: World, queue: ListQueue) -> None:
    lost(world, 3)
    counts = Counts()
    sweeper = Sweeper(world, period=3600.0, report=counts)
    sweeper.start()
    until(lambda: counts.told == {"published_again": 3})
    sweeper.close()
    assert len(queue.messages) == 3


def test_several_sweepers_at_once_publish_each_case_once(world: World, queue: ListQueue) -> None:
    lost(world, 40)
    counts = Counts()
    sweepers = [Sweeper(world, period=0.005, report=counts) for _ in range(4)]
    for sweeper in sweepers:
        sweeper.start()
    until(lambda: counts.told.get("published_again", 0) >= 40)
    for sweeper in sweepers:
        sweeper.close()
    assert len(queue.messages) == 40 and len({message.case_id for message in queue.messages}) == 40


def test_a_duty_that_fails_or_never_ends_holds_up_no_other(world: World, queue: ListQueue) -> None:
    counts, begun = Counts(), threading.Event()

    def stuck(halt: Halt) -> int:
        begun.set()
        until(halt)
        return 7

    def down(_: Halt) -> int:
        raise Unavailable("no store")

    def broken(_: Halt) -> int:
        return 1 // 0

    duties = (Duty("stuck", 0.01, stuck), Duty("down", 0.01, down), Duty("broken", 0.01, broken))
    sweeper = Sweeper(world, 0.01, duties, counts)
    sweeper.start()
    assert begun.wait(10)
    lost(world, 2)
    until(lambda: len(queue.messages) == 2)
    until(lambda: counts.told.get("down_failed", 0) >= 2 and counts.told.get("broken_failed", 0) >= 2)
    assert "stuck" not in counts.told
    sweeper.close()
    assert counts.told["stuck"] == 7, "what is in hand ends when it is told to"


def test_a_store_that_is_away_is_reported_and_tried_again(world: World, queue: ListQueue, database: Database) -> None:
    lost(world, 1)
    counts, away = Counts(), threading.Event()

    class Sometimes(SqlStore):
        """Away until it is told otherwise."""

        def claim_due(self, now: datetime, limit: int, quiet: timedelta) -> Sequence[Case]:
            if not away.is_set():
                raise Unavailable("away")
            return super().claim_due(now, limit, quiet)

    sweeper = Sweeper(replace(world, store=Sometimes(database)), 0.01, report=counts)
    sweeper.start()
    until(lambda: counts.told.get("published_again_failed", 0) >= 2)
    away.set()
    until(lambda: len(queue.messages) == 1)
    sweeper.close()


def test_closing_one_that_was_never_started_is_fine(world: World) -> None:
    Sweeper(world).close()
    assert sweep(world) == 0


def test_retention_and_orphans_are_duties(world: World, queue: ListQueue, clock: StillClock, database: Database) -> None:
    office = EraseOffice(SqlEraser(database), world.blobs, SqlAccess(database), clock)
    office.access.put_tenant(Tenant("default", clock.now(), keep_days=1))
    case = accept(world, Submission("default", BytesSource(b"x")))
    while queue.messages:
        run(world, queue.messages.pop(0))
    # By the blobs' own clock, which is the real one, it is older than anything.
    clock.time += timedelta(days=40_000)
    world.blobs.put("default/pictures/" + "0" * 64, b"nobody's")
    counts = Counts()
    sweeper = Sweeper(world, 3600.0, slow_duties(office), counts)
    sweeper.start()
    until(lambda: counts.told.get("retention", 0) >= 1 and counts.told.get("orphans", 0) >= 1)
    sweeper.close()
    assert world.store.case("default", case.id).state is State.ERASED
    assert not list(world.blobs.keys("default/"))
