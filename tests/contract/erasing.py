"""A world over a real database that pictures are erased from, and what is asked of it, for the suites of the eraser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.databases import DATABASES, a_database
from tests.contract.samples import a_decision
from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_erase import SqlEraser
from unmask.adapters.store_sql import SqlStore
from unmask.adapters.store_tables import metadata
from unmask.core.domain import (
    Action,
    BytesSource,
    Case,
    CaseUpdate,
    Media,
    State,
    Submission,
)
from unmask.core.erasing import EraseOffice, ErasureOrder, Selection
from unmask.core.runner import run
from unmask.core.submit import accept
from unmask.core.world import World

PICTURE, OTHER = b"the bytes of one picture", b"the bytes of another"
SHA = hashlib.sha256(PICTURE).hexdigest()
SECRETS = (SHA, SHA[:16], "Zoë", "post-1", "key-7", "import-3", "hook.example.com", "saw it on", "stylegan9")
BY_SHA = Selection(sha256=SHA)
HOUR = timedelta(hours=1)


class Fetched:
    """Every URL gives the picture."""

    def fetch(self, url: str, limit: int) -> bytes:
        return PICTURE


class Landmarks:
    """The world's catalogue, for tenants that all keep landmarks, or none of whom does."""

    def __init__(self, own: Any, *, keeps: bool) -> None:
        self._own, self._keeps = own, keeps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def keeps_landmarks(self, tenant: str) -> bool:
        return self._keeps


class Erasing:
    """The fixtures that the suites share."""

    @pytest.fixture(params=DATABASES)
    def tables(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
        """A fresh database of each kind."""
        with closing(a_database(request.param, tmp_path, request)) as made:
            yield made

    @pytest.fixture
    def clock(self) -> StillClock:
        """The present, standing still: blobs know the real time."""
        clock = StillClock()
        clock.time = datetime.now(UTC)
        return clock

    @pytest.fixture
    def queue(self) -> ListQueue:
        return ListQueue()

    @pytest.fixture
    def handlers(self) -> ChosenHandlers:
        """What they say of every picture: it is generated, and nearly equals others."""
        return ChosenHandlers(synthetic=0.999)

    @pytest.fixture
    def world(self, tables: Database, handlers: ChosenHandlers, queue: ListQueue, clock: StillClock) -> World:
        made = make_world(handlers, queue, clock)
        return replace(made, store=SqlStore(tables), fetcher=Fetched(), catalogue=Landmarks(made.catalogue, keeps=False))

    @pytest.fixture
    def office(self, tables: Database, world: World) -> EraseOffice:
        return EraseOffice(SqlEraser(tables), world.blobs, SqlAccess(tables), world.clock)


def by_me(office: EraseOffice, reason: str = "requested") -> ErasureOrder:
    """An order of the test's own."""
    return ErasureOrder("cli:me", reason, office.clock.now())


def submit(world: World, tenant: str = "default", data: bytes = PICTURE, **fields: Any) -> Case:
    """An accepted case that says much."""
    told: dict[str, Any] = {
        "idempotency_key": "",
        "media": Media("image", "post-1"),
        "labels": {"uploader": "Zoë"},
        "callback": "https://hook.example.com/in",
        "batch": "import-3",
        "source": BytesSource(data),
    }
    return accept(world, Submission(tenant, **(told | fields)))


def work(world: World) -> None:
    """Works every message."""
    messages = world.queue.messages  # type: ignore[attr-defined]
    while messages:
        run(world, messages.pop(0))


def decided(world: World, tenant: str = "default", data: bytes = PICTURE, **fields: Any) -> Case:
    """A case that went all the way, and that a reviewer looked at."""
    case = submit(world, tenant, data, **fields)
    work(world)
    case = world.store.case(tenant, case.id)
    assert case.state is State.DECIDED
    again = replace(case, revision=case.revision + 1, truth="synthetic", reviewed=True)
    said = a_decision(
        case, Action.BLOCK, actor="reviewer:ann", truth="synthetic", note="saw it on " + SHA, generator="stylegan9"
    )
    assert world.store.commit(case, CaseUpdate(again, decisions=(said,), known_fake=True))
    return again


def everything(tables: Database, tenant: str) -> str:
    """All rows of the tenant in all tables, as one text."""
    found = []
    with tables.transaction() as connection:
        for table in metadata.sorted_tables:
            if "tenant" in table.c:
                query = sa.select(table).where(table.c.tenant == tenant)
                found += [f"{table.name} {dict(row)}" for row in connection.execute(query).mappings()]
    return "\n".join(sorted(found))


def objects(world: World) -> list[str]:
    """Keys of what tenants have in the blob store."""
    return [key for key in world.blobs.keys("") if not key.startswith("_catalogue/")]


def count(tables: Database, table: sa.Table) -> int:
    with tables.transaction() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
