"""When an event is tried again, and what one round of attempts over its sinks comes to; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from unmask.core.domain import EventState, Failure, Outgoing
from unmask.core.errors import CallerError, UnmaskError
from unmask.core.ports import EventSink


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Exponential with full jitter: up to `first` after the first failure, twice as much after each further one.

    No wait is over `longest`; `window` after an event happened it is given up, but not before `least` attempts (one
    that was put back later is tried as often).  `longest` has to stay below `pipeline.CLOCK_WENT_BACK`: what is put off for
    longer the store takes for written before the clock went back.
    """

    first: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(minutes=45)
    window: timedelta = timedelta(days=3)
    least: int = 8

    def wait(self, failed: int, asked: float | None, share: float) -> timedelta:
        """After `failed` (>= 1) attempts: a share (0 to 1) of the step, or what the receiver asked for (seconds), if longer."""
        step = min(self.first * (1 << min(failed - 1, 20)), self.longest) * share
        return min(max(step, timedelta(seconds=asked or 0.0)), self.longest)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is written of an event after a round."""

    state: EventState
    attempts: int
    due_at: datetime
    failure: Failure | None


@dataclass(slots=True)
class Round:
    """One claimed event on its way through the sinks that have not taken it yet."""

    out: Outgoing
    left: list[EventSink]
    taken: list[str] = field(default_factory=list)
    failed: list[UnmaskError] = field(default_factory=list)
    refused: list[CallerError] = field(default_factory=list)
    until: datetime | None = None

    def postpone(self, until: datetime) -> None:
        """A sink was not tried; it may be from then on."""
        self.until = until if self.until is None else min(self.until, until)

    def settlement(self, schedule: RetrySchedule, now: datetime, share: float) -> Settlement:
        """Sent, dead with its reason, or when to come again; what was only put off has used no attempt."""
        attempts, end = self.out.attempts, self.out.event.at + schedule.window
        if self.failed:
            asked = max((error.retry_after or 0.0 for error in self.failed), default=0.0)
            due_at, failure = now + schedule.wait(attempts + 1, asked, share), Failure.of(self.failed[-1])
            over = due_at > end and attempts + 1 >= schedule.least
            return Settlement(EventState.DEAD if over else EventState.PENDING, attempts + 1, due_at, failure)
        if self.until is not None:
            # Nothing dies untried: the relay itself may have been away for long.
            over = now > end and self.out.failure is not None and attempts >= schedule.least
            due_at = min(self.until, now + schedule.longest)
            return Settlement(EventState.DEAD if over else EventState.PENDING, attempts, due_at, self.out.failure)
        if self.refused:
            return Settlement(EventState.DEAD, attempts + 1, now, Failure.of(self.refused[-1]))
        return Settlement(EventState.SENT, attempts, now, None)
