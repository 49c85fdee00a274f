"""CaseStore over SQLAlchemy Core: a SQLite file or memory now, any database it speaks to by its URL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from unmask.adapters import store_rows as rows
from unmask.adapters.store_tables import (
    SCHEMA_VERSION,
    cases,
    decisions,
    findings,
    metadata,
    outbox,
    pictures,
    schema,
    verdicts,
)
from unmask.core.contract import findings_from_json, findings_to_json, from_json, to_json
from unmask.core.domain import Case, CaseUpdate, Decision, Event, Findings, PictureInfo, State, Verdict
from unmask.core.errors import BadConfig, IdempotencyConflict, StoreCorrupt, Unavailable, UnknownCase

_PAGE: Final = 500
# The two spell `ON CONFLICT` alike, but SQLAlchemy keeps it with the dialect.
_INSERT: Final[Mapping[str, Callable[[sa.Table], Any]]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class SqlStore:
    """The port `CaseStore`; one transaction a method, thread-safe.

    Raises `BadConfig` for a database of another kind or another schema version, `StoreCorrupt` for a file that is none.
    """

    def __init__(self, url: str, **engine: Any) -> None:
        self._engine = sa.create_engine(url, **engine)
        dialect = self._engine.dialect.name
        if dialect not in _INSERT:
            raise BadConfig(f"case store: {dialect} is not one of {', '.join(_INSERT)}")
        self._insert = _INSERT[dialect]
        # SQLite has one writer; waiting here is cheaper and fairer than its busy loop.
        self._turn = threading.Lock() if dialect == "sqlite" else nullcontext()
        if dialect == "sqlite":
            sa.event.listen(self._engine, "connect", _pragmas)
        self._create()

    @classmethod
    def in_memory(cls) -> SqlStore:
        """A store that is gone with the process."""
        return cls("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    def _create(self) -> None:
        with self._transaction() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # two processes may open a new file at once
            if not sa.inspect(connection).has_table(schema.name):
                metadata.create_all(connection)
                connection.execute(sa.insert(schema).values(version=SCHEMA_VERSION))
            version = connection.execute(sa.select(schema.c.version)).scalar()
        if version != SCHEMA_VERSION:
            raise BadConfig(f"the case store has schema version {version}, this program needs {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._turn, self._engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise Unavailable(f"case store: {error.orig}") from error
        except DatabaseError as error:
            raise StoreCorrupt(f"case store: {error.orig}") from error
        except sa.exc.TimeoutError as error:
            raise Unavailable("case store: no connection became free") from error
        except SQLAlchemyError as error:
            raise StoreCorrupt(f"case store: {error}") from error

    def accept(self, case: Case) -> Case:
        """See `CaseStore.accept`."""
        same = cases.c.id == case.id
        if case.idempotency_key:
            same = same | (cases.c.idempotency_key == case.idempotency_key)
        with self._transaction() as connection:
            written = connection.execute(self._insert(cases).on_conflict_do_nothing(), rows.case_row(case))
            if written.rowcount == 1:
                return case
            row = connection.execute(sa.select(cases).where(cases.c.tenant == case.tenant, same)).mappings().one()
        stored = rows.case_of(row)
        if stored.body_sha256 != case.body_sha256:
            raise IdempotencyConflict(f"idempotency key {case.idempotency_key!r} was used for another request")
        return stored

    def case(self, tenant: str, case_id: str) -> Case:
        """See `CaseStore.case`."""
        with self._transaction() as connection:
            return _case(connection, tenant, case_id)

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """See `CaseStore.picture`."""
        query = sa.select(pictures).where(pictures.c.tenant == tenant, pictures.c.sha256 == sha256)
        with self._transaction() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else rows.picture_of(row)

    def findings(self, tenant: str, case_id: str) -> Findings:
        """See `CaseStore.findings`."""
        wanted = (findings.c.tenant == tenant) & (findings.c.case_id == case_id)
        with self._transaction() as connection:
            parts = connection.execute(sa.select(findings.c.part, findings.c.body).where(wanted)).all()
        return findings_from_json({row.part: row.body for row in parts})

    def verdict(self, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
        """See `CaseStore.verdict`."""
        with self._transaction() as connection:
            return _verdict(connection, tenant, sha256, release, policy)

    def verdict_of(self, tenant: str, case_id: str) -> Verdict | None:
        """See `CaseStore.verdict_of`; raises `StoreCorrupt` for a decided case without a verdict or decision."""
        with self._transaction() as connection:
            case = _case(connection, tenant, case_id)
            if case.state is not State.DECIDED:
                return None
            verdict = _verdict(connection, tenant, case.sha256, case.release, case.policy)
            decided = _decisions(connection, tenant, case_id)
        if verdict is None or not decided:
            raise StoreCorrupt(f"case {case_id} is decided, but its {'verdict' if verdict is None else 'decision'} is gone")
        return replace(verdict, id=case.id, action=decided[-1].action, timings_ms=case.timings_ms)

    def decisions(self, tenant: str, case_id: str) -> Sequence[Decision]:
        """See `CaseStore.decisions`."""
        with self._transaction() as connection:
            return _decisions(connection, tenant, case_id)

    def commit(self, expected: Case, update: CaseUpdate) -> bool:
        """See `CaseStore.commit`."""
        same = (cases.c.tenant == expected.tenant) & (cases.c.id == expected.id)
        unmoved = (cases.c.stage == expected.stage.value) & (cases.c.revision == expected.revision)
        with self._transaction() as connection:
            moved = connection.execute(sa.update(cases).where(same, unmoved).values(rows.case_row(update.case)))
            if moved.rowcount != 1:
                return False
            self._keep(connection, update)
        return True

    def _keep(self, connection: Connection, update: CaseUpdate) -> None:
        """Everything beside the row itself."""
        tenant, verdict = update.case.tenant, update.verdict
        if update.picture is not None:
            connection.execute(self._insert(pictures).on_conflict_do_nothing(), rows.picture_row(update.picture))
        if update.findings is not None:
            key = {"tenant": tenant, "case_id": update.case.id}
            parts = [{**key, "part": part, "body": body} for part, body in findings_to_json(update.findings).items()]
            write = self._insert(findings)
            newer = write.on_conflict_do_update(index_elements=findings.primary_key, set_={"body": write.excluded.body})
            if parts:
                connection.execute(newer, parts)
        if verdict is not None:
            row = {"release": verdict.release.sha256, "policy": verdict.policy.sha256, "body": to_json(verdict)}
            absent = self._insert(verdicts).on_conflict_do_nothing()
            connection.execute(absent, {"tenant": tenant, "sha256": verdict.sha256, **row})
        if update.decision is not None:
            connection.execute(sa.insert(decisions), rows.decision_row(update.decision))
        if update.event is not None:
            connection.execute(sa.insert(outbox), rows.event_row(update.event))

    def due(self, now: datetime, limit: int) -> Sequence[Case]:
        """See `CaseStore.due`."""
        waiting = (cases.c.state == State.OPEN.value) & (cases.c.due_at <= rows.to_microseconds(now))
        query = sa.select(cases).where(waiting).order_by(cases.c.due_at, cases.c.id).limit(limit)
        with self._transaction() as connection:
            return [rows.case_of(row) for row in connection.execute(query).mappings()]

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """See `CaseStore.verdicts`; reads by pages, so that no transaction stays open while the caller works."""
        columns = sa.select(verdicts.c.number, verdicts.c.body).order_by(verdicts.c.number).limit(_PAGE)
        last = 0
        while True:
            query = columns.where(verdicts.c.tenant == tenant, verdicts.c.number > last)
            with self._transaction() as connection:
                page = connection.execute(query).all()
            yield from (from_json(row.body) for row in page)
            if len(page) < _PAGE:
                return
            last = page[-1].number

    def outbox(self, limit: int) -> Sequence[Event]:
        """See `CaseStore.outbox`."""
        query = sa.select(outbox).where(outbox.c.sent == 0).order_by(outbox.c.number).limit(limit)
        with self._transaction() as connection:
            return [rows.event_of(row) for row in connection.execute(query).mappings()]

    def sent(self, event_ids: Iterable[str]) -> None:
        """See `CaseStore.sent`."""
        ids = list(event_ids)
        with self._transaction() as connection:
            for start in range(0, len(ids), _PAGE):
                connection.execute(sa.update(outbox).where(outbox.c.id.in_(ids[start : start + _PAGE])).values(sent=1))


def _pragmas(connection: Any, _record: object) -> None:
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _case(connection: Connection, tenant: str, case_id: str) -> Case:
    query = sa.select(cases).where(cases.c.tenant == tenant, cases.c.id == case_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise UnknownCase(f"no case {case_id!r}")
    return rows.case_of(row)


def _verdict(connection: Connection, *key: str) -> Verdict | None:
    columns = (verdicts.c.tenant, verdicts.c.sha256, verdicts.c.release, verdicts.c.policy)
    query = sa.select(verdicts.c.body).where(*(column == value for column, value in zip(columns, key, strict=True)))
    body = connection.execute(query).scalar()
    return None if body is None else from_json(body)


def _decisions(connection: Connection, tenant: str, case_id: str) -> Sequence[Decision]:
    wanted = (decisions.c.tenant == tenant) & (decisions.c.case_id == case_id)
    query = sa.select(decisions).where(wanted).order_by(decisions.c.number)
    return [rows.decision_of(row) for row in connection.execute(query).mappings()]
