"""DeadStore over SQLAlchemy Core: dead cases, dead events and dead letters as one list."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping, bindparam

from unmask.adapters import store_rows as rows
from unmask.adapters.database import Database
from unmask.adapters.store_statements import MOVE
from unmask.adapters.store_tables import cases, dead_letters, findings, outbox
from unmask.core.dead import DeadItem, DeadKind, Letter
from unmask.core.domain import Case, EventState, Failure, Stage, State
from unmask.core.errors import BadRequest, UnknownCase

_DEAD_CASES: Final = sa.select(cases).where(cases.c.state == State.DEAD.value)
_DEAD_EVENTS: Final = sa.select(outbox).where(outbox.c.state == EventState.DEAD.value)
_LETTERS: Final = sa.select(dead_letters)
# A body may be megabytes long.
_ENVELOPES: Final = sa.select(*(column for column in dead_letters.c if column is not dead_letters.c.body))
_FACES: Final = sa.select(findings.c.part).where(
    findings.c.tenant == bindparam("tenant"), findings.c.case_id == bindparam("id"), findings.c.part == "faces"
)
_THIS_CASE: Final = _DEAD_CASES.where(cases.c.tenant == bindparam("tenant"), cases.c.id == bindparam("id")).with_for_update()
_SETTLED: Final = sa.update(outbox).where(outbox.c.id == bindparam("event_id"), outbox.c.state == EventState.DEAD.value)
_REVIVE: Final = _SETTLED.values(
    state=EventState.PENDING.value, attempts=0, due_at=bindparam("now", type_=sa.BigInteger), failure=sa.null()
)
_DROP: Final = _SETTLED.values(state=EventState.DROPPED.value)
_DELETE: Final = sa.delete(dead_letters).where(dead_letters.c.id == bindparam("letter_id"))
_BURY: Final = sa.insert(dead_letters)
# Of these the findings are the next step's input.
_AFTER_FACES: Final = frozenset({Stage.ALIGNED, Stage.CLASSIFIED, Stage.LOCALIZED})


def _listed(statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
    return (
        statement.where(_of_tenant(table), table.c.id > bindparam("after", type_=sa.String))
        .order_by(table.c.id)
        .limit(bindparam("most", type_=sa.Integer))
    )


def _shown(statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
    return statement.where(_of_tenant(table), table.c.id == bindparam("id"))


def _of_tenant(table: sa.Table) -> sa.ColumnElement[bool]:
    tenant = bindparam("tenant", type_=sa.String)
    return tenant.is_(None) | (table.c.tenant == tenant)


_LISTED: Final[Mapping[DeadKind, sa.Select[Any]]] = MappingProxyType(
    {
        DeadKind.CASE: _listed(_DEAD_CASES, cases),
        DeadKind.EVENT: _listed(_DEAD_EVENTS, outbox),
        DeadKind.LETTER: _listed(_ENVELOPES, dead_letters),
    }
)
_SHOWN: Final[Mapping[DeadKind, sa.Select[Any]]] = MappingProxyType(
    {
        DeadKind.CASE: _shown(_DEAD_CASES, cases),
        DeadKind.EVENT: _shown(_DEAD_EVENTS, outbox),
        DeadKind.LETTER: _shown(_LETTERS, dead_letters),
    }
)


class SqlDead:
    """The port `DeadStore`; one transaction a method, thread-safe."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def bury(self, letter: Letter) -> None:
        """See `DeadStore.bury`."""
        own = ("id", "tenant", "door", "body", "code", "detail")
        row = {name: getattr(letter, name) for name in own} | {"at": rows.to_microseconds(letter.at)}
        # Postgres takes no NUL in texts, and an error may quote what it was given.
        row["detail"] = letter.detail.replace("\0", "")
        with self.database.transaction() as connection:
            connection.execute(_BURY, row)

    def list(self, tenant: str | None, kind: DeadKind | None, limit: int, after: str = "") -> builtins.list[DeadItem]:
        """See `DeadStore.list`."""
        asked = {"tenant": tenant, "after": after, "most": limit}
        found: builtins.list[DeadItem] = []
        with self.database.transaction() as connection:
            for each in DeadKind if kind is None else (kind,):
                page = connection.execute(_LISTED[each], asked).mappings()
                found += [replace(_item(each, row), labels={}, body=b"") for row in page]
        return sorted(found, key=lambda item: item.id)[:limit]

    def show(self, item_id: str, tenant: str | None = None) -> DeadItem:
        """See `DeadStore.show`."""
        with self.database.transaction() as connection:
            for kind, statement in _SHOWN.items():
                row = connection.execute(statement, {"tenant": tenant, "id": item_id}).mappings().first()
                if row is not None:
                    return _item(kind, row)
        raise UnknownCase(f"nothing dead has the id {item_id!r}")

    def requeue(self, item: DeadItem, now: datetime) -> Case | None:
        """See `DeadStore.requeue`."""
        if item.kind is DeadKind.LETTER:
            raise BadRequest(f"letter {item.id}: it goes through its door again, not into the store")
        with self.database.transaction() as connection:
            if item.kind is DeadKind.CASE:
                return _moved(connection, item, lambda case: _reopened(connection, case, now))
            _done(item, connection.execute(_REVIVE, {"event_id": item.id, "now": rows.to_microseconds(now)}))
        return None

    def drop(self, item: DeadItem, actor: str) -> None:
        """See `DeadStore.drop`."""
        with self.database.transaction() as connection:
            if item.kind is DeadKind.CASE:
                _moved(connection, item, lambda case: _given_up(case, actor))
            elif item.kind is DeadKind.EVENT:
                _done(item, connection.execute(_DROP, {"event_id": item.id}))
            else:
                _done(item, connection.execute(_DELETE, {"letter_id": item.id}))


def _moved(connection: Connection, item: DeadItem, change: Callable[[Case], Case]) -> Case:
    """Writes what `change` makes of the dead case; by compare-and-set, since SQLite locks no row for whoever reads it."""
    row = connection.execute(_THIS_CASE, {"tenant": item.tenant, "id": item.id}).mappings().first()
    if row is None:
        raise UnknownCase(f"case {item.id} is dead no more")
    before = rows.case_of(row)
    after = change(before)
    old = {"old_tenant": before.tenant, "old_id": before.id, "old_stage": before.stage.value, "old_revision": before.revision}
    _done(item, connection.execute(MOVE, old | rows.case_row(after)))
    return after


def _reopened(connection: Connection, case: Case, now: datetime) -> Case:
    """The case at its stage; behind ingestion where its faces were removed meanwhile (biometric data goes early)."""
    known = connection.execute(_FACES, {"tenant": case.tenant, "id": case.id}).first() is not None
    stage = Stage.INGESTED if case.stage in _AFTER_FACES and not known else case.stage
    return replace(case, stage=stage, state=State.OPEN, revision=case.revision + 1, attempts=0, failure=None, due_at=now)


def _given_up(case: Case, actor: str) -> Case:
    why = case.failure or Failure("internal", "no reason was kept")
    failure = Failure(why.code, f"{why.detail} (dropped by {actor})")
    return replace(case, state=State.FAILED, revision=case.revision + 1, failure=failure)


def _done(item: DeadItem, result: sa.CursorResult[Any]) -> None:
    if result.rowcount != 1:
        raise UnknownCase(f"{item.kind} {item.id} is dead no more")


def _item(kind: DeadKind, row: RowMapping) -> DeadItem:
    return _ITEMS[kind](row)


def _case_item(row: RowMapping) -> DeadItem:
    case = rows.case_of(row)
    why = case.failure or Failure("internal", "")
    return DeadItem(
        DeadKind.CASE,
        case.id,
        case.tenant,
        why.code,
        why.detail,
        case.due_at,
        case.attempts,
        case.stage.value,
        labels=case.labels,
    )


def _event_item(row: RowMapping) -> DeadItem:
    out = rows.outgoing_of(row)
    event, why = out.event, out.failure or Failure("internal", "")
    return DeadItem(
        DeadKind.EVENT,
        event.id,
        event.tenant,
        why.code,
        why.detail,
        out.due_at,
        out.attempts,
        event.kind,
        case_id=event.case_id,
        body=event.body.encode(),
    )


def _letter_item(row: RowMapping) -> DeadItem:
    at = rows.from_microseconds(row["at"])
    body = bytes(row.get("body", b""))
    return DeadItem(DeadKind.LETTER, row["id"], row["tenant"], row["code"], row["detail"], at, 1, row["door"], body=body)


_ITEMS: Final[Mapping[DeadKind, Callable[[RowMapping], DeadItem]]] = MappingProxyType(
    {DeadKind.CASE: _case_item, DeadKind.EVENT: _event_item, DeadKind.LETTER: _letter_item}
)
