"""Every adapter of each port, by name: the suites run over these; a new adapter is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from unmask.adapters.blobs_files import FileBlobs
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.queue_memory import InlineQueue, MemoryQueue
from unmask.adapters.store_memory import MemoryStore
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import Message
from unmask.core.ports import BlobStore, CaseStore, StageQueue

Run = Callable[[Message], None]


def sqlite(folder: Path) -> SqlStore:
    """The store in a file of that folder."""
    return SqlStore(f"sqlite:///{folder / 'cases.sqlite3'}")


@contextmanager
def _threads(run: Run) -> Iterator[StageQueue]:
    queue = MemoryQueue(run, workers=3)
    try:
        yield queue
    finally:
        queue.close()


BLOBS: Mapping[str, Callable[[Path], AbstractContextManager[BlobStore]]] = {
    "memory": lambda folder: nullcontext(MemoryBlobs()),
    "files": lambda folder: nullcontext(FileBlobs(folder / "blobs")),
}
STORES: Mapping[str, Callable[[Path], AbstractContextManager[CaseStore]]] = {
    "dictionaries": lambda folder: nullcontext(MemoryStore()),
    "sqlite-memory": lambda folder: closing(SqlStore.in_memory()),
    "sqlite-file": lambda folder: closing(sqlite(folder)),
}
# Those that are still there when the process that wrote them is gone.
LASTING = ("sqlite-file",)
QUEUES: Mapping[str, Callable[[Run], AbstractContextManager[StageQueue]]] = {
    "inline": lambda run: nullcontext(InlineQueue(run)),
    "threads": _threads,
}
