"""CaseStore over SQLAlchemy Core: a SQLite file or memory now, any database it speaks to by its URL."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from unmask.adapters import store_rows as rows
from unmask.adapters import store_statements as sql
from unmask.adapters.store_tables import SCHEMA_VERSION, metadata, schema
from unmask.core.contract import findings_from_json, from_json
from unmask.core.domain import Case, CaseUpdate, Decision, Event, Findings, PictureInfo, State, Verdict
from unmask.core.errors import BadConfig, IdempotencyConflict, StoreCorrupt, Unavailable, UnknownCase

_PAGE: Final = 500


class SqlStore:
    """The port `CaseStore`; one transaction a method, thread-safe.

    Raises `BadConfig` for a database of another kind or another schema version, `StoreCorrupt` for a file that is none.
    """

    def __init__(self, url: str, **engine: Any) -> None:
        try:
            self._engine = sa.create_engine(url, **engine)
        except (sa.exc.ArgumentError, ImportError) as error:  # the URL itself may hold a password
            raise BadConfig(f"case store: {error}") from error
        dialect = self._engine.dialect.name
        if dialect not in sql.INSERT:
            raise BadConfig(f"case store: {dialect} is not one of {', '.join(sql.INSERT)}")
        self._upserts = sql.Upserts(dialect)
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
        row = rows.case_row(case)
        same = {name: row[name] for name in ("tenant", "id", "idempotency_key")}
        with self._transaction() as connection:
            if connection.execute(self._upserts.accept, row).rowcount == 1:
                return case
            stored = rows.case_of(connection.execute(sql.ACCEPTED, same).mappings().one())
        if stored.body_sha256 != case.body_sha256:
            raise IdempotencyConflict(f"idempotency key {case.idempotency_key!r} was used for another request")
        return stored

    def case(self, tenant: str, case_id: str) -> Case:
        """See `CaseStore.case`."""
        with self._transaction() as connection:
            return _case(connection, tenant, case_id)

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """See `CaseStore.picture`."""
        with self._transaction() as connection:
            row = connection.execute(sql.PICTURE, {"tenant": tenant, "sha256": sha256}).mappings().first()
        return None if row is None else rows.picture_of(row)

    def findings(self, tenant: str, case_id: str) -> Findings:
        """See `CaseStore.findings`."""
        with self._transaction() as connection:
            parts = connection.execute(sql.FINDINGS, {"tenant": tenant, "case_id": case_id}).all()
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
        old = {
            "old_tenant": expected.tenant,
            "old_id": expected.id,
            "old_stage": expected.stage.value,
            "old_revision": expected.revision,
        }
        with self._transaction() as connection:
            if connection.execute(sql.MOVE, old | rows.case_row(update.case)).rowcount != 1:
                return False
            self._keep(connection, update)
        return True

    def _keep(self, connection: Connection, update: CaseUpdate) -> None:
        """Everything beside the row itself."""
        case = update.case
        if update.picture is not None:
            connection.execute(self._upserts.picture, rows.picture_row(update.picture))
        if update.findings is not None and (parts := rows.findings_rows(case, update.findings)):
            connection.execute(self._upserts.findings, parts)
        if update.verdict is not None:
            connection.execute(self._upserts.verdict, rows.verdict_row(case.tenant, update.verdict))
        if update.decision is not None:
            connection.execute(sql.DECIDE, rows.decision_row(update.decision))
        if update.event is not None:
            connection.execute(sql.TELL, rows.event_row(update.event))

    def due(self, now: datetime, limit: int) -> Sequence[Case]:
        """See `CaseStore.due`."""
        with self._transaction() as connection:
            found = connection.execute(sql.DUE, {"now": rows.to_microseconds(now), "most": limit})
            return [rows.case_of(row) for row in found.mappings()]

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """See `CaseStore.verdicts`; reads by pages, so that no transaction stays open while the caller works."""
        last = 0
        while True:
            with self._transaction() as connection:
                page = connection.execute(sql.VERDICTS, {"tenant": tenant, "after": last, "most": _PAGE}).all()
            yield from (from_json(row.body) for row in page)
            if len(page) < _PAGE:
                return
            last = page[-1].number

    def outbox(self, limit: int) -> Sequence[Event]:
        """See `CaseStore.outbox`."""
        with self._transaction() as connection:
            return [rows.event_of(row) for row in connection.execute(sql.UNSENT, {"most": limit}).mappings()]

    def sent(self, event_ids: Iterable[str]) -> None:
        """See `CaseStore.sent`."""
        ids = list(event_ids)
        with self._transaction() as connection:
            for start in range(0, len(ids), _PAGE):
                connection.execute(sql.SENT, {"ids": ids[start : start + _PAGE]})


def _pragmas(connection: Any, _record: object) -> None:
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _case(connection: Connection, tenant: str, case_id: str) -> Case:
    row = connection.execute(sql.CASE, {"tenant": tenant, "id": case_id}).mappings().first()
    if row is None:
        raise UnknownCase(f"no case {case_id!r}")
    return rows.case_of(row)


def _verdict(connection: Connection, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
    key = {"tenant": tenant, "sha256": sha256, "release": release, "policy": policy}
    body = connection.execute(sql.VERDICT, key).scalar()
    return None if body is None else from_json(body)


def _decisions(connection: Connection, tenant: str, case_id: str) -> Sequence[Decision]:
    found = connection.execute(sql.DECISIONS, {"tenant": tenant, "case_id": case_id})
    return [rows.decision_of(row) for row in found.mappings()]
