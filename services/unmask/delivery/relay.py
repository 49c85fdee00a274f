"""The outbox relay: hands events that the store holds to sinks, at least once, in the order of each case."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from unmask.core.domain import Event, EventState, Outgoing
from unmask.core.errors import CallerError, UnmaskError
from unmask.core.ports import CaseStore, Clock, EventSink
from unmask.delivery.attempts import RetrySchedule, Round
from unmask.delivery.breaker import BreakerRule, Breakers
from unmask.delivery.lanes import Lanes

_log = logging.getLogger(__name__)
_BATCH: Final = 100
# Claimed events in memory, over all endpoints.
_MOST: Final = 2000
# Told of each attempt: name of the sink, `accepted` | `failed` | `refused` | `postponed`, seconds since the event happened.
Watch = Callable[[str, str, float], None]


@dataclass(frozen=True, slots=True)
class RelayRule:
    """How much at once, and for how long.

    `lease` bounds how long a claimed event is in hand: no attempt begins in its second half, so an attempt has to end
    within half of it, or another relay may take the event up meanwhile; and for how long it waits when its relay dies.
    """

    workers: int = 16
    per_endpoint: int = 4
    lease: timedelta = timedelta(minutes=1)
    period: float = 1.0
    schedule: RetrySchedule = field(default_factory=RetrySchedule)
    breaker: BreakerRule = field(default_factory=BreakerRule)


class Relay:
    """Runs on threads of its own until closed; several relays, also in other processes, may share a store.

    A process that dies between a sink's acceptance and the settlement sends the same event id again after the lease.
    """

    def __init__(
        self,
        store: CaseStore,
        sinks: Sequence[EventSink],
        clock: Clock,
        rule: RelayRule | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._store, self._sinks, self._clock = store, tuple(sinks), clock
        self._rule = rule or RelayRule()
        self._watch = watch
        self._breakers = Breakers(self._rule.breaker)
        patience = self._rule.lease.total_seconds() / 4
        self._lanes: Lanes[Round] = Lanes(each=self._rule.per_endpoint, patience=patience)
        self._stop = threading.Event()
        self._loop_thread = threading.Thread(target=self._loop, name="relay", daemon=True)
        self._workers: list[threading.Thread] = []

    def start(self) -> None:
        """Starts the threads; the first look into the outbox is at once."""
        self._loop_thread.start()

    def close(self) -> None:
        """Ends the attempts in hand and gives back what had not begun."""
        self._stop.set()
        if self._loop_thread.is_alive():
            self._loop_thread.join()
        for waiting in self._lanes.close():
            waiting.postpone(self._clock.now())
            self._settle(waiting)
        for worker in self._workers:
            worker.join()

    def run_once(self) -> int:
        """Claims once, sees it all through and returns how many events it was.  Raises `Unavailable` (store)."""
        claimed = self._claim(_BATCH)
        self._lanes.wait(0)
        return claimed

    def _loop(self) -> None:
        while not self._stop.is_set():
            room = min(_BATCH, _MOST - self._lanes.count)
            if room <= 0:
                self._lanes.wait(_MOST - 1, self._rule.period)
                continue
            claimed = 0
            try:
                claimed = self._claim(room)
            except UnmaskError as error:
                _log.warning("relay: %s", error.detail)
            except Exception:  # the thread must outlive what it meets
                _log.exception("relay: the outbox could not be read")
            if claimed < room:
                self._stop.wait(self._rule.period)

    def _claim(self, most: int) -> int:
        if not self._workers:
            self._workers = [
                threading.Thread(target=self._work, name=f"relay-{number}", daemon=True) for number in range(self._rule.workers)
            ]
            for worker in self._workers:
                worker.start()
        claimed = self._store.claim_events(self._clock.now(), most, self._rule.lease)
        for out in claimed:
            self._go_on(Round(out, self._sinks_for(out), list(out.taken_by)))
        return len(claimed)

    def _sinks_for(self, out: Outgoing) -> list[EventSink]:
        return [sink for sink in self._sinks if sink.name not in out.taken_by and sink.takes(out.event)]

    def _go_on(self, round_: Round) -> None:
        """Queues the event for its next sink; settles it after the last."""
        while round_.left:
            wait = self._lanes.put(_lane(round_.left[0], round_.out.event), round_)
            if wait is None:
                return
            round_.left.pop(0)
            round_.postpone(self._clock.now() + timedelta(seconds=wait))
        self._settle(round_)

    def _work(self) -> None:
        while (taken := self._lanes.take()) is not None:
            lane, round_ = taken
            started = time.monotonic()
            try:
                self._attempt(lane, round_, started)
            except Exception:  # a worker must outlive what it works; the lease brings the event back
                _log.exception("relay: event %s was not worked", round_.out.event.id)
            finally:
                self._lanes.done(lane, time.monotonic() - started)

    def _attempt(self, lane: str, round_: Round, started: float) -> None:
        """One sink's turn, unless its breaker is open or too little of the lease is left."""
        sink, now = round_.left.pop(0), self._clock.now()
        until = now if now >= round_.out.due_at - self._rule.lease / 2 else self._breakers.admit(lane, now)
        if until is not None:
            round_.postpone(until)
            outcome = "postponed"
        else:
            outcome = self._send(lane, sink, round_)
        if self._watch is not None:
            self._watch(sink.name, outcome, (self._clock.now() - round_.out.event.at).total_seconds())
        self._go_on(round_)

    def _send(self, lane: str, sink: EventSink, round_: Round) -> str:
        error = _error_of(sink, round_.out.event)
        if error is None:
            self._breakers.succeeded(lane)
            round_.taken.append(sink.name)
            return "accepted"
        if isinstance(error, CallerError):
            self._breakers.succeeded(lane)
            round_.refused.append(error)
            return "refused"
        self._breakers.failed(lane, self._clock.now())
        round_.failed.append(error)
        return "failed"

    def _settle(self, round_: Round) -> None:
        event, now = round_.out.event, self._clock.now()
        what = round_.settlement(self._rule.schedule, now, random.random())
        if what.state is EventState.PENDING and now >= round_.out.due_at:
            _log.info("relay: event %s is beyond its lease; left to whoever has it now", event.id)
            return
        if what.state is EventState.DEAD and what.failure is not None:
            reason = what.failure
            _log.warning("relay: event %s of tenant %s is dead: %s: %s", event.id, event.tenant, reason.code, reason.detail)
        try:
            self._store.settle_event(
                event.id,
                what.state,
                attempts=what.attempts,
                due_at=what.due_at,
                taken_by=tuple(round_.taken),
                failure=what.failure,
            )
        except UnmaskError as error:
            _log.warning("relay: event %s was not settled (%s); the lease brings it back", event.id, error.detail)


def _lane(sink: EventSink, event: Event) -> str:
    return f"{sink.name} {sink.endpoint(event)}"


def _error_of(sink: EventSink, event: Event) -> UnmaskError | None:
    """Hands the event over; what went wrong, a defect of ours included."""
    try:
        sink.send(event)
    except UnmaskError as error:
        return error
    except Exception as error:
        _log.exception("relay: sink %s broke on event %s", sink.name, event.id)
        return UnmaskError(f"{type(error).__name__} in sink {sink.name}; see the log")
    return None
