"""Queues in this process: one that works on the publishing thread, one with worker threads."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from unmask.core.domain import Message
from unmask.core.errors import Unavailable

_log = logging.getLogger(__name__)
_STOP: Final = None
Run = Callable[[Message], None]


class InlineQueue:
    """The port `StageQueue`: a message and all that follows from it run on the thread that publishes it, in order."""

    def __init__(self, run: Run | None = None) -> None:
        self._run = run
        self._local = threading.local()

    def bind(self, run: Run) -> None:
        """Names what works a message, where that needs this queue itself."""
        self._run = run

    def publish(self, message: Message) -> None:
        """Works the message now, or after the one in hand (no recursion); an error of `run` reaches the outermost caller."""
        waiting: deque[Message] | None = getattr(self._local, "waiting", None)
        if waiting is not None:
            waiting.append(message)
            return
        if self._run is None:
            raise Unavailable("the inline queue is not bound to a runner")
        self._local.waiting = waiting = deque([message])
        try:
            while waiting:
                self._run(waiting.popleft())
        finally:
            self._local.waiting = None


class MemoryQueue:
    """The port `StageQueue` over worker threads, started with the first message."""

    def __init__(self, run: Run, *, workers: int) -> None:
        self._run, self._count = run, workers
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._closed = False

    def publish(self, message: Message) -> None:
        """See `StageQueue.publish`; raises `Unavailable` once closed."""
        with self._lock:
            if self._closed:
                raise Unavailable("the queue is closing")
            if not self._workers:
                self._workers = [threading.Thread(target=self._work, name=f"step-{i}") for i in range(self._count)]
                for worker in self._workers:
                    worker.daemon = True
                    worker.start()
            self._queue.put(message)

    def close(self) -> None:
        """Takes no more, finishes the steps in hand and returns; what waits stays in the store for the next process."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, []
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
        for _ in workers:
            self._queue.put(_STOP)
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join()

    def _work(self) -> None:
        while (message := self._queue.get()) is not _STOP:
            try:
                self._run(message)
            except Exception:  # the sweeper brings the case back; a worker must outlive what it works
                _log.exception("case %s: step %s was not worked", message.case_id, message.step)
