"""Work on a stream with a few threads: no more is read of it than is in hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")


def work(items: Iterable[_Item], take: Callable[[_Item], None], threads: int) -> None:
    """Calls `take` with every item, `threads` at a time; the first error that it raises ends the work."""
    waiting: set[Future[None]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="batch") as pool:
        try:
            for item in items:
                waiting.add(pool.submit(take, item))
                while len(waiting) >= 2 * threads:
                    waiting = _settled(waiting)
            while waiting:
                waiting = _settled(waiting)
        finally:
            for future in waiting:
                future.cancel()


def _settled(waiting: set[Future[None]]) -> set[Future[None]]:
    done, rest = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest
