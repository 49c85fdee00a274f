"""Blocking work off the event loop, in bounded numbers, and waiting for cases without holding a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Final, TypeVar

from unmask.core.errors import Unavailable

_Result = TypeVar("_Result")
_FIRST_POLL: Final = 0.05
_LONGEST_POLL: Final = 2.0


class Workers:
    """`threads` threads, first come first served; at most `waiting` calls of those that can be refused stand in line."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="work")
        self._free = asyncio.Semaphore(threads)
        self._limit, self._waiting = waiting, 0

    async def run(self, function: Callable[[], _Result]) -> _Result:
        """The function's result; raises `Unavailable` at once when too many wait already."""
        if self._waiting >= self._limit and self._free.locked():
            raise Unavailable(f"the server is busy: {self._waiting} calls wait for a free thread; try again")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        return await self._started(function)

    async def run_when_free(self, function: Callable[[], _Result]) -> _Result:
        """The function's result, however long it waits: for a stream's calls, which are bounded where they are read."""
        await self._free.acquire()
        return await self._started(function)

    def _started(self, function: Callable[[], _Result]) -> asyncio.Future[_Result]:
        loop = asyncio.get_running_loop()
        try:
            future = self._pool.submit(copy_context().run, function)
        except RuntimeError as error:  # closed
            self._free.release()
            raise Unavailable("the server is shutting down") from error

        # The place is free when the thread is, not when a caller that gave up stops waiting for it.
        def done(_: Future[_Result]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._free.release)

        future.add_done_callback(done)
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Finishes what is in hand."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Changes:
    """Wakes who waits for a case when something in this process changed it; polling stays the truth, this saves time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    def changed(self, case_id: str) -> None:
        """Says that the case may have changed; from any thread."""
        with self._lock:
            for loop, event in self._waiting.get(case_id, ()):
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    async def ticks(self, case_id: str, deadline: float | None) -> AsyncGenerator[None, None]:
        """One tick at once, then one after each change or poll interval, until the loop's time is `deadline`.

        Listening begins before the first tick, so a change between a look and the next wait is never missed.
        """
        loop = asyncio.get_running_loop()
        with self._listening(case_id, loop) as event:
            pause = _FIRST_POLL
            while True:
                event.clear()
                yield
                left = pause if deadline is None else min(pause, deadline - loop.time())
                if left <= 0.0:
                    return
                try:
                    await asyncio.wait_for(event.wait(), left)
                    pause = _FIRST_POLL
                except TimeoutError:
                    pause = min(pause * 1.6, _LONGEST_POLL)

    @contextmanager
    def _listening(self, case_id: str, loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.Event]:
        entry = (loop, asyncio.Event())
        with self._lock:
            self._waiting.setdefault(case_id, set()).add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                entries = self._waiting[case_id]
                entries.discard(entry)
                if not entries:
                    del self._waiting[case_id]
