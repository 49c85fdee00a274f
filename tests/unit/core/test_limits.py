"""Rate limit and quota at the door, over a real store of usage with a clock that is moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest

from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.core.access import Tenant
from unmask.core.domain import BytesSource, Submission
from unmask.core.errors import IdempotencyConflict, QuotaExceeded, Unavailable
from unmask.core.limits import Admission, admit
from unmask.core.world import World

MINUTE, DAY = 60, 86_400


class CountedAccess(SqlAccess):
    """The real one; says how often usage was counted."""

    counts = 0

    def count(self, tenant: str, period: str, amount: int) -> int:
        self.counts += 1
        return super().count(tenant, period, amount)


class FullBlobs(MemoryBlobs):
    """A blob store that takes nothing."""

    def put(self, key: str, data: bytes) -> None:
        raise Unavailable("no room")


@dataclass
class Door:
    """A door of its own process, and what stands behind it."""

    access: CountedAccess
    clock: StillClock = field(default_factory=StillClock)
    sent: int = 0

    def __post_init__(self) -> None:
        self.world: World = make_world(ChosenHandlers(), ListQueue(), self.clock)
        self.admission = Admission(self.access, self.clock)

    def set(self, per_minute: int | None = None, per_day: int | None = None) -> Tenant:
        tenant = Tenant("acme", self.clock.now(), per_minute=per_minute, per_day=per_day)
        self.access.put_tenant(tenant)
        return tenant

    def submit(self, key: str = "", data: bytes | None = None) -> str:
        self.sent += 1
        source = BytesSource(str(self.sent).encode() if data is None else data)
        return self.admission.accept(self.world, Submission("acme", source, idempotency_key=key)).id

    def taken(self, most: int = 100) -> int:
        """How many are taken before one is refused."""
        for number in range(most):
            try:
                self.submit()
            except QuotaExceeded:
                return number
        return most


@pytest.fixture
def door() -> Iterator[Door]:
    with closing(Database.in_memory()) as database:
        yield Door(CountedAccess(database))


@pytest.mark.parametrize(("limits", "window"), [({"per_minute": 3}, MINUTE), ({"per_day": 3}, DAY)])
def test_a_limit_takes_so_many_and_says_when_the_next_window_begins(door: Door, limits: dict[str, int], window: int) -> None:
    door.set(**limits)
    door.clock.pass_(window * 0.25)
    assert door.taken() == 3
    with pytest.raises(QuotaExceeded, match=r"may submit 3 pictures a (minute|day)") as caught:
        door.submit()
    assert caught.value.retry_after == pytest.approx(window * 0.75)
    door.clock.pass_(window * 0.75 - 0.001)
    assert door.taken() == 0
    door.clock.pass_(0.001)
    assert door.taken() == 3


def test_the_count_is_one_over_processes(door: Door) -> None:
    door.set(per_minute=5)
    other = Door(door.access, door.clock)
    assert [door.submit() != other.submit() for _ in range(2)] == [True, True]
    assert other.taken() == 1 and door.taken() == 0


def test_what_the_minute_refuses_does_not_use_up_the_day(door: Door) -> None:
    door.set(per_minute=2, per_day=3)
    assert [door.taken() for _ in range(4)] == [2, 0, 0, 0]
    door.clock.pass_(MINUTE)
    assert door.taken() == 1
    with pytest.raises(QuotaExceeded, match="a day"):
        door.submit()


def test_no_limits_and_no_tenant_count_nothing(door: Door) -> None:
    assert door.taken(20) == 20
    door.set()
    assert Door(door.access, door.clock).taken(20) == 20
    assert door.access.counts == 0


def test_a_repeated_key_uses_the_rate_but_not_the_quota(door: Door) -> None:
    door.set(per_day=2)
    first = door.submit("k", b"a")
    door.clock.pass_(1)
    assert [door.submit("k", b"a") for _ in range(5)] == [first] * 5
    assert door.taken() == 1
    door.clock.pass_(DAY)
    door.set(per_minute=3)
    for _ in range(3):
        door.submit("k", b"a")
    with pytest.raises(QuotaExceeded, match="a minute"):
        door.submit("k", b"a")


def test_our_own_failure_is_given_back_and_the_callers_is_not(door: Door) -> None:
    door.set(per_day=2)
    whole, door.world = door.world, replace(door.world, blobs=FullBlobs())
    for _ in range(5):
        with pytest.raises(Unavailable):
            door.submit()
    door.world = whole
    door.submit("k", b"a")
    with pytest.raises(IdempotencyConflict):
        door.submit("k", b"b")
    assert door.taken() == 0


def test_a_changed_limit_holds_within_ten_seconds(door: Door) -> None:
    door.set(per_day=1)
    assert door.taken() == 1
    door.set(per_day=3)
    door.clock.pass_(10.001)
    assert door.taken() == 2


def test_a_flood_does_not_reach_the_store(door: Door) -> None:
    door.set(per_minute=1)
    assert door.taken() == 1
    before = door.access.counts
    for _ in range(50):
        with pytest.raises(QuotaExceeded):
            door.submit()
    assert door.access.counts == before


def test_a_clock_that_goes_back_locks_nobody_out(door: Door) -> None:
    door.set(per_minute=2)
    assert door.taken() == 2
    door.clock.pass_(-3600)
    assert door.taken() == 2


def test_an_amount_that_does_not_fit_leaves_room_for_a_smaller_one(door: Door) -> None:
    tenant = door.set(per_minute=10, per_day=12)
    admit(door.access, door.clock, tenant, 8)
    with pytest.raises(QuotaExceeded, match="a minute"):
        admit(door.access, door.clock, tenant, 3)
    admit(door.access, door.clock, tenant, 2)
    door.clock.pass_(MINUTE)
    with pytest.raises(QuotaExceeded, match="a day"):
        admit(door.access, door.clock, tenant, 3)
    admit(door.access, door.clock, tenant, 2)


def test_a_queue_is_held_to_the_quota_alone(door: Door) -> None:
    door.set(per_minute=1, per_day=3)
    door.admission = Admission(door.access, door.clock, rated=False)
    assert door.taken() == 3
