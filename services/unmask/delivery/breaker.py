"""Circuit breakers, one an endpoint: what keeps failing is left alone for a while, then tried with one event."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# More endpoints in trouble than this at once: those that nobody has tried for long are forgotten.
_MANY: Final = 10_000


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Opens after `failures` in a row, for `first`, twice as long after each failed trial, at most for `longest`."""

    failures: int = 5
    first: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(minutes=10)

    def period(self, opened: int) -> timedelta:
        """How long it stays open the `opened`-th time (>= 1) in a row."""
        return min(self.first * (1 << min(opened - 1, 20)), self.longest)


@dataclass(slots=True)
class _State:
    """An endpoint in trouble: failures in a row while closed; then how often it was opened, until when, and the trial."""

    failures: int = 0
    opened: int = 0
    until: datetime | None = None
    trying: bool = False


class Breakers:
    """Thread-safe; knows no clock.  An endpoint that nothing is known of is closed.

    Every `admit` that lets through is answered by `succeeded` or `failed`.
    """

    def __init__(self, rule: BreakerRule | None = None) -> None:
        self._rule = rule or BreakerRule()
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}

    def admit(self, endpoint: str, now: datetime) -> datetime | None:
        """None: go on (when it was open, as the one trial).  Otherwise when to come again."""
        with self._lock:
            state = self._states.get(endpoint)
            if state is None or state.until is None:
                return None
            if now < state.until:
                # Never later than its longest period: the clock may have gone back.
                return min(state.until, now + self._rule.longest)
            if state.trying:
                return now + self._rule.first / 6  # the trial will have ended by then, or soon
            state.trying = True
            return None

    def succeeded(self, endpoint: str) -> None:
        """The endpoint answered: closed."""
        with self._lock:
            self._states.pop(endpoint, None)

    def failed(self, endpoint: str, now: datetime) -> None:
        """Counts a failure; the last of several in a row opens, a trial's opens again for longer."""
        with self._lock:
            state = self._states.setdefault(endpoint, _State())
            if state.until is None:
                state.failures += 1
                if state.failures >= self._rule.failures:
                    self._opened(state, now)
            elif state.trying:
                self._opened(state, now)
            if len(self._states) > _MANY:
                self._forget(now)

    def open(self, now: datetime) -> list[str]:
        """The endpoints that are left alone now (for operators)."""
        with self._lock:
            return sorted(name for name, state in self._states.items() if state.until is not None and now < state.until)

    def _opened(self, state: _State, now: datetime) -> None:
        state.opened += 1
        state.until = now + self._rule.period(state.opened)
        state.trying = False

    def _forget(self, now: datetime) -> None:
        old = now - self._rule.longest
        keep = {name: state for name, state in self._states.items() if state.until is not None and state.until > old}
        self._states = keep if len(keep) <= _MANY else {}
