"""Every adapter of each port, by name: the suites run over these; a new adapter is one more entry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from unmask.adapters.blobs_files import FileBlobs
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.blobs_s3 import S3Blobs, S3Bucket
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.queue_memory import InlineQueue, MemoryQueue
from unmask.adapters.store_memory import MemoryStore
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import Message, Step
from unmask.core.ports import BlobStore, CaseStore, StageQueue

if TYPE_CHECKING:
    from unmask_dev.seaweedfs import SeaweedFS

Run = Callable[[Message], None]


@dataclass(frozen=True)
class Backends:
    """What an adapter may need from outside; a server starts when it is first asked for (tests/system/backends.py).

    The same within one test, so that an adapter made twice finds what the first one stored.
    """

    folder: Path
    request: pytest.FixtureRequest

    def get(self, fixture: str) -> Any:
        """What that fixture gives this test: `database`, `bucket`, `valkey_url`, `vhost_url`, a server."""
        return self.request.getfixturevalue(fixture)


Blobs: TypeAlias = Callable[[Backends], AbstractContextManager[BlobStore]]
Stores: TypeAlias = Callable[[Backends], AbstractContextManager[CaseStore]]
Queues: TypeAlias = Callable[[Backends, Run], AbstractContextManager[StageQueue]]


def s3(server: SeaweedFS, bucket: str, read_seconds: float = 10, **told: Any) -> S3Blobs:
    """The store over a bucket of that server."""
    keys = {"access_key": server.access_key, "secret_key": server.secret_key, "region": server.region}
    return S3Blobs(S3Bucket(f"http://{server.endpoint}", bucket, **(keys | told)), read_seconds=read_seconds)


def sqlite(folder: Path) -> SqlStore:
    """The store in a file of that folder."""
    return SqlStore(f"sqlite:///{folder / 'cases.sqlite3'}")


def postgres(backends: Backends) -> SqlStore:
    """The store in this test's database on a real Postgres, brought to the newest schema."""
    url = backends.get("database")
    with closing(Database(url, check=False)) as empty:
        upgrade(empty)
    return SqlStore(url)


@contextmanager
def _celery(broker: str, run: Run) -> Iterator[StageQueue]:
    """Publisher and worker (threads of this process) over a real broker."""
    from celery.contrib.testing.worker import start_worker

    from unmask.adapters.celery_worker import add_task
    from unmask.adapters.queue_celery import CeleryQueue

    queue, root = CeleryQueue(broker), logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    for step in Step:
        add_task(queue.app, step, lambda message, redelivered: run(message))
    queue.app.set_current()
    try:
        with start_worker(queue.app, pool="threads", concurrency=3, perform_ping_check=False, shutdown_timeout=20):
            yield queue
    finally:
        queue.close()
        # Celery's helper sets up logging for the whole process.
        root.setLevel(level)
        root.handlers[:] = handlers


@contextmanager
def _threads(backends: Backends, run: Run) -> Iterator[StageQueue]:
    queue = MemoryQueue(run, workers=3)
    try:
        yield queue
    finally:
        queue.close()


BLOBS: Mapping[str, Blobs] = {
    "memory": lambda backends: nullcontext(MemoryBlobs()),
    "files": lambda backends: nullcontext(FileBlobs(backends.folder / "blobs")),
    "s3": lambda backends: closing(s3(backends.get("seaweedfs"), backends.get("bucket"))),
}
STORES: Mapping[str, Stores] = {
    "dictionaries": lambda backends: nullcontext(MemoryStore()),
    "sqlite-memory": lambda backends: closing(SqlStore.in_memory()),
    "sqlite-file": lambda backends: closing(sqlite(backends.folder)),
    "postgres": lambda backends: closing(postgres(backends)),
}
# Those that are still there when the process that wrote them is gone.
LASTING = ("sqlite-file", "postgres")
QUEUES: Mapping[str, Queues] = {
    "inline": lambda backends, run: nullcontext(InlineQueue(run)),
    "threads": _threads,
    "celery-valkey": lambda backends, run: _celery(backends.get("valkey_url"), run),
    "celery-rabbitmq": lambda backends, run: _celery(backends.get("vhost_url"), run),
}
