"""Until when the call in hand is worth answering: set at the edges, read by the adapters that wait for somebody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from unmask.core.errors import DeadlineExceeded

# Monotonic seconds; None where nobody waits.  A thread started for the call sees it only through contextvars.copy_context().
deadline: Final[ContextVar[float | None]] = ContextVar("unmask_deadline", default=None)


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Gives what runs inside that many seconds from now, or less where the caller's own deadline is nearer; None: no more."""
    outer = deadline.get()
    inner = None if seconds is None else time.monotonic() + seconds
    token = deadline.set(min((at for at in (outer, inner) if at is not None), default=None))
    try:
        yield
    finally:
        deadline.reset(token)


def remaining(default: float) -> float:
    """Seconds that a wait may take: `default`, or less where the deadline is nearer; raises `DeadlineExceeded` past it."""
    until = deadline.get()
    if until is None:
        return default
    left = until - time.monotonic()
    if left <= 0.0:
        raise DeadlineExceeded("the time allowed for this call has run out")
    return min(default, left)
