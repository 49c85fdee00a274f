"""Starts again what dies of a stack: servers and processes, each after a pause that doubles while it keeps dying."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from unmask_dev.process import Process, ServerFailed
from unmask_dev.stack import Stack

_POLL_SECONDS: Final = 0.2
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
# Who lived this long begins with the first pause again.
_HEALTHY_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Watched:
    """One server or process: `start` starts it, `kill` ends what is left of it; `due_at` is when, while it is down."""

    process: Process
    start: Callable[[], None]
    kill: Callable[[], None]
    started_at: float
    pause: float = _FIRST_PAUSE
    due_at: float | None = None


class Supervisor:
    """Watches everything that a stack has started; `say` is told of each death and each start."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        # The servers first: whoever needs them starts after them.
        self._watched = {
            name: _Watched(server.process, server.start, server.kill, now) for name, server in stack.servers.items()
        }
        self._watched |= {
            name: _Watched(process, process.start, process.kill, now) for name, process in stack.processes.items()
        }
        self._say = say

    def run(self) -> None:
        """Watches until it is interrupted by an exception."""
        while True:
            self.look()
            time.sleep(_POLL_SECONDS)

    def look(self) -> None:
        """Looks once at each, and starts again what is due."""
        for name, one in self._watched.items():
            now = time.monotonic()
            if one.due_at is None and not one.process.running:
                self._down(name, one, f"{name} died (exit code {one.process.returncode})")
            elif one.due_at is not None and one.due_at <= now:
                self._start(name, one)

    def _down(self, name: str, one: _Watched, what: str) -> None:
        now = time.monotonic()
        lived = now - one.started_at >= _HEALTHY_SECONDS
        one.pause = _FIRST_PAUSE if lived else one.pause
        self._say(f"{what}; it is started again in {one.pause:g} s ({one.process.log})")
        one.due_at, one.pause = now + one.pause, min(2 * one.pause, _LONGEST_PAUSE)

    def _start(self, name: str, one: _Watched) -> None:
        # Children that outlived it would hold its ports.
        one.kill()
        one.due_at, one.started_at = None, time.monotonic()
        try:
            one.start()
        except ServerFailed as error:
            self._down(name, one, str(error).partition("\n")[0])
        else:
            self._say(f"{name} is started again")
