"""The store with few and with many cases: the same calls on two databases of one Postgres, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import uuid4

import sqlalchemy as sa
from bench.rig.noop import NoopHandlers
from bench.rig.platform import TENANT, Rig

from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.store_sql import SqlStore
from unmask.bootstrap import runtime_versions
from unmask.core.domain import BytesSource, Case, Message, State, Submission
from unmask.core.pipeline import waits_for
from unmask.core.runner import advance
from unmask.core.submit import accept
from unmask.core.world import World

_NEW: Final = {"cases": "id", "pictures": "sha256", "verdicts": "sha256", "decisions": "case_id", "outbox": "case_id"}
Calls = Mapping[str, Callable[[], object]]


class _Quiet:
    """A queue that takes messages and leaves them: the bench takes the steps itself."""

    def publish(self, message: Message) -> None:
        """See `StageQueue.publish`."""

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def filled(rig: Rig, name: str, number: int) -> Iterator[World]:
    """A world over a database of its own that holds that many decided cases with all their rows."""
    url = rig.stack.postgres.create_database(name)
    empty = Database(url, check=False)
    upgrade(empty)
    empty.close()
    store = SqlStore(url)
    handlers = NoopHandlers(runtime_versions(), 0.0)
    world = replace(rig.world, store=store, blobs=MemoryBlobs(), queue=_Quiet(), handlers=handlers, observer=None, shadows=None)
    _decided(world)
    _multiply(store.database, number)
    yield world
    store.close()


def _decided(world: World) -> Case:
    case = accept(world, Submission(TENANT, BytesSource(uuid4().bytes), batch="some"))
    while step := waits_for(case):
        case = advance(world, TENANT, case.id, step)
    if case.state is not State.DECIDED:
        raise SystemExit(f"bench: a case of the store's part ended as {case.state}: {case.failure}")
    return case


def _multiply(database: Database, number: int) -> None:
    """Copies the one case with its picture, verdict, decision and event under ids and hashes of their own."""
    with database.transaction() as connection:
        connection.exec_driver_sql(
            "CREATE TEMP TABLE fresh AS SELECT gen_random_uuid()::text AS id, "
            f"encode(sha256(gen_random_uuid()::text::bytea), 'hex') AS hash FROM generate_series(1, {number})"
        )
        for table, key in _NEW.items():
            found = sa.Table(table, sa.MetaData(), autoload_with=connection)
            columns = [column.name for column in found.columns if column.name != "number"]
            new = {"sha256": "fresh.hash", "idempotency_key": "NULL", key: "fresh.hash" if key == "sha256" else "fresh.id"}
            if table == "outbox":
                new |= {"id": "gen_random_uuid()::text", "state": "'sent'"}
            values = ", ".join(new.get(column, f"one.{column}") for column in columns)
            connection.exec_driver_sql(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM fresh, (SELECT * FROM {table} LIMIT 1) one"
            )
    with database.reading() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def calls(world: World) -> Calls:
    """What the hops and their helpers ask of the store."""
    store, case = world.store, _decided(world)
    phash = "0123456789abcdef" * 4

    def due() -> object:
        return store.claim_due(world.clock.now(), 500, timedelta(minutes=1))

    def events() -> object:
        return store.claim_events(world.clock.now(), 100, timedelta(minutes=1))

    return {
        "case": lambda: store.case(TENANT, case.id),
        "picture": lambda: store.picture(TENANT, case.sha256),
        "findings": lambda: store.findings(TENANT, case.id),
        "verdict_of": lambda: store.verdict_of(TENANT, case.id),
        "near": lambda: store.near(TENANT, phash, 30),
        "claim_due": due,
        "claim_events": events,
        "a case, 5 hops": lambda: _decided(world),
    }


def compared(small: Calls, large: Calls, rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each call, few and many cases, asked in turns."""
    found = {}
    for name in small:
        spent: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for call, times in zip((small[name], large[name]), spent, strict=True):
                started = time.perf_counter()
                call()
                times.append(1000.0 * (time.perf_counter() - started))
        found[name] = statistics.median(spent[0]), statistics.median(spent[1])
    return found
