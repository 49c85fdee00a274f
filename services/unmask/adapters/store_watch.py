"""WatchStore over SQLAlchemy Core: counts by index, so that looking every few seconds costs a busy database little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from unmask.adapters.database import Database
from unmask.adapters.store_rows import from_microseconds
from unmask.adapters.store_tables import audit, cases, dead_letters, outbox, tenants
from unmask.core.dead import DeadKind
from unmask.core.domain import Action, EventState, Label, Priority, Stage, State
from unmask.core.ids import first_case_id
from unmask.core.watching import DONE, Backlog, Discovery, Reviewed, Waiting

# Of the audit log only so many of the newest acts are looked through: reviewers' decisions are in it too.
_ACTS: Final = 50_000
_WAITING: Final = (
    sa.select(cases.c.stage, cases.c.priority, sa.func.count().label("many"), sa.func.min(cases.c.created_at).label("oldest"))
    .where(cases.c.state == State.OPEN.value)
    .group_by(cases.c.stage, cases.c.priority)
)
_OUTGOING: Final = sa.select(sa.func.count().label("many"), sa.func.min(outbox.c.at).label("oldest")).where(
    outbox.c.state == EventState.PENDING.value
)
_DEAD: Final[Mapping[DeadKind, sa.Select[tuple[int]]]] = {
    DeadKind.CASE: sa.select(sa.func.count()).select_from(cases).where(cases.c.state == State.DEAD.value),
    DeadKind.EVENT: sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state == EventState.DEAD.value),
    DeadKind.LETTER: sa.select(sa.func.count()).select_from(dead_letters),
}
# By the index that reviewers' lists use: of each tenant, what was decided and reviewed.
_REVIEWED: Final = (
    sa.select(cases.c.label, cases.c.truth, sa.func.count().label("many"))
    .select_from(tenants)
    .join(cases, cases.c.tenant == tenants.c.tenant)
    .where(
        cases.c.action.in_([Action.ALLOW.value, Action.BLOCK.value]),
        cases.c.reviewed == sa.true(),
        cases.c.id >= bindparam("first", type_=sa.String),
        cases.c.truth != "",
        cases.c.state == State.DECIDED.value,
    )
    .group_by(cases.c.label, cases.c.truth)
)
_newest: Final = (
    sa.select(audit.c.act, audit.c.at, audit.c.detail, audit.c.number).order_by(audit.c.number.desc()).limit(_ACTS).subquery()
)
_DISCOVERY: Final = (
    sa.select(_newest.c.at, _newest.c.detail).where(_newest.c.act == DONE).order_by(_newest.c.number.desc()).limit(1)
)
_FIRST: Final = (
    sa.select(tenants.c.tenant).order_by(tenants.c.created_at, tenants.c.tenant).limit(bindparam("most", type_=sa.Integer))
)


class SqlWatch:
    """The port `WatchStore`; single reads, thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self) -> Sequence[Waiting]:
        """See `WatchStore.waiting`."""
        with self._database.reading() as connection:
            found = connection.execute(_WAITING).all()
        return [
            Waiting(Stage(row.stage), Priority(row.priority), Backlog(row.many, from_microseconds(row.oldest))) for row in found
        ]

    def outgoing(self) -> Backlog:
        """See `WatchStore.outgoing`."""
        with self._database.reading() as connection:
            row = connection.execute(_OUTGOING).one()
        return Backlog(row.many, None if row.oldest is None else from_microseconds(row.oldest))

    def dead(self) -> Mapping[DeadKind, int]:
        """See `WatchStore.dead`."""
        with self._database.reading() as connection:
            return {kind: connection.execute(statement).scalar_one() for kind, statement in _DEAD.items()}

    def reviewed(self, since: datetime) -> Sequence[Reviewed]:
        """See `WatchStore.reviewed`."""
        with self._database.reading() as connection:
            found = connection.execute(_REVIEWED, {"first": first_case_id(since)}).all()
        return [Reviewed(Label(row.label), row.truth, row.many) for row in found]

    def discovery(self) -> Discovery | None:
        """See `WatchStore.discovery`."""
        with self._database.reading() as connection:
            row = connection.execute(_DISCOVERY).first()
        largest = None if row is None else row.detail.get("largest")
        return None if row is None or largest is None else Discovery(from_microseconds(row.at), int(largest))

    def first_tenants(self, limit: int) -> Sequence[str]:
        """See `WatchStore.first_tenants`."""
        with self._database.reading() as connection:
            return list(connection.execute(_FIRST, {"most": limit}).scalars())
