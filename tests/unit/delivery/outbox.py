"""An outbox with events in it, a clock that a test moves, and sinks that do what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.contract.samples import NOW, a_case, an_event, moved
from unmask.core.domain import Case, CaseUpdate, Event, Outgoing, Stage
from unmask.core.errors import Unavailable, UnmaskError
from unmask.core.ports import CaseStore
from unmask.delivery.relay import Relay, RelayRule

Do = Callable[[Event], UnmaskError | None]
Make = Callable[..., Relay]
# No thread more than the tests need.
RULE = RelayRule(workers=4, per_endpoint=2)
# What the tests wait for at most; they wait for conditions, never for the time itself.
DEADLINE = 10.0


class MovedClock:
    """Time that stands until a test moves it."""

    def __init__(self, time: datetime = NOW) -> None:
        self.time = time

    def now(self) -> datetime:
        """The set time."""
        return self.time

    def pass_(self, **by: float) -> None:
        """Moves the clock on."""
        self.time += timedelta(**by)


def accept(_: Event) -> None:
    """What a receiver does on a good day."""


@dataclass
class ListSink:
    """A sink that keeps what it accepts; what it does is a test's."""

    do: Do = accept
    name: str = "webhook"
    wanted: Callable[[Event], bool] = lambda _: True
    tried: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, event: Event) -> bool:
        """As told."""
        return self.wanted(event)

    def endpoint(self, event: Event) -> str:
        """The whole target."""
        return event.target

    def send(self, event: Event) -> None:
        """Does as told."""
        with self.lock:
            self.tried.append(event.id)
        error = self.do(event)
        if error is not None:
            raise error
        with self.lock:
            self.accepted.append(event.id)


def tell(store: CaseStore, count: int = 1, *, case: Case | None = None, at: datetime = NOW, target: str = "a") -> list[Event]:
    """That many events of one case, written with its steps."""
    case, events = case or store.accept(a_case(callback=target)), []
    for number in range(count):
        after = moved(case, Stage.ACCEPTED)
        told = an_event(case, f'{{"n": {number}}}')
        events.append(replace(told, at=at, target=target, sequence=after.revision))
        assert store.commit(case, CaseUpdate(after, event=events[-1]))
        case = after
    return events


def down(_: Event) -> UnmaskError:
    return Unavailable("the receiver answered 500")


def accept_after(release: threading.Event) -> Do:
    """A slow receiver."""

    def do(_: Event) -> None:
        release.wait(DEADLINE)

    return do


def until(condition: Callable[[], object]) -> None:
    """Waits for it."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def pending(store: CaseStore, clock: MovedClock) -> list[Outgoing]:
    """What is still to go out; taken for itself, so only for the end of a test."""
    return list(store.claim_events(clock.now() + timedelta(minutes=59), 99, timedelta(minutes=1)))


class Faulty:
    """A store whose next calls fail, over a real one."""

    def __init__(self, store: CaseStore, *fail: str) -> None:
        self.store, self.fail = store, list(fail)

    def __getattr__(self, name: str) -> Any:
        if name in self.fail:
            self.fail.remove(name)
            raise Unavailable("case store: gone away")
        return getattr(self.store, name)
