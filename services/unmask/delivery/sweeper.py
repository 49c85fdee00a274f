"""The sweeper: open cases that are due or stuck get their message again; the store is the truth, the queue a hint."""

from __future__ import annotations

import logging
import threading
from typing import Final

from unmask.core.errors import Unavailable
from unmask.core.submit import publish
from unmask.core.world import World

_log = logging.getLogger(__name__)
_BATCH: Final = 500


def sweep(world: World) -> int:
    """Publishes the waiting step of every case that is due; returns how many.  Raises `Unavailable` (store)."""
    due = world.store.due(world.clock.now(), _BATCH)
    for case in due:
        publish(world, case)
    return len(due)


class Sweeper:
    """Runs `sweep` every `period` seconds on a thread of its own until closed."""

    def __init__(self, world: World, period: float = 5.0) -> None:
        self._world, self._period = world, period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)

    def start(self) -> None:
        """Starts the thread; the first sweep is at once, for cases that an earlier process left behind."""
        self._thread.start()

    def close(self) -> None:
        """Stops after the sweep in hand."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while True:
            try:
                if count := sweep(self._world):
                    _log.info("sweeper: %d cases published again", count)
            except Unavailable as error:
                _log.warning("sweeper: %s", error.detail)
            if self._stop.wait(self._period):
                return
