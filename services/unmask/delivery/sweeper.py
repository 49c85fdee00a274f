"""The sweeper: cases that are due get their message again, what is over its time goes; the queue is only a hint."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from unmask.core.erasing import EraseOffice, Halt, collect_orphans, expire
from unmask.core.errors import UnmaskError
from unmask.core.submit import publish
from unmask.core.world import World

_log = logging.getLogger(__name__)
_BATCH: Final = 500
_HOUR: Final = 3600.0
# Told the name of a duty and how many things it did; of one that failed `NAME_failed` and 1.  (`Observer.counted`.)
Report = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Duty:
    """Something done every `period` seconds: `work` returns how many things it did, and ends early when told to halt."""

    name: str
    period: float
    work: Callable[[Halt], int]


def sweep(world: World) -> int:
    """Publishes the waiting step of every case that is due; returns how many.  Raises `Unavailable` (store)."""
    due = world.store.claim_due(world.clock.now(), _BATCH, world.retry.stuck)
    for case in due:
        publish(world, case)
    return len(due)


def slow_duties(office: EraseOffice, *, retention: float = _HOUR, orphans: float = 24 * _HOUR) -> tuple[Duty, ...]:
    """Retention and the collection of orphans, every so many seconds."""
    return (
        Duty("retention", retention, lambda halt: expire(office, halt=halt)),
        Duty("orphans", orphans, lambda halt: collect_orphans(office, halt=halt)),
    )


class Sweeper:
    """Runs `sweep` every `period` seconds, and each further duty at its own pace, on threads of their own until closed.

    A duty that fails or takes long holds up no other.  Several sweepers at once, also in other processes, are harmless.
    """

    def __init__(self, world: World, period: float = 5.0, duties: Sequence[Duty] = (), report: Report | None = None) -> None:
        self._report = report
        self._stop = threading.Event()
        publishing = Duty("published_again", period, lambda _: sweep(world))
        self._threads = [
            threading.Thread(target=partial(self._loop, duty), name=f"sweeper-{duty.name}", daemon=True)
            for duty in (publishing, *duties)
        ]

    def start(self) -> None:
        """Starts the threads; each duty is done at once, for what an earlier process left behind."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops after what is in hand; long duties end early."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _loop(self, duty: Duty) -> None:
        while True:
            started = time.monotonic()
            self._do(duty)
            # Waits from its end when it took longer than its period: no duty runs without a pause.
            spent = time.monotonic() - started
            if self._stop.wait(duty.period - spent if spent < duty.period else duty.period):
                return

    def _do(self, duty: Duty) -> None:
        try:
            count = duty.work(self._stop.is_set)
        except UnmaskError as error:
            _log.warning("sweeper: %s: %s", duty.name, error.detail)
            self._tell(f"{duty.name}_failed", 1)
        except Exception:  # the thread must outlive what it meets
            _log.exception("sweeper: %s broke", duty.name)
            self._tell(f"{duty.name}_failed", 1)
        else:
            if count:
                _log.info("sweeper: %s: %d", duty.name, count)
                self._tell(duty.name, count)

    def _tell(self, name: str, count: int) -> None:
        if self._report is not None:
            self._report(name, count)
